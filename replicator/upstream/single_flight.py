"""One piece of work for everybody who asks for it at the same time.

Every waiter gets the result or the failure. A waiter that is cancelled leaves the others, and the work, alone; the
work is a task that this object owns until it ends or the object is closed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from replicator.core.errors import ShuttingDown

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class SingleFlight(Generic[Key, Result]):
    """Runs at most one piece of work per key at a time."""

    def __init__(self) -> None:
        self._flights: dict[Key, asyncio.Task[Result]] = {}

    async def run(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """Return what `work` returns, or raise what it raises; join the work under way for `key` if there is some.

        Raises ShuttingDown when the object is closed meanwhile. Cancelling one waiter does not stop the work.
        """
        flight = self._join(key, work)
        try:
            return await asyncio.shield(flight)
        except asyncio.CancelledError:
            if flight.cancelled():
                raise ShuttingDown from None
            raise

    def start(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> None:
        """Begin the work for `key` unless it is under way; whoever calls does not want to know how it ends."""
        _ = self._join(key, work)

    def _join(self, key: Key, work: Callable[[], Coroutine[Any, Any, Result]]) -> asyncio.Task[Result]:
        flight = self._flights.get(key)
        if flight is None or flight.done():
            # Owned here and not in a TaskGroup: it must outlive the caller that happened to come first.
            flight = asyncio.create_task(work())  # noqa: TID251 - see above
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    async def idle(self) -> None:
        """Return when nothing is under way."""
        while self._flights:
            await asyncio.wait(tuple(self._flights.values()))

    async def close(self) -> None:
        """Cancel what is under way and wait until it has ended."""
        for flight in self._flights.values():
            flight.cancel()
        await self.idle()

    def _landed(self, key: Key, flight: asyncio.Task[Result]) -> None:
        if self._flights.get(key) is flight:
            del self._flights[key]
        if not flight.cancelled():
            flight.exception()  # seen: nobody may be waiting any more
