"""Metrics that are looked up when they are scraped: storage, uploads, the queue, lag objectives, upstreams."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.jobs import JobState
from replicator.storage.metadata import blobs, images, job_counts, repositories, uploads
from replicator.telemetry.replication_metrics import QueuedJobs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicator.core.clock import Clock
    from replicator.daemon.lag_watch import LagWatch, ObjectiveReport, Place
    from replicator.daemon.upstream_gauges import UpstreamGauges
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.job_counts import WaitingJobs
    from replicator.storage.metadata.statement import Steps
    from replicator.telemetry.metrics import StorageMetrics
    from replicator.telemetry.replication_metrics import ReplicationMetrics

_REMEMBER = 5.0


@dataclass(frozen=True, slots=True)
class Totals:
    """The size of a node. Ages are seconds, the rest counts and bytes."""

    repositories: int
    images: int
    blobs: int
    blob_bytes: int
    uploads: int
    jobs: Mapping[str, int]
    oldest_job_seconds: float
    waiting: tuple[WaitingJobs, ...] = ()
    overdue: Mapping[Place, int] = field(default_factory=dict)
    superseded: Mapping[str, int] = field(default_factory=dict)
    backfills: Mapping[str, int] = field(default_factory=dict)


class NodeGauges:
    """Looks a node's totals up, at most every five seconds, and shows them as metrics."""

    def __init__(
        self,
        node: RegistryNode,
        clock: Clock,
        storage: StorageMetrics,
        replication: ReplicationMetrics,
        lag: LagWatch,
        upstreams: UpstreamGauges,
    ) -> None:
        self._node = node
        self._clock = clock
        self._storage = storage
        self._replication = replication
        self._lag = lag
        self._upstreams = upstreams
        self._known: tuple[float, Totals] | None = None

    async def refresh(self) -> Totals:
        """Return the totals after showing them; raises StorageError."""
        self._upstreams.refresh()
        now = self._clock.monotonic()
        if self._known is not None and now - self._known[0] < _REMEMBER:
            return self._known[1]
        wall = self._clock.now()
        totals = await self._node.database.read(_totals(wall, self._lag))
        usage = await self._node.store.usage()
        self._storage.stored("blobs", totals.blob_bytes)
        self._storage.free(usage.free_bytes)
        self._storage.blobs(totals.blobs)
        self._storage.uploads_open(totals.uploads)
        self._replication.queue(_queues(totals.waiting), self._ages(totals.waiting, wall))
        self._replication.superseded(totals.superseded)
        self._replication.backfills(totals.backfills)
        self._lag.report(totals.overdue)
        self._known = (now, totals)
        return totals

    async def objectives(self) -> list[ObjectiveReport]:
        """Return how the lag objectives stand; raises StorageError."""
        return self._lag.report((await self.refresh()).overdue)

    def _ages(self, waiting: Iterable[WaitingJobs], now: float) -> Mapping[str, float]:
        """Return the age of the oldest job of every destination, 0 for those that have none."""
        rules = self._node.settings.replication_rules
        ages = {str(destination): 0.0 for rule in rules for destination in rule.destinations}
        for one in waiting:
            if one.state is not JobState.DEAD:
                ages[one.lane] = max(ages.get(one.lane, 0.0), now - one.oldest)
        return ages


def _queues(waiting: Iterable[WaitingJobs]) -> list[QueuedJobs]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for one in waiting:
        counts[one.lane, one.priority_class, one.state.value] += one.count
    return [QueuedJobs(*labels, count) for labels, count in counts.items()]


def _totals(now: float, lag: LagWatch) -> Steps[Totals]:
    repository_count = yield from repositories.count()
    image_count = yield from images.count()
    blob_count, blob_bytes = yield from blobs.totals()
    open_uploads = yield from uploads.ids()
    waiting = yield from job_counts.by_lane()
    overdue = yield from lag.find_overdue(now)
    superseded = yield from job_counts.superseded()
    backfills = yield from job_counts.backfill_states()
    by_state = {state.value: 0 for state in JobState}
    for found in waiting:
        by_state[found.state.value] += found.count
    oldest = [found.oldest for found in waiting if found.state is not JobState.DEAD]
    return Totals(
        repositories=repository_count,
        images=image_count,
        blobs=blob_count,
        blob_bytes=blob_bytes,
        uploads=len(open_uploads),
        jobs=by_state,
        oldest_job_seconds=max(0.0, now - min(oldest)) if oldest else 0.0,
        waiting=tuple(waiting),
        overdue=overdue,
        superseded=superseded,
        backfills=backfills,
    )
