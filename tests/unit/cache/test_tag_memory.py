from __future__ import annotations

from dataclasses import replace

from replicator.cache.tag_memory import TagMemory
from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName, Tag
from replicator.storage.metadata.cache_entries import CacheEntry

ENTRY = CacheEntry(RepositoryName("hub/app"), Tag("latest"), "hub", digest_of(b"x"), 100.0, 100.0, 100.0)
KEY = (ENTRY.repository, ENTRY.tag)


def test_what_was_kept_is_found() -> None:
    memory = TagMemory()
    memory.keep(ENTRY)
    assert memory.find(*KEY) == ENTRY
    assert memory.find(ENTRY.repository, Tag("other")) is None


def test_least_recently_used_entries_are_dropped() -> None:
    memory = TagMemory(capacity=2)
    first, second, third = (replace(ENTRY, tag=Tag(name)) for name in ("a", "b", "c"))
    memory.keep(first)
    memory.keep(second)
    memory.use(first, 100.0)
    memory.keep(third)
    assert memory.find(first.repository, first.tag) == first
    assert memory.find(second.repository, second.tag) is None


def test_use_is_noted_once_an_hour() -> None:
    memory = TagMemory()
    memory.keep(ENTRY)
    memory.use(ENTRY, 100.0 + 3599.0)
    assert memory.take_used() == {}
    memory.use(ENTRY, 100.0 + 3600.0)
    used = memory.find(*KEY)
    assert used is not None
    assert used.used_at == 3700.0
    memory.use(used, 3701.0)
    assert memory.take_used() == {KEY: 3700.0}
    assert memory.take_used() == {}


def test_uses_that_wait_to_be_written_are_bounded() -> None:
    memory = TagMemory(capacity=2)
    for name in "abcde":
        memory.use(replace(ENTRY, tag=Tag(name)), 10_000.0)
    assert len(memory.take_used()) == 2


def test_dropped_entry_is_forgotten_with_its_use() -> None:
    memory = TagMemory()
    memory.keep(ENTRY)
    memory.use(ENTRY, 10_000.0)
    memory.drop(*KEY)
    memory.drop(*KEY)
    assert memory.find(*KEY) is None
    assert memory.take_used() == {}
