"""A mapping of bounded size, for what may be forgotten but must not pile up.

What callers, upstreams or peers can name without end is remembered in one of these: the number of entries, not their
size, is what is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

K = TypeVar("K")
V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    """Up to `capacity` entries; beyond them the one is dropped that was put or found least recently."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: OrderedDict[K, V] = OrderedDict()

    def find(self, key: K) -> V | None:
        """Return the entry, which counts as a use of it, or None when there is none."""
        value = self._entries.get(key)
        if value is not None or key in self._entries:
            self._entries.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """Return the entry without counting it as a use, or None when there is none."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Create or replace an entry."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)

    def pop(self, key: K) -> V | None:
        """Forget an entry and return it, or None when there is none."""
        return self._entries.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
