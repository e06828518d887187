"""Spending an upstream's rate limit where it matters: on what is missing first, on checking again last.

An upstream that states `RateLimit-Remaining` is believed until the window it stated has passed. Misses always go out.
Checks of what is here are stretched as the budget runs low, and stop when nearly nothing is left.
"""

from __future__ import annotations

from dataclasses import dataclass

LOW = 0.5
"""Share of the limit below which checks are stretched."""
RESERVED = 0.1
"""Share of the limit that is kept for misses."""
_MOST_STRETCHED = 8.0
_DEFAULT_WINDOW = 6 * 3600.0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """`remaining` of `limit` requests in each `window` seconds, as the upstream said at `seen_at` (Unix seconds)."""

    remaining: int
    limit: int | None
    window: int | None
    seen_at: float

    def share_left(self, now: float) -> float:
        """Return which share of the limit is left, 1 when that is not known or the window has passed."""
        if not 0 <= now - self.seen_at < (self.window or _DEFAULT_WINDOW):
            return 1.0
        if not self.limit:
            return 0.0 if self.remaining == 0 else 1.0
        return min(1.0, self.remaining / self.limit)


def stretch(limit: RateLimit | None, now: float) -> float | None:
    """Return by how much the time between two checks is multiplied, or None when there is nothing left for them."""
    left = 1.0 if limit is None else limit.share_left(now)
    if left >= LOW:
        return 1.0
    if left < RESERVED:
        return None
    return 1.0 + (_MOST_STRETCHED - 1.0) * (LOW - left) / (LOW - RESERVED)
