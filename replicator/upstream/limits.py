"""What an upstream is asked at most: requests a second, bytes a second, requests at once.

Every upstream has its own limits, so that a slow or throttling one never takes anything from another.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from asyncio_throttle.throttler import Throttler

from replicator.core.errors import UpstreamThrottled

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.clock import Clock
    from replicator.upstream.endpoint import UpstreamEndpoint

_WINDOW = 0.1
_MAX_PAUSE = 900.0


class RequestRate:
    """At most `rate` requests a second, spread over short windows; waiters go in order.

    The package behind it polls; one waiter at a time does, however many there are.
    """

    def __init__(self, rate: float) -> None:
        count = max(1, round(rate * _WINDOW))
        period = count / rate
        self._throttler = Throttler(rate_limit=count, period=period, retry_interval=period / 10)
        self._turn = asyncio.Lock()

    async def take(self) -> None:
        """Wait for the turn of one request."""
        async with self._turn:
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
    """The limits of one upstream, and the pauses it asked for."""

    def __init__(self, endpoint: UpstreamEndpoint, clock: Clock) -> None:
        self._name = endpoint.name
        self._clock = clock
        self._slots = asyncio.Semaphore(endpoint.max_connections)
        rate, byte_rate = endpoint.requests_per_second, endpoint.bytes_per_second
        self._requests = None if rate is None else RequestRate(rate)
        self._bytes = None if byte_rate is None else ByteRate(byte_rate, clock)
        self._paused_until: dict[str, float] = {}

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold one of the upstream's connections."""
        async with self._slots:
            yield

    async def request(self) -> None:
        """Wait for the turn of one request."""
        if self._requests is not None:
            await self._requests.take()

    async def bytes(self, count: int) -> None:
        """Account for `count` bytes moved, and wait where that was too fast."""
        if self._bytes is not None:
            await self._bytes.take(count)

    def check_pause(self, kind: str) -> None:
        """Raise UpstreamThrottled while the upstream wants no request of this kind."""
        left = self._paused_until.get(kind, 0.0) - self._clock.monotonic()
        if left > 0:
            raise UpstreamThrottled(f"{self._name}: asked us to slow down", retry_after=left)

    def pause(self, kind: str, seconds: float) -> None:
        """Ask nothing of this kind for `seconds`, as the upstream said; for a quarter of an hour at most at one go."""
        self._paused_until[kind] = self._clock.monotonic() + min(seconds, _MAX_PAUSE)
