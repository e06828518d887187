"""Cached tags with their history, on every database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.core.digest import digest_of
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.storage.metadata import cache_entries, cache_history, tags
from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.storage.metadata.cache_history import KEPT, SeenDigest

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps

NODE = NodeId(AccountId("1" * 12), Region("eu-west-1"))
REPOSITORY, OTHER = RepositoryName("hub/app"), RepositoryName("hub/other")
LATEST, EDGE = Tag("latest"), Tag("edge")
FIRST, SECOND = digest_of(b"first"), digest_of(b"second")
ENTRY = CacheEntry(
    REPOSITORY, LATEST, "hub", FIRST, 10.0, 5.0, 11.0, 12.0, "timed out", 13.0, SECOND, SECOND, 14.0, due_at=15.0
)


class TestEntries:
    async def test_all_that_a_check_found_comes_back(self, database: Database) -> None:
        await database.write(lambda: cache_entries.put(ENTRY))
        assert await database.read(cache_entries.find(REPOSITORY, LATEST)) == ENTRY

    async def test_one_is_forgotten(self, database: Database) -> None:
        other = replace(ENTRY, tag=EDGE)
        for entry in (ENTRY, other):
            await database.write(lambda entry=entry: cache_entries.put(entry))  # type: ignore[misc]
        await database.write(lambda: cache_entries.delete(REPOSITORY, LATEST))
        assert await database.read(cache_entries.find(REPOSITORY, LATEST)) is None
        assert await database.read(cache_entries.find(REPOSITORY, EDGE)) == other

    async def test_those_of_a_repository_in_pages(self, database: Database) -> None:
        for repository, tag in ((REPOSITORY, "b"), (REPOSITORY, "a"), (OTHER, "c"), (REPOSITORY, "B")):
            entry = replace(ENTRY, repository=repository, tag=Tag(tag))
            await database.write(lambda entry=entry: cache_entries.put(entry))  # type: ignore[misc]
        first = await database.read(cache_entries.tags_of(REPOSITORY, "", 2))
        rest = await database.read(cache_entries.tags_of(REPOSITORY, first[-1].tag, 2))
        assert [entry.tag for entry in (*first, *rest)] == ["B", "a", "b"]


class TestHistory:
    async def test_a_digest_is_seen_once_and_served_again_and_again(self, database: Database) -> None:
        assert await database.read(cache_history.find(REPOSITORY, LATEST, FIRST)) is None
        seen = await database.write(lambda: cache_history.see(REPOSITORY, LATEST, FIRST, 1.0))
        assert seen == SeenDigest(FIRST, 1.0, None)
        assert await database.write(lambda: cache_history.see(REPOSITORY, LATEST, FIRST, 2.0)) == seen
        for now in (3.0, 4.0):
            await database.write(lambda now=now: cache_history.serve(REPOSITORY, LATEST, FIRST, now))  # type: ignore[misc]
        served = SeenDigest(FIRST, 1.0, 4.0)
        assert await database.read(cache_history.find(REPOSITORY, LATEST, FIRST)) == served
        assert await database.write(lambda: cache_history.see(REPOSITORY, LATEST, FIRST, 5.0)) == served

    async def test_what_is_served_unseen_was_first_seen_then(self, database: Database) -> None:
        await database.write(lambda: cache_history.serve(REPOSITORY, LATEST, FIRST, 3.0))
        assert await database.read(cache_history.find(REPOSITORY, LATEST, FIRST)) == SeenDigest(FIRST, 3.0, 3.0)

    async def test_each_tag_has_its_own(self, database: Database) -> None:
        await database.write(lambda: cache_history.see(REPOSITORY, LATEST, FIRST, 1.0))
        assert await database.read(cache_history.find(REPOSITORY, EDGE, FIRST)) is None
        assert await database.read(cache_history.find(OTHER, LATEST, FIRST)) is None
        assert await database.read(cache_history.newest(OTHER, LATEST)) == []

    async def test_the_newest_come_first(self, database: Database) -> None:
        def steps() -> Steps[None]:
            yield from cache_history.see(REPOSITORY, LATEST, FIRST, 1.0)
            yield from cache_history.see(REPOSITORY, LATEST, SECOND, 2.0)
            yield from cache_history.serve(REPOSITORY, LATEST, FIRST, 3.0)

        await database.write(steps)
        found = await database.read(cache_history.newest(REPOSITORY, LATEST))
        assert [seen.digest for seen in found] == [FIRST, SECOND]
        assert len(await database.read(cache_history.newest(REPOSITORY, LATEST, 1))) == 1

    async def test_it_is_bounded_by_what_is_oldest(self, database: Database) -> None:
        def steps() -> Steps[None]:
            yield from cache_history.serve(REPOSITORY, LATEST, FIRST, 1.0)
            yield from cache_history.serve(REPOSITORY, EDGE, FIRST, 1.0)
            for number in range(KEPT):
                yield from cache_history.see(REPOSITORY, LATEST, digest_of(b"%d" % number), 2.0 + number)

        await database.write(steps)
        found = await database.read(cache_history.newest(REPOSITORY, LATEST, 2 * KEPT))
        assert len(found) == KEPT
        assert FIRST not in {seen.digest for seen in found}
        assert await database.read(cache_history.find(REPOSITORY, EDGE, FIRST)) is not None


class TestTags:
    async def test_a_tag_is_removed_without_a_trace_while_it_points_to_what_it_should(self, database: Database) -> None:
        await database.write(lambda: tags.put(REPOSITORY, LATEST, FIRST, NODE, 1.0))
        assert not await database.write(lambda: tags.remove(REPOSITORY, LATEST, SECOND))
        assert await database.read(tags.find(REPOSITORY, LATEST)) is not None
        assert await database.write(lambda: tags.remove(REPOSITORY, LATEST, FIRST))
        assert await database.read(tags.find(REPOSITORY, LATEST)) is None
