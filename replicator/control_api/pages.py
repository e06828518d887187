"""Pages of a listing: how many entries, and where the next page begins.

A token is the last key of the page before it, wrapped: a page begins after that key whatever was written in between,
and none is skipped or shown twice. It gives no access to anything, so it is not signed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.control_api.errors import EcrError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from replicator.control_api.call import Call

    Entry = TypeVar("Entry")

_MARK = "v1:"
_MAX_TOKEN = 4096
_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class PageAsked:
    """At most `size` entries after the key `after` (empty: from the start)."""

    after: str
    size: int

    def cut(self, entries: Sequence[Entry], key: Callable[[Entry], str]) -> tuple[Sequence[Entry], str | None]:
        """Return the entries of the page and the next one's token, given `size` + 1 entries, or fewer at the end."""
        if len(entries) <= self.size:
            return entries, None
        page = entries[: self.size]
        return page, token_of(key(page[-1]))


def page_of(call: Call, default: int = 100) -> PageAsked:
    """Return the page that a request asks for; raises EcrError for a token that none of our answers had."""
    token = call.input.find_text("nextToken")
    size = call.input.find_number("maxResults") or default
    return PageAsked("" if token is None else _key_of(token), size)


def token_of(key: str) -> str:
    """Return the token of the page after `key`."""
    return base64.urlsafe_b64encode(f"{_MARK}{key}".encode()).decode()


def number_of(key: str) -> int:
    """Return a key that is the number of an entry from 0, or -1 for the start; raises EcrError for another key."""
    if key and not (key.isascii() and key.isdecimal() and len(key) <= _MAX_DIGITS):
        raise _invalid_token()
    return int(key) if key else -1


def _key_of(token: str) -> str:
    if len(token) <= _MAX_TOKEN:
        try:
            text = base64.b64decode(token, altchars=b"-_", validate=True).decode()
        except (ValueError, binascii.Error):
            text = ""
        if text.startswith(_MARK) and text.isprintable():
            return text.removeprefix(_MARK)
    raise _invalid_token()


def _invalid_token() -> EcrError:
    return EcrError(
        "InvalidParameterException", "Invalid parameter at 'nextToken' failed to satisfy constraint: 'Invalid token'"
    )
