"""What the layers report, passed on to metrics and the access log, and kept in small for `status`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock
    from replicator.registry_api.api import Outcome
    from replicator.telemetry.access_log import AccessLog
    from replicator.telemetry.metrics import CacheMetrics, ReplicationMetrics, UpstreamMetrics
    from replicator.telemetry.requests import RequestObserver


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


@dataclass(slots=True)
class DestinationTally:
    """What this process has sent to one destination."""

    images: int = 0
    bytes: int = 0
    last_lag_seconds: float | None = None
    last_completed_at: float | None = None
    attempts: Counter[str] = field(default_factory=Counter)


class ReplicationRecorder:
    """Counts what replication did."""

    def __init__(self, metrics: ReplicationMetrics, clock: Clock) -> None:
        self._metrics = metrics
        self._clock = clock
        self.destinations: dict[str, DestinationTally] = {}

    def replicated(self, rule: str, destination: str, lag_seconds: float, sent: int) -> None:
        """Note an image that is complete at a destination."""
        self._metrics.complete(rule, destination, lag_seconds)
        self._metrics.sent(destination, sent)
        tally = self._tally(destination)
        tally.images += 1
        tally.bytes += sent
        tally.last_lag_seconds = lag_seconds
        tally.last_completed_at = self._clock.now()

    def attempt(self, destination: str, outcome: str) -> None:
        """Note one attempt."""
        self._metrics.attempt(destination, outcome)
        self._tally(destination).attempts[outcome] += 1

    def _tally(self, destination: str) -> DestinationTally:
        return self.destinations.setdefault(destination, DestinationTally())
