"""A node at a glance, as the JSON that `replicator status` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator import __version__
from replicator.daemon.observers import DestinationTally
from replicator.registry_api.cache_json import upstream_json
from replicator.registry_api.replication_json import conflict_json
from replicator.replication.status import DestinationQueue, ReplicationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName
    from replicator.daemon.gauges import NodeGauges
    from replicator.daemon.observers import CacheRecorder, ReplicationRecorder
    from replicator.daemon.readiness import ReadinessProbe
    from replicator.replication.conflicts import ConflictReader
    from replicator.replication.status import ReplicationStatusReader
    from replicator.upstream.client import UpstreamClient


class NodeStatus:
    """Collects the status of one node."""

    def __init__(
        self,
        name: str,
        url: str,
        clock: Clock,
        gauges: NodeGauges,
        readiness: ReadinessProbe,
        cache: CacheRecorder,
        replication: ReplicationRecorder,
        reader: ReplicationStatusReader,
        conflicts: ConflictReader,
        upstreams: Sequence[UpstreamClient] = (),
    ) -> None:
        self._name = name
        self._url = url
        self._clock = clock
        self._started = clock.monotonic()
        self._gauges = gauges
        self._readiness = readiness
        self._cache = cache
        self._replication = replication
        self._reader = reader
        self._conflicts = conflicts
        self._upstreams = upstreams

    async def get(self, may_see: Callable[[RepositoryName], bool]) -> Mapping[str, object]:
        """Return the status, with errors of repositories that `may_see` allows; raises StorageError."""
        totals = await self._gauges.refresh()
        read, write = await self._readiness.check("read"), await self._readiness.check("write")
        failing = await self._reader.recent_errors()
        conflicts = await self._conflicts.latest(may_see)
        return {
            "node": self._name,
            "url": self._url,
            "version": __version__,
            "uptime_seconds": round(self._clock.monotonic() - self._started, 1),
            "ready": {"read": read.ready, "write": write.ready, "reason": read.reason or write.reason},
            "storage": {
                "repositories": totals.repositories,
                "images": totals.images,
                "blobs": totals.blobs,
                "blob_bytes": totals.blob_bytes,
                "uploads_open": totals.uploads,
            },
            "replication": {
                "jobs": totals.jobs,
                "oldest_pending_seconds": round(totals.oldest_job_seconds, 3),
                "destinations": await self._destinations(totals.superseded),
                "backfills": dict(totals.backfills),
                "objectives": [report.to_json() for report in await self._gauges.objectives()],
                "conflicts": [conflict_json(found) for found in conflicts],
                "errors": [_error(found) for found in failing if may_see(found.replication.repository)],
            },
            "cache": dict(self._cache.results),
            "upstreams": [upstream_json(client) for client in self._upstreams],
        }

    async def _destinations(self, superseded: Mapping[str, int]) -> list[Mapping[str, object]]:
        queues = {queue.destination: queue for queue in await self._reader.queues()}
        tallies = self._replication.destinations
        return [
            {
                **_destination(name, queues.get(name, DestinationQueue(name)), tallies.get(name, DestinationTally())),
                "superseded": superseded.get(name, 0),
            }
            for name in sorted({*queues, *tallies, *superseded})
        ]


def _destination(name: str, queue: DestinationQueue, tally: DestinationTally) -> Mapping[str, object]:
    return {
        "destination": name,
        "queued": queue.queued,
        "running": queue.running,
        "dead": queue.dead,
        "failures": dict(tally.failures),
        "drift": _drift(tally),
        "oldest_seconds": round(queue.oldest_seconds, 3),
        "images": tally.images,
        "bytes": tally.bytes,
        "attempts": dict(tally.attempts),
        "last_lag_seconds": tally.last_lag_seconds,
    }


def _drift(tally: DestinationTally) -> list[Mapping[str, object]]:
    return [
        {"kind": kind, "found": tally.drift_found[kind], "repaired": tally.drift_repaired[kind]}
        for kind in sorted(tally.drift_found)
    ]


def _error(found: ReplicationError) -> Mapping[str, object]:
    replication = found.replication
    return {
        "destination": str(replication.destination),
        "repository": replication.repository,
        "digest": replication.digest,
        "tag": replication.tag,
        "rule": replication.rule,
        "attempts": found.attempts,
        "error": found.error,
        "age_seconds": round(found.age_seconds, 3),
        "retry_in_seconds": round(found.retry_in_seconds, 3),
    }
