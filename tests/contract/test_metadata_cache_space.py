"""Uses, pins and space of cached images, over every database."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.cache.eviction import NOTHING, Terms, give_up
from replicator.core.destinations import parse_destination
from replicator.core.digest import digest_of
from replicator.core.manifest import parse_manifest
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.core.replication import Origin, ReplicateImage, ReplicationState
from replicator.storage.blobs.location import new_location
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.metadata import (
    blobs,
    cache_pins,
    cache_space,
    cached_images,
    images,
    replication_status,
    tags,
)
from replicator.storage.metadata.images import StoredImage, StoredManifest
from replicator.storage.metadata.name_ranges import EVERYTHING, NameRange
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps
    from tests.support.images import Built

BY = NodeId(AccountId("111111111111"), Region("eu"))
APP, OTHER = RepositoryName("hub/app"), RepositoryName("hub/other")
QUAY = RepositoryName("quay/app")
ONE, TWO = build_image([b"one", b"shared"]), build_image([b"two", b"shared"])
INDEX = build_index([ONE, TWO])
WEIGHT = sum(map(len, INDEX.blobs.values())) + sum(len(one.manifest) for one in (INDEX, ONE, TWO))
TERMS = Terms(used_before=1000.0)


def store(repository: RepositoryName, built: Built, at: float, origin: Origin = Origin.CACHE) -> Steps[None]:
    """Store an image with its blobs, as one that was used at a time."""
    manifest = StoredManifest(built.digest, built.media_type, built.manifest)
    yield from images.put(
        repository, StoredImage(manifest, parse_manifest(built.manifest, built.media_type), origin), BY, at
    )
    if origin is Origin.CACHE:
        yield from cached_images.put(repository, built.digest, at)
    for digest, content in built.blobs.items() if not hasattr(built, "children") else ():
        yield from blobs.record(StoredBlob(digest, len(content), new_location(digest)), at)
        yield from blobs.link(repository, digest, at)


async def use(database: Database, repository: RepositoryName, built: Built) -> float | None:
    return await database.read(cached_images.find_use(repository, built.digest))


class TestUses:
    async def test_the_order_of_use_is_that_of_giving_up(self, database: Database) -> None:
        for repository, built, at in ((APP, ONE, 3.0), (OTHER, ONE, 1.0), (QUAY, TWO, 2.0), (APP, TWO, 2.0)):
            await database.write(partial(store, repository, built, at))

        async def order(names: NameRange, limit: int = 10) -> list[tuple[str, float]]:
            found = await database.read(cached_images.least_recently_used(names, cached_images.FIRST, limit))
            return [(one.repository, one.used_at) for one in found]

        assert await order(EVERYTHING) == [(OTHER, 1.0), (APP, 2.0), (QUAY, 2.0), (APP, 3.0)]
        assert await order(NameRange(("hub",))) == [(OTHER, 1.0), (APP, 2.0), (APP, 3.0)]
        assert await order(NameRange(None, ("hub",))) == [(QUAY, 2.0)]
        assert await order(NameRange(())) == []
        [first, second] = await database.read(cached_images.least_recently_used(EVERYTHING, cached_images.FIRST, 2))
        rest = await database.read(cached_images.least_recently_used(EVERYTHING, second.place, 10))
        assert first.place < second.place < rest[0].place
        assert len(rest) == 2

    async def test_a_use_never_goes_back(self, database: Database) -> None:
        await database.write(partial(store, APP, ONE, 5.0))
        await database.write(partial(cached_images.touch, APP, ONE.digest, 4.0))
        await database.write(partial(cached_images.put, APP, ONE.digest, 3.0))
        assert await use(database, APP, ONE) == 5.0
        await database.write(partial(cached_images.touch, APP, ONE.digest, 9.0))
        assert await use(database, APP, ONE) == 9.0

    async def test_an_index_and_its_images_are_used_together(self, database: Database) -> None:
        outer = build_index([INDEX])
        for built in (ONE, TWO, INDEX, outer):
            await database.write(partial(store, APP, built, 1.0))
        await database.write(partial(store, OTHER, ONE, 1.0))
        await database.write(partial(cached_images.touch, APP, ONE.digest, 2.0))
        assert [await use(database, APP, one) for one in (ONE, INDEX, outer, TWO)] == [2.0, 2.0, 2.0, 1.0]
        await database.write(partial(cached_images.touch, APP, INDEX.digest, 3.0))
        assert [await use(database, APP, one) for one in (ONE, INDEX, outer, TWO)] == [3.0] * 4
        assert await use(database, OTHER, ONE) == 1.0

    async def test_what_is_forgotten_has_no_use(self, database: Database) -> None:
        await database.write(partial(store, APP, ONE, 1.0))
        await database.write(partial(cached_images.forget, APP, ONE.digest))
        assert await use(database, APP, ONE) is None
        await database.write(partial(cached_images.touch, APP, ONE.digest, 2.0))
        assert await use(database, APP, ONE) is None


class TestPins:
    async def test_a_pin_of_a_tag_follows_it(self, database: Database) -> None:
        await database.write(partial(cache_pins.put, APP, Tag("latest"), 7.0))
        for built in (ONE, TWO):
            await database.write(partial(store, APP, built, 1.0))
            await database.write(lambda built=built: tags.put(APP, Tag("latest"), built.digest, BY, 1.0))  # type: ignore[misc]
            assert await database.read(cache_pins.holds(APP, built.digest))
        assert not await database.read(cache_pins.holds(APP, ONE.digest))
        assert not await database.read(cache_pins.holds(OTHER, TWO.digest))
        assert await database.write(partial(cache_pins.delete, APP, Tag("latest")))
        assert not await database.write(partial(cache_pins.delete, APP, Tag("latest")))
        assert not await database.read(cache_pins.holds(APP, TWO.digest))

    async def test_a_pin_of_a_digest_may_be_set_twice(self, database: Database) -> None:
        await database.write(partial(store, APP, ONE, 1.0))
        for at in (7.0, 8.0):
            await database.write(partial(cache_pins.put, APP, ONE.digest, at))
        assert await database.read(cache_pins.holds(APP, ONE.digest))
        assert await database.read(cache_pins.has(APP, ONE.digest))
        assert not await database.read(cache_pins.has(APP, Tag("latest")))


class TestSpace:
    async def test_blobs_come_with_all_who_hold_them(self, database: Database) -> None:
        await database.write(partial(store, APP, ONE, 1.0))
        await database.write(partial(store, QUAY, TWO, 1.0))
        first = await database.read(cache_space.held_blobs("", 2))
        rest = await database.read(cache_space.held_blobs(first[-1].digest, 10))
        found = {one.digest: (one.size, set(one.repositories)) for one in first + rest}
        assert set(found) == {*ONE.blobs, *TWO.blobs}
        assert found[digest_of(b"shared")] == (6, {APP, QUAY})
        assert found[digest_of(b"one")] == (3, {APP})
        assert await database.read(cache_space.held_blobs(max(found), 10)) == []

    async def test_images_and_loose_links_keep_a_blob(self, database: Database) -> None:
        shared = digest_of(b"shared")

        async def needing(names: NameRange = EVERYTHING) -> int:
            return await database.read(cache_space.count_needing(shared, names))

        assert await needing() == 0
        await database.write(partial(store, APP, ONE, 1.0))
        await database.write(partial(store, APP, TWO, 1.0, Origin.DIRECT))
        assert await needing() == 2
        await database.write(partial(blobs.link, QUAY, shared, 1.0))
        assert await needing() == 3
        assert await needing(NameRange(("hub",))) == 2
        assert await needing(NameRange(None, ("hub",))) == 1
        assert await database.read(cache_space.is_held(shared, NameRange(("quay",))))
        assert not await database.read(cache_space.is_held(shared, NameRange(("gcr",))))

    async def test_loose_blobs_are_those_no_image_refers_to(self, database: Database) -> None:
        await database.write(partial(store, APP, ONE, 1.0))
        loose = digest_of(b"loose")
        await database.write(partial(blobs.link, APP, loose, 10.0))
        await database.write(partial(blobs.link, QUAY, digest_of(b"one"), 10.0))
        assert await database.read(cache_space.loose_blobs(APP, 11.0, 10)) == [loose]
        assert await database.read(cache_space.loose_blobs(APP, 10.0, 10)) == []
        assert await database.read(cache_space.loose_blobs(QUAY, 11.0, 10)) == [digest_of(b"one")]

    async def test_a_row_is_dropped_only_when_nobody_holds_the_blob(self, database: Database) -> None:
        await database.write(partial(store, APP, ONE, 1.0))
        one = digest_of(b"one")
        assert await database.write(partial(blobs.drop_unlinked, one)) is None
        location = await database.read(blobs.find_location(one))
        await database.write(partial(blobs.unlink, APP, one))
        dropped = await database.write(partial(blobs.drop_unlinked, one))
        assert dropped is not None
        assert (dropped.size, dropped.location) == (3, location)
        assert await database.read(blobs.find_location(one)) is None
        assert await database.read(cache_space.find_size(one)) == 0


class TestGivingUp:
    @pytest.fixture
    async def index(self, database: Database) -> Database:
        for built in (INDEX, ONE, TWO):
            await database.write(partial(store, APP, built, 1.0))
        return database

    async def test_an_index_goes_with_all_it_lists(self, index: Database) -> None:
        given = await index.write(partial(give_up, APP, TWO.digest, TERMS))
        assert set(given.images) == {INDEX.digest, ONE.digest, TWO.digest}
        assert given.size == WEIGHT
        assert {blob.digest for blob in given.dropped} == set(INDEX.blobs)
        assert await index.read(images.count()) == 0
        assert await index.read(blobs.totals()) == (0, 0)
        assert await index.read(images.deletions_after(APP, "", 10)) == []
        assert await index.write(partial(give_up, APP, TWO.digest, TERMS)) == NOTHING

    @pytest.mark.parametrize("why", ["pinned", "used", "pushed", "waiting"])
    async def test_nothing_goes_where_the_index_must_stay(self, index: Database, why: str) -> None:
        if why == "pinned":
            await index.write(partial(cache_pins.put, APP, INDEX.digest, 1.0))
        elif why == "used":
            await index.write(partial(cached_images.touch, APP, INDEX.digest, 1001.0))
        elif why == "pushed":
            await index.write(partial(store, APP, INDEX, 2.0, Origin.DIRECT))
        else:
            sent = ReplicateImage(APP, INDEX.digest, None, parse_destination("111111111111/us"), "rule")
            await index.write(partial(replication_status.start, sent, 1.0))
            assert await index.read(replication_status.is_waiting(APP, INDEX.digest))
        assert await index.write(partial(give_up, APP, ONE.digest, TERMS)) == NOTHING
        assert await index.read(images.count()) == 3

    async def test_an_image_of_its_own_right_stays_when_its_index_goes(self, index: Database) -> None:
        await index.write(lambda: tags.put(APP, Tag("one"), ONE.digest, BY, 1.0))
        await index.write(partial(cache_pins.put, APP, TWO.digest, 1.0))
        given = await index.write(partial(give_up, APP, INDEX.digest, TERMS))
        assert given.images == (INDEX.digest,)
        assert given.dropped == ()
        assert await index.read(images.missing(APP, [ONE.digest, TWO.digest])) == ()

    async def test_the_same_image_elsewhere_keeps_its_blobs(self, index: Database) -> None:
        await index.write(partial(store, QUAY, ONE, 1.0))
        names = NameRange(("hub",))
        given = await index.write(partial(give_up, APP, INDEX.digest, Terms(1000.0, names=names)))
        assert {blob.digest for blob in given.dropped} == set(TWO.blobs) - set(ONE.blobs)
        # For the repositories that were asked about, all of it is gone.
        assert given.size == WEIGHT
        for digest in ONE.blobs:
            assert await index.read(blobs.find_linked(QUAY, digest)) is not None
            assert await index.read(blobs.find_linked(APP, digest)) is None

    async def test_replication_that_is_over_keeps_nothing(self, index: Database) -> None:
        sent = ReplicateImage(APP, INDEX.digest, None, parse_destination("111111111111/us"), "rule")
        await index.write(partial(replication_status.start, sent, 1.0))
        await index.write(partial(replication_status.settle, sent, ReplicationState.COMPLETE, 2.0))
        given = await index.write(partial(give_up, APP, INDEX.digest, TERMS))
        assert len(given.images) == 3
        assert await index.read(replication_status.of_image(APP, INDEX.digest)) == []
