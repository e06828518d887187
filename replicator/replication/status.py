"""How replication stands: what waits for each destination and since when, what failed last, and how far an image is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ManifestNotFound
from replicator.core.jobs import JobKind, JobState
from replicator.core.names import Tag
from replicator.core.reference import as_digest
from replicator.core.replication import ReplicateImage
from replicator.storage.metadata import images, jobs, replication_status

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.jobs import LaneCount, TroubledJob
    from replicator.storage.metadata.replication_status import ReplicationStatus
    from replicator.storage.metadata.statement import Steps

RECENT_ERRORS = 20


@dataclass(frozen=True, slots=True)
class DestinationQueue:
    """The jobs of one destination; `oldest_seconds` is the age of the oldest that is not done."""

    destination: str
    queued: int = 0
    running: int = 0
    dead: int = 0
    oldest_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ReplicationError:
    """A replication whose last attempt failed, with the reason and the seconds until the next attempt."""

    replication: ReplicateImage
    attempts: int
    error: str
    age_seconds: float
    retry_in_seconds: float


class ReplicationStatusReader:
    """Reads the status of the replication out of one node. The methods raise StorageError."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def queues(self) -> list[DestinationQueue]:
        """Return the queue of every destination that has jobs, by name."""
        return _queues(await self._database.read(jobs.lane_counts(JobKind.REPLICATE)), self._clock.now())

    async def recent_errors(self, limit: int = RECENT_ERRORS) -> list[ReplicationError]:
        """Return replications that are waiting after a failed attempt, the latest pushes first."""
        found = await self._database.read(jobs.troubled(JobKind.REPLICATE, limit))
        now = self._clock.now()
        return [_error(job, now) for job in found if job.state is not JobState.DEAD]

    async def of_image(self, repository: RepositoryName, reference: Reference) -> list[ReplicationStatus]:
        """Return the status of an image at every destination; empty when it goes nowhere. Raises ManifestNotFound."""
        return await self._database.read(_of_image(repository, reference))


def _queues(counts: Iterable[LaneCount], now: float) -> list[DestinationQueue]:
    lanes: dict[str, dict[JobState, LaneCount]] = {}
    for count in counts:
        lanes.setdefault(count.lane, {})[count.state] = count
    return [_queue(lane, states, now) for lane, states in sorted(lanes.items())]


def _queue(lane: str, states: dict[JobState, LaneCount], now: float) -> DestinationQueue:
    pending = [count.oldest for state, count in states.items() if state is not JobState.DEAD]
    numbers = {state: count.count for state, count in states.items()}
    return DestinationQueue(
        destination=lane,
        queued=numbers.get(JobState.QUEUED, 0),
        running=numbers.get(JobState.LEASED, 0),
        dead=numbers.get(JobState.DEAD, 0),
        oldest_seconds=max(0.0, now - min(pending)) if pending else 0.0,
    )


def _error(job: TroubledJob, now: float) -> ReplicationError:
    return ReplicationError(
        replication=ReplicateImage.from_payload(job.payload),
        attempts=job.attempts,
        error=job.error,
        age_seconds=max(0.0, now - job.enqueued_at),
        retry_in_seconds=max(0.0, job.retry_at - now),
    )


def _of_image(repository: RepositoryName, reference: Reference) -> Steps[list[ReplicationStatus]]:
    digest = as_digest(reference)
    if digest is not None:
        found = yield from images.find(repository, digest)
    else:
        found = yield from images.find_by_tag(repository, Tag(reference))
    if found is None:
        raise ManifestNotFound(f"repository {repository} has no manifest {reference}")
    return (yield from replication_status.of_image(repository, found.digest))
