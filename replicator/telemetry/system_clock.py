"""The real clock: the one place that asks the operating system for the time."""

from __future__ import annotations

import asyncio
import time


class SystemClock:
    """`core.clock.Clock` by the operating system."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()  # noqa: TID251 - everything else takes a Clock, and this is it

    def monotonic(self) -> float:
        """Return seconds that only grow."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; cancellation ends the wait."""
        await asyncio.sleep(seconds)
