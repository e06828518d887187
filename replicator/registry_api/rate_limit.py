"""Requests per caller and second, and the wait that is asked for beyond them."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

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
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def admit(self, caller: str) -> None:
        """Count one request; raise Throttled, with the seconds to wait, when the caller has none left."""
        now = self._clock.monotonic()
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = self._buckets[caller] = TokenBucket(self._rate, self._burst, self._burst, now)
            if len(self._buckets) > _MAX_CALLERS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(caller)
        wait = bucket.take(now)
        if wait > 0:
            raise Throttled("too many requests", retry_after=wait)
