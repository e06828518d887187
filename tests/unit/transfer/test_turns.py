"""Fills take turns: so many at once, no file for those that wait, and whoever is waited for goes first."""

from __future__ import annotations

import asyncio
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import ShuttingDown, UpstreamTimeout
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.transfer.fill_source import FillLimits
from replicator.transfer.turns import Turn, Turns
from replicator.upstream.urgency import background
from tests.support.blob_source import ScriptedBlob
from tests.support.fills import Bench, gathered, opened, pull

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from types import FrameType

    from replicator.transfer.fill import Fill


class Workers:
    """Holds turns in tasks."""

    def __init__(self, turns: Turns, group: asyncio.TaskGroup) -> None:
        self.turns = turns
        self._group = group
        self._done: dict[Turn, asyncio.Event] = {}

    async def ask(self, lane: str = "hub", *, behind: bool = False) -> Turn:
        """Ask for a turn."""
        turn = Turn(lane, background=behind)
        self._done[turn] = asyncio.Event()
        self._group.create_task(self._work(turn))
        await asyncio.sleep(0)
        return turn

    async def end(self, *turns: Turn) -> None:
        """End turns, or all of them."""
        for turn in turns or tuple(self._done):
            self._done[turn].set()
        for _ in range(5):
            await asyncio.sleep(0)

    async def _work(self, turn: Turn) -> None:
        async with self.turns.held(turn):
            await self._done[turn].wait()


def granted(*turns: Turn) -> list[bool]:
    return [turn.granted.is_set() for turn in turns]


async def test_so_many_work_at_once() -> None:
    async with asyncio.TaskGroup() as group:
        workers = Workers(Turns(2), group)
        first, second, third = [await workers.ask(lane) for lane in "abc"]
        assert granted(first, second, third) == [True, True, False]
        await workers.end(first)
        assert granted(third) == [True]
        await workers.end()


async def test_who_is_waited_for_goes_first() -> None:
    async with asyncio.TaskGroup() as group:
        workers = Workers(Turns(1), group)
        working = await workers.ask("a")
        behind = await workers.ask("b", behind=True)
        urgent = await workers.ask("c")
        await workers.end(working)
        assert granted(behind, urgent) == [False, True]
        await workers.end()


async def test_background_work_gets_half_of_the_places() -> None:
    async with asyncio.TaskGroup() as group:
        workers = Workers(Turns(4), group)
        behind = [await workers.ask(str(lane), behind=True) for lane in range(4)]
        assert granted(*behind) == [True, True, False, False]
        urgent = [await workers.ask(f"u{lane}") for lane in range(2)]
        assert granted(*urgent) == [True, True]
        workers.turns.promote(behind[3])
        await workers.end(urgent[0])
        assert granted(*behind) == [True, True, False, True]
        await workers.end()


async def test_one_lane_leaves_places_to_the_others() -> None:
    async with asyncio.TaskGroup() as group:
        workers = Workers(Turns(4), group)
        hub = [await workers.ask("hub") for _ in range(5)]
        assert granted(*hub) == [True, True, True, False, False]
        assert granted(await workers.ask("quay")) == [True]
        await workers.end()


async def test_who_leaves_while_it_waits_takes_no_place() -> None:
    turns = Turns(1)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(turns.held(Turn("a", background=False)))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0), turns.held(Turn("b", background=False)):
                pytest.fail("there was no place")
    async with turns.held(Turn("c", background=False)):
        pass


async def test_any_number_that_wait_do_not_hold_up_the_loop() -> None:
    """Whoever may pull can ask for blobs without end, and leave: giving out a turn must not look at all of them."""
    steps = 0

    def count_lines(_frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal steps
        steps += event == "call"
        return None

    turns, hang, many = Turns(4), asyncio.Event(), 500

    async def hold(lane: str) -> None:
        async with turns.held(Turn(lane, background=False)):
            await hang.wait()

    async with asyncio.TaskGroup() as group:
        sys.setprofile(count_lines)
        try:
            tasks = [group.create_task(hold("ab"[number % 2])) for number in range(many)]
            await asyncio.sleep(0)
            hang.set()
            await asyncio.wait(tasks)
        finally:
            sys.setprofile(None)
    assert steps < 200 * many


async def test_what_becomes_urgent_while_it_waits_or_works_counts_once() -> None:
    async with asyncio.TaskGroup() as group:
        workers = Workers(Turns(2), group)
        working, waiting = await workers.ask("a", behind=True), await workers.ask("b", behind=True)
        assert granted(working, waiting) == [True, False]
        workers.turns.promote(working)
        assert granted(waiting) == [True]
        last = await workers.ask("c", behind=True)
        workers.turns.promote(last)
        workers.turns.promote(last)
        await workers.end(waiting)
        assert granted(last) == [True]
        await workers.end()
        again = [await workers.ask(lane, behind=True) for lane in "ab"]
        assert granted(*again) == [True, False]
        await workers.end(*again)
        assert granted(*again) == [True, True]


# Fills


@pytest.fixture
def volume() -> MemoryVolume:
    return MemoryVolume()


@pytest.fixture
async def bench(volume: MemoryVolume) -> AsyncIterator[Bench]:
    async with opened(MemoryBlobStore(volume), limits=FillLimits(at_once=1)) as bench:
        yield bench


def held(content: bytes) -> ScriptedBlob:
    blob = ScriptedBlob(content)
    blob.hold_at(0)
    return blob


def start(bench: Bench, blob: ScriptedBlob) -> Fill:
    return bench.start(blob, digest=digest_of(blob.content))


async def test_fill_that_waits_for_its_turn_has_no_ingest_and_asks_nobody(bench: Bench, volume: MemoryVolume) -> None:
    working, waiting = held(b"working"), ScriptedBlob(b"waiting")
    fills = [start(bench, working), start(bench, waiting)]
    await working.held()
    assert waiting.opened == []
    assert len(volume.ingests) == 1
    working.allow()
    assert await gathered(*map(pull, fills)) == [b"working", b"waiting"]


async def test_prefetch_that_somebody_asks_for_waits_no_longer_behind_others(bench: Bench) -> None:
    order: list[bytes] = []
    blobs = [held(b"working"), ScriptedBlob(b"behind"), ScriptedBlob(b"asked for")]
    for blob in blobs:
        blob.at_chunk = lambda _, blob=blob: order.append(blob.content)  # type: ignore[misc]
    fills = [start(bench, blobs[0])]
    with background():
        fills += [start(bench, blob) for blob in blobs[1:]]
        start(bench, blobs[1])
    await blobs[0].held()
    assert start(bench, blobs[2]) is fills[2]
    blobs[0].allow()
    await gathered(*map(pull, fills))
    assert order == [b"working", b"asked for", b"behind"]


async def test_nobody_waits_for_a_turn_without_end(volume: MemoryVolume) -> None:
    async with opened(MemoryBlobStore(volume), limits=FillLimits(at_once=1, turn_wait=0.01)) as bench:
        working = held(b"working")
        start(bench, working)
        await working.held()
        with pytest.raises(UpstreamTimeout):
            await pull(start(bench, ScriptedBlob(b"waiting")))
        working.allow()


async def test_closing_ends_those_that_wait_too(bench: Bench, volume: MemoryVolume) -> None:
    working = held(b"working")
    fills = [start(bench, working), start(bench, ScriptedBlob(b"waiting"))]
    await working.held()
    async with asyncio.TaskGroup() as group:
        results = group.create_task(gathered(*map(pull, fills)))
        await asyncio.sleep(0)
        await bench.fills.close()
    assert [type(result) for result in results.result()] == [ShuttingDown, ShuttingDown]
    assert not volume.ingests
