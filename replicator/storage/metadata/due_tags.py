"""Cached tags that are due for a check, by the part of the name space that a cache rule covers.

A rule's tags are found apart from those of other rules, so that many tags that stay fresh for long cannot stand in
front of a few that do not.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.storage.metadata.name_ranges import is_below
from replicator.storage.metadata.schema import cache_entries
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.storage.metadata.name_ranges import NameRange


def due_tags(names: NameRange, due_before: float, used_since: float, limit: int) -> Steps[list[CacheEntry]]:
    """Return cached tags in `names` that are due before one time and were used since another, longest due first."""
    statement = _statement(names)
    rows = yield from statement(due_before=due_before, used_since=used_since, limit=limit)
    return [CacheEntry(*row) for row in rows]


@lru_cache(maxsize=256)
def _statement(names: NameRange) -> Statement:
    query = sa.select(cache_entries).where(
        cache_entries.c.due_at <= sa.bindparam("due_before"),
        cache_entries.c.used_at >= sa.bindparam("used_since"),
        is_below(cache_entries.c.repository, names),
    )
    return Statement(query.order_by(cache_entries.c.due_at).limit(sa.bindparam("limit", type_=sa.Integer)))
