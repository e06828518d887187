"""The space of a cache: least recently used images go, whole ones, and never what somebody needs."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from replicator.cache.space import CacheSpace, SpaceLimits
from replicator.core.cache_rules import CacheRule
from replicator.core.destinations import parse_destination
from replicator.core.digest import digest_of
from replicator.core.eviction import IN_NEED, JUST_USED
from replicator.core.names import RepositoryName, Tag
from replicator.core.principal import UNRESTRICTED
from replicator.core.replication import Origin, ReplicateImage, ReplicationState
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import cache_entries, cached_images, images, replication_status, repositories
from tests.support.clock import FakeClock
from tests.support.images import build_image, build_index
from tests.support.pull_through_node import ALPINE, LATEST, caching_node, chunks_of, read_all
from tests.support.single_node import NODE
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.digest import Digest
    from tests.support.images import BuiltImage
    from tests.support.pull_through_node import CachingNode

KIB = 1024
HUB = CacheRule("docker-hub", "hub", fresh_for=3600.0)
LAYER = 100 * KIB
BUSYBOX = RepositoryName("docker-hub/library/busybox")
OWN = RepositoryName("team/app")
MANIFESTS = "GET /v2/library/*/manifests/*"


def layer(number: int, size: int = LAYER) -> bytes:
    """Return a layer of its own, without anything that repeats."""
    return random.Random(number).randbytes(size)  # noqa: S311 - any bytes


def weight_of(image: BuiltImage) -> int:
    """Return the bytes of an image: its manifest and its blobs."""
    return len(image.manifest) + sum(map(len, image.blobs.values()))


@dataclass
class Seen:
    """What the cache reports of its space."""

    held: dict[str, int] = field(default_factory=dict)
    evictions: list[tuple[str, int, int]] = field(default_factory=list)
    evicting: asyncio.Event = field(default_factory=asyncio.Event)

    def cache_bytes(self, rule: str, size: int) -> None:
        self.held[rule] = size

    def evicted(self, reason: str, images: int, size: int) -> None:
        self.evictions.append((reason, images, size))
        self.evicting.set()


@dataclass
class Scene:
    """A node with a cache whose clock a test moves, and what limits it."""

    node: CachingNode
    upstream: FakeRegistry
    clock: FakeClock
    seen: Seen
    space: CacheSpace

    def limited(self, limits: SpaceLimits, rules: tuple[CacheRule, ...] = (HUB,)) -> CacheSpace:
        """Return the space of the node under other limits."""
        return CacheSpace(self.node.node, rules, self.node.cache.uses, self.seen, limits)

    async def pull(self, name: str, *layers: int, repository: RepositoryName = ALPINE) -> BuiltImage:
        """Pull an image as a whole, a minute after what came before."""
        image = self.upstream.add_image(repository.removeprefix("docker-hub/"), name, [layer(one) for one in layers])
        await self.node.image(Tag(name), repository)
        self.clock.advance(60)
        return image

    def idle(self) -> None:
        """Let enough time pass for everything to count as unused."""
        self.clock.advance(JUST_USED + 1)

    async def has(self, image: BuiltImage, repository: RepositoryName = ALPINE) -> bool:
        """Tell whether an image is here with all its blobs; one that is not whole must be gone altogether."""
        origin = await self.node.origin(image.digest, repository)
        there = {await self.node.pulls.find_blob(repository, digest) is not None for digest in image.blobs}
        assert there == {True} or origin is None, "an image that is here lacks blobs"
        return origin is not None

    async def stored(self) -> int:
        """Return how many bytes of blobs lie on the disk."""
        paths = [self.node.directory / "blobs" / "blobs" / one for one in await self.node.locations()]
        return sum(path.stat().st_size for path in paths)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    clock = FakeClock()
    async with FakeRegistry() as upstream, caching_node(tmp_path, {"hub": upstream}, clock) as node:
        seen = Seen()
        space = CacheSpace(node.node, (HUB,), node.cache.uses, seen)
        yield Scene(node, upstream, clock, seen, space)


# Limits


async def test_the_longest_unused_image_goes_when_the_cache_is_over_its_size(scene: Scene) -> None:
    first = await scene.pull("1", 1)
    second = await scene.pull("2", 2)
    third = await scene.pull("3", 3)
    scene.idle()
    await scene.node.manifest(Tag("1"))  # from memory: nothing is written yet
    scene.clock.advance(1)
    await scene.limited(SpaceLimits(max_size=250 * KIB)).round()
    assert [await scene.has(one) for one in (first, second, third)] == [True, False, True]
    assert await scene.stored() < 250 * KIB
    assert await scene.node.tag(Tag("2")) is None
    assert await scene.node.entry(Tag("2")) is None
    [(reason, count, freed)] = scene.seen.evictions
    assert (reason, count) == ("size", 1)
    assert freed == weight_of(second)
    # What went is fetched again as if it had never been here.
    await scene.node.image(Tag("2"))
    assert await scene.has(second)


async def test_nothing_goes_within_the_limits(scene: Scene) -> None:
    image = await scene.pull("1", 1)
    scene.idle()
    await scene.limited(SpaceLimits(max_size=200 * KIB, keep_free=1)).round()
    assert await scene.has(image)
    assert scene.seen.evictions == []


async def test_a_shared_layer_is_counted_once_and_stays_while_an_image_needs_it(scene: Scene) -> None:
    first = await scene.pull("1", 1, 10)
    second = await scene.pull("2", 2, 10)
    usage = await scene.space.usage()
    blobs = {**first.blobs, **second.blobs}
    manifests = len(first.manifest) + len(second.manifest)
    assert usage.size == usage.rules["docker-hub"] == sum(map(len, blobs.values())) + manifests
    scene.idle()
    await scene.limited(SpaceLimits(max_size=250 * KIB)).round()
    assert [await scene.has(first), await scene.has(second)] == [False, True]
    assert await scene.node.blob(second.layers[1]) == layer(10)


async def test_a_blob_that_another_repository_needs_stays_there(scene: Scene) -> None:
    first = await scene.pull("1", 1)
    await scene.pull("2", 1, repository=BUSYBOX)
    scene.idle()
    await scene.node.manifest(Tag("2"), BUSYBOX)
    await scene.space.purge(ALPINE)
    assert not await scene.has(first)
    assert await scene.node.pulls.find_blob(ALPINE, first.layers[0]) is None
    await scene.upstream.stop()
    assert await scene.node.blob(first.layers[0], BUSYBOX) == layer(1)


async def test_each_rule_has_a_limit_of_its_own(tmp_path: Path) -> None:
    clock, small = FakeClock(), CacheRule("small", "hub", fresh_for=3600.0, max_size=150 * KIB)
    async with (
        FakeRegistry() as upstream,
        caching_node(tmp_path, {"hub": upstream}, clock, rules=[HUB, small]) as node,
    ):
        scene = Scene(node, upstream, clock, Seen(), CacheSpace(node.node, (HUB, small), node.cache.uses))
        old = await scene.pull("1", 1)
        elsewhere = RepositoryName("small/library/alpine")
        upstream.add_image("library/alpine", "2", [layer(2)])
        await node.image(Tag("2"), elsewhere)
        clock.advance(60)
        newer = upstream.add_image("library/alpine", "3", [layer(3)])
        await node.image(Tag("3"), elsewhere)
        scene.idle()
        space = scene.limited(SpaceLimits(), (HUB, small))
        assert (await space.usage()).rules["small"] > 150 * KIB
        await space.round()
        assert await scene.has(old)
        assert await scene.has(newer, elsewhere)
        assert (await space.usage()).rules["small"] <= 150 * KIB
        assert scene.seen.evictions[0][0] == "rule"


async def test_what_a_disk_must_keep_free_is_made_free(scene: Scene) -> None:
    images_ = [await scene.pull(str(number), number) for number in range(1, 5)]
    scene.idle()
    free = (await scene.node.node.store.usage()).free_bytes
    await scene.limited(SpaceLimits(keep_free=free // 2)).round()
    assert all([await scene.has(one) for one in images_])
    await scene.limited(SpaceLimits(keep_free=2 * free)).round()
    assert not any([await scene.has(one) for one in images_])
    assert scene.seen.evictions[-1][0] == "disk"


async def test_the_background_work_acts_on_what_comes_in(scene: Scene) -> None:
    space = scene.limited(SpaceLimits(max_size=150 * KIB))
    async with asyncio.TaskGroup() as group:
        working = group.create_task(space.run())
        first = await scene.pull("1", 1)
        scene.idle()
        second = await scene.pull("2", 2)
        await scene.seen.evicting.wait()
        assert not await scene.has(first)
        assert await scene.has(second)
        working.cancel()


# What stays


async def test_what_is_being_pulled_stays_whatever_the_limit(scene: Scene) -> None:
    image = await scene.pull("1", 1)
    await scene.node.manifest(image.digest)
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert await scene.has(image)
    scene.idle()
    await scene.node.manifest(image.digest)
    scene.clock.advance(IN_NEED - 1)
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert await scene.has(image)


async def test_what_was_used_a_minute_ago_goes_when_nothing_else_is_left(scene: Scene) -> None:
    first = await scene.pull("1", 1)
    scene.idle()
    second, third = await scene.pull("2", 2), await scene.pull("3", 3)
    await scene.limited(SpaceLimits(max_size=300 * KIB)).round()
    assert [await scene.has(one) for one in (first, second, third)] == [False, True, True]
    await scene.limited(SpaceLimits(max_size=200 * KIB)).round()
    assert [await scene.has(one) for one in (first, second, third)] == [False, False, True]


async def test_a_full_disk_gets_room_although_everything_was_used_a_minute_ago(scene: Scene) -> None:
    image = await scene.pull("1", 1)
    assert await scene.space.make_room()
    assert not await scene.has(image)


async def test_an_image_that_is_pulled_while_others_go_stays(scene: Scene) -> None:
    first = await scene.pull("1", 1)
    second = await scene.pull("2", 2)
    scene.idle()
    store = scene.node.node.store
    delete_blob = store.delete_blob

    async def delete_while_pulled(location: str) -> None:
        await scene.node.manifest(Tag("2"))
        await delete_blob(location)

    store.delete_blob = delete_while_pulled  # type: ignore[method-assign]
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert [await scene.has(one) for one in (first, second)] == [False, True]


async def test_pushed_images_and_their_blobs_stay(scene: Scene) -> None:
    cached = await scene.pull("1", 1)
    await scene.node.push(build_image([layer(1), layer(2)]), Tag("mine"), OWN)
    in_cache = build_image([layer(1), layer(3)])
    await scene.node.push(in_cache, Tag("mine"), ALPINE)
    scene.idle()
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert not await scene.has(cached)
    assert await scene.has(in_cache)
    assert await scene.node.blob(cached.layers[0], OWN) == layer(1)
    assert await scene.node.tag(Tag("mine")) == in_cache.digest


async def test_a_cached_image_that_somebody_pushed_as_well_stays(scene: Scene) -> None:
    image = await scene.pull("1", 1)
    await scene.node.push(image, Tag("mine"), ALPINE)
    assert await scene.node.origin(image.digest) is Origin.DIRECT
    scene.idle()
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert await scene.has(image)
    purged = await scene.space.purge(ALPINE, image.digest, force=True)
    assert (purged.images, purged.kept, purged.freed) == (0, 1, 0)


@pytest.mark.parametrize("state", [ReplicationState.IN_PROGRESS, ReplicationState.FAILED])
async def test_an_image_that_is_still_to_be_replicated_stays(scene: Scene, state: ReplicationState) -> None:
    image = await scene.pull("1", 1)
    destination = parse_destination("111111111111/us")
    replication = ReplicateImage(ALPINE, image.digest, Tag("1"), destination, "rule")
    write = scene.node.node.database.write
    await write(lambda: replication_status.start(replication, scene.clock.now()))
    if state is ReplicationState.FAILED:
        await write(lambda: replication_status.settle(replication, state, scene.clock.now(), code="Timeout"))
    scene.idle()
    space = scene.limited(SpaceLimits(max_size=1))
    await space.round()
    assert await scene.has(image)
    assert (await space.purge(ALPINE, force=True)).kept == 1
    await write(lambda: replication_status.settle(replication, ReplicationState.COMPLETE, scene.clock.now()))
    scene.clock.advance(3601)
    await space.round()
    assert not await scene.has(image)
    # Nobody deleted it: no deletion goes to other nodes, and none is remembered.
    assert await scene.node.node.database.read(images.deletions_after(ALPINE, "", 10)) == []


async def test_nothing_of_a_repository_without_a_rule_goes(tmp_path: Path) -> None:
    clock = FakeClock()
    async with FakeRegistry() as upstream:
        async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
            scene = Scene(node, upstream, clock, Seen(), CacheSpace(node.node, (HUB,), node.cache.uses))
            image = await scene.pull("1", 1)
        other = CacheRule("quay", "hub")
        async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[other]) as node:
            scene = Scene(node, upstream, clock, Seen(), CacheSpace(node.node, (other,), node.cache.uses))
            scene.idle()
            space = scene.limited(SpaceLimits(max_size=1, keep_free=2**62), (other,))
            await space.round()
            assert (await space.usage()).size == 0
            assert await node.origin(image.digest) is Origin.CACHE


async def test_own_repositories_under_the_rule_for_all_names_are_not_the_caches(tmp_path: Path) -> None:
    clock, everything = FakeClock(), CacheRule("ROOT", "hub")
    async with (
        FakeRegistry() as upstream,
        caching_node(tmp_path, {"hub": upstream}, clock, rules=[everything]) as node,
    ):
        scene = Scene(node, upstream, clock, Seen(), CacheSpace(node.node, (everything,), node.cache.uses))
        await node.push(build_image([layer(2)]), Tag("mine"), OWN)
        upstream.add_image("library/alpine", "1", [layer(1)])
        cached = RepositoryName("library/alpine")
        await node.image(Tag("1"), cached)
        clock.advance(7200)
        space = scene.limited(SpaceLimits(max_size=1), (everything,))
        assert LAYER < (await space.usage()).size < 2 * LAYER
        await space.round()
        assert (await space.usage()).size == 0
        assert await node.blob(digest_of(layer(2)), OWN) == layer(2)


# Indexes


async def test_an_index_goes_with_the_images_that_only_it_lists(scene: Scene) -> None:
    one, two = build_image([layer(1)]), build_image([layer(2)], platform=("linux", "arm64"))
    index, other = build_index([one, two]), build_index([two], annotations={"a": "b"})
    for tag, built in (("all", index), ("some", other)):
        scene.upstream.add("library/alpine", built, tag)
        await scene.node.manifest(Tag(tag))
    for child in (one, two):
        await scene.node.image(child.digest)
    scene.idle()
    await scene.node.manifest(Tag("some"))
    scene.clock.advance(1)
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert await scene.node.origin(index.digest) is None
    assert not await scene.has(one)
    # The other index was just used, and so were the images it lists.
    assert await scene.node.origin(other.digest) is Origin.CACHE
    assert await scene.has(two)


async def test_no_more_goes_than_it_takes_when_images_go_with_their_index(scene: Scene) -> None:
    """Their platforms were all used at the same time, so that those of one index do not lie together."""
    indexes = []
    for number in range(8):
        children = [build_image([layer(10 * number + one)]) for one in range(2)]
        indexes.append(build_index(children))
        scene.upstream.add("library/alpine", indexes[-1], str(number))
        await scene.node.manifest(Tag(str(number)))
        for child in children:
            await scene.node.image(child.digest)
    scene.idle()
    await scene.limited(SpaceLimits(max_size=1000 * KIB)).round()
    left = [await scene.node.origin(index.digest) is not None for index in indexes]
    assert sum(left) == 4, "of eight times 200 KiB, four are within 950"
    assert await scene.stored() < 1000 * KIB


async def test_use_of_an_image_keeps_the_index_that_lists_it(scene: Scene) -> None:
    one = build_image([layer(1)])
    index = build_index([one])
    scene.upstream.add("library/alpine", index, "all")
    await scene.node.manifest(Tag("all"))
    await scene.node.image(one.digest)
    scene.idle()
    await scene.node.manifest(one.digest)
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert await scene.node.origin(index.digest) is Origin.CACHE
    assert await scene.has(one)


async def test_an_image_with_a_tag_of_its_own_outlasts_the_index_that_is_purged(scene: Scene) -> None:
    one = build_image([layer(1)])
    index = build_index([one])
    scene.upstream.add("library/alpine", index, "all")
    scene.upstream.add("library/alpine", one, "one")
    await scene.node.manifest(Tag("all"))
    await scene.node.image(Tag("one"))
    await scene.space.purge(ALPINE, Tag("all"))
    assert await scene.node.origin(index.digest) is None
    assert await scene.has(one)


# Tags that moved


async def test_what_a_tag_pointed_to_before_goes_first(scene: Scene) -> None:
    old = await scene.pull("latest", 1)
    other = await scene.pull("other", 3)
    scene.clock.advance(9 * 24 * 3600)
    new = await scene.pull("latest", 2)
    assert await scene.node.tag() == new.digest
    scene.idle()
    await scene.node.manifest(Tag("other"))
    await scene.node.manifest(LATEST)
    scene.idle()
    await scene.limited(SpaceLimits(max_size=250 * KIB)).round()
    assert [await scene.has(one) for one in (old, other, new)] == [False, True, True]
    assert await scene.node.tag() == new.digest


# Pins


async def test_a_pinned_image_stays_also_after_a_restart_and_a_purge(tmp_path: Path) -> None:
    clock = FakeClock()
    async with FakeRegistry() as upstream:
        async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
            scene = Scene(node, upstream, clock, Seen(), CacheSpace(node.node, (HUB,), node.cache.uses))
            image = await scene.pull("1", 1)
            await scene.space.pin(ALPINE, image.digest)
        scene.idle()
        async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
            scene = Scene(node, upstream, clock, Seen(), CacheSpace(node.node, (HUB,), node.cache.uses))
            await scene.limited(SpaceLimits(max_size=1)).round()
            assert await scene.has(image)
            purged = await scene.space.purge(ALPINE)
            assert (purged.images, purged.kept, purged.freed) == (0, 1, 0)
            assert await scene.has(image)
            assert await scene.space.unpin(ALPINE, image.digest)
            assert not await scene.space.unpin(ALPINE, image.digest)
            await scene.limited(SpaceLimits(max_size=1)).round()
            assert not await scene.has(image)


async def test_a_pinned_index_keeps_its_images(scene: Scene) -> None:
    one = build_image([layer(1)])
    index = build_index([one])
    scene.upstream.add("library/alpine", index, "all")
    await scene.space.pin(ALPINE, Tag("all"))
    await scene.node.manifest(Tag("all"))
    await scene.node.image(one.digest)
    scene.idle()
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert await scene.has(one)
    assert (await scene.space.purge(ALPINE, one.digest)).images == 0


async def test_a_pinned_tag_keeps_what_it_points_to_now(scene: Scene) -> None:
    old = await scene.pull("latest", 1)
    await scene.space.pin(ALPINE, LATEST)
    scene.clock.advance(9 * 24 * 3600)
    new = await scene.pull("latest", 2)
    assert await scene.node.tag() == new.digest
    scene.idle()
    await scene.limited(SpaceLimits(max_size=1)).round()
    assert [await scene.has(one) for one in (old, new)] == [False, True]
    purged = await scene.space.purge(ALPINE, LATEST)
    assert (purged.images, purged.tags, purged.kept) == (0, 0, 1)
    purged = await scene.space.purge(ALPINE, LATEST, force=True)
    assert (purged.images, purged.tags, purged.kept) == (1, 1, 0)
    assert await scene.stored() == 0


# Purging


async def test_a_purged_tag_takes_its_image_only_when_it_is_the_last(scene: Scene) -> None:
    image = await scene.pull("1", 1)
    scene.upstream.add("library/alpine", image, "also")
    await scene.node.manifest(Tag("also"))
    assert (await scene.space.purge(ALPINE, Tag("1"))).tags == 1
    assert await scene.node.tag(Tag("1")) is None
    assert await scene.has(image)
    purged = await scene.space.purge(ALPINE, Tag("also"))
    assert (purged.images, purged.tags, purged.freed) == (1, 1, weight_of(image))
    assert not await scene.has(image)


@pytest.mark.parametrize("reference", [Tag("absent"), digest_of(b"absent"), None])
async def test_a_purge_of_nothing_does_nothing(scene: Scene, reference: Tag | Digest | None) -> None:
    purged = await scene.space.purge(BUSYBOX, reference)
    assert (purged.images, purged.tags, purged.kept, purged.freed) == (0, 0, 0, 0)


async def test_a_purged_repository_is_as_if_it_had_never_been_used(scene: Scene) -> None:
    for number in range(1, 4):
        await scene.pull(str(number), number)
    purged = await scene.space.purge(ALPINE)
    assert (purged.images, purged.tags, purged.kept) == (3, 3, 0)
    assert await scene.stored() == 0
    database = scene.node.node.database
    assert await database.read(cache_entries.count()) == 0
    assert await database.read(cached_images.of_repository(ALPINE, "", 10)) == []
    assert await database.read(repositories.find(ALPINE)) is not None


# Blobs that no image needs


async def test_a_blob_that_no_image_needs_goes_after_an_hour(scene: Scene) -> None:
    digest = scene.upstream.add_blob("library/alpine", layer(1))
    assert await scene.node.blob(digest) == layer(1)
    scene.idle()
    space = scene.limited(SpaceLimits(max_size=1))
    await space.round()
    assert await scene.stored() == LAYER
    scene.clock.advance(3601)
    await space.round()
    assert await scene.stored() == 0


async def test_a_blob_that_waits_for_the_manifest_of_a_push_is_kept_for_a_day(tmp_path: Path) -> None:
    clock, shared = FakeClock(), CacheRule("docker-hub", "hub", accept_pushes=True)
    settings = RegistrySettings(NODE, cache_rules=(shared,))
    async with (
        FakeRegistry() as upstream,
        caching_node(tmp_path, {"hub": upstream}, clock, rules=[shared], settings=settings) as node,
    ):
        scene = Scene(node, upstream, clock, Seen(), CacheSpace(node.node, (shared,), node.cache.uses))
        await node.uploads.put_blob(UNRESTRICTED, ALPINE, digest_of(layer(1)), chunks_of(layer(1)))
        clock.advance(23 * 3600)
        space = scene.limited(SpaceLimits(max_size=1), (shared,))
        await space.round()
        assert await scene.stored() == LAYER
        clock.advance(2 * 3600)
        await space.round()
        assert await scene.stored() == 0


# Being read


async def test_a_blob_that_arrives_counts_as_being_read(scene: Scene) -> None:
    scene.upstream.add_image("library/alpine", "1", [layer(1)])
    await scene.node.manifest(Tag("1"))
    hold, digest = Hold(), digest_of(layer(1))
    scene.upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(hold=hold, hold_after=1000))
    content = await scene.node.open(digest)
    await hold.reached()
    assert scene.node.node.readings.is_read(digest)
    hold.release()
    assert await read_all(content) == layer(1)
    assert not scene.node.node.readings.is_read(digest)
