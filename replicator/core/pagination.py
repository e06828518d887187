"""A page of a sorted listing: `n` and `last` of the distribution specification ("Listing Tags")."""

from __future__ import annotations

from dataclasses import dataclass

from replicator.core.errors import InvalidPagination

MAX_PAGE_SIZE = 1000
_MAX_POSITION = 512
_MAX_DIGITS = 20


@dataclass(frozen=True, slots=True)
class Page:
    """At most `size` entries that sort after `last` (None: from the start)."""

    size: int = MAX_PAGE_SIZE
    last: str | None = None


def parse_page(n: str | None, last: str | None, default_size: int = MAX_PAGE_SIZE) -> Page:
    """Return the page that `n` and `last` ask for; a size above the limit is lowered to it.

    Raises InvalidPagination unless `n` is a non-negative number and `last` is a plausible entry.
    """
    if last is not None and (len(last) > _MAX_POSITION or not last.isprintable()):
        raise InvalidPagination("expected 'last' to be an entry of the previous page")
    if n is None:
        return Page(default_size, last or None)
    if not n.isascii() or not n.isdigit() or len(n) > _MAX_DIGITS:
        raise InvalidPagination(f"expected 'n' to be a number from 0 to {MAX_PAGE_SIZE}, got {n[:40]!r}")
    return Page(min(int(n), MAX_PAGE_SIZE), last or None)
