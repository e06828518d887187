"""Time as a port: nothing asks the operating system for it directly."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Two clocks: one that people read, one that never goes back."""

    def now(self) -> float:
        """Return Unix seconds."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow; for durations."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`; cancellation ends the wait."""
        ...
