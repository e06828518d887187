"""Cache rules that lead in a circle: the request is refused where it comes by again, and nobody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from replicator.core.cache_rules import CacheRule
from replicator.core.names import parse_node
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.cached_edge import CachedEdge, cached_edge, listening_socket
from tests.support.images import build_image
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

RULE = CacheRule("mirror", "next", upstream_prefix="mirror")
TARGET = "/v2/mirror/library/alpine/manifests/latest"


@contextlib.asynccontextmanager
async def circle(directory: Path, size: int) -> AsyncIterator[list[CachedEdge]]:
    """Serve nodes of which each pulls through the next, and the last through the first."""
    sockets = [listening_socket() for _ in range(size)]
    ports = [one.getsockname()[1] for one in sockets]
    async with contextlib.AsyncExitStack() as stack:
        edges = []
        for number, listening in enumerate(sockets):
            via = f"1.1 replicator-{number}"
            url = f"http://127.0.0.1:{ports[(number + 1) % size]}"
            edge = cached_edge(
                directory / str(number),
                {"next": UpstreamEndpoint("next", url, via=via, total_timeout=20.0)},
                [RULE],
                identity=parse_node(f"11112222333{number}/us-east-1"),
                listening=listening,
                via=via,
            )
            (directory / str(number)).mkdir()
            edges.append(await stack.enter_async_context(edge))
        yield edges


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_rel_37_nodes_that_pull_through_each_other_end_the_loop(tmp_path: Path, size: int, method: str) -> None:
    async with circle(tmp_path, size) as edges, asyncio.timeout(10):
        answer = await edges[0].ask(method, TARGET)
        blob = await edges[0].ask(method, f"/v2/mirror/library/alpine/blobs/{build_image().config}")
        seen = [(outcome.method, outcome.status) for outcome in edges[0].outcomes]
    assert answer.status == 503
    assert (method, 503) in seen
    assert 508 in [status for _, status in seen]
    assert blob.status == 503
    for refused in (answer, blob):
        assert "Retry-After" not in refused.headers
        if method == "GET":
            assert "cache rule mirror: next: " in refused.body.decode()
            assert "leads back to this node" in refused.body.decode()


async def test_a_client_that_reports_a_circle_hears_where_it_closed(tmp_path: Path) -> None:
    async with circle(tmp_path, 1) as [edge]:
        answer = await edge.get(TARGET, {"Via": "1.0 squid, 1.1 replicator-0"})
    assert (answer.status, answer.codes) == (508, ["UNSUPPORTED"])
    assert "come back to node 111122223330/us-east-1" in answer.body.decode()


async def test_a_request_that_passed_eight_others_is_served_and_one_more_is_not(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        image = upstream.add_image("mirror/library/alpine", "latest")
        endpoint = endpoint_of(upstream, via="1.1 replicator-x")
        async with cached_edge(tmp_path, {"next": endpoint}, [RULE], via="1.1 replicator-x") as edge:
            hops = ", ".join(f"1.1 proxy-{number}" for number in range(8))
            assert (await edge.get(TARGET, {"Via": hops})).body == image.manifest
            assert (await edge.get(TARGET, {"Via": f"{hops}, 1.1 one-more"})).status == 508
        asked = [request.headers["via"] for request in upstream.asked()]
    assert set(asked) == {f"{hops}, 1.1 replicator-x"}


async def test_a_connection_s_next_request_has_passed_nobody(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        for tag in ("one", "two"):
            upstream.add_image("mirror/library/alpine", tag)
        endpoint = endpoint_of(upstream, via="1.1 replicator-x")
        edge = cached_edge(tmp_path, {"next": endpoint}, [RULE], via="1.1 replicator-x")
        async with edge as running, running.client() as client:
            await client.get("/v2/mirror/library/alpine/manifests/one", headers={"Via": "1.1 proxy"})
            await client.get("/v2/mirror/library/alpine/manifests/two")
        one, two = (upstream.asked(f"GET /v2/*/manifests/{tag}") for tag in ("one", "two"))
    assert {request.headers["via"] for request in one} == {"1.1 proxy, 1.1 replicator-x"}
    assert {request.headers["via"] for request in two} == {"1.1 replicator-x"}
