"""A clock that stands still until a test moves it: TTLs, leases, backoff and throttles are tested in no time."""

from __future__ import annotations

import asyncio
import heapq
import itertools


class FakeClock:
    """A `core.clock.Clock` whose time passes only through `advance`.

    With `auto=True` a sleep moves the clock on by itself, for tests that only want to know how long was slept: see
    `slept`. Otherwise `await clock.sleepers(n)` waits until `n` coroutines sleep, so that a test advances at a known
    point.
    """

    def __init__(self, start: float = 1_750_000_000.0, *, auto: bool = False) -> None:
        self._now = start
        self._monotonic = 1000.0
        self._auto = auto
        self._order = itertools.count()
        self._sleeping: list[tuple[float, int, asyncio.Future[None]]] = []
        self._changed = asyncio.Event()
        self.slept: list[float] = []

    def now(self) -> float:
        """Return virtual Unix seconds."""
        return self._now

    def monotonic(self) -> float:
        """Return virtual seconds that only grow."""
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        """Return once `advance` has moved the clock by `seconds` (at once with `auto`)."""
        self.slept.append(seconds)
        if self._auto or seconds <= 0:
            self.advance(max(0.0, seconds))
            await asyncio.sleep(0)
            return
        wakened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (self._monotonic + seconds, next(self._order), wakened)
        heapq.heappush(self._sleeping, entry)
        self._changed.set()
        try:
            await wakened
        finally:
            if entry in self._sleeping:
                self._sleeping.remove(entry)
                heapq.heapify(self._sleeping)

    def advance(self, seconds: float) -> None:
        """Move both clocks on and wake every sleeper whose time has come, the earliest first."""
        self._now += seconds
        self._monotonic += seconds
        while self._sleeping and self._sleeping[0][0] <= self._monotonic:
            _, _, wakened = heapq.heappop(self._sleeping)
            if not wakened.done():
                wakened.set_result(None)

    def set_wall_clock(self, now: float) -> None:
        """Step the wall clock, as an administrator or a time server does; durations are not affected."""
        self._now = now

    async def sleepers(self, count: int = 1) -> None:
        """Wait until at least `count` coroutines sleep."""
        while len(self._sleeping) < count:
            self._changed.clear()
            await self._changed.wait()
