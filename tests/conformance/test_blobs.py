"""Blobs in every form of upload, under every algorithm, from the push to the delete."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import Digest, digest_of
from replicator.storage.metadata import uploads
from tests.support.wire_client import BLOB_TYPE, Answer, WireClient

if TYPE_CHECKING:
    from tests.conformance.scene import Registries

pytestmark = pytest.mark.asyncio(loop_scope="session")

CONTENT = bytes(range(251)) * 40
"""Three chunks and a bit."""
CHUNK = len(CONTENT) // 3 + 1
OCTETS = {"Content-Type": BLOB_TYPE}

Upload = Callable[[WireClient, str, bytes, Digest], Awaitable[Answer]]
"""Pushes bytes under a digest, theirs or not, and returns the answer that decides."""


async def post_only(client: WireClient, repository: str, content: bytes, digest: Digest) -> Answer:
    return await client.send("POST", f"/v2/{repository}/blobs/uploads/", body=content, headers=OCTETS, digest=digest)


async def post_and_put(client: WireClient, repository: str, content: bytes, digest: Digest) -> Answer:
    session = await client.start_upload(repository)
    return await client.send("PUT", session, body=content, headers=OCTETS, digest=digest)


async def post_of_algorithm_and_put(client: WireClient, repository: str, content: bytes, digest: Digest) -> Answer:
    algorithm = digest.partition(":")[0]
    started = await client.send("POST", f"/v2/{repository}/blobs/uploads/?digest-algorithm={algorithm}")
    assert started.status == 202
    return await client.send("PUT", started.location, body=content, headers=OCTETS, digest=digest)


async def chunked_once(client: WireClient, repository: str, content: bytes, digest: Digest) -> Answer:
    session = await _send_chunks(client, repository, content, max(len(content), 1))
    return await client.send("PUT", session, digest=digest)


async def chunked(client: WireClient, repository: str, content: bytes, digest: Digest) -> Answer:
    session = await _send_chunks(client, repository, content, CHUNK)
    return await client.send("PUT", session, digest=digest)


async def chunked_and_put(client: WireClient, repository: str, content: bytes, digest: Digest) -> Answer:
    session = await _send_chunks(client, repository, content[: 2 * CHUNK], CHUNK)
    last = content[2 * CHUNK :]
    return await client.send("PUT", session, body=last, headers=_place(content, 2 * CHUNK, len(last)), digest=digest)


async def streamed(client: WireClient, repository: str, content: bytes, digest: Digest) -> Answer:
    session = await client.start_upload(repository)
    pieces = [content[start : start + 1000] for start in range(0, len(content), 1000)]
    answer = await client.send("PATCH", session, chunks=pieces, headers=OCTETS)
    assert answer.status == 202, answer
    assert answer.headers["Range"] == f"0-{max(len(content) - 1, 0)}"
    return await client.send("PUT", answer.location, digest=digest)


async def _send_chunks(client: WireClient, repository: str, content: bytes, size: int) -> str:
    session = await client.start_upload(repository)
    for start in range(0, len(content), size):
        part = content[start : start + size]
        answer = await client.send("PATCH", session, body=part, headers=_place(content, start, len(part)))
        assert answer.status == 202, answer
        assert answer.headers["Range"] == f"0-{start + len(part) - 1}"
        session = answer.location
    return session


def _place(content: bytes, start: int, length: int) -> dict[str, str]:
    return {**OCTETS, "Content-Range": f"{start}-{start + length - 1}"} if length else OCTETS


FORMS = [post_only, post_and_put, post_of_algorithm_and_put, chunked_once, chunked, chunked_and_put, streamed]
every_form = pytest.mark.parametrize("upload", FORMS, ids=lambda form: form.__name__)
every_algorithm = pytest.mark.parametrize("algorithm", ["sha256", "sha512"])


@every_algorithm
@every_form
async def test_push_to_delete(upload: Upload, algorithm: str, client: WireClient, repository: str) -> None:
    digest = digest_of(CONTENT, algorithm)
    answer = await upload(client, repository, CONTENT, digest)
    assert answer.status == 201, answer
    assert answer.headers["Docker-Content-Digest"] == digest
    await check_life(client, repository, CONTENT, digest, answer.location)


@every_algorithm
@every_form
@pytest.mark.parametrize("content", [b"", b"{}"], ids=["empty", "empty JSON"])
async def test_the_smallest_blobs(
    upload: Upload, algorithm: str, content: bytes, client: WireClient, repository: str
) -> None:
    digest = digest_of(content, algorithm)
    answer = await upload(client, repository, content, digest)
    assert answer.status == 201, answer
    await check_life(client, repository, content, digest, answer.location)


@every_algorithm
@every_form
async def test_bytes_of_another_digest(upload: Upload, algorithm: str, client: WireClient, repository: str) -> None:
    digest = digest_of(CONTENT, algorithm)
    answer = await upload(client, repository, CONTENT + b"!", digest)
    assert answer.status == 400, answer
    assert answer.codes == ["DIGEST_INVALID"]
    assert (await client.head(f"/v2/{repository}/blobs/{digest}")).status == 404


@every_algorithm
@pytest.mark.parametrize("last_in_put", [False, True])
async def test_chunks_out_of_order(algorithm: str, last_in_put: bool, client: WireClient, repository: str) -> None:
    """Before every chunk a wrong one is tried: it is refused, harms nothing, and the client learns where to go on."""
    digest = digest_of(CONTENT, algorithm)
    session = await client.start_upload(repository)
    answer = None
    for start in range(0, len(CONTENT), CHUNK):
        final = start + CHUNK >= len(CONTENT)
        method, query = ("PUT", f"?digest={digest}") if final and last_in_put else ("PATCH", "")
        wrong = 0 if final else start + CHUNK
        bad = CONTENT[wrong : wrong + CHUNK]
        refused = await client.send(method, session + query, body=bad, headers=_place(CONTENT, wrong, len(bad)))
        assert refused.status == 416, refused
        told = await client.get(session)
        assert told.status == 204
        assert told.headers["Range"] == refused.headers["Range"] == f"0-{max(start - 1, 0)}"
        part = CONTENT[start : start + CHUNK]
        answer = await client.send(method, told.location + query, body=part, headers=_place(CONTENT, start, len(part)))
        assert answer.status == (201 if method == "PUT" else 202), answer
        session = answer.location
    if not last_in_put:
        answer = await client.send("PUT", session, digest=digest)
    assert answer is not None
    assert answer.status == 201
    await check_life(client, repository, CONTENT, digest, answer.location)


@every_algorithm
@pytest.mark.parametrize("named", [True, False], ids=["from a repository", "from anywhere"])
async def test_mount(algorithm: str, named: bool, client: WireClient, repository: str, other: str) -> None:
    content = b"mounted into " + repository.encode()
    digest = await client.push_blob(other, content, algorithm)
    source = f"?from={other}" if named else ""
    answer = await client.send("POST", f"/v2/{repository}/blobs/uploads/{source}", mount=digest)
    assert answer.status == 201, answer
    assert answer.headers["Docker-Content-Digest"] == digest
    await check_life(client, repository, content, digest, answer.location)
    assert (await client.get(f"/v2/{other}/blobs/{digest}")).body == content


@every_algorithm
async def test_mount_of_an_absent_blob_goes_on_as_an_upload(
    algorithm: str, client: WireClient, repository: str, other: str
) -> None:
    digest = digest_of(CONTENT, algorithm)
    offered = await client.send("POST", f"/v2/{repository}/blobs/uploads/?from={other}/never/pushed", mount=digest)
    assert offered.status == 202, offered
    answer = await client.send("PUT", offered.location, body=CONTENT, headers=OCTETS, digest=digest)
    assert answer.status == 201, answer
    await check_life(client, repository, CONTENT, digest, answer.location)


async def test_cancel(client: WireClient, repository: str) -> None:
    session = await client.start_upload(repository)
    assert (await client.send("PATCH", session, body=CONTENT, headers=OCTETS)).status == 202
    assert (await client.delete(session)).status == 204
    assert (await client.get(session)).status == 404
    assert (await client.send("PUT", session, digest=digest_of(CONTENT))).status == 404
    assert (await client.delete(session)).status == 404


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=500-1499", 500, 1500),
        ("bytes=500-", 500, 2048),
        ("bytes=-500", 1548, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=0-0", 0, 1),
        ("bytes=2047-", 2047, 2048),
        ("bytes=-5000", 0, 2048),
        ("Bytes = 10 - 19", None, None),
        ("bytes=0-1,5-6", None, None),
        ("pages=1-2", None, None),
        ("bytes=-", None, None),
        ("bytes=one-two", None, None),
    ],
)
@every_algorithm
async def test_range(
    asked: str, start: int | None, stop: int | None, algorithm: str, client: WireClient, repository: str
) -> None:
    """What is not one valid range of bytes may be ignored (RFC 9110 §14.2)."""
    content = bytes(range(256)) * 8
    digest = await client.push_blob(repository, content, algorithm)
    answer = await client.get(f"/v2/{repository}/blobs/{digest}", headers={"Range": asked})
    assert answer.headers["Docker-Content-Digest"] == digest
    if start is None or stop is None:
        assert (answer.status, answer.body) == (200, content)
        return
    assert (answer.status, answer.body) == (206, content[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/2048"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"])
@every_algorithm
async def test_range_outside(asked: str, algorithm: str, client: WireClient, repository: str) -> None:
    digest = await client.push_blob(repository, bytes(2048), algorithm)
    answer = await client.get(f"/v2/{repository}/blobs/{digest}", headers={"Range": asked})
    assert answer.status == 416
    assert answer.headers["Content-Range"] == "bytes */2048"


async def test_range_of_the_empty_blob(client: WireClient, repository: str) -> None:
    digest = await client.push_blob(repository, b"")
    answer = await client.get(f"/v2/{repository}/blobs/{digest}", headers={"Range": "bytes=0-"})
    assert answer.status == 416


async def test_range_only_if_it_is_still_the_same(client: WireClient, repository: str) -> None:
    digest = await client.push_blob(repository, CONTENT)
    path = f"/v2/{repository}/blobs/{digest}"
    same = await client.get(path, headers={"Range": "bytes=1-2", "If-Range": f'"{digest}"'})
    changed = await client.get(path, headers={"Range": "bytes=1-2", "If-Range": '"sha256:other"'})
    assert (same.status, same.body) == (206, CONTENT[1:3])
    assert (changed.status, changed.body) == (200, CONTENT)


async def test_a_blob_is_pushed_again_after_its_delete(client: WireClient, repository: str) -> None:
    for _ in range(3):
        digest = await client.push_blob(repository, CONTENT)
        assert (await client.get(f"/v2/{repository}/blobs/{digest}")).body == CONTENT
        assert (await client.delete(f"/v2/{repository}/blobs/{digest}")).status == 202
        assert (await client.get(f"/v2/{repository}/blobs/{digest}")).status == 404


async def check_life(client: WireClient, repository: str, content: bytes, digest: Digest, location: str) -> None:
    """Find the blob at its place, whole; delete it; find it gone on the very next request."""
    path = f"/v2/{repository}/blobs/{digest}"
    for place in (location, path):
        got = await client.get(place)
        assert (got.status, got.body) == (200, content)
        assert got.headers["Docker-Content-Digest"] == digest
        assert got.headers["Content-Length"] == str(len(content))
    head = await client.head(path)
    assert head.status == 200
    assert head.headers["Docker-Content-Digest"] == digest
    assert head.headers["Content-Length"] == str(len(content))
    assert (await client.delete(path)).status == 202
    assert (await client.head(path)).status == 404
    assert (await client.get(path)).status == 404
    assert (await client.delete(path)).status == 404


async def test_nothing_is_left_of_uploads_that_ended(registries: Registries, client: WireClient) -> None:
    """Whatever came before on this registry, only sessions that are open still hold bytes."""
    await client.start_upload("conformance/open")
    assert set(registries.open.ingests) == set(await registries.open.node.database.read(uploads.ids()))
