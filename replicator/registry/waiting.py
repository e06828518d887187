"""Waiting for something to happen, but not longer than so long, by the product's own clock."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.core.clock import Clock


async def wait_for_event(event: asyncio.Event, seconds: float, clock: Clock) -> bool:
    """Return True once the event is set, or False after `seconds`."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        happened = group.create_task(_relay(event, over))
        alarm = group.create_task(_ring(clock, seconds, over))
        await over.wait()
        happened.cancel()
        alarm.cancel()
    return event.is_set()


async def _relay(event: asyncio.Event, over: asyncio.Event) -> None:
    await event.wait()
    over.set()


async def _ring(clock: Clock, seconds: float, over: asyncio.Event) -> None:
    await clock.sleep(seconds)
    over.set()
