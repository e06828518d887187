"""Writes down how an attempt ended: status and job in one transaction, then whoever observes is told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from replicator.core.errors import ReplicatorError, StorageError, UpstreamError
from replicator.core.jobs import Priority
from replicator.core.replication import DeleteReplica, Origin, ReplicateImage, ReplicationState
from replicator.replication.failures import LONGEST_PAUSE, FailureCode, judge
from replicator.storage.metadata import backfills, images, jobs, replication_status, tags
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.registry.node import RegistryNode
    from replicator.replication.attempt import Delivered
    from replicator.replication.lane import Lane
    from replicator.storage.metadata.jobs import LeasedJob
    from replicator.storage.metadata.statement import Body, Steps

_log = get_logger(__name__)

T = TypeVar("T")

_MAX_ERROR = 500


Task = ReplicateImage | DeleteReplica
"""What a job of a destination's lane asks for."""


class ReplicationObserver(Protocol):
    """Sees what replication does. Must be quick, and must not raise."""

    def replicated(self, rule: str, destination: str, lag_seconds: float | None, sent: int) -> None:
        """Note that an image can be pulled at a destination, so long after its push; None for background work."""
        ...

    def attempt(self, destination: str, outcome: str) -> None:
        """Note the outcome of an attempt.

        It is `complete`, `deleted`, `retry`, `failed`, or `dropped` (the source has changed its mind).
        """
        ...

    def failed(self, destination: str, code: str | None) -> None:
        """Note the failure code of an attempt; None where the fault passes by itself."""
        ...

    def sent(self, destination: str, size: int) -> None:
        """Note the blob bytes that an attempt sent, whatever came of it."""
        ...


class Settlement:
    """Settles the attempts of one node.

    A store that cannot take the outcome is logged, not raised: the lease then runs out and the job is done once more.
    """

    def __init__(self, node: RegistryNode, observer: ReplicationObserver, jitter: Callable[[], float]) -> None:
        self._node = node
        self._observer = observer
        self._jitter = jitter

    async def complete(self, leased: LeasedJob, task: Task, delivered: Delivered, sent: int) -> None:
        """Report what its destination confirmed; the job goes, unless it was asked for again."""
        if isinstance(task, DeleteReplica):
            await self._deleted(leased, task)
            return
        now, destination = self._node.clock.now(), str(task.destination)
        pushed_at = await self._write(partial(_completed, leased, task, delivered, sent, now))
        self._observer.sent(destination, sent)
        if delivered.stays_deleted:
            self._observer.failed(destination, FailureCode.DELETED_THERE)
        elif pushed_at is not None:
            lag = max(0.0, now - pushed_at)
            is_push = leased.job.priority < Priority.BACKGROUND
            self._observer.replicated(task.rule, destination, lag if is_push else None, sent)
            _log.info("image replicated", **self._fields(task), lag_seconds=round(lag, 3), sent_bytes=sent)
        self._observer.attempt(destination, "failed" if delivered.stays_deleted else "complete")
        self._node.announce_settled(task.repository, task.digest)

    async def _deleted(self, leased: LeasedJob, task: DeleteReplica) -> None:
        if await self._write(partial(_removed, leased, task, self._node.clock.now())):
            _log.info("deletion replicated", **self._fields(task))
        self._observer.attempt(str(task.destination), "deleted")
        self._node.announce_settled(task.repository, task.digest)

    async def drop(self, leased: LeasedJob, task: Task) -> None:
        """Forget a copy of an image that is gone at the source, or a deletion of what is there again."""
        now = self._node.clock.now()
        if isinstance(task, DeleteReplica):
            await self._write(partial(_removed, leased, task, now))
        else:
            await self._write(partial(_dropped, leased, task, now))
            self._node.announce_settled(task.repository, task.digest)
        self._observer.attempt(str(task.destination), "dropped")

    async def fail(self, lane: Lane, leased: LeasedJob, task: Task, error: Exception, sent: int) -> None:
        """Put a job back after a failed attempt, to be tried again."""
        failure, clock = judge(error), self._node.clock
        retry_after = min(getattr(error, "retry_after", None) or 0.0, LONGEST_PAUSE)
        delay = failure.backoff.delay(leased.job.attempts, self._jitter(), retry_after)
        if failure.destination_down:
            delay = max(delay, lane.failed(clock.monotonic(), self._jitter(), retry_after))
        elif isinstance(error, UpstreamError):
            lane.reached()
        text = str(error) if isinstance(error, ReplicatorError) else f"unexpected {type(error).__name__}"
        now = clock.now()
        await self._write(partial(_failed, leased, task, now, now + delay, failure.code, text[:_MAX_ERROR], sent))
        self._observer.attempt(str(task.destination), "failed" if failure.code else "retry")
        self._observer.failed(str(task.destination), failure.code)
        self._observer.sent(str(task.destination), sent)
        self._node.announce_settled(task.repository, task.digest)
        _log.warning(
            "image could not be replicated" if isinstance(task, ReplicateImage) else "deletion could not be replicated",
            **self._fields(task),
            attempt=leased.job.attempts,
            retry_in_seconds=round(delay, 3),
            failure_code=failure.code,
            error=text,
        )

    async def bury(self, leased: LeasedJob, error: ReplicatorError) -> None:
        """Keep a job that cannot be understood, without trying it again."""
        now = self._node.clock.now()
        await self._write(lambda: _buried(leased, now, str(error)[:_MAX_ERROR]))
        _log.error(
            "replication job is malformed", node=str(self._node.settings.node), key=leased.job.key, error=str(error)
        )

    async def _write(self, body: Body[T]) -> T | None:
        try:
            return await self._node.database.write(body)
        except StorageError as error:
            _log.warning(
                "outcome of a replication could not be stored", node=str(self._node.settings.node), error=str(error)
            )
            return None

    def _fields(self, task: Task) -> dict[str, object]:
        return {
            "node": str(self._node.settings.node),
            "destination": str(task.destination),
            "rule": task.rule,
            "repository": task.repository,
            "digest": task.digest,
            "tag": task.tag,
        }


def _completed(
    leased: LeasedJob, replication: ReplicateImage, delivered: Delivered, sent: int, now: float
) -> Steps[float | None]:
    """Settle what was delivered; return when it was pushed.

    None where that does not count: another worker has the job, or the image is to be sent again.
    """
    held = yield from jobs.renew(leased, now)
    if not held:
        return None  # its word counts
    done = yield from jobs.complete(leased, now)
    is_due_again = not done and (yield from _asks_for(leased, replication))
    pushed_at = None
    if is_due_again:
        yield from replication_status.add_sent(replication, sent)
    else:
        status, code = _outcome(delivered)
        settled = yield from replication_status.settle(replication, status, now, sent, code)
        pushed_at = leased.job.enqueued_at if settled is None else settled
        yield from backfills.settle_image(replication, status, sent, code)
    if done:
        yield from backfills.leave_others(replication)
    if delivered.left_stale_tag:
        yield from _send_current(replication, now)
    return pushed_at


def _outcome(delivered: Delivered) -> tuple[ReplicationState, FailureCode | None]:
    if delivered.stays_deleted:
        return ReplicationState.FAILED, FailureCode.DELETED_THERE
    return ReplicationState.COMPLETE, None


def _asks_for(leased: LeasedJob, replication: ReplicateImage) -> Steps[bool]:
    """Tell whether the job, which was asked for again, is about the same image still, and not about a newer one."""
    payload = yield from jobs.payload_of(leased)
    return payload is not None and payload.get("digest") == replication.digest


def _send_current(replication: ReplicateImage, now: float) -> Steps[None]:
    """Queue what the tag points to here once more, unless it came from elsewhere (one hop)."""
    assert replication.tag is not None  # noqa: S101 - only a tag can be stale
    state = yield from tags.find(replication.repository, replication.tag)
    if state is None or state.digest is None or state.digest == replication.digest:
        return
    origin = yield from images.find_origin(replication.repository, state.digest)
    if origin is None or origin is Origin.REPLICA:
        return
    current = replace(replication, digest=state.digest)
    yield from replication_status.start(current, now)
    yield from jobs.enqueue(current.to_job(), now)


def _removed(leased: LeasedJob, deletion: DeleteReplica, now: float) -> Steps[bool]:
    done = yield from jobs.complete(leased, now)
    if done:
        yield from backfills.settle_image(deletion, ReplicationState.COMPLETE)
    return done


def _dropped(leased: LeasedJob, replication: ReplicateImage, now: float) -> Steps[bool]:
    done = yield from jobs.complete(leased, now)
    if done:
        yield from backfills.leave_image(replication)
    if done and (yield from images.find_origin(replication.repository, replication.digest)) is None:
        yield from replication_status.forget(replication.repository, replication.digest)
    return done


def _failed(
    leased: LeasedJob, task: Task, now: float, retry_at: float, code: str | None, text: str, sent: int
) -> Steps[bool]:
    held = yield from jobs.renew(leased, retry_at)
    if not held:
        return False  # another worker has it by now, and its word counts
    yield from jobs.release(leased, retry_at, text)
    if isinstance(task, DeleteReplica):
        if code is not None:
            yield from backfills.settle_image(task, ReplicationState.FAILED, code=code)
        return True
    is_superseded = not (yield from _asks_for(leased, task))
    if code is None or is_superseded:
        yield from replication_status.add_sent(task, sent)
    else:
        yield from replication_status.settle(task, ReplicationState.FAILED, now, sent, code)
        yield from backfills.settle_image(task, ReplicationState.FAILED, sent, code)
    return True


def _buried(leased: LeasedJob, now: float, text: str) -> Steps[bool]:
    yield from jobs.bury(leased, now, text)
    return True
