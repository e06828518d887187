"""Whatever comes as a manifest or a blob: the right 4xx, nothing stored, memory and time bounded, the node goes on."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import tracemalloc
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from replicator.core.digest import digest_of
from replicator.core.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from replicator.registry.settings import RegistrySettings
from tests.support.images import build_image, build_index
from tests.support.single_node import NODE, SingleNode, serve_node
from tests.support.wire_client import Answer, read_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
IMAGE = build_image([b"layer"])
OTHER = digest_of(b"other")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SingleNode]:
    """A node that holds the blobs of one image, but not its manifest."""
    async with serve_node(tmp_path_factory.mktemp("node")) as node, node.client() as client:
        for content in IMAGE.blobs.values():
            await client.push_blob("a", content)
        yield node
        assert [outcome for outcome in node.outcomes if outcome.status >= 500] == []


def changed(**members: object) -> bytes:
    return json.dumps({**json.loads(IMAGE.manifest), **members}).encode()


def with_digest(digest: str) -> bytes:
    return IMAGE.manifest.replace(IMAGE.layers[0].encode(), digest.encode())


MALFORMED = {
    "nothing": b"",
    "not JSON": b"manifest",
    "not UTF-8": b"\xff\xfe" + IMAGE.manifest,
    "with a byte order mark": b"\xef\xbb\xbf" + IMAGE.manifest,
    "null": b"null",
    "a list": b"[]",
    "an empty object": b"{}",
    "cut off": IMAGE.manifest[:-1],
    "with a tail": IMAGE.manifest + b"{}",
    "a million brackets": b"[" * 10**6,
    "a million braces": b'{"":' * 10**6,
    "a million members": changed(x=[0] * 10**6),
    "deep inside": changed(x=0).replace(b'"x": 0', b'"x": ' + b"[" * 50_000 + b"]" * 50_000),
    "NaN": IMAGE.manifest.replace(b'"schemaVersion":2', b'"schemaVersion":NaN'),
    "Infinity": changed(x=0).replace(b'"x": 0', b'"x": Infinity'),
    "a number without end": changed(x=0).replace(b'"x": 0', b'"x": ' + b"9" * 10**6),
    "a key twice": IMAGE.manifest.replace(b'"layers":', b'"layers":[],"layers":'),
    "a key twice, escaped": IMAGE.manifest.replace(b'"layers":', rb'"\u006cayers":[],"layers":'),
    "a key in another case": changed(Layers=[]),
    "layers and manifests": changed(manifests=[]),
    "schema version 3": changed(schemaVersion=3),
    "a text as version": changed(schemaVersion="2"),
    "layers that are none": changed(layers="none"),
    "a layer that is none": changed(layers=[7]),
    "no config": changed(config=None),
    "annotations that are none": changed(annotations={"a": {}}),
    "half a character": changed(annotations={"a": "\ud800"}),
    "a type with a line break": changed(artifactType="a/b\r\nX: y"),
    "a negative size": IMAGE.manifest.replace(b'"size":', b'"size":-'),
    "traversal in a digest": with_digest("sha256:../../../etc/passwd"),
    "an upper-case digest": with_digest(IMAGE.layers[0].upper().replace("SHA", "sha")),
    "a short digest": with_digest(IMAGE.layers[0][:-1]),
    "another algorithm": with_digest("md5:d41d8cd98f00b204e9800998ecf8427e"),
}


@pytest.mark.parametrize("title", MALFORMED)
async def test_sec_26_malformed_manifests_are_refused(title: str, node: SingleNode) -> None:
    content = MALFORMED[title]
    before = node.contents
    async with node.client() as client:
        for reference in ("v1", digest_of(content)):
            answer = await client.push_manifest("a", reference, content, OCI_MANIFEST)
            assert answer.status == 400
            assert set(answer.codes) <= {"MANIFEST_INVALID", "DIGEST_INVALID"}
            assert len(answer.body) < 500
        assert (await client.get("/v2/a/manifests/v1")).status == 404
    assert node.contents == before


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/json", "text/html", "application/octet-stream", "application/vnd.oci.image.config.v1+json"),
        *(OCI_INDEX, DOCKER_MANIFEST, "*/*", "\xe9", "x" * 5000, f"{OCI_MANIFEST}x"),
        "application/vnd.docker.distribution.manifest.v1+json",
    ],
)
async def test_other_content_types(content_type: str, node: SingleNode) -> None:
    before = node.contents
    async with node.client() as client:
        answer = await client.push_manifest("a", "v1", IMAGE.manifest, content_type)
        assert answer.status == 400
        assert answer.codes == ["MANIFEST_INVALID"]
    assert node.contents == before


async def test_sec_19_bytes_that_are_served_are_of_the_type_they_were_pushed_as(node: SingleNode) -> None:
    """An index pushed as an image, and the other way round, is read in no way at all."""
    index = build_index([IMAGE])
    async with node.client() as client:
        assert (await client.push_manifest("a", "served", IMAGE.manifest)).status == 201
        for content, content_type in ((index.manifest, OCI_MANIFEST), (IMAGE.manifest, OCI_INDEX)):
            assert (await client.push_manifest("a", "v2", content, content_type)).status == 400
        assert (await client.get("/v2/a/manifests/v2")).status == 404


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "deflate", "identity, gzip", "GZIP", "unheard-of"])
async def test_sec_27_compressed_bodies_are_refused(coding: str, node: SingleNode) -> None:
    before = node.contents
    bomb = gzip.compress(b" " * 10 * MIB)
    headers = {"Content-Encoding": coding}
    async with node.client() as client:
        session = await client.start_upload("a")
        opened = node.contents
        for method, target in (
            ("PUT", "/v2/a/manifests/v1"),
            ("POST", f"/v2/a/blobs/uploads/?digest={digest_of(bomb)}"),
            ("PATCH", session),
            ("PUT", f"{session}?digest={digest_of(bomb)}"),
        ):
            answer = await client.send(method, target, body=bomb, headers=headers)
            assert answer.status == 415, target
            assert answer.codes == ["UNSUPPORTED"]
        assert node.contents == opened
        assert (await client.delete(session)).status == 204
    assert node.contents == before


async def test_bytes_that_happen_to_be_compressed_stay_as_they_are(node: SingleNode) -> None:
    content = gzip.compress(b"layer")
    async with node.client() as client:
        digest = await client.push_blob("a", content)
        answer = await client.get(f"/v2/a/blobs/{digest}", headers={"Accept-Encoding": "gzip"})
    assert answer.body == content
    assert "Content-Encoding" not in answer.headers


@contextlib.contextmanager
def memory_bounded_to(limit: int) -> Iterator[None]:
    """Fail when Python's memory grows by more than `limit` bytes at any time in the block."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < limit


async def push_endlessly(node: SingleNode, target: str, length: int, *, chunked: bool, method: str = "PUT") -> Answer:
    """Send `length` bytes without looking at the answer before they are gone."""
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {length}"
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Type: {OCI_MANIFEST}\r\n{framing}\r\n\r\n".encode())
    piece = b" " * MIB
    framed = b"100000\r\n" + piece + b"\r\n" if chunked else piece
    try:
        for _ in range(length // MIB):
            writer.write(framed)
            await writer.drain()
        writer.write(b"0\r\n\r\n" if chunked else b"")
        return await read_answer(reader)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.mark.parametrize("chunked", [False, True], ids=["with its length", "in chunks"])
async def test_sec_24_a_manifest_of_300_megabytes_is_cut(chunked: bool, node: SingleNode) -> None:
    before = node.contents
    with memory_bounded_to(40 * MIB):
        answer = await push_endlessly(node, "/v2/a/manifests/v1", 300 * MIB, chunked=chunked)
    assert answer.status == 413
    assert answer.codes == ["SIZE_INVALID"]
    assert answer.headers["Connection"] == "close"
    assert node.contents == before


async def test_a_blob_over_the_limit(tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = RegistrySettings(NODE, max_blob_size=4 * MIB)
    async with serve_node(tmp_path_factory.mktemp("limited"), settings=settings) as node, node.client() as client:
        await client.push_blob("a", b" " * 4 * MIB)
        before = node.contents
        answer = await push_endlessly(
            node, f"/v2/a/blobs/uploads/?digest={OTHER}", 64 * MIB, chunked=True, method="POST"
        )
        assert answer.status == 413
        assert node.contents == before
        session = await client.start_upload("a")
        for _ in range(3):
            answer = await push_endlessly(node, session, 8 * MIB, chunked=False, method="PATCH")
            assert (answer.status, answer.codes) == (413, ["SIZE_INVALID"])
            (ingest,) = (node.directory / "blobs" / "ingest").iterdir()
            assert ingest.stat().st_size <= 4 * MIB
        answer = await push_endlessly(node, f"{session}?digest={OTHER}", 8 * MIB, chunked=False)
        assert answer.status == 413
        assert node.contents == before


async def test_a_large_blob_takes_little_memory(node: SingleNode) -> None:
    async with node.client() as client:
        session = await client.start_upload("a")
        with memory_bounded_to(24 * MIB):
            answer = await push_endlessly(node, session, 128 * MIB, chunked=True, method="PATCH")
        assert answer.status == 202
        assert (await client.delete(session)).status == 204


async def test_a_page_of_large_referrers_takes_little_memory(node: SingleNode) -> None:
    annotations = {"padding": "A" * 2 * MIB}
    async with node.client() as client:
        for number in range(12):
            attached = build_image([b"layer"], subject=IMAGE, annotations={**annotations, "number": str(number)})
            for content in attached.blobs.values():
                await client.push_blob("a", content)
            assert (await client.push_manifest("a", attached.digest, attached.manifest)).status == 201
        found: set[str] = set()
        target = f"/v2/a/referrers/{IMAGE.digest}"
        with memory_bounded_to(120 * MIB):
            while target:
                answer = await client.get(target)
                assert len(answer.body) < 20 * MIB
                found |= {entry["digest"] for entry in answer.json()["manifests"]}
                target = answer.headers.get("Link", "").partition(">")[0].removeprefix("<")
        assert len(found) == 12


async def test_chunks_that_contradict_themselves(node: SingleNode) -> None:
    async with node.client() as client:
        session = await client.start_upload("a")
        before = node.contents
        for place in ("0-9", "0-3", "5-1", "-1-4", "a-b", "", "0-", "bytes */5", "0-4,5-9", "0-" + "9" * 30, "1-5"):
            answer = await client.send("PATCH", session, body=b"abcde", headers={"Content-Range": place})
            assert answer.status in {400, 416}, place
        assert (await client.get(session)).headers["Range"] == "0-0"
        assert node.contents == before
        answer = await client.send("PATCH", session, chunks=[b"abc"], headers={"Content-Range": "0-4"})
        assert (answer.status, answer.codes) == (400, ["SIZE_INVALID"])


async def test_the_node_serves_after_all_of_it(node: SingleNode) -> None:
    async with node.client() as client:
        for content in MALFORMED.values():
            await client.push_manifest("a", "last", content, OCI_MANIFEST)
        assert (await client.push_manifest("a", "last", IMAGE.manifest)).status == 201
        assert (await client.get("/v2/a/manifests/last")).body == IMAGE.manifest
