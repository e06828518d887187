"""Requests counted on the hot path: a dictionary look-up and a few additions, turned into metrics only when scraped.

The client library's own counters take a lock each; a request would need five. The loop's thread alone observes here, so
plain numbers are enough. The number of different series of a node is bounded: what lies beyond is counted as `other`.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0)
MAX_SERIES = 512
OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished request, as metrics and the access log see it. `received` and `sent` are body bytes."""

    request_id: str
    route: str
    method: str
    path: str
    status: int
    seconds: float
    sent: int
    received: int
    principal: str
    remote: str
    agent: str
    cache: str = ""
    """How the cache answered, where the repository is a cached one (`CacheResult`)."""
    upstream: str = ""
    """The upstream that the content came from, or would have come from."""
    operation: str = ""
    """What the ECR API was asked for, as policies call it."""


class Observer(Protocol):
    """Sees every finished request. Must be quick, and must not raise."""

    def __call__(self, outcome: Outcome) -> None:
        """Note a finished request."""
        ...


class _Series:
    __slots__ = ("count", "route")

    def __init__(self, route: _Route) -> None:
        self.count = 0
        self.route = route


class _Route:
    __slots__ = ("buckets", "received", "seconds", "sent")

    def __init__(self) -> None:
        self.buckets = [0] * (len(REQUEST_SECONDS) + 1)
        self.seconds = 0.0
        self.sent = 0
        self.received = 0


class RequestObserver:
    """Counts the requests of one node."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.series: dict[tuple[str, str, int], _Series] = {}
        self.routes: dict[str, _Route] = {}

    def observe(self, route: str, method: str, status: int, seconds: float, sent: int, received: int) -> None:
        """Count one finished request; `route` is an endpoint's name such as `manifest`, never a path."""
        series = self.series.get((route, method, status))
        if series is None:
            series = self._new_series(route, method, status)
        series.count += 1
        counted = series.route
        counted.buckets[bisect_left(REQUEST_SECONDS, seconds)] += 1
        counted.seconds += seconds
        counted.sent += sent
        counted.received += received

    def _new_series(self, route: str, method: str, status: int) -> _Series:
        key = (route, method if method in _METHODS else OTHER, status)
        if key not in self.series and len(self.series) >= MAX_SERIES:
            key = (OTHER, OTHER, status // 100 * 100)
        if key not in self.series:
            self.series[key] = _Series(self.routes.setdefault(key[0], _Route()))
        return self.series[key]


class RequestCollector(Collector):
    """Shows what the observers counted."""

    def __init__(self) -> None:
        self._observers: dict[str, RequestObserver] = {}

    def observer(self, node: str) -> RequestObserver:
        """Return the observer of a node, always the same."""
        return self._observers.setdefault(node, RequestObserver(node))

    def collect(self) -> Iterator[Metric]:
        """Yield the request metrics of every node."""
        requests = CounterMetricFamily(
            "replicator_http_requests", "Requests answered.", labels=["node", "method", "route", "status"]
        )
        labels = ["node", "route"]
        seconds = HistogramMetricFamily(
            "replicator_http_request_seconds", "Time from a request's head to the end of its answer.", labels=labels
        )
        sent = CounterMetricFamily("replicator_http_response_bytes", "Bytes of bodies sent.", labels=labels)
        received = CounterMetricFamily("replicator_http_request_bytes", "Bytes of bodies received.", labels=labels)
        for observer in self._observers.values():
            for (route, method, status), series in observer.series.items():
                requests.add_metric([observer.node, method, route, str(status)], series.count)
            for route, counted in observer.routes.items():
                values = [observer.node, route]
                seconds.add_metric(values, _cumulated(counted.buckets), counted.seconds)
                sent.add_metric(values, counted.sent)
                received.add_metric(values, counted.received)
        yield from (requests, seconds, sent, received)


def _cumulated(buckets: list[int]) -> list[tuple[str, float]]:
    total = 0
    result: list[tuple[str, float]] = []
    for bound, count in zip((*map(str, REQUEST_SECONDS), "+Inf"), buckets, strict=True):
        total += count
        result.append((bound, total))
    return result
