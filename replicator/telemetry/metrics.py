"""The daemon's metrics, in a registry of their own: no globals, so that a test or a second daemon starts from zero.

Every label has few values: nodes, rules, destinations and upstreams come from the configuration, the rest from
enumerations. Nothing a client chooses becomes a label.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from replicator.core.cache_status import CacheResult
from replicator.telemetry.event_metrics import EventMetrics, EventSeries
from replicator.telemetry.replication_metrics import ReplicationMetrics, ReplicationSeries
from replicator.telemetry.requests import RequestCollector, RequestObserver
from replicator.telemetry.upstream_health import UpstreamHealthMetrics, UpstreamHealthSeries

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.core import Metric

CACHE_RESULTS = tuple(result.value for result in CacheResult)


class Metrics:
    """Every metric of one process. Parts of the program take the view they need, such as `cache(node)`."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        self._requests = RequestCollector()
        self.registry.register(self._requests)
        ProcessCollector(registry=self.registry)
        build = self._gauge("build_info", "The running version; always 1.", "version")
        build.labels(version).set(1)
        self._replication = ReplicationSeries(self.registry)
        self._events = EventSeries(self.registry)
        self._cache = self._counter(
            "cache_requests_total", "Pulls of cached repositories by result.", "node", "rule", "result"
        )
        self._findings = self._counter(
            "cache_findings_total",
            "What checks found of cached tags: drift, rollback, cool-down, gone.",
            "node",
            "rule",
            "finding",
        )
        self._cache_bytes = self._gauge("cache_bytes", "Bytes that cached repositories hold, by rule.", "node", "rule")
        self._evictions = self._counter(
            "cache_evictions_total", "Cached images given up, by what made it necessary.", "node", "reason"
        )
        self._evicted_bytes = self._counter(
            "cache_evicted_bytes_total", "Bytes that giving up cached images freed.", "node", "reason"
        )
        self._upstream_requests = self._counter(
            "upstream_requests_total", "Requests to upstreams by outcome.", "node", "upstream", "method", "outcome"
        )
        self._upstream_bytes = self._counter(
            "upstream_bytes_total", "Bytes fetched from upstreams.", "node", "upstream"
        )
        self._upstream_health = UpstreamHealthSeries(self.registry)
        self._storage = self._gauge("storage_bytes", "Bytes stored, by kind.", "node", "kind")
        self._free = self._gauge("storage_free_bytes", "Bytes free where the node stores.", "node")
        self._blobs = self._gauge("blobs", "Blobs stored.", "node")
        self._uploads = self._gauge("uploads_open", "Upload sessions that are open.", "node")

    def request_observer(self, node: str) -> RequestObserver:
        """Return what counts the requests of a node."""
        return self._requests.observer(node)

    def replication(self, node: str) -> ReplicationMetrics:
        """Return what counts the replication out of a node."""
        return ReplicationMetrics(node, self._replication)

    def events(self, node: str, sink: str) -> EventMetrics:
        """Return what counts the events for one sink of a node."""
        return EventMetrics(node, sink, self._events)

    def cache(self, node: str) -> CacheMetrics:
        """Return what counts the pulls of a node's cached repositories."""
        return CacheMetrics(node, self._cache, self._findings)

    def cache_space(self, node: str) -> CacheSpaceMetrics:
        """Return what shows the space that a node's cache takes up and gives up."""
        return CacheSpaceMetrics(node, self._cache_bytes, self._evictions, self._evicted_bytes)

    def upstream(self, node: str, upstream: str) -> UpstreamMetrics:
        """Return what counts a node's use of one upstream."""
        return UpstreamMetrics(node, upstream, self._upstream_requests, self._upstream_bytes)

    def upstream_health(self, node: str, upstream: str) -> UpstreamHealthMetrics:
        """Return what shows how one upstream is doing, as a node sees it."""
        return UpstreamHealthMetrics(node, upstream, self._upstream_health)

    def storage(self, node: str) -> StorageMetrics:
        """Return what shows a node's storage."""
        return StorageMetrics(node, self._storage, self._free, self._blobs, self._uploads)

    def render(self) -> tuple[bytes, str]:
        """Return the text that Prometheus scrapes, and its content type."""
        return generate_latest(_WithoutCreated(self.registry)), CONTENT_TYPE_LATEST

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"replicator_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"replicator_{name}", text, labels, registry=self.registry)


class CacheMetrics:
    """Pulls of one node's cached repositories."""

    def __init__(self, node: str, requests: Counter, findings: Counter) -> None:
        self._node = node
        self._requests = requests
        self._findings = findings
        self._bound: dict[tuple[str, str], Counter] = {}

    def request(self, rule: str, result: str) -> None:
        """Count a pull; `rule` is the rule's prefix, `result` a CacheResult's value."""
        counter = self._bound.get((rule, result))
        if counter is None:
            if result not in CACHE_RESULTS:
                raise ValueError(f"expected one of {', '.join(CACHE_RESULTS)}, got {result!r}")
            counter = self._bound[rule, result] = self._requests.labels(self._node, rule, result)
        counter.inc()

    def found(self, rule: str, finding: str) -> None:
        """Count what a check found of a tag; `finding` is one of few words."""
        self._findings.labels(self._node, rule, finding).inc()


class CacheSpaceMetrics:
    """The space of one node's cache."""

    def __init__(self, node: str, held: Gauge, evictions: Counter, freed: Counter) -> None:
        self._node = node
        self._held = held
        self._evictions = evictions
        self._freed = freed

    def cache_bytes(self, rule: str, size: int) -> None:
        """Show how many bytes the repositories of the rule with this prefix hold, as last counted."""
        self._held.labels(self._node, rule).set(size)

    def evicted(self, reason: str, images: int, size: int) -> None:
        """Count images that were given up; `reason` is one of size, rule, disk and full."""
        self._evictions.labels(self._node, reason).inc(images)
        self._freed.labels(self._node, reason).inc(size)


class UpstreamMetrics:
    """One node's use of one upstream."""

    def __init__(self, node: str, upstream: str, requests: Counter, received: Counter) -> None:
        self._node = node
        self._upstream = upstream
        self._requests = requests
        self._received = received.labels(node, upstream)

    def request(self, method: str, outcome: str) -> None:
        """Count a request; `outcome` is a word of an enumeration, such as `ok`, `not_found` or `timeout`."""
        self._requests.labels(self._node, self._upstream, method, outcome).inc()

    def received(self, size: int) -> None:
        """Count fetched bytes."""
        self._received.inc(size)


class StorageMetrics:
    """What one node has stored, as last looked up."""

    def __init__(self, node: str, stored: Gauge, free: Gauge, blobs: Gauge, uploads: Gauge) -> None:
        self._node = node
        self._stored = stored
        self._free = free.labels(node)
        self._blobs = blobs.labels(node)
        self._uploads = uploads.labels(node)

    def stored(self, kind: str, size: int) -> None:
        """Show how many bytes of a kind (`blobs`, `metadata`, `ingest`) are stored."""
        self._stored.labels(self._node, kind).set(size)

    def free(self, size: int) -> None:
        """Show how many bytes are free where the node stores."""
        self._free.set(size)

    def blobs(self, count: int) -> None:
        """Show how many blobs are stored."""
        self._blobs.set(count)

    def uploads_open(self, count: int) -> None:
        """Show how many upload sessions are open."""
        self._uploads.set(count)


class _WithoutCreated(Collector):
    """A registry without the `_created` series, which double the output and which nobody asked for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric
