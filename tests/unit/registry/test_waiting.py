"""Waiting for an event, but not for ever."""

from __future__ import annotations

import asyncio

from replicator.registry.waiting import wait_for_event
from tests.support.clock import FakeClock


async def test_an_event_ends_the_wait() -> None:
    clock, event = FakeClock(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait_for_event(event, 60, clock))
        await clock.sleepers()
        event.set()
    assert waiting.result() is True


async def test_time_ends_the_wait() -> None:
    clock, event = FakeClock(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(wait_for_event(event, 60, clock))
        await clock.sleepers()
        clock.advance(60)
    assert waiting.result() is False


async def test_an_event_that_is_set_is_not_waited_for() -> None:
    event = asyncio.Event()
    event.set()
    assert await wait_for_event(event, 60, FakeClock())


async def test_a_cancelled_wait_leaves_no_task() -> None:
    clock = FakeClock()
    waiting = asyncio.create_task(wait_for_event(asyncio.Event(), 60, clock))  # noqa: TID251 - cancelled below
    await clock.sleepers()
    waiting.cancel()
    await asyncio.wait([waiting])
    assert waiting.cancelled()
    assert asyncio.all_tasks() == {asyncio.current_task()}
