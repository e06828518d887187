"""What the layers report, passed on to metrics and the access log, and kept in small for `status`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.revisions import parse_revision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock
    from replicator.daemon.lag_watch import LagWatch
    from replicator.storage.metadata.tag_conflicts import TagConflict
    from replicator.telemetry.access_log import AccessLog
    from replicator.telemetry.metrics import CacheMetrics, UpstreamMetrics
    from replicator.telemetry.replication_metrics import ReplicationMetrics
    from replicator.telemetry.requests import Outcome, RequestObserver


class RequestRecorder:
    """Counts every finished request of a node and writes its line."""

    def __init__(self, node: str, requests: RequestObserver, access_log: AccessLog | None) -> None:
        self._node = node
        self._requests = requests
        self._access_log = access_log

    def __call__(self, outcome: Outcome) -> None:
        """Note one request."""
        self._requests.observe(
            outcome.route, outcome.method, outcome.status, outcome.seconds, outcome.sent, outcome.received
        )
        if self._access_log is not None:
            self._access_log.record(
                self._node,
                outcome.remote,
                outcome.method,
                outcome.path.partition("?")[0],
                outcome.status,
                outcome.seconds,
                outcome.sent,
                outcome.received,
                outcome.principal,
                outcome.agent,
                outcome.request_id,
                outcome.cache,
                outcome.upstream,
                outcome.operation,
            )


class CacheRecorder:
    """Counts what became of pulls through the cache."""

    def __init__(self, metrics: CacheMetrics, upstreams: Mapping[str, UpstreamMetrics]) -> None:
        self._metrics = metrics
        self._upstreams = upstreams
        self.results: Counter[str] = Counter()

    def result(self, rule: str, result: str) -> None:
        """Note one pull."""
        self._metrics.request(rule, result)
        self.results[result] += 1

    def upstream_bytes(self, upstream: str, size: int) -> None:
        """Note fetched bytes."""
        self._upstreams[upstream].received(size)

    def found(self, rule: str, finding: str) -> None:
        """Note what a check found of a tag."""
        self._metrics.found(rule, finding)


@dataclass(slots=True)
class DestinationTally:
    """What this process has done for one destination. `failures` counts attempts by failure code."""

    images: int = 0
    bytes: int = 0
    last_lag_seconds: float | None = None
    last_completed_at: float | None = None
    attempts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    drift_found: Counter[str] = field(default_factory=Counter)
    drift_repaired: Counter[str] = field(default_factory=Counter)


_PASSING = "passing"
"""Stands for the code of a failure that passes by itself and so leaves the status IN_PROGRESS."""


class ReplicationRecorder:
    """Counts what replication did: what its engine reports, what comparing finds, and conflicts of arriving tags."""

    def __init__(self, metrics: ReplicationMetrics, clock: Clock, lag: LagWatch) -> None:
        self._metrics = metrics
        self._clock = clock
        self._lag = lag
        self.destinations: dict[str, DestinationTally] = {}

    def replicated(self, rule: str, destination: str, lag_seconds: float | None, sent: int) -> None:
        """Note an image that is complete at a destination; background work has no lag, because nobody just pushed."""
        tally = self._tally(destination)
        tally.images += 1
        tally.last_completed_at = self._clock.now()
        if lag_seconds is not None:
            self._metrics.complete(rule, destination, lag_seconds)
            self._lag.note(rule, destination, lag_seconds)
            tally.last_lag_seconds = lag_seconds

    def attempt(self, destination: str, outcome: str) -> None:
        """Note one attempt."""
        self._metrics.attempt(destination, outcome)
        self._tally(destination).attempts[outcome] += 1

    def failed(self, destination: str, code: str | None) -> None:
        """Note why an attempt failed; None stands for a fault that passes. Another attempt follows."""
        self._metrics.failure(destination, code or _PASSING)
        self._metrics.retry(destination)
        self._tally(destination).failures[code or _PASSING] += 1

    def sent(self, destination: str, size: int) -> None:
        """Note the blob bytes of one attempt."""
        self._metrics.sent(destination, size)
        self._tally(destination).bytes += size

    def conflict_found(self, conflict: TagConflict) -> None:
        """Note a tag that two nodes had set without knowing of each other, by the one whose tag won."""
        self._metrics.conflict(parse_revision(conflict.winner_revision).node)

    def drift_found(self, destination: str, kind: str, count: int = 1) -> None:
        """Note differences between what the rules say and what a destination holds."""
        self._metrics.drift_found(destination, kind, count)
        self._tally(destination).drift_found[kind] += count

    def drift_repaired(self, destination: str, kind: str, count: int = 1) -> None:
        """Note differences whose repair was queued."""
        self._metrics.drift_repaired(destination, kind, count)
        self._tally(destination).drift_repaired[kind] += count

    def _tally(self, destination: str) -> DestinationTally:
        return self.destinations.setdefault(destination, DestinationTally())
