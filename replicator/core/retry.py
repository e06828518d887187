"""How long to wait before the next attempt.

One pure function serves the job queue and, through tenacity, single requests: exponential growth, full jitter in the
upper half, never less than what the other side asked for (`Retry-After` is a floor, not a hint).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds: `initial` after the first failure, doubling, at most `maximum`."""

    initial: float = 1.0
    maximum: float = 60.0

    def delay(self, attempt: int, jitter: float, retry_after: float | None = None) -> float:
        """Return the seconds to wait after failed attempt number `attempt` (from 1).

        `jitter` is a random number in [0, 1); the result lies between half the exponential step and the whole of it,
        or at `retry_after` where that is longer.
        """
        step = min(self.maximum, self.initial * 2.0 ** min(max(attempt - 1, 0), 62))
        return max(step * (0.5 + jitter / 2), retry_after or 0.0)


def parse_retry_after(header: str | None, now: float, date: float | None = None) -> float | None:
    """Return the seconds a Retry-After header asks for, in itself or through its HTTP `date` (RFC 9110 §10.2.3)."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    return None if date is None else max(0.0, date - now)
