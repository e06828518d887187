"""Metrics of events on their way to sinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry

_SECONDS = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 6 * 3600, 24 * 3600)


class EventSeries:
    """The series of all nodes and sinks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("node", "sink")
        self.delivered = Counter(
            "replicator_events_delivered_total", "Events that a sink accepted.", labels, registry=registry
        )
        self.failed = Counter(
            "replicator_event_attempts_failed_total", "Attempts that a sink did not accept.", labels, registry=registry
        )
        self.buried = Counter(
            "replicator_events_given_up_total", "Events that were given up for a sink.", labels, registry=registry
        )
        self.lag = Histogram(
            "replicator_event_delivery_seconds",
            "Time from what happened to its being accepted by a sink.",
            labels,
            buckets=_SECONDS,
            registry=registry,
        )
        self.deliveries = Gauge(
            "replicator_event_deliveries", "Deliveries that are not made.", (*labels, "state"), registry=registry
        )
        self.oldest = Gauge(
            "replicator_event_oldest_pending_seconds",
            "Age of the oldest event that a sink is still to get.",
            labels,
            registry=registry,
        )


class EventMetrics:
    """Events on their way to one sink of a node."""

    def __init__(self, node: str, sink: str, series: EventSeries) -> None:
        self._delivered = series.delivered.labels(node, sink)
        self._failed = series.failed.labels(node, sink)
        self._buried = series.buried.labels(node, sink)
        self._lag = series.lag.labels(node, sink)
        self._oldest = series.oldest.labels(node, sink)
        self._deliveries = series.deliveries
        self._labels = (node, sink)

    def delivered(self, seconds: float, count: int = 1) -> None:
        """Count accepted events, the first of them so long after it happened."""
        self._delivered.inc(count)
        self._lag.observe(seconds)

    def failed(self) -> None:
        """Count an attempt that failed."""
        self._failed.inc()

    def buried(self) -> None:
        """Count a delivery that was given up."""
        self._buried.inc()

    def queue(self, counts: Mapping[str, int], oldest_pending_seconds: float) -> None:
        """Show how many deliveries are in each state, and how old the oldest is that is still to be made."""
        for state, count in counts.items():
            self._deliveries.labels(*self._labels, state).set(count)
        self._oldest.set(oldest_pending_seconds)
