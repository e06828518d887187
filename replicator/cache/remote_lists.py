"""Lists that upstreams keep, remembered for some minutes, so that a client that polls asks nobody.

    remembered and fresh -> answered from memory
    else                 -> asked for once, however many wait; who has anything else to show waits a short time only
    no answer            -> the last one that is remembered, however old

What is remembered is bounded in lists and in bytes and lost with the process. A list that an upstream did not give
whole is a list all the same: nothing is ever taken away because of what a list lacks.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from replicator.core.cache_status import CacheResult
from replicator.core.errors import ShuttingDown, UpstreamError, UpstreamNotFound, UpstreamTimeout
from replicator.telemetry.logs import get_logger
from replicator.upstream.single_flight import SingleFlight
from replicator.upstream.via import is_loop_of_requester

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from replicator.cache.limits import CacheLimits
    from replicator.core.clock import Clock

_log = get_logger(__name__)

T = TypeVar("T")

_OVERHEAD: Final = 1024
"""Bytes that a remembered list takes up besides its entries."""


@dataclass(frozen=True, slots=True)
class ListLimits:
    """Seconds for which a list counts as fresh, and for which an upstream that failed is not asked again; capacities.

    `bytes` are those of all remembered lists together.
    """

    fresh: float = 300.0
    failed: float = 30.0
    lists: int = 5000
    bytes: int = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class RemoteList(Generic[T]):
    """What is known of a list: its entries in order (None: it was never seen), when that was true, what failed since.

    An upstream that says there is no such list has an empty one, `is_absent`. `weight` is in bytes.
    """

    entries: Sequence[T] | None
    at: float = 0.0
    is_absent: bool = False
    failure: UpstreamError | None = None
    failed_at: float = float("-inf")
    weight: int = 0


class RemoteLists(Generic[T]):
    """Lists of one sort, by key. `weigh` says how many bytes an entry takes up."""

    def __init__(
        self, clock: Clock, weigh: Callable[[T], int], waits: CacheLimits, limits: ListLimits | None = None
    ) -> None:
        self._clock = clock
        self._weigh = weigh
        self._waits = waits
        self._limits = limits or ListLimits()
        self._lists: OrderedDict[Hashable, RemoteList[T]] = OrderedDict()
        self._weight = 0
        self._asking: SingleFlight[Hashable, RemoteList[T]] = SingleFlight()
        self._under_way: dict[Hashable, bool] = {}
        """Lists being asked for; true once somebody waited for one in vain."""

    async def get(
        self, key: Hashable, upstream: str, ask: Callable[[], Awaitable[Sequence[T]]], *, has_other: bool
    ) -> tuple[RemoteList[T], CacheResult]:
        """Return a list, and how it was come by; `ask` returns it in order, or raises UpstreamError.

        Who has something else to show, or what is remembered, waits `stale_wait` at most, and not at all for what
        somebody else has waited for in vain. Never raises an UpstreamError: it is the list's `failure`. Cancelling
        stops no question.
        """
        known = self._lists.get(key)
        if known is not None:
            self._lists.move_to_end(key)
            if self._is_fresh(known):
                return known, CacheResult.HIT
        has_other = has_other or (known is not None and known.entries is not None)
        if self._is_left_alone(key, known, has_other=has_other):
            return known or RemoteList(None, failure=_late(upstream)), _of_known(known)
        try:
            async with asyncio.timeout(self._waits.stale_wait if has_other else self._waits.cold_wait):
                found = await self._asking.run(key, lambda: self._ask(key, ask))
        except (TimeoutError, ShuttingDown) as error:
            if isinstance(error, TimeoutError) and key in self._under_way:
                self._under_way[key] = True
            return replace(known or RemoteList(None), failure=_late(upstream)), _of_known(known)
        return found, CacheResult.MISS if found.failure is None else _of_known(found)

    async def idle(self) -> None:
        """Return when nothing is being asked for."""
        await self._asking.idle()

    async def close(self) -> None:
        """End the questions under way."""
        await self._asking.close()

    def _is_fresh(self, known: RemoteList[T]) -> bool:
        return known.entries is not None and self._clock.monotonic() - known.at < self._limits.fresh

    def _is_left_alone(self, key: Hashable, known: RemoteList[T] | None, *, has_other: bool) -> bool:
        if known is not None and self._clock.monotonic() - known.failed_at < self._limits.failed:
            return True
        return has_other and self._under_way.get(key, False)

    async def _ask(self, key: Hashable, ask: Callable[[], Awaitable[Sequence[T]]]) -> RemoteList[T]:
        self._under_way[key] = False
        try:
            found = await self._answer(key, ask)
        finally:
            del self._under_way[key]
        self._keep(key, found)
        return found

    async def _answer(self, key: Hashable, ask: Callable[[], Awaitable[Sequence[T]]]) -> RemoteList[T]:
        try:
            entries = await ask()
        except UpstreamNotFound:
            return RemoteList((), self._clock.monotonic(), is_absent=True, weight=_OVERHEAD)
        except UpstreamError as error:
            _log.info("list could not be had", what=str(key), error=str(error))
            known = self._lists.get(key) or RemoteList(None, weight=_OVERHEAD)
            if is_loop_of_requester(error):
                return replace(known, failure=error)
            return replace(known, failure=error, failed_at=self._clock.monotonic())
        weight = _OVERHEAD + sum(map(self._weigh, entries))
        return RemoteList(entries, self._clock.monotonic(), weight=weight)

    def _keep(self, key: Hashable, found: RemoteList[T]) -> None:
        before = self._lists.pop(key, None)
        self._weight += found.weight - (0 if before is None else before.weight)
        self._lists[key] = found
        while len(self._lists) > self._limits.lists or (self._weight > self._limits.bytes and self._lists):
            _, dropped = self._lists.popitem(last=False)
            self._weight -= dropped.weight


def _late(upstream: str) -> UpstreamTimeout:
    return UpstreamTimeout(f"{upstream}: no answer in time")


def _of_known(known: RemoteList[T] | None) -> CacheResult:
    return CacheResult.ERROR if known is None or known.entries is None else CacheResult.STALE
