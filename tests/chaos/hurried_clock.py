"""A clock that runs faster than the world's, so that windows, pauses and breakers of minutes pass in seconds."""

from __future__ import annotations

import asyncio

from replicator.telemetry.system_clock import SystemClock

FACTOR = 240.0


class HurriedClock:
    """`core.clock.Clock`, `FACTOR` times as fast as the system's, from now on."""

    def __init__(self) -> None:
        self._system = SystemClock()
        self._now = self._system.now()
        self._began = self._system.monotonic()

    def now(self) -> float:
        """Return Unix seconds."""
        return self._now + self._passed()

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return self._began + self._passed()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock."""
        await asyncio.sleep(seconds / FACTOR)

    def _passed(self) -> float:
        return (self._system.monotonic() - self._began) * FACTOR
