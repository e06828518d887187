"""What pulls of cached tags do as these age, and what becomes of a tag that changed, went back or is gone upstream."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.cache.check_outcome import CheckOutcome
from replicator.cache.limits import CacheLimits
from replicator.cache.sweep import FreshnessSweep, SweepSettings
from replicator.core.cache_rules import ROOT, CacheRule, FreshnessProfile, OnNotFound, Selection
from replicator.core.cache_status import CacheResult, PullTrace
from replicator.core.errors import (
    Denied,
    ManifestNotFound,
    RepositoryNotFound,
    UpstreamContent,
    UpstreamError,
    UpstreamUnavailable,
)
from replicator.core.freshness import FAILED_CHECK_PAUSE
from replicator.core.jobs import JobKind
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag
from replicator.core.platforms import Platform
from replicator.core.principal import UNRESTRICTED
from replicator.registry.settings import RegistrySettings
from replicator.storage.metadata import cache_history, jobs, tags
from tests.support.images import build_image, build_index
from tests.support.pull_through_node import ALPINE, HUB, LATEST, caching_node, outcome
from tests.support.single_node import NODE
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.core.reference import Reference
    from replicator.storage.metadata.images import StoredManifest
    from tests.support.clock import FakeClock
    from tests.support.images import BuiltImage
    from tests.support.pull_through_node import CachingNode

MANIFESTS = "/v2/library/alpine/manifests/*"
HEADS, GETS = f"HEAD {MANIFESTS}", f"GET {MANIFESTS}"
HOUR = 3600.0
CHECKED_FIRST = replace(HUB, stale_while_revalidate=0.0)


async def pull(node: CachingNode, reference: Reference = LATEST) -> tuple[StoredManifest, PullTrace]:
    trace = PullTrace()
    manifest = await node.cache.get_manifest(UNRESTRICTED, ALPINE, reference, trace)
    return manifest, trace


async def refused(node: CachingNode, reference: Reference = LATEST) -> tuple[Exception, PullTrace]:
    trace = PullTrace()
    with pytest.raises((ManifestNotFound, UpstreamError)) as raised:
        await node.cache.get_manifest(UNRESTRICTED, ALPINE, reference, trace)
    return raised.value, trace


def sweep_of(node: CachingNode, clock: FakeClock) -> FreshnessSweep:
    return FreshnessSweep(node.cache, clock, SweepSettings(), lambda: 0.0)


# Served at once, checked behind the puller's back


async def test_due_tag_is_served_at_once_and_checked_behind_the_pullers_back(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    old = upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new, hold = upstream.add_image("library/alpine", "latest", [b"new"]), Hold()
    upstream.faults.on(HEADS, Fault(hold=hold), times=1)
    clock.advance(HUB.fresh_for)
    upstream.requests.clear()
    for _ in range(10):
        manifest, trace = await pull(node)
        assert manifest.digest == old.digest
        assert (trace.result, trace.age, trace.ttl) == (CacheResult.STALE, HUB.fresh_for, 0.0)
    await hold.reached()
    hold.release()
    await node.cache.idle()
    assert [request.method for request in upstream.requests] == ["HEAD", "GET"]
    manifest, trace = await pull(node)
    assert manifest.digest == new.digest
    assert (trace.result, trace.age, trace.ttl) == (CacheResult.HIT, 0.0, HUB.fresh_for)


async def test_after_the_window_a_pull_waits_for_the_check(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    clock.advance(HUB.fresh_for + HUB.stale_while_revalidate)
    manifest, trace = await pull(node)
    assert manifest.digest == new.digest
    assert (trace.result, trace.status, trace.age) == (CacheResult.MISS, 200, 0.0)


async def test_checks_behind_the_back_are_remembered_across_restarts(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        await node.manifest()
        clock.advance(HUB.fresh_for)
        await node.manifest()
        await node.cache.idle()
    upstream.requests.clear()
    clock.advance(HUB.fresh_for - 1)
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        _, trace = await pull(node)
    assert (trace.result, upstream.requests) == (CacheResult.HIT, [])


async def test_failed_check_is_told_to_the_next_pullers(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    upstream.faults.on("*", Fault(status=500))
    clock.advance(HUB.fresh_for + 60)
    _, first = await pull(node)
    await node.cache.idle()
    _, second = await pull(node)
    assert (first.result, first.error) == (CacheResult.STALE, None)
    assert second.result is CacheResult.STALE
    assert second.error is not None
    assert "500" in second.error
    assert (second.age, second.ttl) == (HUB.fresh_for + 60, -60.0)


async def test_tags_are_fresh_for_as_long_as_their_profile_says(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, fresh_for=24 * HOUR, freshness=(FreshnessProfile(("latest",), HOUR),))
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        for tag in ("latest", "1.0.0"):
            upstream.add_image("library/alpine", tag)
            await node.manifest(Tag(tag))
        clock.advance(HOUR)
        assert (await pull(node))[1].result is CacheResult.STALE
        assert (await pull(node, Tag("1.0.0")))[1].result is CacheResult.HIT
        await node.cache.idle()
        assert await sweep_of(node, clock).sweep() == 0
        clock.advance(HOUR)
        upstream.requests.clear()
        assert await sweep_of(node, clock).sweep() == 1
        assert [request.path.rpartition("/")[2] for request in upstream.requests] == ["latest"]


# The upstream's rate limit


async def test_checks_cease_before_the_rate_limit_is_spent_and_misses_go_on(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.headers.update({"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "5;w=21600"})
    for tag in ("latest", "edge"):
        upstream.add_image("library/alpine", tag, [tag.encode()])
    await node.manifest()
    clock.advance(HUB.fresh_for)
    upstream.requests.clear()
    assert (await pull(node))[1].result is CacheResult.STALE
    await node.cache.idle()
    assert await sweep_of(node, clock).sweep() == 0
    assert upstream.requests == []
    assert (await pull(node, Tag("edge")))[1].result is CacheResult.MISS
    # Once the window has passed, what was said of it counts no more.
    clock.advance(21600)
    await node.manifest()
    await node.cache.idle()
    assert upstream.count(HEADS) == 1


async def test_checks_are_stretched_as_the_rate_limit_runs_low(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    # 30 of 100 left: four and a half times as long
    upstream.headers.update({"RateLimit-Limit": "100;w=216000", "RateLimit-Remaining": "30;w=216000"})
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    clock.advance(4.4 * HUB.fresh_for)
    await node.manifest()
    await node.cache.idle()
    assert await sweep_of(node, clock).sweep() == 0
    assert upstream.count(HEADS) == 0
    clock.advance(0.2 * HUB.fresh_for)
    assert await sweep_of(node, clock).sweep() == 1


async def test_upstream_that_wants_to_be_left_alone_is(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    for number in range(3):
        upstream.add_image("library/alpine", f"v{number}")
        await node.manifest(Tag(f"v{number}"))
    clock.advance(HUB.fresh_for)
    upstream.faults.on(HEADS, Fault(status=429, headers={"Retry-After": "7200"}))
    await sweep_of(node, clock).sweep()
    asked = upstream.count(HEADS)
    for _ in range(10):
        clock.advance(FAILED_CHECK_PAUSE + 1)
        for number in range(3):
            assert (await pull(node, Tag(f"v{number}")))[1].result is CacheResult.STALE
        assert await sweep_of(node, clock).sweep() == 0
    await node.cache.idle()
    assert upstream.count(HEADS) == asked <= 4
    upstream.faults.clear()
    clock.advance(7200)
    assert await sweep_of(node, clock).sweep() == 3


# Too old to be served


async def test_what_is_too_old_is_refused_with_its_age_and_the_upstreams_error(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, max_stale=2 * HUB.fresh_for)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        image = upstream.add_image("library/alpine", "latest")
        await node.manifest()
        upstream.faults.on("*", Fault(status=500))
        clock.advance(2 * HUB.fresh_for - 1)
        assert (await node.manifest()).digest == image.digest
        await node.cache.idle()
        clock.advance(FAILED_CHECK_PAUSE + 1)
        error, trace = await refused(node)
        assert isinstance(error, UpstreamUnavailable)
        for part in ("hub", "7230 s", "max_stale", "docker-hub", "7200 s", "500"):
            assert part in str(error)
        assert (trace.result, trace.age) == (CacheResult.ERROR, 2 * HUB.fresh_for + FAILED_CHECK_PAUSE)
        upstream.requests.clear()
        error, _ = await refused(node)
        assert isinstance(error, UpstreamUnavailable)
        assert error.retry_after == FAILED_CHECK_PAUSE
        assert upstream.requests == []
        # A digest is never too old.
        assert (await node.manifest(image.digest)).digest == image.digest
        upstream.faults.clear()
        clock.advance(FAILED_CHECK_PAUSE)
        assert (await pull(node))[1].result is CacheResult.REVALIDATED


async def test_pull_of_what_is_too_old_waits_as_long_as_a_cold_one(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule, limits = replace(HUB, max_stale=HUB.fresh_for), CacheLimits(stale_wait=0.02, cold_wait=5.0)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule], limits=limits) as node:
        upstream.add_image("library/alpine", "latest", [b"old"])
        await node.manifest()
        new, hold = upstream.add_image("library/alpine", "latest", [b"new"]), Hold()
        upstream.faults.on(HEADS, Fault(hold=hold), times=1)
        clock.advance(HUB.fresh_for)
        async with asyncio.TaskGroup() as group:
            pulls = [group.create_task(node.manifest()) for _ in range(3)]
            await hold.reached()
            await asyncio.wait(pulls, timeout=0.1)
            hold.release()
        assert {one.result().digest for one in pulls} == {new.digest}
        upstream.faults.on(HEADS, Fault(hold=Hold()))
        clock.advance(HUB.fresh_for)
        limits_of_hung = CacheLimits(stale_wait=0.02, cold_wait=0.1)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule], limits=limits_of_hung) as node:
        error, _ = await refused(node)
        assert "no answer in time" in str(error)


async def test_what_is_too_old_and_gone_is_not_found(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    rule = replace(HUB, max_stale=HUB.fresh_for)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        upstream.add_image("library/alpine", "latest")
        await node.manifest()
        del upstream.repository("library/alpine").tags["latest"]
        clock.advance(HUB.fresh_for)
        error, trace = await refused(node)
        assert isinstance(error, ManifestNotFound)
        assert "max_stale" in str(error)
        assert (trace.result, trace.status) == (CacheResult.ERROR, 404)


# Cool-down


async def test_new_digest_is_served_after_the_cool_down_and_the_previous_one_until_then(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(CHECKED_FIRST, cool_down=10.5 * HOUR)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        # There is no previous one: served at once.
        old = upstream.add_image("library/alpine", "latest", [b"old"])
        assert (await node.manifest()).digest == old.digest
        new = upstream.add_image("library/alpine", "latest", [b"new"])
        clock.advance(HOUR)
        first_seen = clock.now()
        manifest, trace = await pull(node)
        assert manifest.digest == old.digest
        assert (trace.result, trace.age) == (CacheResult.REVALIDATED, 0.0)
        entry = await node.entry()
        assert entry is not None
        assert (entry.pending_digest, entry.digest) == (new.digest, old.digest)
        assert await node.origin(new.digest) is None
        for _ in range(10):
            clock.advance(HOUR)
            assert (await node.manifest()).digest == old.digest
        assert node.observer.findings == {"docker-hub cool-down": 1}
        entry = await node.entry()
        assert entry is not None
        assert entry.due_at == first_seen + 10.5 * HOUR
        # It moves when the cool-down ends, not when the tag is due next.
        clock.advance(HOUR / 2)
        await node.manifest()
        await node.cache.idle()
        assert (await node.manifest()).digest == new.digest
        entry = await node.entry()
        assert entry is not None
        assert entry.pending_digest is None


async def test_sweep_moves_a_tag_when_its_cool_down_has_ended(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, cool_down=1.5 * HOUR)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        upstream.add_image("library/alpine", "latest", [b"old"])
        await node.manifest()
        new = upstream.add_image("library/alpine", "latest", [b"new"])
        checked = []
        for _ in range(6):
            clock.advance(HOUR / 2)
            checked.append(await sweep_of(node, clock).sweep())
        # due after an hour; held back until an hour and a half later, with a look at its freshness in between
        assert checked == [0, 1, 0, 1, 1, 0]
        assert await node.tag() == new.digest


async def test_digest_that_was_withdrawn_during_its_cool_down_is_never_served(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(CHECKED_FIRST, cool_down=2 * HOUR)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        old = upstream.add_image("library/alpine", "latest", [b"old"])
        await node.manifest()
        evil = upstream.add_image("library/alpine", "latest", [b"evil"])
        clock.advance(HOUR)
        await node.manifest()
        upstream.repository("library/alpine").tags["latest"] = old.digest
        for _ in range(4):
            clock.advance(HOUR)
            assert (await node.manifest()).digest == old.digest
        entry = await node.entry()
        assert entry is not None
        assert entry.pending_digest is None
        assert await node.origin(evil.digest) is None


async def test_digest_that_was_served_before_needs_no_cool_down(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(CHECKED_FIRST, cool_down=2 * HOUR)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        old = upstream.add_image("library/alpine", "latest", [b"old"])
        await node.manifest()
        new = upstream.add_image("library/alpine", "latest", [b"new"])
        for _ in range(4):
            clock.advance(HOUR)
            await node.manifest()
        await node.cache.idle()
        assert await node.tag() == new.digest
        upstream.repository("library/alpine").tags["latest"] = old.digest
        clock.advance(HOUR)
        assert (await node.manifest()).digest == old.digest


# Immutable here, back to what was before, gone


async def test_drift_of_an_immutable_tag_is_reported_once_and_forgotten_when_it_ends(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    settings = RegistrySettings(NODE, mutability=MutabilityRule(TagMutability.IMMUTABLE))
    async with caching_node(tmp_path, {"hub": upstream}, clock, settings=settings, rules=[CHECKED_FIRST]) as node:
        old = upstream.add_image("library/alpine", "latest", [b"old"])
        await node.manifest()
        new = upstream.add_image("library/alpine", "latest", [b"new"])
        for _ in range(3):
            clock.advance(HUB.fresh_for)
            manifest, trace = await pull(node)
            assert manifest.digest == old.digest
            assert trace.result is CacheResult.REVALIDATED
        entry = await node.entry()
        assert entry is not None
        assert entry.drift_digest == new.digest
        assert node.observer.findings == {"docker-hub drift": 1}
        assert caplog.text.count("worth a look") == 1
        assert upstream.count(GETS) == 1
        upstream.repository("library/alpine").tags["latest"] = old.digest
        clock.advance(HUB.fresh_for)
        await node.manifest()
        entry = await node.entry()
        assert entry is not None
        assert entry.drift_digest is None


async def test_tag_that_is_gone_upstream_is_kept_and_not_asked_for_again_and_again(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    await node.image()
    del upstream.repository("library/alpine").tags["latest"]
    clock.advance(HUB.fresh_for)
    upstream.requests.clear()
    await node.manifest()
    await node.cache.idle()
    gone_at = clock.now()
    assert [request.method for request in upstream.requests] == ["HEAD", "GET"]
    for _ in range(5):
        clock.advance(FAILED_CHECK_PAUSE + 1)
        manifest, trace = await pull(node)
        assert manifest.digest == image.digest
        assert trace.result is CacheResult.STALE
        assert trace.error
    await node.cache.idle()
    assert await sweep_of(node, clock).sweep() == 0
    assert len(upstream.requests) == 2
    assert await node.image() == image.blobs
    entry = await node.entry()
    assert entry is not None
    assert entry.gone_at == gone_at
    assert node.observer.findings == {"docker-hub gone": 1}
    upstream.repository("library/alpine").tags["latest"] = image.digest
    clock.advance(HUB.fresh_for)
    assert await sweep_of(node, clock).sweep() == 1
    entry = await node.entry()
    assert entry is not None
    assert (entry.gone_at, entry.failed_at, entry.checked_at) == (None, None, clock.now())


async def test_tag_that_is_gone_upstream_goes_here_too_where_the_rule_follows(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(CHECKED_FIRST, on_not_found=OnNotFound.FOLLOW)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        image = upstream.add_image("library/alpine", "latest")
        await node.image()
        del upstream.repository("library/alpine").tags["latest"]
        clock.advance(HUB.fresh_for)
        error, trace = await refused(node)
        assert isinstance(error, ManifestNotFound)
        assert (trace.result, trace.status) == (CacheResult.MISS, 404)
        assert (trace.was_cached, trace.age, trace.ttl) == (True, None, None)
        assert await node.entry() is None
        # As if it had never been: no other node hears of a deletion.
        assert await node.node.database.read(tags.find(ALPINE, LATEST)) is None
        assert (await node.manifest(image.digest)).digest == image.digest
        upstream.repository("library/alpine").tags["latest"] = image.digest
        assert (await node.manifest()).digest == image.digest


async def test_behind_the_back_a_tag_that_is_gone_is_served_once_more(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, on_not_found=OnNotFound.FOLLOW)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        image = upstream.add_image("library/alpine", "latest")
        await node.manifest()
        del upstream.repository("library/alpine").tags["latest"]
        clock.advance(HUB.fresh_for)
        assert (await node.manifest()).digest == image.digest
        await node.cache.idle()
        with pytest.raises(ManifestNotFound):
            await node.manifest()


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=401), Fault(drop=True), Fault(status=429)])
async def test_outage_is_not_taken_for_a_tag_that_is_gone(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, fault: Fault
) -> None:
    rule = replace(CHECKED_FIRST, on_not_found=OnNotFound.FOLLOW)
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        image = upstream.add_image("library/alpine", "latest")
        await node.manifest()
        upstream.faults.on(HEADS, Fault(status=404))
        upstream.faults.on(GETS, fault)
        clock.advance(HUB.fresh_for)
        assert (await node.manifest()).digest == image.digest
        entry = await node.entry()
        assert entry is not None
        assert entry.gone_at is None


async def test_head_that_names_what_cannot_be_had_is_settled_by_a_get(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[CHECKED_FIRST]) as node:
        image = upstream.add_image("library/alpine", "latest")
        await node.manifest()
        lie = build_image([b"nowhere"]).digest
        upstream.faults.on(HEADS, Fault(headers={"Docker-Content-Digest": lie}))
        clock.advance(HUB.fresh_for)
        manifest, trace = await pull(node)
        assert (manifest.digest, trace.result) == (image.digest, CacheResult.REVALIDATED)
        assert await node.tag() == image.digest


# Remembered failures


async def test_what_the_upstream_did_not_have_is_not_asked_for_again_for_a_while(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    absent = build_image([b"absent"]).digest
    for reference in (Tag("absent"), absent):
        upstream.requests.clear()
        first, trace = await refused(node, reference)
        assert isinstance(first, ManifestNotFound)
        assert (trace.result, trace.status) == (CacheResult.MISS, 404)
        second, trace = await refused(node, reference)
        assert str(second) == str(first)
        assert trace.result is CacheResult.NEGATIVE
        assert len(upstream.requests) == 1
    image = upstream.add_image("library/alpine", "absent")
    clock.advance(HUB.negative_for)
    assert (await node.manifest(Tag("absent"))).digest == image.digest
    assert node.observer.results == {"docker-hub miss": 3, "docker-hub negative": 2}


async def test_garbage_is_remembered_and_forgotten_by_operators(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest")
    upstream.faults.on(MANIFESTS, Fault(body=b"<html>", content_type="text/html"), times=1)
    first, trace = await refused(node)
    assert isinstance(first, UpstreamContent)
    assert trace.result is CacheResult.ERROR
    second, trace = await refused(node)
    assert isinstance(second, UpstreamContent)
    assert second.retry_after == HUB.negative_for
    assert trace.result is CacheResult.NEGATIVE
    assert upstream.count() == 1
    node.cache.forget_negative(ALPINE)
    assert (await node.manifest()).digest == image.digest


async def test_outages_are_not_remembered(node: CachingNode, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest", [b"layer"])
    upstream.faults.on(MANIFESTS, Fault(cut_after=5), times=1)
    error, trace = await refused(node)
    assert (trace.result, trace.error) == (CacheResult.ERROR, str(error))
    assert (await node.manifest()).digest == image.digest


async def test_push_of_what_was_missing_is_seen_at_once(node: CachingNode, upstream: FakeRegistry) -> None:
    await refused(node)
    ours = build_image([b"ours"])
    await node.push(ours, LATEST)
    assert (await node.manifest()).digest == ours.digest
    assert upstream.count() == 1


# What may be pulled


async def test_what_the_rule_does_not_allow_is_denied_before_anybody_is_asked(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        await node.image()
    upstream.requests.clear()
    rules = [replace(HUB, repositories=Selection(deny=("library/alp*",)))]
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=rules) as node:
        # also what is cached
        for reference in (LATEST, image.digest):
            with pytest.raises(Denied, match=r"docker-hub .*library/alpine"):
                await node.manifest(reference)
        with pytest.raises(Denied, match="docker-hub"):
            await node.open(image.layers[0])
        with pytest.raises(Denied, match="docker-hub"):
            await node.cache.get_blob_size(UNRESTRICTED, ALPINE, image.layers[0])
        with pytest.raises(Denied):
            await node.cache.refresh(ALPINE, LATEST)
        assert await node.cache.find_manifest_for_engine(ALPINE, build_image([b"other"]).digest) is None
        clock.advance(HUB.fresh_for)
        assert await sweep_of(node, clock).sweep() == 0
    rules = [replace(HUB, tags=Selection(allow=("3.*",)))]
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=rules) as node:
        with pytest.raises(Denied, match=r"docker-hub .*latest"):
            await node.manifest()
        assert (await node.manifest(image.digest)).digest == image.digest
    assert upstream.requests == []


async def test_what_was_pushed_below_a_rule_for_all_names_is_not_the_rules_to_refuse(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rules = [CacheRule(ROOT, "hub", repositories=Selection(allow=("library/*",)))]
    private = RepositoryName("team/app")
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=rules) as node:
        ours = build_image([b"ours"])
        await node.push(ours, LATEST, private)
        assert (await node.manifest(LATEST, private)).digest == ours.digest
        with pytest.raises(Denied):
            await node.manifest(LATEST, RepositoryName("other/app"))


# Platforms


AMD = Platform("linux", "amd64")


async def test_first_pull_of_an_index_has_its_platforms_fetched_by_a_job(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    announced: list[JobKind] = []
    rule = replace(HUB, platforms=(AMD,))
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        node.node.on_jobs(announced.append)
        index = build_index([build_image([b"amd"]), build_image([b"arm"], platform=("linux", "arm64"))])
        upstream.add("library/alpine", index, "latest")
        assert (await node.manifest()).digest == index.digest
        leased = await node.node.database.write(lambda: jobs.lease(JobKind.PREFETCH, "me", clock.now(), 2e9, 10))
        assert [(one.job.key, one.job.payload) for one in leased] == [
            (
                f"{ALPINE}@{index.digest}",
                {"repository": ALPINE, "digest": index.digest, "platforms": ["linux/amd64"]},
            )
        ]
        assert JobKind.PREFETCH in announced


async def test_tag_moves_when_the_content_of_its_platforms_is_here_and_not_before(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, platforms=(AMD,))
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        old = build_index([build_image([b"old"])])
        upstream.add("library/alpine", old, "latest")
        await node.manifest()
        amd, arm = build_image([b"amd"]), build_image([b"arm"], platform=("linux", "arm64"))
        new, hold = build_index([amd, arm]), Hold()
        upstream.add("library/alpine", new, "latest")
        layer = f"GET /v2/library/alpine/blobs/{amd.layers[0]}"
        upstream.faults.on(layer, Fault(hold=hold), times=1)
        clock.advance(HUB.fresh_for)
        assert (await node.manifest()).digest == old.digest
        await hold.reached()
        assert (await node.manifest()).digest == old.digest
        assert await node.tag() == old.digest
        hold.release()
        await node.cache.idle()
        assert await node.tag() == new.digest
        assert await node.origin(arm.digest) is None
        await upstream.stop()
        assert (await node.manifest()).digest == new.digest
        assert await node.image(amd.digest) == amd.blobs


async def test_tag_stays_when_the_content_of_its_platforms_cannot_be_had(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(CHECKED_FIRST, platforms=(AMD,))
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[rule]) as node:
        old = build_index([build_image([b"old"])])
        upstream.add("library/alpine", old, "latest")
        await node.manifest()
        amd = build_image([b"amd"])
        new = build_index([amd])
        upstream.add("library/alpine", new, "latest")
        upstream.faults.on(f"/v2/library/alpine/blobs/{amd.layers[0]}", Fault(status=404))
        clock.advance(HUB.fresh_for)
        manifest, trace = await pull(node)
        assert manifest.digest == old.digest
        assert trace.result is CacheResult.STALE
        assert trace.error
        upstream.faults.clear()
        clock.advance(FAILED_CHECK_PAUSE)
        assert (await node.manifest()).digest == new.digest


# Mirrors


async def test_tag_of_an_image_that_is_whole_moves_when_the_next_one_is_whole(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    first = upstream.add_image("library/alpine", "latest", [b"first"])
    await node.image()
    second = upstream.add_image("library/alpine", "latest", [b"second"])
    upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(status=503))
    clock.advance(HUB.fresh_for)
    for _ in range(2):
        assert (await pull(node))[0].digest == first.digest
        await node.cache.idle()
    upstream.faults.clear()
    clock.advance(FAILED_CHECK_PAUSE)
    await pull(node)
    await node.cache.idle()
    await upstream.stop()
    assert (await pull(node))[0].digest == second.digest
    await node.image()


async def test_only_the_platforms_that_were_whole_are_needed_for_the_next_index(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    def index_of(number: int) -> list[BuiltImage]:
        platforms = (("linux", "amd64"), ("linux", "arm64"))
        images = [build_image([f"{one} {number}".encode()], platform=one) for one in platforms]
        upstream.add("library/alpine", build_index(images), "latest")
        return images

    old = index_of(1)
    await pull(node)
    await node.image(old[0].digest)
    amd, arm = index_of(2)
    clock.advance(HUB.fresh_for)
    await pull(node)
    await node.cache.idle()
    await upstream.stop()
    _, trace = await pull(node)
    assert trace.result is CacheResult.HIT
    await node.image(amd.digest)
    assert await node.origin(arm.digest) is None, "nobody ever pulled that platform"


async def test_tag_of_which_only_the_manifest_is_here_moves_without_its_blobs(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"first"])
    await pull(node)
    second = upstream.add_image("library/alpine", "latest", [b"second"])
    clock.advance(HUB.fresh_for)
    await pull(node)
    await node.cache.idle()
    assert (await pull(node))[0].digest == second.digest
    assert upstream.count("GET /v2/library/alpine/blobs/*") == 0


async def test_what_is_too_old_to_be_served_is_not_kept_until_the_next_one_is_whole(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rules = [replace(HUB, max_stale=2 * HUB.fresh_for)]
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=rules) as node:
        upstream.add_image("library/alpine", "latest", [b"first"])
        await node.image()
        second = upstream.add_image("library/alpine", "latest", [b"second"])
        upstream.faults.on("GET /v2/library/alpine/blobs/*", Fault(status=503))
        clock.advance(2 * HUB.fresh_for)
        assert (await pull(node))[0].digest == second.digest


async def test_what_a_mirror_kept_is_as_old_as_it_says(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(HUB, mirrors=("near",))
    async with FakeRegistry() as near:
        image = near.add_image("library/alpine", "latest")
        near.faults.on(MANIFESTS, Fault(headers={"Age": "600"}))
        async with caching_node(tmp_path, {"near": near, "hub": upstream}, clock, rules=[rule]) as node:
            manifest, trace = await pull(node)
            assert manifest.digest == image.digest
            assert (trace.result, trace.age, trace.ttl) == (CacheResult.MISS, 600.0, HUB.fresh_for - 600)
            entry = await node.entry()
            assert entry is not None
            assert (entry.checked_at, entry.due_at) == (clock.now() - 600, clock.now() - 600 + HUB.fresh_for)
            assert upstream.requests == []
            # What the mirror kept for longer than we would is no news: the authority is asked.
            upstream.add("library/alpine", image, "latest")
            near.faults.on(MANIFESTS, Fault(headers={"Age": "3600"}))
            clock.advance(HUB.fresh_for)
            await node.manifest()
            await node.cache.idle()
            assert upstream.count(HEADS) == 1
            entry = await node.entry()
            assert entry is not None
            assert entry.checked_at == clock.now()


async def test_mirror_is_believed_when_the_authority_cannot_be_asked(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule = replace(CHECKED_FIRST, mirrors=("near",))
    async with FakeRegistry() as near:
        old = near.add_image("library/alpine", "latest", [b"old"])
        async with caching_node(tmp_path, {"near": near, "hub": upstream}, clock, rules=[rule]) as node:
            await node.manifest()
            new = near.add_image("library/alpine", "latest", [b"new"])
            upstream.faults.on("*", Fault(status=500))
            clock.advance(2 * HUB.fresh_for)
            # What it knows from before we asked last is no news, and could take the tag back.
            near.faults.on(MANIFESTS, Fault(headers={"Age": "7200"}))
            assert (await node.manifest()).digest == old.digest
            near.faults.on(MANIFESTS, Fault(headers={"Age": "3700"}))
            clock.advance(FAILED_CHECK_PAUSE)
            assert (await node.manifest()).digest == new.digest


# Operators


async def test_refresh_checks_whatever_failed_a_moment_ago(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    assert await node.cache.refresh(ALPINE, LATEST) is CheckOutcome.CONFIRMED
    clock.advance(HUB.fresh_for)
    upstream.faults.on(MANIFESTS, Fault(status=403), times=1)
    assert await node.cache.refresh(ALPINE, LATEST) is CheckOutcome.FAILED
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    assert await node.cache.refresh(ALPINE, LATEST) is CheckOutcome.CHANGED
    assert await node.tag() == new.digest
    del upstream.repository("library/alpine").tags["latest"]
    assert await node.cache.refresh(ALPINE, LATEST) is CheckOutcome.GONE


async def test_refresh_fetches_what_was_missing_a_moment_ago(node: CachingNode, upstream: FakeRegistry) -> None:
    await refused(node)
    with pytest.raises(ManifestNotFound):
        await node.cache.refresh(ALPINE, LATEST)
    image = upstream.add_image("library/alpine", "latest")
    assert await node.cache.refresh(ALPINE, LATEST) is CheckOutcome.CHANGED
    assert await node.tag() == image.digest


async def test_refresh_of_what_no_upstream_has_a_say_in_is_refused(node: CachingNode, upstream: FakeRegistry) -> None:
    with pytest.raises(RepositoryNotFound, match="no cache rule"):
        await node.cache.refresh(RepositoryName("team/app"), LATEST)
    await node.push(build_image([b"ours"]), LATEST)
    with pytest.raises(ManifestNotFound, match="pushed"):
        await node.cache.refresh(ALPINE, LATEST)
    assert upstream.requests == []


async def test_history_tells_what_a_tag_was(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[CHECKED_FIRST]) as node:
        digests = []
        for number in range(3):
            digests.append(upstream.add_image("library/alpine", "latest", [b"%d" % number]).digest)
            await node.manifest()
            clock.advance(HUB.fresh_for)
        history = await node.node.database.read(cache_history.newest(ALPINE, LATEST))
        assert [seen.digest for seen in history] == digests[::-1]
        assert all(seen.served_at is not None for seen in history)


async def test_collapsed_pulls_say_so(node: CachingNode, upstream: FakeRegistry) -> None:
    upstream.add_image("library/alpine", "latest")
    async with asyncio.TaskGroup() as group:
        pulls = [group.create_task(pull(node)) for _ in range(5)]
    traces = [one.result()[1] for one in pulls]
    assert sorted(trace.collapsed for trace in traces) == [False, True, True, True, True]
    assert {(trace.result, trace.rule, trace.status) for trace in traces} == {(CacheResult.MISS, "docker-hub", 200)}


async def test_closed_cache_says_so(node: CachingNode, upstream: FakeRegistry, clock: FakeClock) -> None:
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    hold = Hold()
    upstream.faults.on(MANIFESTS, Fault(hold=hold))
    clock.advance(HUB.fresh_for)
    async with asyncio.TaskGroup() as group:
        sweeping = group.create_task(outcome(sweep_of(node, clock).sweep()))
        await hold.reached()
        await node.cache.close()
    assert sweeping.result() == 1
