from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import UpstreamError
from replicator.core.names import RepositoryName, Tag
from replicator.daemon.upstream_gauges import UpstreamGauges
from replicator.telemetry.metrics import Metrics
from replicator.upstream.client import open_client
from tests.support.clock import FakeClock
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault

if TYPE_CHECKING:
    from replicator.upstream.client import UpstreamClient

APP, LATEST = RepositoryName("app"), Tag("latest")
LABELS = {"node": "n", "upstream": "fake"}


def shown(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"replicator_upstream_{name}", {**LABELS, **labels})


async def ask(client: UpstreamClient) -> None:
    with pytest.raises(UpstreamError):
        await client.head_manifest(APP, LATEST)


async def test_what_clients_know_is_shown_when_it_is_looked_at() -> None:
    clock, metrics = FakeClock(), Metrics("1")
    async with FakeRegistry() as registry:
        client = open_client(endpoint_of(registry, breaker=True), clock)
        gauges = UpstreamGauges((client,), partial(metrics.upstream_health, "n"))
        try:
            gauges.refresh()
            assert (shown(metrics, "circuit_open"), shown(metrics, "rate_limit")) == (0, None)

            registry.headers = {"RateLimit-Limit": "100;w=21600", "RateLimit-Remaining": "76;w=21600"}
            registry.add_image("app", "latest")
            await client.head_manifest(APP, LATEST)
            gauges.refresh()
            assert (shown(metrics, "rate_limit"), shown(metrics, "rate_limit_remaining")) == (100, 76)

            registry.faults.on("*", Fault(status=429, headers={"Retry-After": "30"}), times=1)
            await ask(client)
            gauges.refresh()
            assert shown(metrics, "paused_seconds", kind="manifests") == pytest.approx(30, abs=1)

            clock.advance(60)
            registry.faults.on("*", Fault(status=500))
            for _ in range(5):
                await ask(client)
            gauges.refresh()
            assert (shown(metrics, "circuit_open"), shown(metrics, "paused_seconds", kind="manifests")) == (1, 0)
        finally:
            await client.close()
