"""Requests per caller and second, and the wait that is asked for beyond them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.bounded import BoundedMap
from replicator.core.errors import Throttled
from replicator.core.throttle import TokenBucket

if TYPE_CHECKING:
    from replicator.core.clock import Clock

_MAX_CALLERS = 10_000


class RateLimit:
    """`rate` requests a second for each caller, `burst` at once.

    The callers least recently seen are forgotten first.
    """

    def __init__(self, rate: float, burst: float, clock: Clock) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._clock = clock
        self._buckets: BoundedMap[str, TokenBucket] = BoundedMap(_MAX_CALLERS)

    def admit(self, caller: str) -> None:
        """Count one request; raise Throttled, with the seconds to wait, when the caller has none left."""
        now = self._clock.monotonic()
        bucket = self._buckets.find(caller)
        if bucket is None:
            bucket = TokenBucket(self._rate, self._burst, self._burst, now)
            self._buckets.put(caller, bucket)
        wait = bucket.take(now)
        if wait > 0:
            raise Throttled("too many requests", retry_after=wait)
