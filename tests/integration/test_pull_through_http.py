"""The cache as clients see it: over HTTP, a complete answer is the right one."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from replicator.core.digest import digest_of
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.registry.listings import Listings
from replicator.registry.peer_reads import PeerReads
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry_api.api import RegistryApi
from replicator.registry_api.authentication import OpenAuthenticator, PeerAuthenticator
from replicator.registry_api.call import Services
from tests.support.pull_through_node import HUB
from tests.support.single_node import NODE
from tests.support.upstreams import FakeRegistry, Fault, Hold
from tests.support.wire_client import WireClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.clock import FakeClock
    from tests.support.pull_through_node import CachingNode
    from tests.support.wire_client import Answer

LAYER = bytes(range(251)) * 4000
BLOBS = "GET /v2/library/alpine/blobs/*"


@pytest.fixture
async def port(node: CachingNode, clock: FakeClock) -> AsyncIterator[int]:
    async with served(node, clock) as port:
        yield port


@asynccontextmanager
async def served(node: CachingNode, clock: FakeClock) -> AsyncIterator[int]:
    services = Services(node.node, node.cache, node.pushes, node.uploads, Listings(node.node), PeerReads(node.node))
    peers = PeerAuthenticator(PeerTokens(NODE, b"a secret between nodes", clock))
    api = RegistryApi(services, OpenAuthenticator(peers), clock, lambda _: None)
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setblocking(False)
    server = HttpServer(Listener(listening, "", None), api.handle, _nothing)
    await server.start()
    try:
        yield listening.getsockname()[1]
    finally:
        await server.stop(grace=1)


async def _nothing(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)


async def ask(port: int, method: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    """Send one request over a connection of its own."""
    client = WireClient(port)
    try:
        return await client.send(method, f"/v2/docker-hub/library/alpine/{path}", headers=headers or {})
    finally:
        await client.close()


async def test_whole_image_over_http(port: int, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest", [LAYER])
    head = await ask(port, "HEAD", "manifests/latest")
    manifest = await ask(port, "GET", "manifests/latest")
    assert (head.status, head.headers["Docker-Content-Digest"]) == (200, image.digest)
    assert (manifest.body, manifest.headers["Content-Type"]) == (image.manifest, image.media_type)
    size = await ask(port, "HEAD", f"blobs/{image.layers[0]}")
    assert (size.status, size.headers["Content-Length"]) == (200, str(len(LAYER)))
    for digest, content in image.blobs.items():
        answer = await ask(port, "GET", f"blobs/{digest}")
        assert (answer.status, answer.whole, answer.body == content) == (200, True, True)
    assert upstream.count(BLOBS) == len(image.blobs)


async def test_fifty_clients_of_a_cold_blob(port: int, upstream: FakeRegistry) -> None:
    image, hold = upstream.add_image("library/alpine", layers=[LAYER]), Hold()
    await ask(port, "GET", f"manifests/{image.digest}")
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=100_000))
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(ask(port, "GET", f"blobs/{image.layers[0]}")) for _ in range(50)]
        await hold.reached()
        hold.release()
    assert {(answer.result().status, answer.result().whole) for answer in answers} == {(200, True)}
    assert {answer.result().body == LAYER for answer in answers} == {True}
    assert upstream.count(BLOBS) == 1


@pytest.mark.parametrize("flip", [0, 500_000, -1])
@pytest.mark.parametrize("part", [None, "bytes=0-9", "bytes=-5", "bytes=1000-900000"])
async def test_flipped_bit_never_reaches_a_client_in_a_complete_answer(
    port: int, node: CachingNode, upstream: FakeRegistry, flip: int, part: str | None
) -> None:
    image = upstream.add_image("library/alpine", layers=[LAYER])
    await ask(port, "GET", f"manifests/{image.digest}")
    upstream.faults.on(BLOBS, Fault(flip=flip), times=1)
    headers = {} if part is None else {"Range": part}
    answer = await ask(port, "GET", f"blobs/{image.layers[0]}", headers)
    assert not answer.whole or answer.status == 502
    await node.cache.idle()
    assert await node.locations() == []
    healed = await ask(port, "GET", f"blobs/{image.layers[0]}", headers)
    assert healed.whole
    assert healed.status == (200 if part is None else 206)


async def test_part_of_a_cold_blob(port: int, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", layers=[LAYER])
    await ask(port, "GET", f"manifests/{image.digest}")
    answer = await ask(port, "GET", f"blobs/{image.layers[0]}", {"Range": "bytes=300000-300009"})
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes 300000-300009/{len(LAYER)}"
    assert answer.body == LAYER[300_000:300_010]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault(status=500), 503),
        (Fault(status=429, headers={"Retry-After": "17"}), 429),
        (Fault(status=401), 502),
        (Fault(status=404), 404),
        (Fault(body=b"<html>", content_type="text/html"), 502),
    ],
)
async def test_failures_of_the_upstream_are_told_apart(
    port: int, upstream: FakeRegistry, fault: Fault, status: int
) -> None:
    upstream.add_image("library/alpine", "latest")
    upstream.faults.on("*", fault)
    answer = await ask(port, "GET", "manifests/latest")
    assert answer.status == status
    assert answer.headers.get("Retry-After") == {429: "17", 503: "5"}.get(status)


async def test_upstream_that_is_gone_is_not_noticed_by_clients_of_cached_images(
    port: int, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest", [LAYER])
    await ask(port, "GET", "manifests/latest")
    for digest in image.blobs:
        await ask(port, "GET", f"blobs/{digest}")
    await upstream.stop()
    clock.advance(100 * HUB.fresh_for)
    assert (await ask(port, "GET", "manifests/latest")).body == image.manifest
    for digest, content in image.blobs.items():
        assert (await ask(port, "GET", f"blobs/{digest}")).body == content
    assert (await ask(port, "GET", f"blobs/{digest_of(b'absent')}")).status == 503
