"""Upload sessions over broken connections, restarts, full disks and impatient clients."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from tests.support.clock import FakeClock
from tests.support.single_node import NODE, SingleNode, serve_node
from tests.support.wire_client import BLOB_TYPE, WireClient, exchange

if TYPE_CHECKING:
    from pathlib import Path

MIB = 2**20
CONTENT = os.urandom(3 * MIB)
DIGEST = digest_of(CONTENT)
OCTETS = {"Content-Type": BLOB_TYPE}


def place(start: int, stop: int) -> dict[str, str]:
    return {**OCTETS, "Content-Range": f"{start}-{stop - 1}"}


async def received(client: WireClient, session: str) -> int:
    """Return how many bytes a session holds, as it says itself."""
    answer = await client.get(session)
    assert answer.status == 204
    last = int(answer.headers["Range"].removeprefix("0-"))
    return last + 1 if last else 0


async def break_off(node: SingleNode, session: str, content: bytes, announced: int) -> None:
    """Send the first bytes of a chunk that is announced to be longer, then drop the connection."""
    _, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(f"PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: {announced}\r\n\r\n".encode() + content)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await node.reached(lambda outcome: outcome.path == session and outcome.status == 499)
    node.outcomes.clear()


@pytest.mark.parametrize("cut", [1, 1000, MIB, 3 * MIB - 1])
async def test_an_upload_goes_on_where_its_connection_broke(cut: int, tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        session = await client.start_upload("a")
        await break_off(node, session, CONTENT[:cut], len(CONTENT))
        kept = await received(client, session)
        assert kept <= cut
        assert kept > 0 or cut < MIB
        answer = await client.send("PATCH", session, body=CONTENT[kept:], headers=place(kept, len(CONTENT)))
        assert answer.status == 202
        assert (await client.send("PUT", answer.location, digest=DIGEST)).status == 201
        assert (await client.get(f"/v2/a/blobs/{DIGEST}")).body == CONTENT
        assert node.ingests == []


async def test_the_last_chunk_may_break_off_too(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        session = await client.start_upload("a")
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        head = f"PUT {session}?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        writer.write(head.encode() + CONTENT[:MIB])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await node.reached(lambda outcome: outcome.method == "PUT" and outcome.status == 499)
        assert (await client.head(f"/v2/a/blobs/{DIGEST}")).status == 404
        kept = await received(client, session)
        rest = CONTENT[kept:]
        answer = await client.send("PUT", session, body=rest, headers=place(kept, len(CONTENT)), digest=DIGEST)
        assert answer.status == 201
        assert (await client.get(f"/v2/a/blobs/{DIGEST}")).body == CONTENT


async def test_nothing_is_left_of_a_whole_blob_that_broke_off(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node:
        before = node.contents
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        head = (
            f"POST /v2/a/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        )
        writer.write(head.encode() + CONTENT[:MIB])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await node.reached(lambda outcome: outcome.method == "POST" and outcome.status == 499)
        assert node.contents == before


async def test_nothing_is_left_of_a_manifest_that_broke_off(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node:
        before = node.contents
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        await node.reached(lambda outcome: outcome.method == "PUT" and outcome.status == 499)
        assert node.contents == before


async def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        session = await client.start_upload("a")
        other = await client.start_upload("a")
        assert (await client.send("PATCH", session, body=CONTENT[:MIB], headers=place(0, MIB))).status == 202
    async with serve_node(tmp_path) as node, node.client() as client:
        assert await node.services.uploads.reclaim() == 0
        assert (await received(client, session), await received(client, other)) == (MIB, 0)
        assert (await client.send("PATCH", session, body=CONTENT[MIB:], headers=place(MIB, len(CONTENT)))).status == 202
    async with serve_node(tmp_path) as node, node.client() as client:
        assert (await client.send("PUT", session, digest=DIGEST)).status == 201
    async with serve_node(tmp_path) as node, node.client() as client:
        assert (await client.get(f"/v2/a/blobs/{DIGEST}")).body == CONTENT
        assert (await client.get(session)).status == 404
        assert len(node.ingests) == 1


async def test_sessions_expire_and_their_bytes_go(tmp_path: Path) -> None:
    clock = FakeClock()
    settings = RegistrySettings(NODE, upload_expiry=3600)
    async with serve_node(tmp_path, clock, settings=settings) as node, node.client() as client:
        idle, busy = await client.start_upload("a"), await client.start_upload("a")
        for session in (idle, busy):
            assert (await client.send("PATCH", session, body=b"abc")).status == 202
        clock.advance(3000)
        assert (await client.send("PATCH", busy, body=b"def")).status == 202
        clock.advance(1000)
        for method, query in (("GET", ""), ("PATCH", ""), ("PUT", f"?digest={digest_of(b'abc')}"), ("DELETE", "")):
            answer = await client.send(method, idle + query)
            assert (answer.status, answer.codes) == (404, ["BLOB_UPLOAD_UNKNOWN"])
        assert len(node.ingests) == 2
        assert await node.services.uploads.reclaim() == 0  # what began since the last reclaim is spared
        assert await node.services.uploads.reclaim() == 1
        assert len(node.ingests) == 1
        assert await node.services.uploads.reclaim() == 0
        assert (await client.send("PUT", busy, digest=digest_of(b"abcdef"))).status == 201
        assert node.ingests == []


async def test_reclaim_spares_what_is_under_way(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        session = await client.start_upload("a")
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(f"PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc".encode())
        await writer.drain()
        whole = asyncio.open_connection("127.0.0.1", node.port)
        _, other = await whole
        head = (
            f"POST /v2/a/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n"
        )
        other.write(head.encode() + CONTENT[:1000])
        await other.drain()
        assert (await client.get("/v2/")).status == 200
        await node.services.uploads.reclaim()
        writer.write(b"def")
        other.write(CONTENT[1000:])
        await node.reached(lambda outcome: outcome.method == "PATCH" and outcome.status == 202)
        await node.reached(lambda outcome: outcome.path.endswith(DIGEST) and outcome.status == 201)
        for each in (writer, other):
            each.close()
            await each.wait_closed()
        assert (await client.send("PUT", session, digest=digest_of(b"abcdef"))).status == 201


async def test_chunks_sent_at_once_do_not_mix(tmp_path: Path) -> None:
    """Of two first chunks one wins; of two streams each lies in one piece."""
    async with serve_node(tmp_path) as node:
        clients = [node.client() for _ in range(4)]
        session = await clients[0].start_upload("a")
        parts = [bytes([65 + number]) * MIB for number in range(4)]
        async with asyncio.TaskGroup() as group:
            sent = [
                group.create_task(client.send("PATCH", session, body=part, headers=place(0, MIB)))
                for client, part in zip(clients, parts, strict=True)
            ]
        assert sorted(task.result().status for task in sent) == [202, 416, 416, 416]
        assert await received(clients[0], session) == MIB
        async with asyncio.TaskGroup() as group:
            sent = [
                group.create_task(client.send("PATCH", session, body=part, headers=OCTETS))
                for client, part in zip(clients, parts, strict=True)
            ]
        assert {task.result().status for task in sent} == {202}
        (ingest,) = (node.directory / "blobs" / "ingest").iterdir()
        content = ingest.read_bytes()
        pieces = [content[start : start + MIB] for start in range(0, len(content), MIB)]
        assert sorted(pieces[1:]) == parts
        assert pieces[0] in parts
        assert (await clients[0].send("PUT", session, digest=digest_of(content))).status == 201
        for client in clients:
            await client.close()


async def test_many_pushes_of_one_blob_leave_one_copy(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node:
        clients = [node.client() for _ in range(8)]
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients):
                group.create_task(client.push_blob(f"repository-{number % 3}", CONTENT))
        assert len(node.files) == 1
        for number in range(3):
            assert (await clients[0].get(f"/v2/repository-{number}/blobs/{DIGEST}")).body == CONTENT
        for client in clients:
            await client.close()


async def test_closing_a_session_twice_at_once_makes_one_blob(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node:
        clients = [node.client() for _ in range(3)]
        session = await clients[0].start_upload("a")
        assert (await clients[0].send("PATCH", session, body=CONTENT)).status == 202
        async with asyncio.TaskGroup() as group:
            closed = [group.create_task(client.send("PUT", session, digest=DIGEST)) for client in clients]
        assert sorted(task.result().status for task in closed) == [201, 404, 404]
        assert (len(node.files), node.ingests) == (1, [])
        for client in clients:
            await client.close()


async def test_a_full_store_drops_the_session_and_takes_the_next_one(tmp_path: Path) -> None:
    volume = MemoryVolume(capacity=2 * MIB)
    async with serve_node(tmp_path, store=MemoryBlobStore(volume)) as node, node.client() as client:
        small = await client.push_blob("a", b"small")
        session = await client.start_upload("a")
        answer = await client.send("PATCH", session, body=CONTENT)
        assert answer.status == 507
        assert answer.codes == ["UNAVAILABLE"]
        assert (await client.get(session)).status == 404
        answer = await client.send("POST", "/v2/a/blobs/uploads/", body=CONTENT, digest=DIGEST)
        assert answer.status == 507
        assert volume.ingests == {}
        assert (await client.get(f"/v2/a/blobs/{small}")).body == b"small"
        volume.capacity = 2**30
        await client.push_blob("a", CONTENT)


async def test_a_wrong_digest_ends_the_session(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        session = await client.start_upload("a")
        assert (await client.send("PATCH", session, body=CONTENT)).status == 202
        answer = await client.send("PUT", session, digest=digest_of(b"other"))
        assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
        assert (await client.get(session)).status == 404
        assert (node.ingests, node.files) == ([], [])


async def test_a_digest_of_another_algorithm_than_begun_with(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        for begun, ended in (("sha256", "sha512"), ("sha512", "sha256")):
            started = await client.send("POST", f"/v2/a/blobs/uploads/?digest-algorithm={begun}")
            assert (await client.send("PATCH", started.location, body=CONTENT)).status == 202
            digest = digest_of(CONTENT, ended)
            assert (await client.send("PUT", started.location, digest=digest)).status == 201
            assert (await client.get(f"/v2/a/blobs/{digest}")).body == CONTENT


async def test_where_pushing_creates_nothing_an_unknown_repository_takes_nothing(tmp_path: Path) -> None:
    settings = RegistrySettings(NODE, create_on_push=False)
    async with serve_node(tmp_path, settings=settings) as node, node.client() as client:
        before = node.contents
        for target in ("", f"?digest={DIGEST}", f"?mount={DIGEST}&from=b", f"?mount={DIGEST}"):
            answer = await client.send("POST", f"/v2/a/blobs/uploads/{target}", body=CONTENT)
            assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])
        answer = await client.push_manifest("a", "v1", b'{"schemaVersion":2,"mediaType":"x"}', "application/json")
        assert answer.status == 400
        assert node.contents == before


async def test_a_body_that_was_refused_does_not_stop_the_connection(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node:
        head = b"PATCH /v2/a/blobs/uploads/none HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcde"
        answers = await exchange(node.port, head)
        assert [answer.status for answer in answers] == [404, 200]
