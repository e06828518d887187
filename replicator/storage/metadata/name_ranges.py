"""Parts of the name space of repositories, as conditions that an index can answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa


@dataclass(frozen=True, slots=True)
class NameRange:
    """Repositories below one of the prefixes `below` (None: all), without those below one of `without`."""

    below: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()


EVERYTHING = NameRange()


def is_below(name: sa.ColumnElement[Any], names: NameRange) -> sa.ColumnElement[bool]:
    """Return the condition that a repository's name lies in a range."""
    inside = sa.true() if names.below is None else sa.or_(sa.false(), *(_below(name, one) for one in names.below))
    return sa.and_(sa.true(), inside, *(sa.not_(_below(name, one)) for one in names.without))


def _below(name: sa.ColumnElement[Any], prefix: str) -> sa.ColumnElement[bool]:
    """Bytewise between `prefix/` and whatever follows everything that begins so; a digit follows the slash."""
    return sa.and_(name > f"{prefix}/", name < f"{prefix}0")
