"""Which blobs cross to a destination now: so many at once, the most urgent first, and none twice at a time.

    new push ------.
    new push ------+--> waiting, by priority, then by order --> slots (8) --> destination
    backfill ------'

A blob of a backfill that is under way is let end; the slot it frees goes to a push that waits. So a push waits for one
blob of a backfill at most, however many images the backfill has. A blob that another image of the lane is sending is
waited for without a slot; `was_sent_since` then tells that it need not be sent again.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.bounded import BoundedMap
from replicator.core.jobs import Priority
from replicator.transfer.push_image import BlobTurns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.digest import Digest

_REMEMBERED = 10_000


@dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who wants to send a blob."""

    digest: Digest
    urgency: tuple[int, int]
    admitted: asyncio.Future[None]


class BlobSlots:
    """The slots of one destination."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._sending: set[Digest] = set()
        self._waiting: list[_Waiter] = []
        self._asked = 0
        self._ended = 0
        self._sent: BoundedMap[Digest, int] = BoundedMap(_REMEMBERED)

    @asynccontextmanager
    async def of(self, digest: Digest, priority: int = Priority.PUSH) -> AsyncIterator[None]:
        """Hold a slot for one blob. Cancelling a waiter gives its place up."""
        await self._admission(digest, priority)
        try:
            yield
        finally:
            self._sending.discard(digest)
            self._admit()

    async def _admission(self, digest: Digest, priority: int) -> None:
        self._asked += 1
        waiter = _Waiter(digest, (priority, self._asked), asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._admit()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            else:
                self._sending.discard(digest)
                self._admit()
            raise

    def _admit(self) -> None:
        for waiter in sorted(self._waiting, key=lambda one: one.urgency):
            if len(self._sending) >= self._count:
                return
            if waiter.digest not in self._sending:
                self._waiting.remove(waiter)
                self._sending.add(waiter.digest)
                waiter.admitted.set_result(None)

    @property
    def mark(self) -> int:
        """A point in time, for `was_sent_since`."""
        return self._ended

    def sent(self, digest: Digest) -> None:
        """Note that the destination has a blob now."""
        self._ended += 1
        self._sent.put(digest, self._ended)

    def was_sent_since(self, digest: Digest, mark: int) -> bool:
        """Tell whether a blob was sent after `mark` was taken."""
        return (self._sent.peek(digest) or 0) > mark


class TurnsAtPriority(BlobTurns):
    """The slots as a copy to any registry wants them, at the priority of its job."""

    def __init__(self, slots: BlobSlots, priority: int) -> None:
        super().__init__()
        self._slots = slots
        self._priority = priority

    @asynccontextmanager
    async def of(self, digest: Digest) -> AsyncIterator[None]:
        """Hold a slot for one blob, and its turn."""
        async with self._slots.of(digest, self._priority):
            yield
