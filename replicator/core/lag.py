"""Replication lag as a promise: which share of images was pullable at a destination in time, and how fast that burns.

An objective says: of the images of a rule, `target` (99 %) can be pulled at a destination within so many seconds. The
burn rate is the share that missed it, divided by the share that may miss it: 1 uses up exactly what is allowed, 100 is
the most there is at 99 %. An image that still waits beyond the objective counts as missed already, else a destination
that is down would look perfect.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from replicator.core.replication import DEFAULT_LAG_TARGET

WINDOWS = {"5m": 300.0, "1h": 3600.0}
"""The windows over which burn rates are shown: a short one that reacts, a long one that does not flap."""

BUCKET = 10.0
"""Seconds that are counted together. A window is off by at most this, and an hour costs 360 pairs of numbers."""


@dataclass(frozen=True, slots=True)
class LagCounts:
    """Images of one rule at one destination: how many were in time, and how many were, or already are, too late."""

    met: int = 0
    missed: int = 0

    @property
    def share_met(self) -> float:
        """The share that was in time; all of none."""
        total = self.met + self.missed
        return 1.0 if total == 0 else self.met / total

    def with_overdue(self, overdue: int) -> LagCounts:
        """Return the counts with images that still wait and are too late by now."""
        return LagCounts(self.met, self.missed + overdue)


def burn_rate(counts: LagCounts, target: float = DEFAULT_LAG_TARGET) -> float:
    """Return how many times faster than allowed images miss the objective; `target` is below 1."""
    return (1.0 - counts.share_met) / (1.0 - target)


@dataclass(slots=True)
class LagHistory:
    """The lags of one rule at one destination over the longest window. Time is the caller's monotonic clock."""

    objective: float
    _buckets: deque[tuple[int, int, int]] = field(default_factory=deque)

    def note(self, now: float, lag: float) -> None:
        """Note an image that became pullable just now, so many seconds after its push."""
        index = int(now // BUCKET)
        met, missed = (1, 0) if lag <= self.objective else (0, 1)
        if self._buckets and self._buckets[-1][0] >= index:
            index, known_met, known_missed = self._buckets.pop()
            met, missed = met + known_met, missed + known_missed
        self._buckets.append((index, met, missed))
        self._forget(now)

    def counts(self, now: float, window: float) -> LagCounts:
        """Return the images of the last `window` seconds, and of up to one bucket more."""
        self._forget(now)
        first = int((now - window) // BUCKET)
        recent = [(met, missed) for index, met, missed in self._buckets if index >= first]
        return LagCounts(sum(met for met, _ in recent), sum(missed for _, missed in recent))

    def _forget(self, now: float) -> None:
        first = int((now - max(WINDOWS.values())) // BUCKET)
        while self._buckets and self._buckets[0][0] < first:
            self._buckets.popleft()
