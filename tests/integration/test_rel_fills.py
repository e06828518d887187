"""Faults of an upstream while a blob is fetched, as clients see them over HTTP, by the numbers of the fault list."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from aiohttp import web

from replicator.cache.limits import CacheLimits
from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName
from replicator.storage.metadata import images
from tests.support.blob_stores import open_files_below
from tests.support.cached_edge import CachedEdge, cached_edge
from tests.support.clock import FakeClock
from tests.support.pull_through_node import HUB
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault, Hold, Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.images import BuiltImage
    from tests.support.wire_client import Answer

LAYER = hashlib.shake_128(b"layer").digest(1_000_000)
DIGEST = digest_of(LAYER)
BLOBS = "GET /v2/library/alpine/blobs/*"
PATH = f"/v2/docker-hub/library/alpine/blobs/{DIGEST}"
CLIENTS = 20


@pytest.fixture
async def edge(tmp_path: Path, upstream: FakeRegistry) -> AsyncIterator[CachedEdge]:
    endpoints = {"hub": endpoint_of(upstream, stall_timeout=0.3)}
    async with cached_edge(tmp_path, endpoints, [HUB], clock=FakeClock(auto=True)) as edge:
        yield edge
        await edge.cache.idle()
        assert set((await edge.contents())["ingests"]) == edge.cache.fills.kept_ingests()  # type: ignore[call-overload]
        assert len(edge.cache.fills) == 0
    assert open_files_below(tmp_path) == []


@pytest.fixture
async def image(edge: CachedEdge, upstream: FakeRegistry) -> BuiltImage:
    """An image whose manifest is cached, while its blobs are not."""
    image = upstream.add_image("library/alpine", "latest", [LAYER])
    assert (await edge.get("/v2/docker-hub/library/alpine/manifests/latest")).status == 200
    upstream.requests.clear()
    return image


async def pulls(edge: CachedEdge, count: int = CLIENTS) -> list[Answer]:
    """Pull the layer with so many clients at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(edge.get(PATH)) for _ in range(count)]
    return [task.result() for task in tasks]


def is_right(answer: Answer) -> bool:
    return answer.status == 200 and answer.whole and answer.body == LAYER


def has_failed(answer: Answer) -> bool:
    """Tell whether a client cannot take an answer for the blob."""
    return answer.status >= 500 or not answer.whole


async def locations(edge: CachedEdge) -> list[str]:
    return [location async for location in edge.node.store.iter_locations()]


def pass_time(edge: CachedEdge) -> None:
    """Let every pause end that an upstream was given."""
    assert isinstance(edge.node.clock, FakeClock)
    edge.node.clock.advance(600.0)


# REL-08


TRUNCATIONS = {
    "shorter than announced, then the end": Fault(cut_after=400_000),
    "shorter than announced, then a reset": Fault(cut_after=400_000, reset=True),
    "chunked, with a clean end": Fault(cut_after=400_000, chunked=True),
    "announced as longer than it is": Fault(length=len(LAYER) + 1),
    "a shorter body": Fault(body=LAYER[:400_000]),
    "nothing at all": Fault(drop=True),
}


@pytest.mark.parametrize("truncation", TRUNCATIONS)
@pytest.mark.usefixtures("image")
async def test_rel_08_truncated_blob_fails_is_not_stored_and_the_next_pull_is_right(
    edge: CachedEdge, upstream: FakeRegistry, truncation: str
) -> None:
    upstream.faults.on(BLOBS, Fault(status=500))
    upstream.faults.on(BLOBS, TRUNCATIONS[truncation], times=1)
    assert has_failed(await edge.get(PATH))
    await edge.cache.idle()
    assert await locations(edge) == []
    upstream.faults.clear()
    pass_time(edge)
    assert is_right(await edge.get(PATH))


async def _until_it_ends(request: web.Request) -> web.StreamResponse:
    """Send a part of the blob as an answer that is over when its connection is, as HTTP/1.0 has it."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + LAYER[:400_000])
    request.transport.close()
    return web.Response()


async def _without_notice(request: web.Request) -> web.StreamResponse:
    """Do the same, and let TLS end without saying so."""
    assert request.transport is not None
    request.transport.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + LAYER[:400_000])
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answer", [_until_it_ends, _without_notice])
async def test_rel_08_blob_without_length_that_ends_early_is_not_taken_for_the_whole(
    tmp_path: Path, answer: Any
) -> None:
    authority, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with FakeRegistry(tls=context) as upstream:
        upstream.add_blob("library/alpine", LAYER)
        endpoints = {"hub": endpoint_of(upstream, ca_file=tmp_path / "ca.pem")}
        async with cached_edge(tmp_path, endpoints, [HUB]) as edge:
            upstream.faults.on(BLOBS, Fault(answer=answer))
            assert has_failed(await edge.get(PATH))
            await edge.cache.idle()
            assert await locations(edge) == []
            upstream.faults.clear()
            pass_time(edge)
            assert is_right(await edge.get(PATH))


@pytest.mark.parametrize("truncation", [name for name in TRUNCATIONS if "announced, " in name or "clean" in name])
@pytest.mark.usefixtures("image")
async def test_rel_08_blob_that_is_truncated_once_is_resumed_for_whoever_waits(
    edge: CachedEdge, upstream: FakeRegistry, truncation: str
) -> None:
    upstream.faults.on(BLOBS, TRUNCATIONS[truncation], times=1)
    assert is_right(await edge.get(PATH))
    ranges = [request.headers.get("range") for request in upstream.asked(BLOBS)]
    assert ranges[0] is None
    assert len(ranges) == 2
    assert ranges[1] is None or 0 < int(ranges[1].removeprefix("bytes=").removesuffix("-")) <= 400_000


@pytest.mark.usefixtures("image")
async def test_rel_08_pull_after_a_failed_one_goes_on_where_that_stopped(
    edge: CachedEdge, upstream: FakeRegistry
) -> None:
    upstream.faults.on(BLOBS, Fault(status=503, headers={"Retry-After": "60"}))
    upstream.faults.on(BLOBS, Fault(cut_after=400_000), times=1)
    assert has_failed(await edge.get(PATH))
    await edge.cache.idle()
    upstream.faults.clear()
    upstream.requests.clear()
    pass_time(edge)
    assert is_right(await edge.get(PATH))
    assert [request.headers.get("range") for request in upstream.asked(BLOBS)] == ["bytes=400000-"]


# REL-11


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
@pytest.mark.usefixtures("image")
async def test_rel_11_fill_is_completed_for_the_next_client_when_the_first_one_leaves(
    edge: CachedEdge, upstream: FakeRegistry, share: float
) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=int(share * len(LAYER))))
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    # What is held back for the verification never comes before the end.
    await reader.readexactly(max(1, min(int(share * len(LAYER)), len(LAYER) - 65_536)))
    writer.close()
    await writer.wait_closed()
    hold.release()
    await edge.cache.idle()
    assert len(await locations(edge)) == 1
    await upstream.stop()
    assert is_right(await edge.get(PATH))
    assert upstream.count(BLOBS) == 1


# REL-12


@pytest.mark.usefixtures("image")
async def test_rel_12_one_download_for_everybody_also_when_the_first_client_leaves(
    edge: CachedEdge, upstream: FakeRegistry
) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=300_000))
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    async with asyncio.TaskGroup() as group:
        followers = group.create_task(pulls(edge, 50))
        await hold.reached()
        writer.transport.abort()
        hold.release()
    assert all(map(is_right, followers.result()))
    assert upstream.count(BLOBS) == 1


@pytest.mark.usefixtures("image")
async def test_rel_12_two_downloads_when_the_upstream_of_the_first_one_dies(
    edge: CachedEdge, upstream: FakeRegistry
) -> None:
    upstream.faults.on(BLOBS, Fault(cut_after=300_000, reset=True), times=1)
    assert all(map(is_right, await pulls(edge, 50)))
    assert upstream.count(BLOBS) == 2


async def test_rel_12_everything_is_asked_for_once(tmp_path: Path) -> None:
    tokens = Tokens()
    async with FakeRegistry(tokens=tokens) as upstream:
        image = upstream.add_image("library/alpine", "latest", [LAYER])
        endpoints = {"hub": endpoint_of(upstream)}
        async with cached_edge(tmp_path, endpoints, [HUB]) as edge:
            paths = ["manifests/latest", f"manifests/{image.digest}", *(f"blobs/{digest}" for digest in image.blobs)]
            for path in paths:
                target = f"/v2/docker-hub/library/alpine/{path}"
                async with asyncio.TaskGroup() as group:
                    answers = [group.create_task(edge.get(target)) for _ in range(50)]
                assert {(answer.result().status, answer.result().whole) for answer in answers} == {(200, True)}
            downloads = {digest: upstream.count(f"GET /v2/*/blobs/{digest}") for digest in image.blobs}
            assert downloads == dict.fromkeys(image.blobs, 1)
            manifests = [one for one in upstream.asked("GET /v2/*/manifests/*") if "authorization" in one.headers]
            assert len(manifests) == 1
            assert tokens.issued == 1


# REL-13


@pytest.mark.parametrize(
    "failure",
    [
        Fault(status=500),
        Fault(drop=True),
        Fault(status=404),
        Fault(body=b"<html>"),
        Fault(cut_after=300),
        Fault(hold=Hold(), hold_after=300),
    ],
    ids=["error", "gone", "unknown", "garbage", "broken", "silent"],
)
@pytest.mark.usefixtures("image")
async def test_rel_13_every_waiter_gets_the_failure_in_time_and_the_next_pull_is_right(
    edge: CachedEdge, upstream: FakeRegistry, failure: Fault
) -> None:
    upstream.faults.on(BLOBS, failure)
    async with asyncio.timeout(20):
        answers = await pulls(edge)
        await edge.cache.idle()
    assert all(has_failed(answer) or answer.status == 404 for answer in answers)
    assert edge.cache.fills.find("hub", DIGEST) is None
    upstream.faults.clear()
    pass_time(edge)
    assert all(map(is_right, await pulls(edge)))


@pytest.mark.usefixtures("image")
async def test_rel_13_every_waiter_is_told_when_the_node_stops(edge: CachedEdge, upstream: FakeRegistry) -> None:
    hold = Hold()
    upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=300_000))
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(pulls(edge))
        await hold.reached()
        await edge.cache.close()
        hold.release()
    assert all(map(has_failed, waiting.result()))
    assert (await edge.contents())["ingests"] == []


# REL-17


SMALL = b"small" * 100


@pytest.mark.parametrize("after", [None, 0, 20], ids=["no answer", "no body", "midway"])
async def test_rel_17_cold_blob_of_a_hung_upstream_is_a_failure_in_time_and_comes_later(
    tmp_path: Path, upstream: FakeRegistry, after: int | None
) -> None:
    digest, hold = upstream.add_blob("library/alpine", SMALL), Hold()
    path = f"/v2/docker-hub/library/alpine/blobs/{digest}"
    limits = CacheLimits(cold_wait=0.2)
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], limits=limits) as edge:
        upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=after))
        async with asyncio.timeout(2):
            answers = [await edge.get(path) for _ in range(3)]
        assert {answer.status for answer in answers} == {504}
        assert all(b"hub: " in answer.body and b"no answer in time" in answer.body for answer in answers)
        assert upstream.count(BLOBS) == 1
        hold.release()
        await edge.cache.idle()
        assert (await edge.get(path)).body == SMALL
        assert upstream.count(BLOBS) == 1


async def test_rel_17_size_of_a_cold_blob_of_a_hung_upstream_is_a_failure_in_time(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    digest = upstream.add_blob("library/alpine", SMALL)
    limits = CacheLimits(cold_wait=0.2)
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], limits=limits) as edge:
        upstream.faults.on("*", Fault(hold=Hold()))
        async with asyncio.timeout(2):
            answer = await edge.head(f"/v2/docker-hub/library/alpine/blobs/{digest}")
        assert answer.status == 504
        assert "hub: " in answer.headers["Cache-Status"]


async def test_rel_17_blob_of_unknown_size_may_take_as_long_as_it_arrives(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    digest = upstream.add_blob("library/alpine", LAYER)
    limits = CacheLimits(cold_wait=0.5)
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], limits=limits) as edge:
        upstream.faults.on(BLOBS, Fault(chunked=True, drip=(100_000, 0.1)))
        answer = await edge.get(f"/v2/docker-hub/library/alpine/blobs/{digest}")
        assert is_right(answer)


# REL-18


@pytest.mark.usefixtures("image")
async def test_rel_18_stalled_transfer_is_resumed_where_it_stopped(edge: CachedEdge, upstream: FakeRegistry) -> None:
    upstream.faults.on(BLOBS, Fault(hold=Hold(), hold_after=400_000), times=1)
    assert is_right(await edge.get(PATH))
    assert [request.headers.get("range") for request in upstream.asked(BLOBS)] == [None, "bytes=400000-"]


async def _whole_again(_: web.Request) -> web.StreamResponse:
    return web.Response(body=LAYER)


async def _from_another_byte(_: web.Request) -> web.StreamResponse:
    part = {"Content-Range": f"bytes 500000-999999/{len(LAYER)}"}
    return web.Response(status=206, headers=part, body=LAYER[500_000:])


async def _other_bytes(_: web.Request) -> web.StreamResponse:
    part = {"Content-Range": f"bytes 400000-999999/{len(LAYER)}"}
    return web.Response(status=206, headers=part, body=bytes(600_000))


@pytest.mark.parametrize("answer", [_whole_again, _from_another_byte, _other_bytes])
@pytest.mark.usefixtures("image")
async def test_rel_18_wrong_answer_to_a_resumption_does_no_harm(
    edge: CachedEdge, upstream: FakeRegistry, answer: Any
) -> None:
    upstream.faults.on(BLOBS, Fault(answer=answer), times=1)
    upstream.faults.on(BLOBS, Fault(hold=Hold(), hold_after=400_000), times=1)
    first = await edge.get(PATH)
    assert is_right(first) or has_failed(first)
    assert is_right(first) or answer is not _whole_again
    await edge.cache.idle()
    assert is_right(await edge.get(PATH))


@pytest.mark.usefixtures("image")
async def test_rel_18_upstream_that_answers_no_range_is_read_from_its_beginning(
    edge: CachedEdge, upstream: FakeRegistry
) -> None:
    upstream.faults.on(BLOBS, Fault(status=416), times=1)
    upstream.faults.on(BLOBS, Fault(hold=Hold(), hold_after=400_000), times=1)
    assert is_right(await edge.get(PATH))
    assert [request.headers.get("range") for request in upstream.asked(BLOBS)] == [None, "bytes=400000-", None]


# REL-19


async def test_rel_19_token_that_expires_during_a_pull_is_renewed_once(tmp_path: Path) -> None:
    tokens = Tokens()
    async with FakeRegistry(tokens=tokens) as upstream:
        image = upstream.add_image("library/alpine", "latest", [LAYER, LAYER[:-1], LAYER[:-2]])
        async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB]) as edge:
            base = "/v2/docker-hub/library/alpine"
            assert (await edge.get(f"{base}/manifests/latest")).status == 200
            tokens.expire()
            async with asyncio.TaskGroup() as group:
                answers = {digest: group.create_task(edge.get(f"{base}/blobs/{digest}")) for digest in image.blobs}
            assert {digest: answer.result().body for digest, answer in answers.items()} == dict(image.blobs)
            assert tokens.issued == 2


async def test_rel_19_token_that_expires_while_a_blob_is_sent_is_renewed_for_the_rest(tmp_path: Path) -> None:
    tokens = Tokens()
    async with FakeRegistry(tokens=tokens) as upstream:
        upstream.add_image("library/alpine", "latest", [LAYER])
        async with cached_edge(tmp_path, {"hub": endpoint_of(upstream, stall_timeout=0.3)}, [HUB]) as edge:
            await edge.get("/v2/docker-hub/library/alpine/manifests/latest")
            hold = Hold()
            upstream.faults.on(BLOBS, Fault(hold=hold, hold_after=400_000), times=1)
            async with asyncio.TaskGroup() as group:
                pulling = group.create_task(pulls(edge))
                await hold.reached()
                tokens.expire()
            assert all(map(is_right, pulling.result()))
            assert tokens.issued == 2


async def test_rel_19_blobs_that_are_here_need_no_token_service(tmp_path: Path) -> None:
    tokens = Tokens()
    async with FakeRegistry(tokens=tokens) as upstream:
        upstream.add_image("library/alpine", "latest", [LAYER, b"another"])
        async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB]) as edge:
            await edge.get("/v2/docker-hub/library/alpine/manifests/latest")
            assert is_right(await edge.get(PATH))
            upstream.faults.on("/token", Fault(status=503))
            tokens.expire()
            assert is_right(await edge.get(PATH))
            cold = await edge.get(f"/v2/docker-hub/library/alpine/blobs/{digest_of(b'another')}")
            assert cold.status in {502, 503}


# SEC-20


@pytest.mark.parametrize("flip", [0, 500_000, -1])
@pytest.mark.usefixtures("image")
async def test_sec_20_blob_with_other_bytes_is_never_complete_and_never_stored(
    edge: CachedEdge, upstream: FakeRegistry, flip: int
) -> None:
    upstream.faults.on(BLOBS, Fault(flip=flip))
    assert all(map(has_failed, await pulls(edge)))
    await edge.cache.idle()
    assert await locations(edge) == []
    assert (await edge.contents())["ingests"] == []


async def test_sec_20_manifest_with_other_bytes_is_refused(edge: CachedEdge, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", "latest", [LAYER])
    other = upstream.add_image("library/alpine", "other", [b"other"])
    upstream.faults.on(
        "/v2/library/alpine/manifests/*",
        Fault(body=other.manifest, content_type=other.media_type, headers={"Docker-Content-Digest": image.digest}),
    )
    answer = await edge.get(f"/v2/docker-hub/library/alpine/manifests/{image.digest}")
    assert answer.status == 502
    found = await edge.node.database.read(images.find(RepositoryName("docker-hub/library/alpine"), image.digest))
    assert found is None


async def test_sec_20_digest_that_an_upstream_states_is_not_passed_on(
    edge: CachedEdge, upstream: FakeRegistry, image: BuiltImage
) -> None:
    lie = {"Docker-Content-Digest": digest_of(b"a lie")}
    upstream.faults.on(BLOBS, Fault(headers=lie))
    answer = await edge.get(PATH)
    assert has_failed(answer) or answer.headers["Docker-Content-Digest"] == image.layers[0]
    # By tag, the digest is what the bytes have, whatever is stated.
    moved = upstream.add_image("library/alpine", "moved", [b"moved"])
    upstream.faults.on("/v2/library/alpine/manifests/moved", Fault(headers=lie))
    answer = await edge.get("/v2/docker-hub/library/alpine/manifests/moved")
    assert answer.status == 502 or answer.headers["Docker-Content-Digest"] == moved.digest
