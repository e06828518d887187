"""Backfills: everything that the rules say, brought to a destination that joined later (ECR §9.5).

The images are named page by page, each page in one transaction with the jobs that bring it and with how far it came,
so that a kill in the middle costs nothing. The jobs are ordinary ones behind every push. A backfill is over when each
of its images is settled; a destination that is down makes it wait, one that refuses makes an image FAILED.
"""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import backfill as core
from replicator.core.backfill import BackfillCause, BackfillState
from replicator.core.destinations import parse_destination
from replicator.core.errors import (
    BackfillInProgress,
    BackfillInvalidStatus,
    BackfillLimit,
    InvalidInput,
    StorageError,
)
from replicator.core.jobs import JobKind
from replicator.registry.stored_repositories import require_repository
from replicator.registry.waiting import wait_for_event
from replicator.replication.backfill_preparation import prepare_page, prepared
from replicator.replication.backfill_view import (
    get_stored,
    parse_image_cursor,
    parse_time_cursor,
    read_images,
    read_one,
    read_page,
)
from replicator.replication.background import BackgroundWork, queue
from replicator.replication.expected import Expectation
from replicator.storage.metadata import backfills
from replicator.storage.metadata.backfills import StoredBackfill
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.destinations import DestinationId
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.replication import ReplicationState
    from replicator.registry.node import RegistryNode
    from replicator.replication.backfill_view import Backfill, BackfillImagePage, BackfillPage
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

PAGE = 50
"""Images, and repositories, that one transaction names: a push waits for no more than one of these."""

_LOOK_AGAIN = 30.0
_TIDY_EVERY = 3600.0
_ABANDONED = 300.0
"""Seconds after which a sync whose images are still being named has lost whoever named them."""

_FIRST_PAGE = 100
_RESOLVE_PAGE = 500


class Backfills:
    """The backfills and syncs of one node. `run` it under a supervisor; several processes may work on one database."""

    def __init__(self, node: RegistryNode, page_size: int = PAGE) -> None:
        self._node = node
        self._page_size = page_size
        self._wake = asyncio.Event()
        self._resolve_at = float("-inf")
        self._tidy_at = float("-inf")
        self._naming: set[str] = set()
        node.on_settled(self._settled)

    # Use cases

    async def start(
        self,
        destination: DestinationId,
        repository: RepositoryName | None = None,
        cause: BackfillCause = BackfillCause.BACKFILL,
    ) -> str:
        """Start to bring everything that the rules send to `destination`, or one repository of it; return the id.

        Raises InvalidInput when no rule names the destination (or covers the repository), RepositoryNotFound,
        BackfillInProgress when one to it is under way, BackfillLimit when there are as many as the quota.
        """
        self._check_rules(destination, repository)
        backfill = self._new(cause, str(destination), repository)
        await self._node.database.write(partial(_create, self._node, backfill))
        _log.info("backfill started", **self._fields(backfill))
        self._wake.set()
        return backfill.id

    async def start_sync(
        self, work: Sequence[BackgroundWork], destination: str = "", repository: RepositoryName | None = None
    ) -> str:
        """Have exactly these images sent or deleted, as a backfill whose progress can be followed; return the id.

        What changed since it was chosen is left out. Raises BackfillLimit.
        """
        backfill = self._new(BackfillCause.SYNC, destination, repository)
        self._naming.add(backfill.id)
        try:
            await self._node.database.write(partial(_create, self._node, backfill))
            for start in range(0, len(work), self._page_size):
                await self._queue(backfill, work[start : start + self._page_size])
            await self._node.database.write(partial(prepared, backfill, self._node.clock.now()))
        finally:
            self._naming.discard(backfill.id)
            self._wake.set()
        return backfill.id

    async def get(self, backfill_id: str) -> Backfill:
        """Return a backfill; raises BackfillNotFound."""
        return await self._node.database.read(read_one(backfill_id))

    async def list(
        self, size: int = _FIRST_PAGE, after: str | None = None, cause: BackfillCause | None = None
    ) -> BackfillPage:
        """Return a page of the backfills that are not over, or ended in the last 90 days, the youngest first.

        Those of one cause, or of all.
        `after` is the `next_after` of the page before; raises InvalidInput when it is not.
        """
        since = self._node.clock.now() - core.RETENTION
        return await self._node.database.read(read_page(since, size, parse_time_cursor(after), cause))

    async def images(
        self,
        backfill_id: str,
        status: ReplicationState | None = None,
        size: int = _FIRST_PAGE,
        after: str | None = None,
    ) -> BackfillImagePage:
        """Return a page of the results of a backfill that is over, COMPLETE and FAILED ones or only one kind.

        Empty as long as it is not over. Raises BackfillNotFound, InvalidInput for an `after` that is no `next_after`.
        """
        return await self._node.database.read(read_images(backfill_id, parse_image_cursor(after), size, status))

    async def stop(self, backfill_id: str) -> Backfill:
        """Stop a backfill: STOPPED, or STOPPING while copies under way go on to their end.

        What waits only because of it is not sent. Raises BackfillNotFound, BackfillInvalidStatus when it is over.
        """
        backfill = await self._node.database.write(partial(_begin_stop, backfill_id, self._node.clock.now()))
        _log.info("backfill is being stopped", **self._fields(backfill))
        await self._take_back(backfill)
        await self._finish(backfill)
        self._wake.set()
        return await self.get(backfill_id)

    def _check_rules(self, destination: DestinationId, repository: RepositoryName | None) -> None:
        expectation = Expectation(self._node.settings, destination)
        if not expectation.rules or destination == self._node.settings.node:
            raise InvalidInput(f"expected a destination of the replication configuration, got {destination}")
        if repository is not None and not expectation.targets(repository):
            raise InvalidInput(f"no replication rule sends repository {repository} to {destination}")

    def _new(self, cause: BackfillCause, destination: str, repository: RepositoryName | None) -> StoredBackfill:
        now = self._node.clock.now()
        return StoredBackfill(str(uuid.uuid4()), cause, destination, repository, BackfillState.PREPARING, now)

    # The service

    async def run(self) -> None:
        """Prepare and finish backfills until cancelled; what was under way goes on at the next start."""
        while True:
            self._wake.clear()
            try:
                await self.work()
            except StorageError as error:
                _log.warning("backfills could not use the store", node=self._name, error=str(error))
            await wait_for_event(self._wake, _LOOK_AGAIN, self._node.clock)

    async def work(self) -> None:
        """Do what there is to do now. Raises StorageError."""
        await self._tidy()
        now = self._node.clock.monotonic()
        resolves = now >= self._resolve_at
        for backfill in await self._node.database.read(backfills.active()):
            current: StoredBackfill | None = backfill
            if backfill.state is BackfillState.PREPARING:
                current = await self._prepare(backfill)
            if current is None:
                continue
            if current.state is BackfillState.STOPPING:
                await self._take_back(current)
            if resolves:
                await self._resolve(current)
            await self._finish(current)
        if resolves:
            self._resolve_at = now + _LOOK_AGAIN

    async def _tidy(self) -> None:
        clock = self._node.clock
        if clock.monotonic() >= self._tidy_at:
            until = clock.now() - core.RETENTION
            while await self._node.database.write(partial(backfills.forget_ended, until, _FIRST_PAGE)) == _FIRST_PAGE:
                pass
            self._tidy_at = clock.monotonic() + _TIDY_EVERY

    async def _prepare(self, backfill: StoredBackfill) -> StoredBackfill | None:
        """Name the images of a backfill; return it in its next state, None when that is somebody else's to do."""
        if backfill.cause is BackfillCause.SYNC:
            return await self._take_over(backfill)
        expectation = Expectation(self._node.settings, parse_destination(backfill.destination))
        current: StoredBackfill | None = backfill
        while current is not None and current.state is BackfillState.PREPARING:
            now = self._node.clock.now()
            body = partial(prepare_page, expectation, current, now, self._page_size)
            current = await self._node.database.write(body)
            self._node.announce_jobs(JobKind.REPLICATE)
        return current

    async def _take_over(self, backfill: StoredBackfill) -> StoredBackfill | None:
        """End the preparation of a sync whose images nobody names any more."""
        now = self._node.clock.now()
        if backfill.id in self._naming or now < backfill.created_at + _ABANDONED:
            return None
        return await self._node.database.write(partial(prepared, backfill, now, core.INTERRUPTED))

    async def _queue(self, backfill: StoredBackfill, work: Sequence[BackgroundWork]) -> None:
        await self._node.database.write(partial(_queue_all, backfill.id, work, self._node.clock.now()))
        for kind in {one.kind for one in work}:
            self._node.announce_jobs(kind)

    async def _take_back(self, backfill: StoredBackfill) -> None:
        while await self._node.database.write(partial(backfills.take_back, backfill.id, self._page_size)):
            pass

    async def _resolve(self, backfill: StoredBackfill) -> None:
        while await self._node.database.write(partial(backfills.resolve, backfill.id, _RESOLVE_PAGE)) == _RESOLVE_PAGE:
            pass

    async def _finish(self, backfill: StoredBackfill) -> None:
        """End a backfill all of whose images are settled."""
        if await self._node.database.read(backfills.is_under_way(backfill.id)):
            return
        ended = await self._node.database.write(partial(_end, backfill, self._node.clock.now()))
        if ended is not None:
            _log.info("backfill ended", **self._fields(backfill), state=ended.value)

    def _settled(self, repository: RepositoryName, digest: Digest) -> None:
        del repository, digest
        self._wake.set()

    @property
    def _name(self) -> str:
        return str(self._node.settings.node)

    def _fields(self, backfill: StoredBackfill) -> dict[str, object]:
        return {
            "node": self._name,
            "backfill": backfill.id,
            "cause": backfill.cause.value,
            "destination": backfill.destination,
            "repository": backfill.repository,
        }


# Transactions


def _create(node: RegistryNode, backfill: StoredBackfill) -> Steps[None]:
    running = [one for one in (yield from backfills.active()) if one.cause is backfill.cause]
    if backfill.cause is BackfillCause.BACKFILL:
        if any(one.destination == backfill.destination for one in running):
            raise BackfillInProgress(f"a backfill to {backfill.destination} is in progress")
        if backfill.repository is not None:
            yield from require_repository(node, backfill.repository)
    limit = node.settings.quotas.backfills
    if len(running) >= limit:
        raise BackfillLimit(f"{limit} backfills are in progress")
    yield from backfills.create(backfill)


def _queue_all(backfill: str, work: Sequence[BackgroundWork], now: float) -> Steps[None]:
    stored = yield from backfills.find(backfill)
    if stored is not None and stored.state is BackfillState.PREPARING:
        for one in work:
            yield from queue(one, now, backfill)


def _begin_stop(backfill_id: str, now: float) -> Steps[StoredBackfill]:
    backfill = yield from get_stored(backfill_id)
    if backfill.state.is_terminal:
        raise BackfillInvalidStatus(f"the backfill is {backfill.state}; expected one that is not over")
    yield from backfills.change_state(backfill, BackfillState.STOPPING, now)
    return replace(backfill, state=BackfillState.STOPPING)


def _end(backfill: StoredBackfill, now: float) -> Steps[BackfillState | None]:
    """End a backfill if all its images are settled; return its last state."""
    current = yield from backfills.find(backfill.id)
    if current is None:
        return None
    counts = yield from backfills.counts(backfill.id)
    state = core.settled(current.state, counts, failed=current.failure is not None)
    if state is current.state:
        return None
    failure = core.TOO_MANY_FAILURES if state is BackfillState.FAILED else None
    changed = yield from backfills.change_state(current, state, now, failure=failure)
    return state if changed else None
