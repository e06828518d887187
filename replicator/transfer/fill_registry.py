"""The fills of one node: at most one per upstream and digest at a time, each in a task that nobody's request owns.

Not one per digest: an upstream that lies or drips would then spoil the pulls of what another one serves well. For the
same reason a party that the common fill failed, for what may be nobody's fault but its beginner's, has one of its own.
Only so many are at work at the same time, and the others wait for their turn with no file open.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from replicator.core.errors import ShuttingDown
from replicator.telemetry.logs import get_logger
from replicator.transfer.fill import Fill, FillServices
from replicator.transfer.fill_source import FillLimits
from replicator.transfer.kept_parts import KeptParts
from replicator.transfer.turns import Turn, Turns
from replicator.upstream.urgency import is_background

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Hashable

    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.storage.blobs.port import BlobStore, StoredBlob
    from replicator.transfer.fill_source import FillSource

_log = get_logger(__name__)

_Key = tuple[str, "Digest", "Hashable"]


class FillRegistry:
    """Starts fills and finds those under way.

    An entry goes when its fill is settled: whoever comes next finds the blob in the store, or tries again.
    """

    def __init__(
        self,
        store: BlobStore,
        clock: Clock,
        limits: FillLimits | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        limits = limits or FillLimits()
        self._kept = KeptParts(store, clock, limits)
        self._turns = Turns(limits.at_once)
        self.spare: Callable[[], int | None] = lambda: None
        """Tells how many stored bytes could go to make room for a fill; None when that is not known."""
        self._services = FillServices(store, clock, jitter, limits, self._turns, self._kept, self._count_spare)
        self._fills: dict[_Key, Fill] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.ended = 0
        """How many fills have ended. What was read from the store while this changed may lack what a fill brought."""

    def __len__(self) -> int:
        return len(self._tasks)

    def kept_ingests(self) -> Collection[str]:
        """Return the names of the suspended ingests that a later fill may go on with; nobody else may drop them."""
        return self._kept.names()

    async def drop_kept(self) -> int:
        """Drop what failed fills left to go on with, because the space is needed; return how many bytes that was."""
        return await self._kept.drop()

    def find(self, upstream: str, digest: Digest, party: Hashable = None) -> Fill | None:
        """Return the fill of a digest from an upstream that is under way: the common one, or that of a `party`.

        One that waits for its turn as background work waits no longer behind others when somebody else asks for it.
        """
        fill = self._fills.get((upstream, digest, party))
        if fill is None or fill.is_settled:
            return None
        if not is_background():
            self._turns.promote(fill.turn)
        return fill

    def start(
        self,
        upstream: str,
        digest: Digest,
        source: FillSource,
        publish: Callable[[StoredBlob], Awaitable[StoredBlob]],
        party: Hashable = None,
    ) -> Fill:
        """Return the fill of `digest` from `upstream`, or start one from `source`; it needs nobody to wait for it.

        What is started as background work waits behind what somebody waits for. `publish` makes the committed blob
        known and returns the copy that is known from then on. Raises ShuttingDown after `close`.
        """
        fill = self.find(upstream, digest, party)
        if fill is not None:
            return fill
        if self._closed:
            raise ShuttingDown
        fill = Fill(digest, source, publish, Turn(upstream, background=is_background()), self._services)
        # Owned here and not in a TaskGroup: it must outlive the request that happened to come first.
        task = asyncio.create_task(self._run(fill), name=f"fill {digest}")  # noqa: TID251 - see above
        key = (upstream, digest, party)
        self._fills[key] = fill
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._ended(key, fill, done))
        return fill

    async def idle(self) -> None:
        """Return when no fill is under way."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks))

    async def close(self) -> None:
        """Give up what is under way, and return when it has ended; nothing of it is left in the store."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await self.idle()
        await self._kept.close()

    def _count_spare(self) -> int | None:
        return self.spare()

    async def _run(self, fill: Fill) -> None:
        try:
            await fill.run()
        finally:
            # Here, before anybody else has a turn, and not where the task is cleared away.
            self.ended += 1

    def _ended(self, key: _Key, fill: Fill, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if self._fills.get(key) is fill:
            del self._fills[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("fill ended by a fault of ours", digest=fill.digest, exc_info=error)
