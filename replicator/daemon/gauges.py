"""Metrics that are looked up when they are scraped: storage, uploads, the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.jobs import JobState
from replicator.storage.metadata import blobs, images, jobs, repositories, uploads

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps
    from replicator.telemetry.metrics import ReplicationMetrics, StorageMetrics

_REMEMBER = 5.0


@dataclass(frozen=True, slots=True)
class Totals:
    """The size of a node. Ages are seconds, the rest counts and bytes."""

    repositories: int
    images: int
    blobs: int
    blob_bytes: int
    uploads: int
    jobs: dict[str, int]
    oldest_job_seconds: float


class NodeGauges:
    """Looks a node's totals up, at most every five seconds, and shows them as metrics."""

    def __init__(
        self, node: RegistryNode, clock: Clock, storage: StorageMetrics, replication: ReplicationMetrics
    ) -> None:
        self._node = node
        self._clock = clock
        self._storage = storage
        self._replication = replication
        self._known: tuple[float, Totals] | None = None

    async def refresh(self) -> Totals:
        """Return the totals after showing them; raises StorageError."""
        now = self._clock.monotonic()
        if self._known is not None and now - self._known[0] < _REMEMBER:
            return self._known[1]
        totals = await self._node.database.read(_totals(self._clock.now()))
        usage = await self._node.store.usage()
        self._storage.stored("blobs", totals.blob_bytes)
        self._storage.free(usage.free_bytes)
        self._storage.blobs(totals.blobs)
        self._storage.uploads_open(totals.uploads)
        self._replication.queue(totals.jobs, totals.oldest_job_seconds)
        self._known = (now, totals)
        return totals


def _totals(now: float) -> Steps[Totals]:
    repository_count = yield from repositories.count()
    image_count = yield from images.count()
    blob_count, blob_bytes = yield from blobs.totals()
    open_uploads = yield from uploads.ids()
    job_counts = yield from jobs.counts()
    by_state = {state.value: 0 for state in JobState}
    for found in job_counts:
        by_state[found.state.value] += found.count
    waiting = [found.oldest for found in job_counts if found.state is not JobState.DEAD]
    return Totals(
        repositories=repository_count,
        images=image_count,
        blobs=blob_count,
        blob_bytes=blob_bytes,
        uploads=len(open_uploads),
        jobs=by_state,
        oldest_job_seconds=max(0.0, now - min(waiting)) if waiting else 0.0,
    )
