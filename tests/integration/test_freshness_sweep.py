"""The sweep confirms tags that are in use before they are due, by heads only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicator.cache.sweep import FreshnessSweep, SweepSettings
from replicator.core.cache_rules import CacheRule
from replicator.core.names import RepositoryName, Tag
from replicator.storage.metadata import cache_entries
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.pull_through_node import ALPINE, HUB, LATEST, CachingNode, caching_node
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from pathlib import Path

HEADS = "HEAD /v2/*"


def sweep_of(node: CachingNode, clock: FakeClock, *, jitter: float = 0.0, **settings: float) -> FreshnessSweep:
    return FreshnessSweep(node.cache, clock, SweepSettings(**settings), lambda: jitter)  # type: ignore[arg-type]


async def test_tag_in_use_is_confirmed_so_that_no_pull_waits_for_it(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    clock.advance(HUB.fresh_for)
    assert await sweep_of(node, clock).sweep() == 1
    upstream.requests.clear()
    await node.manifest()
    assert upstream.requests == []
    assert node.observer.results["docker-hub hit"] == 1


async def test_fresh_tag_is_left_alone_until_its_moment_in_the_last_tenth(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    early, late = sweep_of(node, clock, jitter=0.99), sweep_of(node, clock, jitter=0.01)
    clock.advance(HUB.fresh_for * 0.89)
    assert await early.sweep() == 0
    clock.advance(HUB.fresh_for * 0.03)
    assert await late.sweep() == 0
    assert await early.sweep() == 1


async def test_sweep_asks_for_heads_and_fetches_what_changed(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    same = upstream.add_image("library/alpine", "same", [b"same"])
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest(Tag("same"))
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    clock.advance(HUB.fresh_for)
    upstream.requests.clear()
    sweep = sweep_of(node, clock)
    assert await sweep.sweep() == 2
    assert upstream.count(HEADS) == 2
    assert upstream.count("GET *") == 1
    assert await node.tag() == new.digest
    assert await node.tag(Tag("same")) == same.digest
    # It is not asked about again and again.
    assert await sweep.sweep() == 0
    assert (await node.manifest()).digest == new.digest
    assert node.observer.results["docker-hub hit"] == 1


@pytest.mark.parametrize("fault", [Fault(headers={"Docker-Content-Digest": ""}), Fault(status=405)])
async def test_sweep_leaves_tags_to_the_pulls_where_heads_say_nothing(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock, fault: Fault
) -> None:
    upstream.add_image("library/alpine", "latest", [b"old"])
    await node.manifest()
    new = upstream.add_image("library/alpine", "latest", [b"new"])
    upstream.faults.on(HEADS, fault)
    clock.advance(HUB.fresh_for)
    upstream.requests.clear()
    assert await sweep_of(node, clock).sweep() == 1
    assert await sweep_of(node, clock).sweep() == 0
    assert [request.method for request in upstream.requests] == ["HEAD"]
    await node.manifest()
    await node.cache.idle()
    assert await node.tag() == new.digest


async def test_tag_that_nobody_used_lately_is_left_alone(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    clock.advance(8 * HUB.fresh_for)
    assert await sweep_of(node, clock, used_within=7 * HUB.fresh_for).sweep() == 0
    assert await sweep_of(node, clock, used_within=9 * HUB.fresh_for).sweep() == 1


async def test_use_is_written_once_an_hour_not_per_pull(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rule_is_fresh_for_an_hour = HUB.fresh_for == 3600.0
    assert rule_is_fresh_for_an_hour
    upstream.add_image("library/alpine", "latest")
    sweep = sweep_of(node, clock)
    await node.manifest()
    first = clock.now()
    clock.advance(1800)
    await node.manifest()
    assert node.cache.memory.take_used() == {}
    clock.advance(1800)
    for _ in range(10):
        await node.manifest()
    await sweep.sweep()
    entry = await node.entry()
    assert entry is not None
    assert entry.used_at == clock.now() > first


async def test_pushed_tag_is_not_swept(node: CachingNode, upstream: FakeRegistry, clock: FakeClock) -> None:
    await node.push(build_image(), LATEST)
    clock.advance(10 * HUB.fresh_for)
    assert await sweep_of(node, clock).sweep() == 0
    assert upstream.requests == []


async def test_upstream_that_fails_is_left_alone_for_the_rest_of_the_round(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with FakeRegistry() as quay:
        rules = [HUB, CacheRule("quay", "quay", fresh_for=3600.0)]
        async with caching_node(tmp_path, {"hub": upstream, "quay": quay}, clock, rules=rules) as node:
            for number in range(5):
                upstream.add_image("library/alpine", f"v{number}")
                await node.manifest(Tag(f"v{number}"))
                quay.add_image("app", f"v{number}")
                await node.manifest(Tag(f"v{number}"), RepositoryName("quay/app"))
            clock.advance(HUB.fresh_for)
            upstream.faults.on("*", Fault(status=500))
            assert await sweep_of(node, clock, concurrency=1).sweep() == 6
            assert upstream.count(HEADS) == 1
            assert quay.count(HEADS) == 5


async def test_one_tag_that_may_not_be_had_does_not_keep_others_from_being_checked(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    for number in range(5):
        upstream.add_image("library/alpine", f"v{number}")
        await node.manifest(Tag(f"v{number}"))
    clock.advance(HUB.fresh_for)
    upstream.faults.on("HEAD /v2/library/alpine/manifests/v0", Fault(status=403))
    assert await sweep_of(node, clock, concurrency=1).sweep() == 5
    assert upstream.count(HEADS) == 5
    # Nor is it asked about in every round.
    assert await sweep_of(node, clock, concurrency=1).sweep() == 0
    clock.advance(600.0)
    assert await sweep_of(node, clock, concurrency=1).sweep() == 1


async def test_number_of_checks_at_a_time_is_bounded(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    for number in range(10):
        upstream.add_image("library/alpine", f"v{number}")
        await node.manifest(Tag(f"v{number}"))
    clock.advance(HUB.fresh_for)
    hold = Hold()
    upstream.faults.on(HEADS, Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        sweeping = group.create_task(sweep_of(node, clock, concurrency=3).sweep())
        await upstream.seen(HEADS, 3)
        assert hold.waiting == 3
        hold.release()
    assert sweeping.result() == 10


async def test_rule_that_is_fresh_for_long_does_not_stand_in_front_of_one_that_is_not(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rules = [
        CacheRule("ROOT", "hub", fresh_for=1e6),
        CacheRule("slow", "hub", fresh_for=1e6),
        CacheRule("slow/fast", "hub", fresh_for=3600.0),
    ]
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=rules) as node:
        for name, upstream_name in (("slow/app", "app"), ("app", "app"), ("slow/fast/app", "app")):
            for number in range(5):
                upstream.add_image(upstream_name, f"v{number}")
                await node.manifest(Tag(f"v{number}"), RepositoryName(name))
            clock.advance(1)
        clock.advance(3600.0)
        assert await sweep_of(node, clock, batch=5).sweep() == 5
        fast = await node.entry(Tag("v0"), RepositoryName("slow/fast/app"))
        slow = await node.entry(Tag("v0"), RepositoryName("slow/app"))
        assert fast is not None
        assert slow is not None
        assert fast.checked_at == clock.now()
        assert slow.checked_at < clock.now()


async def test_entry_of_a_repository_that_no_rule_covers_any_more_is_left_alone(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        image = upstream.add_image("library/alpine", "latest")
        await node.manifest()
    clock.advance(HUB.fresh_for)
    upstream.requests.clear()
    async with caching_node(tmp_path, {"hub": upstream}, clock, rules=[]) as node:
        assert await sweep_of(node, clock).sweep() == 0
        assert (await node.manifest()).digest == image.digest
        assert upstream.requests == []


async def test_rounds_follow_each_other_with_jitter_until_cancelled(tmp_path: Path, upstream: FakeRegistry) -> None:
    clock = FakeClock()
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        upstream.add_image("library/alpine", "latest")
        await node.manifest()
        clock.advance(HUB.fresh_for)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sweep_of(node, clock, jitter=0.25, interval=100.0).run())
            await clock.sleepers(1)
            clock.advance(75.0)
            await upstream.seen(HEADS)
            await clock.sleepers(1)
            running.cancel()
    assert clock.slept == [75.0, 75.0]


async def test_store_that_fails_does_not_end_the_sweep(
    tmp_path: Path, upstream: FakeRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    async with caching_node(tmp_path, {"hub": upstream}, clock) as node:
        await node.node.database.close()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(sweep_of(node, clock).run())
            for _ in range(2):
                await clock.sleepers(1)
                clock.advance(1000.0)
                await asyncio.sleep(0)
            await clock.sleepers(1)
            running.cancel()
    assert "freshness sweep could not use the store" in caplog.text


async def test_last_use_survives_a_check_that_began_before_it(
    node: CachingNode, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add_image("library/alpine", "latest")
    await node.manifest()
    entry = await node.entry()
    assert entry is not None
    clock.advance(HUB.fresh_for)
    await node.node.database.write(lambda: cache_entries.touch(ALPINE, LATEST, clock.now()))
    source = node.cache.upstreams.find(ALPINE)
    assert source is not None
    await node.cache.checks.check(source, entry, heads_only=True)
    confirmed = await node.entry()
    assert confirmed is not None
    assert confirmed.used_at == clock.now()
