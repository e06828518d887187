"""Attacks by clients of a cache: what one of them does must not become anybody else's answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from replicator.cache.check_outcome import CheckOutcome
from replicator.cache.inventory import Inventory
from replicator.cache.listings import CachedListings
from replicator.cache.refreshes import Refreshes
from replicator.cache.remote_lists import ListLimits
from replicator.cache.sources import MAX_DESCRIPTORS
from replicator.cache.space import CacheSpace, SpaceLimits
from replicator.core.cache_rules import CacheRule, OnNotFound
from replicator.core.digest import digest_of
from replicator.core.errors import (
    BlobNotFound,
    ManifestNotFound,
    UpstreamContent,
    UpstreamDenied,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from replicator.core.eviction import JUST_USED
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.names import RepositoryName, Tag
from replicator.core.pagination import Page
from replicator.core.principal import UNRESTRICTED
from replicator.registry.listings import Listings
from replicator.storage.metadata import blobs, cache_space
from replicator.upstream.via import on_behalf_of
from tests.support.cached_edge import cached_edge
from tests.support.pull_through_node import ALPINE, HUB, LATEST, caching_node, outcome
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path
    from types import FrameType

    from tests.support.cached_edge import CachedEdge
    from tests.support.clock import FakeClock
    from tests.support.pull_through_node import CachingNode

MIRROR = CacheRule("mirror", "next", upstream_prefix="mirror")
EVIL = RepositoryName("docker-hub/evil/app")
VIA = "1.1 replicator-x"
HOPS = ", ".join(f"1.1 proxy-{number}" for number in range(8))
"""As many as a request may have passed; one more, and the next registry refuses it."""
PASSED = ("1.1 proxy",)
LAYER = b"layer" * 50_000


@contextlib.asynccontextmanager
async def mirror(directory: Path, upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[CachedEdge]:
    endpoint = endpoint_of(upstream, via=VIA)
    async with cached_edge(directory, {"next": endpoint}, [MIRROR], clock=clock, via=VIA) as edge:
        yield edge


def manifest_of(count: int) -> bytes:
    """Return a manifest with a config and `count` layers, which are the numbers from 0 on."""
    layers = [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 5, "digest": digest_of(str(at).encode())}
        for at in range(count)
    ]
    config = {"mediaType": "application/vnd.oci.empty.v1+json", "size": 2, "digest": digest_of(b"{}")}
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": layers}).encode()


@contextlib.contextmanager
def counted_calls() -> Iterator[list[int]]:
    """Count the calls that are made on the event loop's thread: what is done elsewhere holds nobody up."""
    calls = [0]

    def count(_frame: FrameType, event: str, _argument: object) -> Any:
        calls[0] += event == "call"

    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(None)


async def joined() -> None:
    """Let pulls come as far as they can without an answer."""
    for _ in range(50):
        await asyncio.sleep(0)


# Blobs


@pytest.mark.parametrize("status", [404, 401, 403])
async def test_a_repository_without_the_blob_spoils_no_pull_of_one_that_has_it(
    node: CachingNode, upstream: FakeRegistry, status: int
) -> None:
    """Somebody names a blob that others are about to pull, in a repository of that upstream that does not have it."""
    digest, hold = upstream.add_image("library/alpine", "latest", [LAYER]).layers[0], Hold()
    upstream.faults.on("GET /v2/evil/app/blobs/*", Fault(status=status, hold=hold))
    await node.manifest()
    async with asyncio.TaskGroup() as group:
        attack = group.create_task(outcome(node.blob(digest, EVIL)))
        await hold.reached()
        pulls = [group.create_task(outcome(node.blob(digest))) for _ in range(3)]
        await joined()
        hold.release()
    assert [pull.result() for pull in pulls] == [LAYER] * 3
    assert isinstance(attack.result(), BlobNotFound if status == 404 else UpstreamDenied)
    assert upstream.count("GET /v2/library/alpine/blobs/*") == 1
    assert await node.node.database.read(blobs.find_linked(EVIL, digest)) is None


async def test_a_request_that_went_in_a_circle_spoils_no_pull_of_the_same_blob(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    digest, hold = upstream.add_image("library/alpine", "latest", [LAYER]).layers[0], Hold()
    upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(status=508, hold=hold), times=1)
    await node.manifest()
    async with asyncio.TaskGroup() as group:
        with on_behalf_of(PASSED):
            attack = group.create_task(outcome(node.blob(digest)))
        await hold.reached()
        pulls = [group.create_task(outcome(node.blob(digest))) for _ in range(3)]
        await joined()
        hold.release()
    assert [pull.result() for pull in pulls] == [LAYER] * 3
    assert isinstance(attack.result(), UpstreamUnavailable)
    assert upstream.count("GET /v2/library/alpine/blobs/*") == 2


async def test_who_asks_for_what_is_not_there_hears_it_from_the_one_fill(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    digest, hold = upstream.add_image("library/alpine", "latest", [LAYER]).layers[0], Hold()
    upstream.repository("library/alpine").blobs.clear()
    upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(hold=hold))
    await node.manifest()
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(outcome(node.blob(digest))) for _ in range(3)]
        await hold.reached()
        await joined()
        hold.release()
    assert [type(pull.result()) for pull in pulls] == [BlobNotFound] * 3
    assert upstream.count("GET /v2/library/alpine/blobs/*") == 1


@contextlib.asynccontextmanager
async def rogue_node(directory: Path, upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[CachingNode]:
    """A node whose mirror says that `evil/app` has the layer that only `library/alpine` has."""
    async with FakeRegistry() as rogue:
        rogue.add_image("evil/app", "latest", [LAYER])
        rogue.repository("evil/app").blobs.clear()
        upstream.add_image("library/alpine", "latest", [LAYER])
        rule = replace(HUB, mirrors=("rogue",))
        async with caching_node(directory, {"hub": upstream, "rogue": rogue}, clock, rules=[rule]) as node:
            yield node


@pytest.mark.parametrize("status", [None, 401, 503])
async def test_a_mirror_that_names_a_blob_of_another_repository_gives_nobody_access_to_it(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, status: int | None
) -> None:
    if status is not None:
        upstream.faults.on("* /v2/evil/app/blobs/*", Fault(status=status))
    async with rogue_node(tmp_path, upstream, clock) as node:
        await node.image()
        await node.manifest(repository=EVIL)
        refused = await outcome(node.blob(digest_of(LAYER), EVIL))
        assert isinstance(refused, BlobNotFound | UpstreamDenied | UpstreamUnavailable)
        assert await node.node.database.read(blobs.find_linked(EVIL, digest_of(LAYER))) is None
        assert await node.blob(digest_of(LAYER)) == LAYER


async def test_a_mirror_that_names_a_blob_on_its_way_to_another_repository_gives_nobody_access_to_it(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    hold = Hold()
    upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(hold=hold))
    async with rogue_node(tmp_path, upstream, clock) as node, asyncio.TaskGroup() as group:
        await node.manifest()
        await node.manifest(repository=EVIL)
        pull = group.create_task(outcome(node.blob(digest_of(LAYER))))
        await hold.reached()
        assert isinstance(await outcome(node.blob(digest_of(LAYER), EVIL)), BlobNotFound)
        hold.release()
        assert await pull == LAYER
        assert await node.node.database.read(blobs.find_linked(EVIL, digest_of(LAYER))) is None


async def test_a_blob_of_another_repository_is_asked_about_once_and_needs_no_download(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    upstream.add_image("library/alpine", "latest", [LAYER])
    upstream.add_image("evil/app", "latest", [LAYER])
    await node.image()
    await node.manifest(repository=EVIL)
    upstream.requests.clear()
    for _ in range(3):
        assert await node.blob(digest_of(LAYER), EVIL) == LAYER
    assert [request.method for request in upstream.requests] == ["HEAD"]


async def test_a_blob_of_another_repository_is_had_while_the_only_registry_is_down(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    upstream.add_image("library/alpine", "latest", [LAYER])
    upstream.add_image("evil/app", "latest", [LAYER])
    await node.image()
    await node.manifest(repository=EVIL)
    await upstream.stop()
    assert await node.blob(digest_of(LAYER), EVIL) == LAYER


# Manifests


async def test_a_request_that_went_in_a_circle_spoils_no_pull_of_the_same_tag(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    image, hold = upstream.add_image("library/alpine", "latest"), Hold()
    upstream.faults.on("GET *", Fault(status=508, hold=hold), times=1)
    async with asyncio.TaskGroup() as group:
        with on_behalf_of(PASSED):
            attack = group.create_task(outcome(node.manifest()))
        await hold.reached()
        pulls = [group.create_task(outcome(node.manifest())) for _ in range(3)]
        await joined()
        hold.release()
    assert [getattr(pull.result(), "digest", None) for pull in pulls] == [image.digest] * 3
    assert isinstance(attack.result(), UpstreamUnavailable)
    assert upstream.count("GET *") == 2


async def test_a_request_that_went_in_a_circle_puts_off_no_check(node: CachingNode, upstream: FakeRegistry) -> None:
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    node.node.clock.advance(3 * 3600.0)  # type: ignore[attr-defined] # a fake one
    upstream.faults.on("*", Fault(status=508), times=1)
    with on_behalf_of(PASSED):
        await node.manifest()
        await node.cache.idle()
    entry = await node.entry()
    assert entry is not None
    assert entry.failed_at is None
    changed = upstream.add_image("library/alpine", "latest", [b"another"])
    await node.manifest()
    await node.cache.idle()
    assert await node.tag(LATEST, ALPINE) == changed.digest


# Lists


async def test_a_request_that_went_in_a_circle_hides_no_list(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("mirror/app", "latest")
    upstream.faults.on("*/tags/list", Fault(status=508), times=1)
    async with mirror(tmp_path, upstream, clock) as edge:
        assert (await edge.get("/v2/mirror/app/tags/list", {"Via": HOPS})).status == 508
        assert (await edge.get("/v2/mirror/app/tags/list")).status == 200


# What one client can have the node ask and keep


async def test_heads_of_a_cold_blob_at_once_ask_the_upstream_once(node: CachingNode, upstream: FakeRegistry) -> None:
    digest, hold = upstream.add_blob("library/alpine", LAYER), Hold()
    upstream.faults.on("*/blobs/*", Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        heads = [group.create_task(node.cache.get_blob_size(UNRESTRICTED, ALPINE, digest)) for _ in range(20)]
        await hold.reached()
        await joined()
        hold.release()
    assert {head.result() for head in heads} == {len(LAYER)}
    assert upstream.count("*/blobs/*") == 1


async def test_a_blob_that_is_not_there_is_asked_for_once_in_a_while(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    digest = digest_of(LAYER)
    upstream.repository("library/alpine")
    for _ in range(3):
        assert isinstance(await outcome(node.cache.get_blob_size(UNRESTRICTED, ALPINE, digest)), BlobNotFound)
        assert isinstance(await outcome(node.blob(digest)), BlobNotFound)
    assert upstream.count("*/blobs/*") == 1
    upstream.add_blob("library/alpine", LAYER)
    clock.advance(HUB.negative_for)
    assert await node.blob(digest) == LAYER


async def test_a_tag_that_we_may_not_have_is_asked_for_once_in_a_while(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    """Docker Hub says it of every repository that does not exist."""
    image = upstream.add_image("library/alpine", "latest")
    upstream.faults.on("*", Fault(status=401), times=1)
    refused = [await outcome(node.manifest()) for _ in range(3)]
    assert [type(error) for error in refused] == [UpstreamDenied] * 3
    assert upstream.count() == 1
    clock.advance(HUB.negative_for)
    assert (await node.manifest()).digest == image.digest


async def test_who_asked_too_early_for_a_blob_keeps_it_from_nobody_who_pulls_the_image(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    assert isinstance(await outcome(node.blob(digest_of(LAYER))), BlobNotFound)
    upstream.add_image("library/alpine", "latest", [LAYER])
    assert LAYER in (await node.image()).values()


async def test_what_was_purged_is_asked_for_anew(node: CachingNode, upstream: FakeRegistry) -> None:
    digest = digest_of(LAYER)
    assert isinstance(await outcome(node.blob(digest)), BlobNotFound)
    upstream.add_blob("library/alpine", LAYER)
    node.cache.forget_negative(ALPINE)
    assert await node.blob(digest) == LAYER


@pytest.mark.parametrize("states_size", [True, False])
async def test_a_blob_without_end_takes_no_more_than_the_limit_of_its_rule(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, states_size: bool
) -> None:
    """An upstream that never ends would take the disk, and with it all that others have cached."""
    digest = upstream.add_blob("library/alpine", LAYER)
    upstream.faults.on("*/blobs/*", Fault(chunked=not states_size))
    rule = replace(HUB, max_size=100_000)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        refused = await outcome(node.blob(digest))
        assert isinstance(refused, UpstreamContent)
        assert "100000" in str(refused)
        assert (node.ingests, await node.locations()) == ([], [])


async def test_blobs_of_a_manifest_of_very_many_are_found_without_holding_up_the_loop(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    """Anybody may have such a manifest upstream, and ask for its blobs one by one."""
    upstream.add_manifest("library/alpine", manifest_of(5000), OCI_MANIFEST, "latest")
    await node.manifest()
    with counted_calls() as calls:
        for at in range(3):
            missing = await outcome(node.cache.get_blob_size(UNRESTRICTED, ALPINE, digest_of(str(at).encode())))
            assert isinstance(missing, BlobNotFound)
    assert calls[0] < 20_000


async def test_a_manifest_of_very_many_blobs_comes_in_without_holding_up_the_loop(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    upstream.add_manifest("library/alpine", manifest_of(MAX_DESCRIPTORS - 1), OCI_MANIFEST, "latest")
    with counted_calls() as calls:
        await node.manifest()
    assert calls[0] < 50_000


async def test_a_manifest_of_more_blobs_than_any_image_has_is_refused(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    """Each of them would be a row here."""
    upstream.add_manifest("library/alpine", manifest_of(MAX_DESCRIPTORS), OCI_MANIFEST, "latest")
    refused = await outcome(node.manifest())
    assert isinstance(refused, UpstreamContent)
    assert f"names {MAX_DESCRIPTORS + 1} blobs and manifests; the cache accepts up to {MAX_DESCRIPTORS}" in str(refused)
    assert await node.tag() is None


async def test_what_is_pinned_does_not_go_with_the_upstream_s_tag(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    rule = replace(HUB, on_not_found=OnNotFound.FOLLOW)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        await node.image()
        space = CacheSpace(node.node, [rule], node.cache.uses)
        await space.pin(ALPINE, LATEST)
        upstream.repository("library/alpine").tags.clear()
        for _ in range(2):
            clock.advance(10 * rule.fresh_for)
            assert (await node.manifest()).digest == image.digest
            await node.cache.idle()
        await space.unpin(ALPINE, LATEST)
        clock.advance(10 * rule.fresh_for)
        await outcome(node.manifest())
        await node.cache.idle()
        assert isinstance(await outcome(node.manifest()), ManifestNotFound)


async def test_manifests_count_for_the_limits_like_blobs(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    """Otherwise an upstream could fill the database with what nothing ever gives up."""
    rule = replace(HUB, max_size=2_500_000)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        space = CacheSpace(node.node, [rule], node.cache.uses)
        await space.usage()
        tags = [Tag(str(number)) for number in range(6)]
        for number, tag in enumerate(tags):
            content = manifest_of(1).removesuffix(b"}") + b', "annotations": {"a": "%d"}}' % number
            upstream.add_manifest("library/alpine", content + b" " * 1_000_000, OCI_MANIFEST, tag)
            await node.manifest(tag)
            clock.advance(60)
        assert (await space.usage()).size > 6_000_000
        clock.advance(JUST_USED)
        await space.round()
        assert (await space.usage()).rules[rule.prefix] < 2_500_000
        assert [await node.tag(tag) is not None for tag in tags] == [False] * 4 + [True] * 2
        read = node.node.database.read
        assert len(await read(cache_space.held_manifests("", 10))) == 2


async def test_manifests_that_come_in_set_off_the_look_at_the_limits(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, max_size=500_000)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        stored: list[int] = []
        node.node.on_blob(stored.append)
        content = manifest_of(1) + b" " * 1000
        upstream.add_manifest("library/alpine", content, OCI_MANIFEST, "latest")
        await node.manifest()
        assert stored == [len(content)]


async def test_an_image_that_shares_its_blobs_goes_for_its_manifest_only_when_nothing_else_frees_enough(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    shared, own = upstream.add_image("library/alpine", "shared", [LAYER]), b"other" * 50_000
    upstream.add_image("library/alpine", "other", [own])
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        await node.image(Tag("shared"))
        clock.advance(60)
        await node.image(Tag("other"))
        await node.push(shared, Tag("mine"), RepositoryName("team/app"))
        clock.advance(JUST_USED)
        await CacheSpace(node.node, [HUB], node.cache.uses, limits=SpaceLimits(max_size=100_000)).round()
        assert await node.tag(Tag("shared")) == shared.digest
        assert await node.tag(Tag("other")) is None


# Upstreams that ask to be left alone


@contextlib.asynccontextmanager
async def refreshed_node(
    directory: Path, upstream: FakeRegistry, clock: FakeClock
) -> AsyncIterator[tuple[CachingNode, Refreshes]]:
    async with caching_node(directory, {"hub": upstream}, clock, breaker=True) as node:
        inventory = Inventory(node.node, node.cache.upstreams, node.cache.completion)
        yield node, Refreshes(node.node, node.cache, inventory)


@pytest.mark.parametrize("status", [429, 503])
async def test_a_refresh_asks_an_upstream_that_wants_to_be_left_alone_for_years_and_ends_that(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, status: int
) -> None:
    upstream.add_image("library/alpine", "latest")
    async with refreshed_node(tmp_path, upstream, clock) as (node, refreshes):
        await node.manifest()
        upstream.faults.on("*", Fault(status=status, headers={"Retry-After": "999999999"}), times=1)
        [failed] = await refreshes.refresh(ALPINE, LATEST)
        assert failed.outcome is CheckOutcome.FAILED
        upstream.requests.clear()
        changed = upstream.add_image("library/alpine", "latest", [b"another"])
        other = upstream.add_image("library/alpine", "other")
        assert isinstance(await outcome(node.manifest(Tag("other"))), UpstreamThrottled | UpstreamUnavailable)
        assert upstream.requests == []
        [done] = await refreshes.refresh(ALPINE, LATEST)
        assert (done.outcome, done.digest, done.error) == (CheckOutcome.CHANGED, changed.digest, None)
        assert (await node.manifest(Tag("other"))).digest == other.digest


async def test_a_refresh_that_fails_again_ends_no_pause(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    async with refreshed_node(tmp_path, upstream, clock) as (node, refreshes):
        await node.manifest()
        upstream.faults.on("*", Fault(status=429, headers={"Retry-After": "999999999"}), times=2)
        for _ in range(2):
            [failed] = await refreshes.refresh(ALPINE, LATEST)
            assert failed.outcome is CheckOutcome.FAILED
        assert upstream.count() == 3
        assert isinstance(await outcome(node.manifest(Tag("other"))), UpstreamThrottled)
        assert upstream.count() == 3


async def test_a_refresh_asks_an_upstream_whose_breaker_is_open_and_closes_it(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    async with refreshed_node(tmp_path, upstream, clock) as (node, refreshes):
        upstream.faults.on("*", Fault(status=500), times=5)
        for number in range(5):
            assert isinstance(await outcome(node.manifest(Tag(f"t{number}"))), UpstreamUnavailable)
        assert isinstance(await outcome(node.manifest()), UpstreamUnavailable)
        assert upstream.count() == 5
        [done] = await refreshes.refresh(ALPINE, LATEST)
        assert (done.outcome, done.digest) == (CheckOutcome.CHANGED, image.digest)
        upstream.add_image("library/alpine", "other")
        await node.manifest(Tag("other"))


async def test_referrers_of_digests_that_nobody_has_are_asked_for_once_and_remembered_within_bounds(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        limits = ListLimits(lists=10)
        listings = CachedListings(node.node, Listings(node.node), node.cache.upstreams, list_limits=limits)
        try:
            made_up = [digest_of(str(number).encode()) for number in range(11)]
            for digest in (*[made_up[0]] * 3, *made_up):
                found = await listings.list_referrers(UNRESTRICTED, ALPINE, digest, None, Page(10))
                assert found.entries == ()
            assert upstream.count(f"GET */referrers/{made_up[0]}") == 1
            await listings.list_referrers(UNRESTRICTED, ALPINE, made_up[0], None, Page(10))
            assert upstream.count(f"GET */referrers/{made_up[0]}") == 2
            assert upstream.count("GET */referrers/*") == len(made_up) + 1
        finally:
            await listings.close()
