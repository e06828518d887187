"""One piece of work for everybody who asks at the same time."""

from __future__ import annotations

import asyncio

import pytest

from replicator.core.errors import ShuttingDown, UpstreamUnavailable
from replicator.upstream.single_flight import SingleFlight


class Work:
    """Counts how often it ran, and ends when told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def __call__(self) -> int:
        self.runs += 1
        self.started.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return self.runs


async def test_runs_once_for_all_and_again_afterwards() -> None:
    flights, work = SingleFlight[str, int](), Work()
    async with asyncio.TaskGroup() as group:
        waiters = [group.create_task(flights.run("a", work)) for _ in range(5)]
        await work.started.wait()
        work.go.set()
    assert [waiter.result() for waiter in waiters] == [1] * 5
    assert await flights.run("a", work) == 2


async def test_keys_do_not_wait_for_each_other() -> None:
    flights, stuck, quick = SingleFlight[str, int](), Work(), Work()
    quick.go.set()
    async with asyncio.TaskGroup() as group:
        group.create_task(flights.run("a", stuck))
        assert await flights.run("b", quick) == 1
        stuck.go.set()


async def test_every_waiter_gets_the_failure() -> None:
    flights, work = SingleFlight[str, int](), Work()
    work.failure = UpstreamUnavailable("down")

    async def wait() -> None:
        with pytest.raises(UpstreamUnavailable, match="down"):
            await flights.run("a", work)

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(wait())
        await work.started.wait()
        work.go.set()
    assert work.runs == 1


async def test_cancelled_waiter_leaves_the_work_to_the_others() -> None:
    flights, work = SingleFlight[str, int](), Work()
    async with asyncio.TaskGroup() as group:
        first = group.create_task(flights.run("a", work))
        await work.started.wait()
        second = group.create_task(flights.run("a", work))
        await asyncio.sleep(0)
        first.cancel()
        work.go.set()
    assert first.cancelled()
    assert second.result() == 1


async def test_work_that_nobody_waits_for_may_fail_quietly() -> None:
    flights, work = SingleFlight[str, int](), Work()
    work.failure = UpstreamUnavailable("down")
    async with asyncio.TaskGroup() as group:
        waiter = group.create_task(flights.run("a", work))
        await work.started.wait()
        waiter.cancel()
    work.go.set()
    await flights.close()


async def test_close_ends_the_work_and_tells_the_waiters() -> None:
    flights, work = SingleFlight[str, int](), Work()

    async def wait() -> None:
        with pytest.raises(ShuttingDown):
            await flights.run("a", work)

    async with asyncio.TaskGroup() as group:
        group.create_task(wait())
        await work.started.wait()
        await flights.close()
    await flights.close()
