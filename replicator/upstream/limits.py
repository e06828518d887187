"""What an upstream is asked at most: requests a second, bytes a second, requests at once.

Every upstream has its own limits, so that a slow or throttling one never takes anything from another. Whoever somebody
waits for goes first (see `urgency`), and background work never takes more than half of the connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncio_throttle.throttler import Throttler

from replicator.upstream.urgency import is_background

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.clock import Clock
    from replicator.upstream.endpoint import UpstreamEndpoint

_WINDOW = 0.1


class Slots:
    """`count` places; at most half of them, but one at least, go to background work, and to that last of all."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._background_free = max(1, count // 2)
        self._interactive: deque[asyncio.Future[None]] = deque()
        self._background: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def hold(self) -> AsyncIterator[None]:
        """Hold a place; those who wait alike get theirs in order."""
        background = is_background()
        await self._take(background=background)
        try:
            yield
        finally:
            self._give_back(background=background)

    async def _take(self, *, background: bool) -> None:
        waiting = self._background if background else self._interactive
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(turn)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                waiting.remove(turn)
            else:  # it was this one's turn in the moment it left
                self._give_back(background=background)
            raise

    def _give_back(self, *, background: bool) -> None:
        self._free += 1
        self._background_free += background
        self._hand_out()

    def _hand_out(self) -> None:
        while self._free and _next(self._interactive):
            self._free -= 1
        while self._free and self._background_free and _next(self._background):
            self._free -= 1
            self._background_free -= 1


def _next(waiting: deque[asyncio.Future[None]]) -> bool:
    """Let the first who still waits go on; one that was cancelled removes itself."""
    turn = next((turn for turn in waiting if not turn.done()), None)
    if turn is None:
        return False
    waiting.remove(turn)
    turn.set_result(None)
    return True


class RequestRate:
    """At most `rate` requests a second, spread over short windows; waiters go in order, background work last.

    The package behind it polls; one waiter at a time does, however many there are.
    """

    def __init__(self, rate: float) -> None:
        count = max(1, round(rate * _WINDOW))
        period = count / rate
        self._throttler = Throttler(rate_limit=count, period=period, retry_interval=period / 10)
        self._turn = Slots(1)

    async def take(self) -> None:
        """Wait for the turn of one request."""
        async with self._turn.hold():
            await self._throttler.acquire()  # type: ignore[no-untyped-call] # the library has no types here


class ByteRate:
    """`rate` bytes a second on average, at most a quarter of a second's worth ahead.

    Bytes are booked after they moved: the one who overdraws waits until the debt is paid, so that pieces of any size
    work.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._burst = rate / 4
        self._clock = clock
        self._left = self._burst
        self._updated = clock.monotonic()

    async def take(self, count: int) -> None:
        """Book `count` bytes and wait until they are within the rate."""
        now = self._clock.monotonic()
        self._left = min(self._burst, self._left + (now - self._updated) * self._rate) - count
        self._updated = now
        if self._left < 0:
            await self._clock.sleep(-self._left / self._rate)


class UpstreamLimits:
    """The limits of one upstream."""

    def __init__(self, endpoint: UpstreamEndpoint, clock: Clock) -> None:
        self._slots = Slots(endpoint.max_connections)
        rate, byte_rate = endpoint.requests_per_second, endpoint.bytes_per_second
        self._requests = None if rate is None else RequestRate(rate)
        self._bytes = None if byte_rate is None else ByteRate(byte_rate, clock)

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the upstream's connections."""
        async with self._slots.hold():
            yield

    async def request(self) -> None:
        """Wait for the turn of one request."""
        if self._requests is not None:
            await self._requests.take()

    async def bytes(self, count: int) -> None:
        """Account for `count` bytes moved, and wait where that was too fast."""
        if self._bytes is not None:
            await self._bytes.take(count)
