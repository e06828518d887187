"""When something breaks below the edge: an answer that has begun is cut short, one that has not is an honest error."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

import pytest

from replicator.core.digest import digest_of
from replicator.core.errors import CorruptBlob, ShuttingDown, StorageFull, StorageUnavailable, UpstreamUnavailable
from replicator.registry_api import request_body
from replicator.storage.blobs.memory import MemoryBlobStore
from tests.support.images import build_image
from tests.support.single_node import serve_node
from tests.support.wire_client import BLOB_TYPE, read_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.storage.blobs.memory import MemoryBlob, MemoryIngest
    from replicator.storage.blobs.port import StoredBlob

CONTENT = bytes(range(256)) * 4096
DIGEST = digest_of(CONTENT)


class BreakingBlob:
    """A blob whose reading fails after some bytes."""

    def __init__(self, blob: MemoryBlob, good: int, error: BaseException) -> None:
        self.digest, self.size = blob.digest, blob.size
        self._blob, self._good, self._error = blob, good, error

    async def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        if self._good:
            async for piece in self._blob.read(start, min(length, self._good)):
                yield piece
        raise self._error

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._blob.__aexit__(*exc_info)


class BreakingStore(MemoryBlobStore):
    """A store that fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.opening: BaseException | None = None
        self.reading: BaseException | None = None
        self.creating: BaseException | None = None
        self.good = 0

    async def read_blob(self, blob: StoredBlob) -> MemoryBlob:
        if self.opening is not None:
            raise self.opening
        opened = await super().read_blob(blob)
        if self.reading is None:
            return opened
        return BreakingBlob(opened, self.good, self.reading)  # type: ignore[return-value]

    async def create_ingest(self, name: str, algorithm: str = "sha256") -> MemoryIngest:
        if self.creating is not None:
            raise self.creating
        return await super().create_ingest(name, algorithm)


ERRORS = [
    CorruptBlob("bytes are missing"),
    StorageUnavailable("the disk is gone"),
    UpstreamUnavailable("the fill failed"),
    TimeoutError(),
    OSError(5, "Input/output error"),
    RuntimeError("a bug"),
]


@pytest.mark.parametrize("good", [0, 1, 300_000, len(CONTENT) - 1], ids=lambda good: f"after {good} bytes")
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_an_answer_that_has_begun_is_never_completed(error: Exception, good: int, tmp_path: Path) -> None:
    store = BreakingStore()
    async with serve_node(tmp_path, store=store) as node, node.client() as client:
        await client.push_blob("a", CONTENT)
        store.reading, store.good = error, good
        for headers in ({}, {"Range": f"bytes=0-{len(CONTENT) - 1}"}):
            try:
                answer = await client.get(f"/v2/a/blobs/{DIGEST}", headers=headers)
            except ConnectionError:
                await client.close()
                continue
            assert not answer.whole
            assert CONTENT.startswith(answer.body)
        store.reading = None
        assert (await client.get(f"/v2/a/blobs/{DIGEST}")).body == CONTENT


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (CorruptBlob("bytes are missing"), 404, "BLOB_UNKNOWN"),
        (StorageUnavailable("the disk is gone"), 503, "UNAVAILABLE"),
        (ShuttingDown(), 503, "UNAVAILABLE"),
        (OSError(5, "Input/output error: /var/lib/secret/path"), 500, "UNKNOWN"),
        (RuntimeError("a bug with s3cret"), 500, "UNKNOWN"),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_an_answer_that_has_not_begun_is_an_error(
    error: Exception, status: int, code: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = BreakingStore()
    async with serve_node(tmp_path, store=store) as node, node.client() as client:
        await client.push_blob("a", CONTENT)
        store.opening = error
        answer = await client.get(f"/v2/a/blobs/{DIGEST}")
        assert (answer.status, answer.codes) == (status, [code])
        assert b"s3cret" not in answer.body
        assert b"/var" not in answer.body
        assert ("Retry-After" in answer.headers) == (status == 503)
        assert any(record.levelno >= logging.WARNING for record in caplog.records)
        store.opening = None
        assert (await client.get("/v2/")).status == 200


@pytest.mark.parametrize(
    ("error", "status"), [(StorageFull(), 507), (StorageUnavailable(), 503), (RuntimeError("a bug"), 500)], ids=repr
)
async def test_a_store_that_takes_nothing(error: Exception, status: int, tmp_path: Path) -> None:
    store = BreakingStore()
    async with serve_node(tmp_path, store=store) as node, node.client() as client:
        small = await client.push_blob("a", b"small")
        store.creating = error
        assert (await client.send("POST", "/v2/a/blobs/uploads/")).status == status
        answer = await client.send("POST", "/v2/a/blobs/uploads/", body=CONTENT, digest=DIGEST)
        assert answer.status == status
        assert (await client.get(f"/v2/a/blobs/{small}")).body == b"small"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_body, "STALL_TIMEOUT", 0.05)


@pytest.mark.usefixtures("impatient")
async def test_a_client_that_stalls_is_given_up_and_may_go_on_later(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        session = await client.start_upload("a")
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(f"PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode())
        writer.write(CONTENT[:1000])
        answer = await read_answer(reader)
        assert (answer.status, answer.headers["Connection"]) == (408, "close")
        writer.close()
        await writer.wait_closed()
        assert (await client.get(session)).headers["Range"] == "0-999"
        rest = {"Content-Type": BLOB_TYPE, "Content-Range": f"1000-{len(CONTENT) - 1}"}
        assert (await client.send("PATCH", session, body=CONTENT[1000:], headers=rest)).status == 202
        assert (await client.send("PUT", session, digest=DIGEST)).status == 201


@pytest.mark.usefixtures("impatient")
async def test_a_manifest_that_stalls_is_given_up(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with serve_node(tmp_path) as node:
        before = node.contents
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(
            b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + image.manifest[:10]
        )
        assert (await read_answer(reader)).status == 408
        writer.close()
        await writer.wait_closed()
        assert node.contents == before


async def test_a_client_that_leaves_while_it_is_sent_to_harms_nobody(tmp_path: Path) -> None:
    content = bytes(32 * 2**20)
    async with serve_node(tmp_path) as node, node.client() as client:
        digest = await client.push_blob("a", content)
        node.outcomes.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(f"GET /v2/a/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        await reader.readexactly(1000)
        writer.transport.abort()
        await node.reached(lambda outcome: outcome.status == 499)
        assert (await client.get(f"/v2/a/blobs/{digest}")).body == content


async def test_requests_have_ids_of_their_own(tmp_path: Path) -> None:
    async with serve_node(tmp_path) as node, node.client() as client:
        answers = [await client.get(path) for path in ("/v2/", "/v2/x", "/v2/A/tags/list", "/v2/_catalog")]
        ids = [answer.headers["X-Request-Id"] for answer in answers]
        assert len(set(ids)) == 4
        assert [outcome.request_id for outcome in node.outcomes] == ids
        assert [outcome.route for outcome in node.outcomes] == ["base", "unknown", "unknown", "catalog"]
