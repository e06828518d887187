"""How replication stands: what waits for each destination and since when, what failed last, and how far an image is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ManifestNotFound
from replicator.core.jobs import JobState
from replicator.core.names import Tag
from replicator.core.reference import as_digest
from replicator.core.replication import ReplicateImage, ReplicationState
from replicator.registry.stored_images import get_image
from replicator.storage.metadata import images, jobs, replication_status
from replicator.storage.metadata.replication_status import SUPERSEDED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
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
    """A copy or a deletion whose last attempt failed, with the reason and the seconds until the next attempt."""

    replication: ReplicateImage
    attempts: int
    error: str
    age_seconds: float
    retry_in_seconds: float


@dataclass(frozen=True, slots=True)
class DestinationStatus:
    """How one image stands at one destination as a whole: ECR's element of `DescribeImageReplicationStatus`."""

    destination: str
    status: ReplicationState
    failure_code: str | None = None


class ReplicationStatusReader:
    """Reads the status of the replication out of one node. The methods raise StorageError."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def queues(self) -> list[DestinationQueue]:
        """Return the queue of every destination that has jobs, by name."""
        return _queues(await self._database.read(_lane_counts()), self._clock.now())

    async def recent_errors(self, limit: int = RECENT_ERRORS) -> list[ReplicationError]:
        """Return copies and deletions that are waiting after a failed attempt, the latest first."""
        found = await self._database.read(_troubled(limit))
        now = self._clock.now()
        return [_error(job, now) for job in found if job.state is not JobState.DEAD]

    async def of_image(self, repository: RepositoryName, reference: Reference) -> list[ReplicationStatus]:
        """Return the status of an image at every destination; empty when it goes nowhere. Raises ManifestNotFound."""
        return await self._database.read(_of_image(repository, reference))

    async def of_named_image(
        self, account: str, repository: RepositoryName, digest: Digest | None, tag: Tag | None
    ) -> tuple[Digest, list[ReplicationStatus]]:
        """Return the digest of an image with its status at every destination; it is named by digest, tag, or both.

        Raises InvalidInput without both, and in ECR's words RepositoryNotFound and ManifestNotFound.
        """
        return await self._database.read(_of_named_image(account, repository, digest, tag))


def summarise(rows: Iterable[ReplicationStatus], tag: Tag | None) -> list[DestinationStatus]:
    """Return the one status that the rows of an image are at each destination (ECR §9.3).

    An image asked for by tag stands there as that tag does, otherwise (`tag` is None) as all of its tags do together.
    """
    found: dict[str, list[ReplicationStatus]] = {}
    for row in rows:
        found.setdefault(row.destination, []).append(row)
    return [_summary(destination, mine, tag) for destination, mine in sorted(found.items())]


def _summary(destination: str, rows: list[ReplicationStatus], tag: Tag | None) -> DestinationStatus:
    """Judge by the tag that is asked for, and by what was superseded only where there is nothing else."""
    rows = [row for row in rows if tag is not None and row.tag == tag] or rows
    rows = [row for row in rows if row.failure_code != SUPERSEDED] or rows
    worst = min(rows, key=lambda row: _ORDER.index(row.status))
    return DestinationStatus(destination, worst.status, worst.failure_code)


_ORDER = (ReplicationState.IN_PROGRESS, ReplicationState.FAILED, ReplicationState.COMPLETE)


def _queues(counts: Iterable[LaneCount], now: float) -> list[DestinationQueue]:
    lanes: dict[str, list[LaneCount]] = {}
    for count in counts:
        lanes.setdefault(count.lane, []).append(count)
    return [_queue(lane, found, now) for lane, found in sorted(lanes.items())]


def _queue(lane: str, counts: Iterable[LaneCount], now: float) -> DestinationQueue:
    pending = [found.oldest for found in counts if found.state is not JobState.DEAD]
    numbers: Counter[JobState] = Counter()
    for found in counts:
        numbers[found.state] += found.count
    return DestinationQueue(
        destination=lane,
        queued=numbers[JobState.QUEUED],
        running=numbers[JobState.LEASED],
        dead=numbers[JobState.DEAD],
        oldest_seconds=max(0.0, now - min(pending)) if pending else 0.0,
    )


def _lane_counts() -> Steps[list[LaneCount]]:
    found: list[LaneCount] = []
    for kind in jobs.REPLICATION:
        found += yield from jobs.lane_counts(kind)
    return found


def _troubled(limit: int) -> Steps[list[TroubledJob]]:
    found: list[TroubledJob] = []
    for kind in jobs.REPLICATION:
        found += yield from jobs.troubled(kind, limit)
    return sorted(found, key=lambda job: job.enqueued_at, reverse=True)[:limit]


def _error(job: TroubledJob, now: float) -> ReplicationError:
    return ReplicationError(
        replication=ReplicateImage.from_payload(job.payload),
        attempts=job.attempts,
        error=job.error,
        age_seconds=max(0.0, now - job.enqueued_at),
        retry_in_seconds=max(0.0, job.retry_at - now),
    )


def _of_named_image(
    account: str, repository: RepositoryName, digest: Digest | None, tag: Tag | None
) -> Steps[tuple[Digest, list[ReplicationStatus]]]:
    found = yield from get_image(account, repository, digest, tag)
    return found, (yield from replication_status.of_image(repository, found))


def _of_image(repository: RepositoryName, reference: Reference) -> Steps[list[ReplicationStatus]]:
    digest = as_digest(reference)
    if digest is not None:
        found = yield from images.find(repository, digest)
    else:
        found = yield from images.find_by_tag(repository, Tag(reference))
    if found is None:
        raise ManifestNotFound(f"repository {repository} has no manifest {reference}")
    return (yield from replication_status.of_image(repository, found.digest))
