"""Writes down how an attempt ended: status and job in one transaction, then whoever observes is told."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from replicator.core.errors import ReplicatorError, StorageError, UpstreamError
from replicator.core.replication import Origin, ReplicationState
from replicator.replication.failures import LONGEST_PAUSE, judge
from replicator.storage.metadata import images, jobs, replication_status, tags
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.core.replication import ReplicateImage
    from replicator.registry.node import RegistryNode
    from replicator.replication.attempt import Delivered
    from replicator.replication.failures import FailureCode
    from replicator.replication.lane import Lane
    from replicator.storage.metadata.jobs import LeasedJob
    from replicator.storage.metadata.statement import Body, Steps

_log = get_logger(__name__)

_MAX_ERROR = 500


class ReplicationObserver(Protocol):
    """Sees what replication does. Must be quick, and must not raise."""

    def replicated(self, rule: str, destination: str, lag_seconds: float, sent: int) -> None:
        """Note that an image can be pulled at a destination, so long after its push was acknowledged."""
        ...

    def attempt(self, destination: str, outcome: str) -> None:
        """Note the outcome of an attempt: `complete`, `retry`, `failed`, or `dropped` (the image is gone here)."""
        ...


class Settlement:
    """Settles the attempts of one node.

    A store that cannot take the outcome is logged, not raised: the lease then runs out and the job is done once more.
    """

    def __init__(self, node: RegistryNode, observer: ReplicationObserver, jitter: Callable[[], float]) -> None:
        self._node = node
        self._observer = observer
        self._jitter = jitter

    async def complete(self, leased: LeasedJob, replication: ReplicateImage, delivered: Delivered, sent: int) -> None:
        """Report an image that was read back at its destination; its job goes, unless it was asked for again."""
        now, destination = self._node.clock.now(), str(replication.destination)
        done = await self._write(partial(_completed, leased, replication, delivered, sent, now))
        if done:
            lag = max(0.0, now - leased.job.enqueued_at)
            self._observer.replicated(replication.rule, destination, lag, sent)
            _log.info("image replicated", **self._fields(replication), lag_seconds=round(lag, 3), sent_bytes=sent)
        self._observer.attempt(destination, "complete")

    async def drop(self, leased: LeasedJob, replication: ReplicateImage) -> None:
        """Forget an image that is gone at the source, unless it came back meanwhile."""
        await self._write(partial(_dropped, leased, replication, self._node.clock.now()))
        self._observer.attempt(str(replication.destination), "dropped")

    async def fail(
        self, lane: Lane, leased: LeasedJob, replication: ReplicateImage, error: Exception, sent: int
    ) -> None:
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
        await self._write(
            partial(_failed, leased, replication, now, now + delay, failure.code, text[:_MAX_ERROR], sent)
        )
        self._observer.attempt(str(replication.destination), "failed" if failure.code else "retry")
        _log.warning(
            "image could not be replicated",
            **self._fields(replication),
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

    async def _write(self, body: Body[bool]) -> bool:
        try:
            return await self._node.database.write(body)
        except StorageError as error:
            _log.warning(
                "outcome of a replication could not be stored", node=str(self._node.settings.node), error=str(error)
            )
            return False

    def _fields(self, replication: ReplicateImage) -> dict[str, object]:
        return {
            "node": str(self._node.settings.node),
            "destination": str(replication.destination),
            "repository": replication.repository,
            "digest": replication.digest,
            "tag": replication.tag,
        }


def _completed(
    leased: LeasedJob, replication: ReplicateImage, delivered: Delivered, sent: int, now: float
) -> Steps[bool]:
    done = yield from jobs.complete(leased, now)
    if done:
        yield from replication_status.settle(replication, ReplicationState.COMPLETE, now, sent)
    else:
        yield from replication_status.add_sent(replication, sent)
    if delivered.left_stale_tag:
        yield from _send_current(replication, now)
    return done


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


def _dropped(leased: LeasedJob, replication: ReplicateImage, now: float) -> Steps[bool]:
    done = yield from jobs.complete(leased, now)
    if done:
        yield from replication_status.forget(replication.repository, replication.digest)
    return done


def _failed(
    leased: LeasedJob,
    replication: ReplicateImage,
    now: float,
    retry_at: float,
    code: FailureCode | None,
    text: str,
    sent: int,
) -> Steps[bool]:
    held = yield from jobs.renew(leased, retry_at)
    if not held:
        return False  # another worker has it by now, and its word counts
    yield from jobs.release(leased, retry_at, text)
    if code is None:
        yield from replication_status.add_sent(replication, sent)
    else:
        yield from replication_status.settle(replication, ReplicationState.FAILED, now, sent, code)
    return True


def _buried(leased: LeasedJob, now: float, text: str) -> Steps[bool]:
    yield from jobs.bury(leased, now, text)
    return True
