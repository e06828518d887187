"""Blob slots: so many at once, pushes first, and no blob twice at a time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from replicator.core.digest import digest_of
from replicator.core.jobs import Priority
from replicator.replication.blob_slots import BlobSlots

if TYPE_CHECKING:
    from replicator.core.digest import Digest

A, B, C, D = (digest_of(bytes([number])) for number in range(4))


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_push_waits_for_one_blob_of_a_backfill_however_many_wait_before_it() -> None:
    slots, order = BlobSlots(1), list[str]()
    gates = {name: asyncio.Event() for name in ("first", "backfill", "push")}

    async def send(name: str, digest: Digest, priority: int) -> None:
        async with slots.of(digest, priority):
            order.append(name)
            await gates[name].wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(send("first", A, Priority.BACKGROUND))
        await _settle()
        group.create_task(send("backfill", B, Priority.BACKGROUND))
        await _settle()
        group.create_task(send("push", C, Priority.PUSH))
        await _settle()
        assert order == ["first"]
        for gate in gates.values():
            gate.set()
    assert order == ["first", "push", "backfill"]


async def test_a_blob_that_is_under_way_is_waited_for_without_a_slot() -> None:
    slots, entered = BlobSlots(2), list[str]()
    leave = asyncio.Event()

    async def send(digest: Digest) -> None:
        async with slots.of(digest):
            entered.append(digest)
            await leave.wait()

    async with asyncio.TaskGroup() as group:
        for digest in (A, A, B):
            group.create_task(send(digest))
        await _settle()
        assert entered == [A, B]
        leave.set()
    assert entered == [A, B, A]


async def test_who_stops_waiting_leaves_its_place_to_others() -> None:
    slots = BlobSlots(1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(slots.of(A))
        waiting = asyncio.create_task(_once(slots, B))  # noqa: TID251 - cancelled below
        admitted = asyncio.create_task(_once(slots, C))  # noqa: TID251 - awaited below
        await _settle()
        waiting.cancel()
        await asyncio.wait([waiting])
    await admitted
    async with slots.of(D):
        pass


async def test_what_was_sent_before_the_mark_does_not_count() -> None:
    slots = BlobSlots(1)
    slots.sent(A)
    mark = slots.mark
    assert not slots.was_sent_since(A, mark)
    assert not slots.was_sent_since(B, mark)
    slots.sent(B)
    assert slots.was_sent_since(B, mark)


async def _once(slots: BlobSlots, digest: Digest) -> None:
    async with slots.of(digest):
        pass
