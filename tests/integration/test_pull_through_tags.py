"""Cached tags: served from here, checked when due, kept through everything an upstream does."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.cache.limits import CacheLimits
from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.digest import digest_of
from replicator.core.errors import (
    Denied,
    ManifestNotFound,
    StorageError,
    UpstreamContent,
    UpstreamDenied,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.freshness import FAILED_CHECK_PAUSE
from replicator.core.jobs import JobKind
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag
from replicator.core.principal import UNRESTRICTED, Principal, PrincipalKind
from replicator.core.replication import Origin, ReplicationRule
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import jobs, repositories
from tests.support.images import build_image, build_index
from tests.support.pull_through_node import ALPINE, HUB, LATEST, caching_node, outcome
from tests.support.single_node import NODE, OTHER_NODE
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.clock import FakeClock
    from tests.support.pull_through_node import CachingNode

CHECKED_FIRST = replace(HUB, stale_while_revalidate=0.0)
"""A rule by which a pull of a due tag waits for the check."""

MANIFESTS = "/v2/library/alpine/manifests/*"
NOBODY = Principal("bob", PrincipalKind.USER)


@pytest.fixture
async def node(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[CachingNode]:
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[CHECKED_FIRST]) as node:
        yield node


# First use


async def test_first_pull_fetches_the_image_and_keeps_it(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest", [b"one", b"two"])
    assert (await node.manifest()).content == image.manifest
    assert await node.tag() == image.digest
    assert await node.origin(image.digest) is Origin.CACHE
    assert await node.image() == image.blobs
    found = await node.node.database.read(repositories.find(ALPINE))
    assert found is not None
    assert found.created_by == "cache"
    entry = await node.entry()
    assert entry is not None
    assert (entry.digest, entry.upstream, entry.failed_at) == (image.digest, "hub", None)


async def test_fresh_tag_is_served_without_a_request(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    await node.manifest()
    upstream.requests.clear()
    clock.advance(HUB.fresh_for - 1)
    assert (await node.manifest()).digest == image.digest
    assert upstream.requests == []
    assert node.observer.results == {"docker-hub miss": 1, "docker-hub hit": 1}


async def test_fifty_cold_clients_cost_one_fetch(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest")
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(node.manifest()) for _ in range(50)]
    assert {pull.result().content for pull in pulls} == {image.manifest}
    assert upstream.count(f"GET {MANIFESTS}") == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (Fault(status=500), UpstreamUnavailable),
        (Fault(status=429, headers={"Retry-After": "20"}), UpstreamThrottled),
        (Fault(status=403), UpstreamDenied),
        (Fault(status=401), UpstreamDenied),
        (Fault(drop=True), UpstreamUnavailable),
        (Fault(cut_after=5), UpstreamContent),
        (Fault(body=b"<html>", content_type="text/html"), UpstreamContent),
        (Fault(status=404), ManifestNotFound),
    ],
)
async def test_every_cold_waiter_gets_the_failure(
    node: CachingNode, upstream: FakeRegistry, fault: Fault, error: type[Exception]
) -> None:
    upstream.add_image("library/alpine", "latest")
    upstream.faults.on(MANIFESTS, fault)
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(outcome(node.manifest())) for _ in range(5)]
    assert all(isinstance(pull.result(), error) for pull in pulls)
    assert await node.tag() is None
    assert await node.entry() is None
    assert await node.node.database.read(repositories.find(ALPINE)) is None


async def test_next_pull_after_a_failure_heals(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest")
    upstream.faults.on(MANIFESTS, Fault(status=500), times=1)
    assert isinstance(await outcome(node.manifest()), UpstreamUnavailable)
    assert (await node.manifest()).digest == image.digest


async def test_what_the_upstream_does_not_have_is_not_found(node: CachingNode, upstream: FakeRegistry) -> None:
    upstream.add_image("library/alpine", "latest")
    with pytest.raises(ManifestNotFound):
        await node.manifest(Tag("absent"))
    with pytest.raises(ManifestNotFound):
        await node.manifest(digest_of(b"absent"))
    assert (await node.manifest()).digest


async def test_no_name_is_changed_on_the_way_to_the_upstream(node: CachingNode, upstream: FakeRegistry) -> None:
    upstream.add_image("library/alpine", "latest")
    with pytest.raises(ManifestNotFound):
        await node.manifest(repository=RepositoryName("docker-hub/alpine"))
    assert [request.path for request in upstream.requests] == ["/v2/alpine/manifests/latest"]


async def test_repository_without_a_rule_is_never_looked_for_upstream(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    upstream.add_image("team/app", "latest")
    for name in ("team/app", "docker-hubbub/team/app", "docker-hub"):
        with pytest.raises(Exception, match="does not exist in the registry"):
            await node.manifest(repository=RepositoryName(name))
    assert upstream.requests == []


async def test_access_is_checked_before_the_upstream_is_asked(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest")
    with pytest.raises(Denied):
        await node.manifest(principal=NOBODY)
    with pytest.raises(Denied):
        await node.open(image.layers[0], principal=NOBODY)
    with pytest.raises(Denied):
        await node.cache.get_blob_size(NOBODY, ALPINE, image.layers[0])
    await node.image()
    with pytest.raises(Denied):
        await node.manifest(principal=NOBODY)
    with pytest.raises(Denied):
        await node.open(image.layers[0], principal=NOBODY)


async def test_cold_pull_from_a_hung_upstream_ends(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    upstream.add_image("library/alpine", "latest")
    upstream.faults.on(MANIFESTS, Fault(hold=Hold()))
    limits = CacheLimits(cold_wait=0.1)
    async with caching_node(tmp_path, {"hub": upstream}, clock, limits=limits, rules=[CHECKED_FIRST]) as node:
        with pytest.raises(UpstreamTimeout):
            await node.manifest()


async def test_a_client_that_leaves_does_not_stop_the_fetch(node: CachingNode, upstream: FakeRegistry) -> None:
    image, hold = upstream.add_image("library/alpine", "latest"), Hold()
    upstream.faults.on(MANIFESTS, Fault(hold=hold), times=1)
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(node.manifest())
        await hold.reached()
        leaving.cancel()
    hold.release()
    assert (await node.manifest()).digest == image.digest
    assert upstream.count(MANIFESTS) == 1


# By digest


async def test_digest_is_fetched_once_and_never_checked_again(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine")
    assert (await node.manifest(image.digest)).content == image.manifest
    clock.advance(100 * HUB.fresh_for)
    await upstream.stop()
    assert (await node.manifest(image.digest)).content == image.manifest
    assert upstream.count(MANIFESTS) == 1
    assert await node.tag() is None
    assert await node.origin(image.digest) is Origin.CACHE


async def test_manifest_with_another_digest_is_not_stored(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image, other = upstream.add_image("library/alpine"), build_image([b"other"])
    upstream.faults.on(MANIFESTS, Fault(body=other.manifest, content_type=other.media_type), times=1)
    with pytest.raises(UpstreamContent):
        await node.manifest(image.digest)
    assert await node.origin(other.digest) is None
    clock.advance(HUB.negative_for)
    assert (await node.manifest(image.digest)).content == image.manifest


async def test_manifest_that_is_not_what_it_was_announced_as_gets_no_tag(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    within_a_digest = image.manifest.index(b"sha256:") + 10
    upstream.faults.on(f"{MANIFESTS.removesuffix('*')}latest", Fault(flip=within_a_digest))
    with pytest.raises(UpstreamContent):
        await node.manifest()
    assert await node.tag() is None


async def test_ambiguous_manifest_is_refused(node: CachingNode, upstream: FakeRegistry) -> None:
    image = build_image()
    both = image.manifest[:-1] + b',"manifests":[]}'
    upstream.add_manifest("library/alpine", both, OCI_MANIFEST, "latest")
    with pytest.raises(UpstreamContent):
        await node.manifest()
    assert await node.tag() is None


async def test_index_is_kept_as_it_is_and_its_images_come_when_asked_for(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    amd, arm = build_image([b"amd"]), build_image([b"arm"], platform=("linux", "arm64"))
    index = build_index([amd, arm])
    upstream.add("library/alpine", index, "latest")
    assert (await node.manifest()).content == index.manifest
    assert await node.image(amd.digest) == amd.blobs
    assert await node.origin(arm.digest) is None
    await upstream.stop()
    assert (await node.manifest()).content == index.manifest
    assert await node.image(amd.digest) == amd.blobs
    with pytest.raises(UpstreamUnavailable):
        await node.manifest(arm.digest)


# Freshness


async def test_due_tag_that_did_not_change_costs_one_head(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    await node.manifest()
    upstream.requests.clear()
    clock.advance(HUB.fresh_for)
    now = clock.now()
    assert (await node.manifest()).digest == image.digest
    assert (await node.manifest()).digest == image.digest
    assert [request.method for request in upstream.requests] == ["HEAD"]
    entry = await node.entry()
    assert entry is not None
    assert entry.checked_at == now
    assert node.observer.results["docker-hub revalidated"] == 1


async def test_tag_that_moved_upstream_moves_here_after_the_window(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    old = upstream.add_image("library/alpine", "latest", [b"old"])
    await node.image()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    clock.advance(HUB.fresh_for - 1)
    assert (await node.manifest()).digest == old.digest
    clock.advance(1)
    assert (await node.manifest()).digest == new.digest
    assert await node.tag() == new.digest
    assert await node.image() == new.blobs
    # The old one stays by digest.
    assert (await node.manifest(old.digest)).digest == old.digest
    entry = await node.entry()
    assert entry is not None
    assert entry.changed_at == clock.now()


async def test_tag_that_moved_to_an_image_that_is_here_costs_no_fetch(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    first = upstream.add_image("library/alpine", "latest", [b"first"])
    second = upstream.add_image("library/alpine", "edge", [b"second"])
    await node.manifest()
    await node.manifest(Tag("edge"))
    upstream.repository("library/alpine").tags["latest"] = second.digest
    clock.advance(HUB.fresh_for)
    assert (await node.manifest()).digest == second.digest
    assert upstream.count(f"GET {MANIFESTS}") == 2
    assert await node.tag(Tag("edge")) == second.digest
    assert first.digest != second.digest


async def test_head_without_a_digest_falls_back_to_get(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    upstream.faults.on(f"HEAD {MANIFESTS}", Fault(headers={"Docker-Content-Digest": ""}))
    clock.advance(HUB.fresh_for)
    assert (await node.manifest()).digest == new.digest
    clock.advance(HUB.fresh_for)
    assert (await node.manifest()).digest == new.digest
    assert node.observer.results["docker-hub revalidated"] == 1


@pytest.mark.parametrize("status", [404, 405])
async def test_upstream_that_knows_nothing_of_head_is_asked_by_get(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock, status: int
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    upstream.faults.on(f"HEAD {MANIFESTS}", Fault(status=status))
    clock.advance(HUB.fresh_for)
    assert (await node.manifest()).digest == new.digest


async def test_fifty_pulls_of_a_due_tag_cost_one_check(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    clock.advance(HUB.fresh_for)
    upstream.requests.clear()
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(node.manifest()) for _ in range(50)]
    assert {pull.result().digest for pull in pulls} == {new.digest}
    assert [request.method for request in upstream.requests] == ["HEAD", "GET"]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=503, headers={"Retry-After": "3600"}),
        Fault(status=429),
        Fault(status=401),
        Fault(status=403),
        Fault(status=404),
        Fault(drop=True),
        Fault(drop=True, reset=True),
        Fault(body=b"<html>", content_type="text/html"),
        Fault(redirect="/v2/elsewhere"),
    ],
)
async def test_any_upstream_failure_serves_the_cached_image(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock, fault: Fault
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    await node.image()
    upstream.faults.on("*", fault)
    clock.advance(HUB.fresh_for)
    assert await node.image() == image.blobs
    assert await node.tag() == image.digest
    entry = await node.entry()
    assert entry is not None
    assert entry.failed_at is not None
    assert entry.last_error
    assert entry.checked_at < clock.now() - HUB.fresh_for + 60
    assert node.observer.results["docker-hub stale"] == 1


async def test_failed_check_is_not_repeated_at_once_but_soon(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    clock.advance(HUB.fresh_for)
    upstream.faults.on(MANIFESTS, Fault(status=500), times=1)
    upstream.requests.clear()
    for _ in range(5):
        await node.manifest()
    assert upstream.count() == 1
    clock.advance(FAILED_CHECK_PAUSE)
    assert (await node.manifest()).digest == new.digest
    entry = await node.entry()
    assert entry is not None
    assert (entry.failed_at, entry.last_error) == (None, None)


async def test_hung_upstream_hangs_no_client_with_a_cached_answer(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    limits = CacheLimits(stale_wait=0.05)
    async with caching_node(tmp_path, {"hub": upstream}, clock, limits=limits, rules=[CHECKED_FIRST]) as node:
        old = upstream.add_image("library/alpine", "latest", [b"old"])
        await node.manifest()
        new, hold = upstream.add_image("library/alpine", "latest", [b"new"]), Hold()
        upstream.faults.on(MANIFESTS, Fault(hold=hold), times=1)
        clock.advance(HUB.fresh_for)
        assert (await node.manifest()).digest == old.digest
        # The check goes on in the background, once; nobody else waits for it.
        async with asyncio.timeout(0.04):
            for _ in range(5):
                assert (await node.manifest()).digest == old.digest
        assert upstream.count(f"HEAD {MANIFESTS}") == 1
        assert node.observer.results["docker-hub stale"] == 6
        hold.release()
        await node.cache.idle()
        assert (await node.manifest()).digest == new.digest


async def test_check_of_a_hung_upstream_ends_and_is_noted(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    limits = CacheLimits(stale_wait=0.05, cold_wait=3.0)
    async with caching_node(tmp_path, {"hub": upstream}, clock, limits=limits, rules=[CHECKED_FIRST]) as node:
        image = upstream.add_image("library/alpine", "latest")
        await node.manifest()
        upstream.faults.on(MANIFESTS, Fault(hold=Hold()))
        clock.advance(HUB.fresh_for)
        assert (await node.manifest()).digest == image.digest
        await node.cache.idle()
        entry = await node.entry()
        assert entry is not None
        assert entry.failed_at == clock.now()
        upstream.faults.clear()
        clock.advance(FAILED_CHECK_PAUSE)
        assert (await node.manifest()).digest == image.digest
        assert node.observer.results["docker-hub revalidated"] == 1


async def test_closing_during_a_check_serves_the_cached_image(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image, hold = upstream.add_image("library/alpine", "latest"), Hold()
    await node.manifest()
    upstream.faults.on(MANIFESTS, Fault(hold=hold))
    clock.advance(HUB.fresh_for)
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(node.manifest())
        await hold.reached()
        await node.cache.close()
    assert pulling.result().digest == image.digest
    entry = await node.entry()
    assert entry is not None
    assert entry.failed_at is None


async def test_restart_with_every_upstream_down_serves_what_is_cached(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest", [b"layer" * 50_000])
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[CHECKED_FIRST]) as node:
        await node.image()
    await upstream.stop()
    clock.advance(1000 * HUB.fresh_for)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[CHECKED_FIRST]) as node:
        assert await node.image() == image.blobs
        assert (await node.manifest(image.digest)).content == image.manifest


async def test_tag_never_points_to_a_manifest_that_is_not_stored(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    old = upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    upstream.faults.on(f"GET {MANIFESTS}", Fault(cut_after=20))
    clock.advance(HUB.fresh_for)
    assert (await node.manifest()).digest == old.digest
    assert await node.tag() == old.digest
    assert await node.origin(new.digest) is None


# Whose tag it is


async def test_pushed_tag_is_never_replaced_by_the_upstream(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"theirs"])
    ours = build_image([b"ours"])
    await node.push(ours, LATEST)
    clock.advance(10 * HUB.fresh_for)
    assert (await node.manifest()).digest == ours.digest
    assert upstream.requests == []


async def test_cached_tag_that_was_pushed_over_is_the_users_from_then_on(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"theirs"])
    await node.manifest()
    ours = build_image([b"ours"])
    await node.push(ours, LATEST)
    upstream.add_image("library/alpine", "latest", [b"newer"])
    clock.advance(10 * HUB.fresh_for)
    upstream.requests.clear()
    assert (await node.manifest()).digest == ours.digest
    assert upstream.requests == []


async def test_tag_pushed_while_the_upstream_is_asked_stays_the_users(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    upstream.add_image("library/alpine", "latest", [b"new"])
    hold, ours = Hold(), build_image([b"ours"])
    upstream.faults.on(f"GET {MANIFESTS}", Fault(hold=hold), times=1)
    clock.advance(HUB.fresh_for)
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(node.manifest())
        await hold.reached()
        await node.push(ours, LATEST)
        hold.release()
    assert pulling.result().digest == ours.digest
    assert await node.tag() == ours.digest


async def test_cold_tag_pushed_while_the_upstream_is_asked_stays_the_users(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    upstream.add_image("library/alpine", "latest", [b"theirs"])
    hold, ours = Hold(), build_image([b"ours"])
    upstream.faults.on(MANIFESTS, Fault(hold=hold), times=1)
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(node.manifest())
        await hold.reached()
        await node.push(ours, LATEST)
        hold.release()
    assert pulling.result().digest == ours.digest
    assert await node.entry() is None


async def test_tag_that_is_immutable_here_is_not_moved(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    settings = RegistrySettings(NODE, mutability=MutabilityRule(TagMutability.IMMUTABLE))
    async with caching_node(tmp_path, {"hub": upstream}, clock, settings=settings, rules=[CHECKED_FIRST]) as node:
        old = upstream.add_image("library/alpine", "latest", [b"old"])
        await node.manifest()
        upstream.add_image("library/alpine", "latest", [b"new"])
        clock.advance(HUB.fresh_for)
        assert (await node.manifest()).digest == old.digest
        assert (await node.manifest()).digest == old.digest
        assert upstream.count(f"GET {MANIFESTS}") == 1
        assert upstream.count(f"HEAD {MANIFESTS}") == 1


async def test_deleted_tag_is_fetched_again(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest")
    await node.manifest()
    await node.pushes.delete_manifest(UNRESTRICTED, ALPINE, LATEST)
    assert await node.tag() is None
    assert (await node.manifest()).digest == image.digest
    assert await node.tag() == image.digest


async def test_private_repository_under_a_catch_all_rule_is_not_looked_for_upstream(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    private = RepositoryName("team/app")
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[CacheRule(ROOT, "hub")]) as node:
        evil = upstream.add_image("team/app", "2.0", [b"confusion"])
        ours = build_image([b"ours"])
        await node.push(ours, Tag("1.0"), private)
        for reference in (Tag("2.0"), evil.digest):
            with pytest.raises(ManifestNotFound):
                await node.manifest(reference, private)
        with pytest.raises(Exception, match="has no blob"):
            await node.open(evil.layers[0], private)
        with pytest.raises(Exception, match="has no blob"):
            await node.cache.get_blob_size(UNRESTRICTED, private, evil.layers[0])
        assert upstream.requests == []
        assert (await node.manifest(Tag("1.0"), private)).digest == ours.digest
        image = upstream.add_image("library/alpine", "latest")
        assert (await node.manifest(repository=RepositoryName("library/alpine"))).digest == image.digest


async def test_rule_that_leads_to_another_upstream_makes_its_tags_due(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"before"])
    same = upstream.add_image("library/alpine", "same", [b"same"])
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[CHECKED_FIRST]) as node:
        await node.manifest()
        await node.manifest(Tag("same"))
    async with FakeRegistry() as mirror:
        new = mirror.add_image("library/alpine", "latest", [b"after"])
        mirror.add("library/alpine", same, "same")
        rules = [CacheRule(HUB.prefix, "mirror")]
        async with caching_node(tmp_path, {"mirror": mirror}, clock, rules=rules) as node:
            assert (await node.manifest()).digest == new.digest
            assert (await node.manifest(Tag("same"))).digest == same.digest
            mirror.requests.clear()
            await node.manifest()
            await node.manifest(Tag("same"))
            assert mirror.requests == []


async def test_longest_prefix_chooses_the_upstream(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    async with FakeRegistry() as mirror:
        rules = [CacheRule(ROOT, "hub"), CacheRule("hub", "hub"), CacheRule("hub/team", "mirror", "theirs")]
        theirs = mirror.add_image("theirs/app", "latest", [b"theirs"])
        async with caching_node(tmp_path, {"hub": upstream, "mirror": mirror}, clock, rules=rules) as node:
            assert (await node.manifest(repository=RepositoryName("hub/team/app"))).digest == theirs.digest
        assert upstream.requests == []


# What follows from an import


async def test_import_is_replicated_like_a_push_and_announced(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    settings = RegistrySettings(NODE, replication_rules=(ReplicationRule("all", (OTHER_NODE,)),))
    announced: list[JobKind] = []
    async with caching_node(tmp_path, {"hub": upstream}, clock, settings=settings, rules=[CHECKED_FIRST]) as node:
        node.node.on_jobs(announced.append)
        child = build_image([b"child"])
        index = build_index([child])
        upstream.add("library/alpine", index, "latest")
        await node.manifest()
        # A manifest of an index goes with the index.
        await node.manifest(child.digest)
        queued = await node.node.database.write(
            lambda: jobs.lease(JobKind.REPLICATE, "me", clock.now(), clock.now() + 60, 10)
        )
        assert [(leased.job.payload["digest"], leased.job.payload["tag"]) for leased in queued] == [
            (index.digest, "latest")
        ]
        assert announced


async def test_content_for_replication_is_fetched_when_it_is_not_here(
    node: CachingNode, upstream: FakeRegistry
) -> None:
    child = build_image([b"child"])
    index = build_index([child])
    upstream.add("library/alpine", index, "latest")
    await node.manifest()
    found = await node.cache.find_manifest_for_engine(ALPINE, child.digest)
    assert found is not None
    assert found.content == child.manifest
    assert await node.cache.find_manifest_for_engine(ALPINE, digest_of(b"absent")) is None
    # A tag is as it is here.
    assert await node.cache.find_manifest_for_engine(ALPINE, Tag("absent")) is None


# A store that fails


async def test_broken_store_is_an_error_and_no_upstream_traffic(
    node: CachingNode, upstream: FakeRegistry, tmp_path: Path
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    await node.image()
    upstream.requests.clear()
    node.node.manifest_index.clear()
    node.node.blob_index.clear()
    with sqlite3.connect(tmp_path / "metadata.db") as connection:
        for table in ("tags", "images", "repository_blobs"):
            connection.execute(f"ALTER TABLE {table} RENAME TO {table}_lost")
    connection.close()
    with pytest.raises(StorageError):
        await node.manifest()
    with pytest.raises(StorageError):
        await node.manifest(image.digest)
    with pytest.raises(StorageError):
        await node.open(image.layers[0])
    assert upstream.requests == []


async def test_cached_image_is_served_while_the_check_cannot_be_written_down(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock, tmp_path: Path
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    await node.manifest()
    with sqlite3.connect(tmp_path / "metadata.db") as connection:
        connection.execute("CREATE TRIGGER full BEFORE UPDATE ON cache_entries BEGIN SELECT RAISE(ABORT, 'full'); END")
    connection.close()
    clock.advance(HUB.fresh_for)
    assert (await node.manifest()).digest == image.digest
    assert (await node.manifest()).digest == image.digest
    # Nor does it ask the upstream again and again.
    assert upstream.count(f"HEAD {MANIFESTS}") == 1


async def test_closing_ends_what_is_under_way(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    upstream.add_image("library/alpine", "latest")
    hold = Hold()
    upstream.faults.on(MANIFESTS, Fault(hold=hold))
    async with (
        caching_node(tmp_path, {"hub": upstream}, clock, rules=[CHECKED_FIRST]) as node,
        asyncio.TaskGroup() as group,
    ):
        pulling = group.create_task(outcome(node.manifest()))
        await hold.reached()
        await node.cache.close()
    assert "shutting down" in str(pulling.result())
