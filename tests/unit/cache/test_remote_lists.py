"""Remembered lists: fresh ones, old ones when there is nothing better, and never too many."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicator.cache.limits import CacheLimits
from replicator.cache.remote_lists import ListLimits, RemoteLists
from replicator.core.cache_status import CacheResult
from replicator.core.errors import UpstreamNotFound, UpstreamTimeout, UpstreamUnavailable
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.cache.remote_lists import RemoteList

LIMITS = ListLimits(fresh=60.0, failed=10.0, lists=3, bytes=1024 * 10)


class Upstream:
    """Lists what a test says, or fails with what a test says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer: Sequence[str] | Exception = ("a", "b")
        self.clock = FakeClock()
        self.lists: RemoteLists[str] = RemoteLists(self.clock, len, CacheLimits(0.05, 0.05), LIMITS)
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def _ask(self, key: str) -> Sequence[str]:
        self.asked.append(key)
        self.begun.set()
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def get(self, key: str = "k", *, has_other: bool = False) -> tuple[RemoteList[str], CacheResult]:
        return await self.lists.get(key, "hub", lambda: self._ask(key), has_other=has_other)


@pytest.fixture
async def upstream() -> Upstream:
    return Upstream()


async def test_a_fresh_list_is_not_asked_for_again(upstream: Upstream) -> None:
    assert (await upstream.get())[1] is CacheResult.MISS
    upstream.clock.advance(59.0)
    found, result = await upstream.get()
    assert (found.entries, result) == (("a", "b"), CacheResult.HIT)
    upstream.clock.advance(2.0)
    assert (await upstream.get())[1] is CacheResult.MISS
    assert len(upstream.asked) == 2


async def test_the_least_recently_used_lists_are_dropped(upstream: Upstream) -> None:
    for key in ("1", "2", "3", "1", "4"):
        await upstream.get(key)
    upstream.asked.clear()
    for key in ("1", "3", "4", "2"):
        await upstream.get(key)
    assert upstream.asked == ["2"]


async def test_the_bytes_of_all_lists_are_bounded(upstream: Upstream) -> None:
    upstream.answer = ["x" * 1000] * 5
    await upstream.get("1")
    await upstream.get("2")
    upstream.asked.clear()
    await upstream.get("2")
    await upstream.get("1")
    assert upstream.asked == ["1"]
    upstream.answer = ["x" * 1000] * 50
    found, _ = await upstream.get("too large to keep")
    assert found.entries is not None
    assert len(found.entries) == 50
    await upstream.get("too large to keep")
    assert upstream.asked == ["1", "too large to keep", "too large to keep"]


async def test_an_old_list_is_better_than_none(upstream: Upstream) -> None:
    await upstream.get()
    upstream.clock.advance(1000.0)
    upstream.answer = UpstreamUnavailable("hub: answered 500")
    found, result = await upstream.get()
    assert (found.entries, found.at, result) == (("a", "b"), upstream.clock.monotonic() - 1000.0, CacheResult.STALE)
    assert str(found.failure) == "hub: answered 500"
    upstream.clock.advance(9.0)
    assert (await upstream.get())[1] is CacheResult.STALE
    assert len(upstream.asked) == 2
    upstream.clock.advance(2.0)
    upstream.answer = ("c",)
    found, result = await upstream.get()
    assert (found.entries, found.failure, result) == (("c",), None, CacheResult.MISS)


async def test_nothing_known_and_no_answer(upstream: Upstream) -> None:
    upstream.answer = UpstreamUnavailable("hub: answered 500")
    found, result = await upstream.get()
    assert (found.entries, result) == (None, CacheResult.ERROR)
    assert isinstance(found.failure, UpstreamUnavailable)


async def test_that_there_is_no_list_is_remembered_too(upstream: Upstream) -> None:
    upstream.answer = UpstreamNotFound()
    for _ in range(2):
        found, _ = await upstream.get()
        assert (found.entries, found.is_absent, found.failure) == ((), True, None)
    assert len(upstream.asked) == 1


async def test_a_late_answer_serves_the_next_one(upstream: Upstream) -> None:
    upstream.gate.clear()
    found, result = await upstream.get(has_other=True)
    assert (found.entries, result) == (None, CacheResult.ERROR)
    assert isinstance(found.failure, UpstreamTimeout)
    assert "hub" in str(found.failure)
    again, _ = await upstream.get(has_other=True)
    assert isinstance(again.failure, UpstreamTimeout)
    upstream.gate.set()
    await upstream.lists.idle()
    assert (await upstream.get())[0].entries == ("a", "b")
    assert len(upstream.asked) == 1


async def test_closing_ends_the_questions(upstream: Upstream) -> None:
    upstream.gate.clear()
    upstream.lists = RemoteLists(upstream.clock, len, CacheLimits(60.0, 60.0), LIMITS)
    async with asyncio.TaskGroup() as group:
        asking = group.create_task(upstream.get())
        await upstream.begun.wait()
        await upstream.lists.close()
    found, result = asking.result()
    assert (found.entries, result) == (None, CacheResult.ERROR)
