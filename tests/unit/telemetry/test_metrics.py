from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from replicator.telemetry.metrics import Metrics
from replicator.telemetry.requests import MAX_SERIES

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(metrics: Metrics) -> Samples:
    text, content_type = metrics.render()
    assert content_type.startswith("text/plain; version=")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return samples(metrics).get((name, frozenset(labels.items())))


def test_requests_are_counted_by_what_happened() -> None:
    metrics = Metrics("1")
    observer = metrics.request_observer("n")
    observer.observe("manifest", "GET", 200, 0.003, 100, 0)
    observer.observe("manifest", "GET", 200, 0.2, 50, 0)
    observer.observe("manifest", "PUT", 201, 0.02, 0, 70)
    observer.observe("blob", "GET", 404, 0.001, 10, 0)
    total = "replicator_http_requests_total"
    assert value(metrics, total, node="n", method="GET", route="manifest", status="200") == 2
    assert value(metrics, total, node="n", method="PUT", route="manifest", status="201") == 1
    assert value(metrics, total, node="n", method="GET", route="blob", status="404") == 1
    assert value(metrics, "replicator_http_response_bytes_total", node="n", route="manifest") == 150
    assert value(metrics, "replicator_http_request_bytes_total", node="n", route="manifest") == 70


def test_the_time_of_requests_is_a_histogram() -> None:
    metrics = Metrics("1")
    observer = metrics.request_observer("n")
    for seconds in (0.001, 0.003, 0.2, 1000.0):
        observer.observe("manifest", "GET", 200, seconds, 0, 0)

    def bucket(bound: str) -> float | None:
        return value(metrics, "replicator_http_request_seconds_bucket", node="n", route="manifest", le=bound)

    # A bound includes what is equal to it.
    assert [bucket(bound) for bound in ("0.001", "0.0025", "0.005", "0.25", "300.0", "+Inf")] == [1, 1, 2, 3, 3, 4]
    assert value(metrics, "replicator_http_request_seconds_count", node="n", route="manifest") == 4
    assert value(metrics, "replicator_http_request_seconds_sum", node="n", route="manifest") == pytest.approx(1000.204)


def test_a_nodes_observer_is_always_the_same() -> None:
    metrics = Metrics("1")
    assert metrics.request_observer("n") is metrics.request_observer("n")
    assert metrics.request_observer("n") is not metrics.request_observer("m")


def test_clients_cannot_make_series_without_end() -> None:
    metrics = Metrics("1")
    observer = metrics.request_observer("n")
    for number in range(3 * MAX_SERIES):
        observer.observe(f"route-{number}", f"METHOD{number}", 200, 0.1, 0, 0)
    counted = {labels: count for (name, labels), count in samples(metrics).items() if name.endswith("requests_total")}
    assert len(counted) <= MAX_SERIES + 5
    assert sum(counted.values()) == 3 * MAX_SERIES
    assert "METHOD1" not in metrics.render()[0].decode()


def test_cache_and_upstreams_are_counted() -> None:
    metrics = Metrics("1")
    cache = metrics.cache("n")
    for result in ("hit", "hit", "miss", "stale", "revalidated"):
        cache.request("docker-hub", result)
    with pytest.raises(ValueError, match="expected one of hit, stale, revalidated, miss, negative, error"):
        cache.request("docker-hub", "maybe")
    upstream = metrics.upstream("n", "hub")
    upstream.request("HEAD", "ok")
    upstream.received(500)
    total = "replicator_cache_requests_total"
    assert value(metrics, total, node="n", rule="docker-hub", result="hit") == 2
    assert value(metrics, total, node="n", rule="docker-hub", result="stale") == 1
    labels = {"node": "n", "upstream": "hub"}
    assert value(metrics, "replicator_upstream_requests_total", **labels, method="HEAD", outcome="ok") == 1
    assert value(metrics, "replicator_upstream_bytes_total", **labels) == 500


def test_the_health_of_upstreams_is_shown() -> None:
    metrics = Metrics("1")
    shown, labels = metrics.upstream_health("n", "hub"), {"node": "n", "upstream": "hub"}
    assert value(metrics, "replicator_upstream_rate_limit_remaining", **labels) is None
    shown.circuit(is_open=True)
    shown.rate_limit(100, 7)
    shown.paused({"blobs": 30.0})
    assert value(metrics, "replicator_upstream_circuit_open", **labels) == 1
    assert value(metrics, "replicator_upstream_rate_limit", **labels) == 100
    assert value(metrics, "replicator_upstream_rate_limit_remaining", **labels) == 7
    assert value(metrics, "replicator_upstream_paused_seconds", **labels, kind="blobs") == 30
    shown.circuit(is_open=False)
    shown.paused({})
    assert value(metrics, "replicator_upstream_circuit_open", **labels) == 0
    assert value(metrics, "replicator_upstream_paused_seconds", **labels, kind="blobs") == 0


def test_storage_is_shown_as_last_looked_up() -> None:
    metrics = Metrics("1")
    storage = metrics.storage("n")
    storage.stored("blobs", 10)
    storage.stored("blobs", 20)
    storage.free(30)
    storage.blobs(2)
    storage.uploads_open(1)
    assert value(metrics, "replicator_storage_bytes", node="n", kind="blobs") == 20
    assert value(metrics, "replicator_storage_free_bytes", node="n") == 30
    assert value(metrics, "replicator_blobs", node="n") == 2
    assert value(metrics, "replicator_uploads_open", node="n") == 1


def test_every_metric_has_its_prefix_and_the_version_is_shown() -> None:
    metrics = Metrics("1.2.3")
    assert value(metrics, "replicator_build_info", version="1.2.3") == 1
    names = set(re.findall(r"^# TYPE (\S+)", metrics.render()[0].decode(), re.MULTILINE))
    assert all(name.startswith(("replicator_", "process_")) for name in names)
    assert not any(name.endswith("_created") for name in names)


def test_two_sets_of_metrics_do_not_know_each_other() -> None:
    first, second = Metrics("1"), Metrics("1")
    first.cache("n").request("hub", "hit")
    assert value(second, "replicator_cache_requests_total", node="n", rule="hub", result="hit") is None


def test_the_space_of_a_cache_is_shown_and_its_evictions_counted() -> None:
    metrics = Metrics("1")
    space = metrics.cache_space("n")
    space.cache_bytes("hub", 100)
    space.cache_bytes("hub", 70)
    space.evicted("size", 2, 30)
    space.evicted("size", 1, 5)
    assert value(metrics, "replicator_cache_bytes", node="n", rule="hub") == 70
    assert value(metrics, "replicator_cache_evictions_total", node="n", reason="size") == 3
    assert value(metrics, "replicator_cache_evicted_bytes_total", node="n", reason="size") == 35
