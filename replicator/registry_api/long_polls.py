"""Requests that wait for something: each caller has few, and one whose client has left ends.

A server hears of a connection that is gone, but it does not end what is under way for it. Without this, whoever asks
and leaves would hold a place for as long as it said that it would wait.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from replicator.core.errors import ReplicatorError, Throttled
from replicator.registry_api.request_body import ClientGone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from aiohttp import web

    from replicator.core.clock import Clock

T = TypeVar("T")

MAX_OF_ONE_CALLER = 200
"""Requests of one caller that wait at the same time."""

_LOOK_EVERY = 1.0
"""Seconds between looks at a connection: there is nothing to wait for that says when it is gone."""


class LongPolls:
    """The requests of one API that wait."""

    def __init__(self, clock: Clock, most: int = MAX_OF_ONE_CALLER) -> None:
        self._clock = clock
        self._most = most
        self._waiting: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many wait."""
        return self._waiting.total()

    async def run(self, request: web.BaseRequest, caller: str, work: Callable[[], Awaitable[T]]) -> T:
        """Return what `work` returns, while the client of `request` is there.

        Raises ClientGone when it has left, and `work` is cancelled then; Throttled when `caller` waits too often
        already, and what `work` raises.
        """
        failure: ReplicatorError | None = None
        with self._place(caller):
            async with asyncio.TaskGroup() as group:
                scope = asyncio.timeout(None)
                watch = group.create_task(self._watch(request, scope))
                try:
                    async with scope:
                        return await work()
                except ReplicatorError as error:
                    failure = error  # raised outside, where the group does not wrap it
                except TimeoutError:
                    pass
                finally:
                    watch.cancel()
        raise failure or ClientGone("the client left while it waited")

    @contextmanager
    def _place(self, caller: str) -> Iterator[None]:
        if self._waiting[caller] >= self._most:
            raise Throttled(f"{self._most} requests of this caller wait already")
        self._waiting[caller] += 1
        try:
            yield
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]

    async def _watch(self, request: web.BaseRequest, scope: asyncio.Timeout) -> None:
        while request.transport is not None:
            await self._clock.sleep(_LOOK_EVERY)
        scope.reschedule(0.0)
