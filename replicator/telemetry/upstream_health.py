"""How upstreams are doing, as they were seen last: their rate limits, whether they are asked at all, and pauses.

A rate limit that an upstream never stated has no series: zero would mean that nothing is left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import Gauge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prometheus_client import CollectorRegistry

_LABELS = ("node", "upstream")


class UpstreamHealthSeries:
    """The series of all nodes and upstreams of a process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.limit = Gauge(
            "replicator_upstream_rate_limit", "Requests that the upstream allows.", _LABELS, registry=registry
        )
        self.remaining = Gauge(
            "replicator_upstream_rate_limit_remaining",
            "Requests that are left of what the upstream allows.",
            _LABELS,
            registry=registry,
        )
        self.circuit_open = Gauge(
            "replicator_upstream_circuit_open",
            "Whether the upstream is left alone because it kept failing.",
            _LABELS,
            registry=registry,
        )
        self.paused = Gauge(
            "replicator_upstream_paused_seconds",
            "Seconds for which the upstream wants no requests of a kind.",
            (*_LABELS, "kind"),
            registry=registry,
        )


class UpstreamHealthMetrics:
    """How one upstream is doing, as one node sees it."""

    def __init__(self, node: str, upstream: str, series: UpstreamHealthSeries) -> None:
        self._labels = (node, upstream)
        self._series = series
        self._kinds: set[str] = set()

    def circuit(self, *, is_open: bool) -> None:
        """Show whether the upstream is left alone."""
        self._series.circuit_open.labels(*self._labels).set(int(is_open))

    def rate_limit(self, limit: int | None, remaining: int) -> None:
        """Show what the upstream said about its rate limit."""
        self._series.remaining.labels(*self._labels).set(remaining)
        if limit is not None:
            self._series.limit.labels(*self._labels).set(limit)

    def paused(self, seconds: Mapping[str, float]) -> None:
        """Show for how long it wants no requests, by kind; kinds that are paused no more are 0."""
        self._kinds |= seconds.keys()
        for kind in self._kinds:
            self._series.paused.labels(*self._labels, kind).set(seconds.get(kind, 0.0))
