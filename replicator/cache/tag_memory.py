"""What is known of recently pulled tags, so that a pull of a fresh tag costs no query and no write.

The rows are the truth; this is a hint that errs to one side only. An entry that is out of date was checked longer ago
than it says, so it makes a tag due too early, never too late. When a tag was used is gathered here and written by the
sweep, once an hour at most: a crash loses an hour of that, and nothing else.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.core.bounded import BoundedMap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.names import RepositoryName, Tag
    from replicator.storage.metadata.cache_entries import CacheEntry

_CAPACITY = 20_000
_USE_RESOLUTION = 3600.0

_Key = tuple["RepositoryName", "Tag"]


class TagMemory:
    """Cache entries by repository and tag, the least recently used ones dropped."""

    def __init__(self, capacity: int = _CAPACITY) -> None:
        self._capacity = capacity
        self._entries: BoundedMap[_Key, CacheEntry] = BoundedMap(capacity)
        self._used: dict[_Key, float] = {}

    def find(self, repository: RepositoryName, tag: Tag) -> CacheEntry | None:
        """Return what was last known of a tag."""
        return self._entries.peek((repository, tag))

    def keep(self, entry: CacheEntry) -> None:
        """Remember what is known of a tag now."""
        self._entries.put((entry.repository, entry.tag), entry)

    def drop(self, repository: RepositoryName, tag: Tag) -> None:
        """Forget a tag."""
        self._entries.pop((repository, tag))
        self._used.pop((repository, tag), None)

    def drop_repository(self, repository: RepositoryName) -> None:
        """Forget every tag of a repository."""
        for key in [key for key in self._entries if key[0] == repository]:
            self.drop(*key)

    def use(self, entry: CacheEntry, now: float) -> None:
        """Note that a tag was pulled."""
        key = (entry.repository, entry.tag)
        if now - entry.used_at < _USE_RESOLUTION:
            self._entries.find(key)
            return
        self.keep(replace(entry, used_at=now))
        if key in self._used or len(self._used) < self._capacity:
            self._used[key] = now

    def take_used(self) -> Mapping[_Key, float]:
        """Return the tags whose last use is not written yet, with that time, and forget them."""
        used, self._used = self._used, {}
        return used
