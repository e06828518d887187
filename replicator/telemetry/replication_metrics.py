"""Metrics of the replication out of and into a node: lag and its objective, queues, failures, drift, conflicts.

Rules and destinations come from the configuration, codes, kinds and states from enumerations; so the number of series
is bounded by what an operator wrote down.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LAG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


@dataclass(frozen=True, slots=True)
class QueuedJobs:
    """The jobs of one destination in one priority class (`push` or `background`) and one state."""

    destination: str
    priority_class: str
    state: str
    count: int


class ReplicationSeries:
    """Every series of replication, of all nodes of a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.lag = Histogram(
            "replicator_replication_lag_seconds",
            "Time from an image's push to its being complete at the destination.",
            ("node", "rule", "destination"),
            buckets=LAG_SECONDS,
            registry=registry,
        )
        self.objective = self._gauge(
            "lag_objective_seconds", "Lag that a rule promises for a destination.", "rule", "destination"
        )
        self.burn = self._gauge(
            "lag_burn_rate",
            "Share of images later than the objective, over the share that may be; 1 uses up what is allowed.",
            "rule",
            "destination",
            "window",
        )
        self.overdue = self._gauge(
            "overdue_jobs", "Jobs that wait for longer than their rule's lag objective.", "rule", "destination"
        )
        self.attempts = self._counter("attempts_total", "Replication attempts by outcome.", "destination", "outcome")
        self.retries = self._counter("retries_total", "Attempts after a failed one.", "destination")
        self.failures = self._counter("failures_total", "Failed attempts by failure code.", "destination", "code")
        self.sent = self._counter("bytes_total", "Bytes sent to destinations.", "destination")
        self.superseded = self._gauge(
            "superseded_images", "Images that lost their tag to a newer push before they were sent.", "destination"
        )
        self.conflicts = self._counter(
            "conflicts_total", "Tags that two nodes had set without knowing of each other.", "source"
        )
        self.drift_found = self._counter(
            "drift_found_total", "Differences found at destinations.", "destination", "kind"
        )
        self.drift_repaired = self._counter(
            "drift_repaired_total", "Differences for which a repair was queued.", "destination", "kind"
        )
        self.jobs = self._gauge("jobs", "Replication jobs that are not done.", "destination", "priority_class", "state")
        self.oldest = self._gauge(
            "oldest_pending_seconds", "Age of the oldest replication job that is not done.", "destination"
        )
        self.backfills = self._gauge("backfills", "Backfills by state.", "state")

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"replicator_replication_{name}", text, ("node", *labels), registry=self._registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"replicator_replication_{name}", text, ("node", *labels), registry=self._registry)


class ReplicationMetrics:
    """Replication of one node."""

    def __init__(self, node: str, series: ReplicationSeries) -> None:
        self._node = node
        self._series = series
        self._jobs_shown: set[tuple[str, str, str]] = set()
        self._oldest_shown: set[str] = set()
        self._backfills_shown: set[str] = set()
        self._superseded_shown: set[str] = set()

    def complete(self, rule: str, destination: str, lag_seconds: float) -> None:
        """Note that an image is complete at a destination, so long after its push."""
        self._series.lag.labels(self._node, rule, destination).observe(max(0.0, lag_seconds))

    def attempt(self, destination: str, outcome: str) -> None:
        """Count an attempt; `outcome` is a word of an enumeration, such as `complete` or `retry`."""
        self._series.attempts.labels(self._node, destination, outcome).inc()

    def retry(self, destination: str) -> None:
        """Count an attempt that follows a failed one."""
        self._series.retries.labels(self._node, destination).inc()

    def failure(self, destination: str, code: str) -> None:
        """Count a failed attempt by what it means."""
        self._series.failures.labels(self._node, destination, code).inc()

    def sent(self, destination: str, size: int) -> None:
        """Count bytes sent to a destination."""
        self._series.sent.labels(self._node, destination).inc(size)

    def superseded(self, images: Mapping[str, int]) -> None:
        """Show how many images a newer push of their tag replaced before they were sent, by destination."""
        self._superseded_shown |= images.keys()
        for destination in self._superseded_shown:
            self._series.superseded.labels(self._node, destination).set(images.get(destination, 0))

    def conflict(self, source: str) -> None:
        """Count a tag that `source` and somebody else had set without knowing of each other."""
        self._series.conflicts.labels(self._node, source).inc()

    def drift_found(self, destination: str, kind: str, count: int = 1) -> None:
        """Count differences between what the rules say and what a destination holds."""
        self._series.drift_found.labels(self._node, destination, kind).inc(count)

    def drift_repaired(self, destination: str, kind: str, count: int = 1) -> None:
        """Count differences that are being mended."""
        self._series.drift_repaired.labels(self._node, destination, kind).inc(count)

    def objective(self, rule: str, destination: str, seconds: float) -> None:
        """Show what a rule promises."""
        self._series.objective.labels(self._node, rule, destination).set(seconds)

    def burn(self, rule: str, destination: str, rates: Mapping[str, float], overdue: int) -> None:
        """Show how fast the objective burns, by window, and how many jobs are over it."""
        for window, rate in rates.items():
            self._series.burn.labels(self._node, rule, destination, window).set(rate)
        self._series.overdue.labels(self._node, rule, destination).set(overdue)

    def queue(self, jobs: Iterable[QueuedJobs], oldest_pending_seconds: Mapping[str, float]) -> None:
        """Show the queues, and the age of the oldest job of each destination; what is not named is empty."""
        found = {(one.destination, one.priority_class, one.state): one.count for one in jobs}
        self._jobs_shown |= found.keys()
        for labels in self._jobs_shown:
            self._series.jobs.labels(self._node, *labels).set(found.get(labels, 0))
        self._oldest_shown |= oldest_pending_seconds.keys()
        for destination in self._oldest_shown:
            self._series.oldest.labels(self._node, destination).set(oldest_pending_seconds.get(destination, 0.0))

    def backfills(self, by_state: Mapping[str, int]) -> None:
        """Show how many backfills are in each state."""
        self._backfills_shown |= by_state.keys()
        for state in self._backfills_shown:
            self._series.backfills.labels(self._node, state).set(by_state.get(state, 0))
