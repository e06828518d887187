"""A bounded memory of what pulls resolve to, in front of the database.

An entry must never outlive the row it was read from. Whoever changes a repository *holds* it from before the change
until after the commit: holding drops its entries and keeps new ones out, so a pull that reads the old row cannot put
it back. A pull whose read spans a suspension passes the mark it took before reading; when anything was held since,
its result is not kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

    from replicator.core.names import RepositoryName

V = TypeVar("V")


class PullIndex(Generic[V]):
    """Entries by repository and key, least recently used ones dropped beyond `capacity` (in the weights given)."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[tuple[RepositoryName, Hashable], tuple[V, int]] = OrderedDict()
        self._keys: dict[RepositoryName, set[Hashable]] = {}
        self._held: dict[RepositoryName, int] = {}
        self._weight = 0
        self._mark = 0

    @property
    def mark(self) -> int:
        """A number that changes whenever entries may have become untrue."""
        return self._mark

    def find(self, repository: RepositoryName, key: Hashable) -> V | None:
        """Return the entry, if there is one."""
        found = self._entries.get((repository, key))
        if found is None:
            return None
        self._entries.move_to_end((repository, key))
        return found[0]

    def keep(
        self,
        repository: RepositoryName,
        key: Hashable,
        value: V,
        weight: int,
        mark: int,
    ) -> None:
        """Remember a value read after `mark` was taken, unless it may be out of date by now."""
        if mark != self._mark or repository in self._held or weight > self._capacity:
            return
        self._drop(repository, key)
        self._entries[(repository, key)] = (value, weight)
        self._keys.setdefault(repository, set()).add(key)
        self._weight += weight
        while self._weight > self._capacity:
            (oldest, oldest_key), (_, oldest_weight) = self._entries.popitem(last=False)
            self._weight -= oldest_weight
            self._forget_key(oldest, oldest_key)

    def hold(self, repository: RepositoryName) -> None:
        """Drop the repository's entries and keep none until `release`; holds nest."""
        self._held[repository] = self._held.get(repository, 0) + 1
        self._invalidate(repository)

    def release(self, repository: RepositoryName) -> None:
        """End one hold, dropping what is there once more."""
        self._invalidate(repository)
        left = self._held[repository] - 1
        if left:
            self._held[repository] = left
        else:
            del self._held[repository]

    def clear(self) -> None:
        """Drop everything."""
        self._mark += 1
        self._entries.clear()
        self._keys.clear()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._entries)

    def _invalidate(self, repository: RepositoryName) -> None:
        self._mark += 1
        for key in tuple(self._keys.get(repository, ())):
            self._drop(repository, key)

    def _drop(self, repository: RepositoryName, key: Hashable) -> None:
        entry = self._entries.pop((repository, key), None)
        if entry is not None:
            self._weight -= entry[1]
            self._forget_key(repository, key)

    def _forget_key(self, repository: RepositoryName, key: Hashable) -> None:
        keys = self._keys[repository]
        keys.discard(key)
        if not keys:
            del self._keys[repository]
