"""Whether an upstream that keeps failing is asked at all.

    CLOSED --`threshold` failures in a row--> OPEN --after a pause--> HALF_OPEN --success--> CLOSED
                                               ^                          |
                                               +------- failure ----------+   (the pause doubles, up to a limit)

While the breaker is open every call fails at once, so that a hung upstream costs its callers nothing and gets no storm
when it comes back. In HALF_OPEN one call at a time may try. There is one breaker for each upstream and credential.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from replicator.core.retry import Backoff


class BreakerState(enum.StrEnum):
    """How a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class CircuitBreaker:
    """Counts failures in a row and says who may call. Times are monotonic seconds."""

    threshold: int = 5
    pause: Backoff = field(default_factory=lambda: Backoff(initial=2.0, maximum=60.0))
    _failures: int = 0
    _openings: int = 0
    _open_until: float | None = None
    _trying: bool = False

    @property
    def failures(self) -> int:
        """How many calls failed in a row."""
        return self._failures

    def state(self, now: float) -> BreakerState:
        """Return how the breaker stands."""
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._open_until else BreakerState.HALF_OPEN

    def admit(self, now: float) -> float:
        """Return 0 if a call may go out, else the seconds after which one may. Report every admitted call's end."""
        if self._open_until is None:
            return 0.0
        if now < self._open_until:
            return self._open_until - now
        if self._trying:
            return self.pause.initial
        self._trying = True
        return 0.0

    def succeed(self) -> None:
        """Note that the upstream answered, whatever it said."""
        self._failures = self._openings = 0
        self._open_until = None
        self._trying = False

    def fail(self, now: float, jitter: float) -> None:
        """Note that the upstream did not answer, or answered that it cannot."""
        self._failures += 1
        if self._trying or self._failures >= self.threshold:
            self._openings += 1
            self._open_until = now + self.pause.delay(self._openings, jitter)
        self._trying = False

    def leave(self) -> None:
        """Note that an admitted call ended without an answer either way, such as by cancellation."""
        self._trying = False
