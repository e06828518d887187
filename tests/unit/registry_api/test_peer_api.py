"""What a node lets other nodes do, and what it makes of messages that no node would send."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.digest import digest_of
from replicator.core.errors import InvalidInput
from replicator.core.message_json import parse_message
from replicator.core.names import NodeId, RepositoryName, parse_node
from replicator.core.peer_messages import MAX_DELIVERY_BYTES, Deletion, Delivery, Offer, SentManifest
from replicator.core.replication import ReplicationRule
from replicator.core.revisions import Revision
from replicator.core.rights import ALL_RIGHTS, Grant
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.settings import RegistrySettings
from replicator.registry_api.users import User
from replicator.telemetry.system_clock import SystemClock
from tests.support.images import build_image
from tests.support.peer_nodes import FOREIGN_NODE, PeerNode, serve_peer
from tests.support.single_node import NODE, OTHER_NODE, PEER_SECRET
from tests.support.wire_client import Answer, basic, bearer, exchange

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

APP = RepositoryName("team/app")
IMAGE = build_image([b"layer"])
CONTENT = b"bytes of a blob"
DIGEST = digest_of(CONTENT)
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
REVISION = Revision(1, 1_700_000_000_000, str(OTHER_NODE))
OFFER = Offer(APP, IMAGE.digest, REVISION, (IMAGE.digest,), ())
DELIVERY = Delivery(APP, (SentManifest(IMAGE.digest, OCI_MANIFEST, IMAGE.manifest),), REVISION)
MESSAGES = {
    "offer": OFFER.to_json(),
    "deliver": DELIVERY.to_json(),
    "delete": Deletion(APP, IMAGE.digest, REVISION).to_json(),
    "hashes": {"after": "", "limit": 10},
    "listing": {"repository": APP, "after": "", "limit": 10},
    "image": {"repository": APP, "reference": "v1"},
}
PEER = "/_replicator/v1/peer/"
BLOB = f"{PEER}blobs/{DIGEST}?repository={APP}"
THIRD = parse_node("111111111111/ap")
SETTINGS = RegistrySettings(
    NODE,
    replication_rules=(
        ReplicationRule("to-us", (OTHER_NODE,), filters=("team/",)),
        ReplicationRule("to-a-stranger", (FOREIGN_NODE,), filters=("open/",)),
    ),
)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[PeerNode]:
    users = [User.with_password("ann", "secret", [Grant(ALL_RIGHTS)])]
    async with serve_peer(tmp_path, settings=SETTINGS, users=users) as served:
        yield served


def token(source: NodeId = OTHER_NODE, destination: NodeId = NODE, secret: bytes = PEER_SECRET) -> dict[str, str]:
    return bearer(PeerTokens(source, secret, SystemClock()).issue(destination))


async def asked(node: PeerNode, name: str, message: object, source: NodeId = OTHER_NODE) -> Answer:
    async with node.wire_client(token(source)) as client:
        return await client.send("POST", PEER + name, body=json.dumps(message).encode())


# Who gets in (SEC-32)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("ann", "wrong"), 401),
        (basic("ann", "secret"), 403),
        (token(destination=THIRD), 401),
        (token(secret=b"another secret"), 401),
    ],
    ids=["nobody", "wrong password", "user", "token for another node", "another secret"],
)
async def test_only_nodes_get_in(headers: dict[str, str], status: int, node: PeerNode) -> None:
    for name, message in MESSAGES.items():
        async with node.wire_client(headers) as client:
            answer = await client.send("POST", PEER + name, body=json.dumps(message).encode())
        assert answer.status == status, name
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    async with node.wire_client(headers) as client:
        assert (await client.send("PUT", whole(), body=CONTENT)).status == status
    assert await node.pulls.find_blob(APP, DIGEST) is None


async def test_nobody_gets_in_at_a_node_without_users_either(tmp_path: Path) -> None:
    async with serve_peer(tmp_path) as node, node.wire_client() as client:
        assert (await client.send("POST", f"{PEER}hashes", body=b'{"after": "", "limit": 1}')).status == 401
        assert (await client.send("PUT", whole(), body=CONTENT)).status == 401


def whole(size: int = len(CONTENT), length: int = len(CONTENT)) -> str:
    """Return where the blob is sent to, whole unless the numbers say otherwise."""
    return f"{BLOB}&size={size}&offset=0&length={length}"


def head_of(method: str, target: str, length: object) -> bytes:
    """Return the head of a request of a node, to be sent by hand."""
    authorization = token()["Authorization"]
    lines = (f"{method} {target} HTTP/1.1", "Host: x", f"Authorization: {authorization}", f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


async def test_every_request_is_counted_under_its_name(node: PeerNode) -> None:
    for name, message in MESSAGES.items():
        await asked(node, name, message)
    async with node.wire_client(token()) as client:
        await client.send("PUT", whole(), body=CONTENT)
        assert (await client.send("POST", f"{PEER}nothing", body=b"{}")).status == 404
    seen = {outcome.route: outcome for outcome in node.outcomes}
    assert set(seen) == {*(f"peer_{name}" for name in MESSAGES), "peer_blob", "unknown"}
    assert {outcome.principal for outcome in node.outcomes} == {str(OTHER_NODE)}
    assert seen["peer_blob"].received == len(CONTENT)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
async def test_messages_are_posted(method: str, node: PeerNode) -> None:
    async with node.wire_client(token()) as client:
        for name in MESSAGES:
            answer = await client.send(method, PEER + name, body=b"{}")
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")


# What is asked and answered


async def test_a_node_asks_and_is_answered(node: PeerNode) -> None:
    lacks = (await asked(node, "offer", MESSAGES["offer"])).json()
    assert lacks["manifests"] == [IMAGE.digest]
    assert (await asked(node, "hashes", MESSAGES["hashes"])).json() == {"repositories": []}
    assert (await asked(node, "listing", MESSAGES["listing"])).json() == {"images": []}
    assert (await asked(node, "image", MESSAGES["image"])).json() == {"image": None}


async def test_a_permission_that_is_missing_is_named(node: PeerNode) -> None:
    answers = [await asked(node, name, MESSAGES[name], FOREIGN_NODE) for name in ("offer", "deliver")]
    async with node.wire_client(token(FOREIGN_NODE)) as client:
        answers.append(await client.send("PUT", whole(), body=CONTENT))
    for answer in answers:
        assert answer.status == 403
        assert answer.codes == ["DENIED"]
        assert answer.json()["errors"][0]["detail"] == {"permission": "ecr:ReplicateImage"}


async def test_a_clock_that_runs_ahead_is_told_so(node: PeerNode) -> None:
    ahead = Offer(APP, IMAGE.digest, Revision(1, 10**15, str(OTHER_NODE)), (IMAGE.digest,), ())
    answer = await asked(node, "offer", ahead.to_json())
    assert answer.status == 400
    assert answer.json()["errors"][0]["detail"] == {"reason": "ClockSkew"}


# What a node may read below /v2 (SEC-33)


@pytest.mark.parametrize(
    ("source", "repository", "status"),
    [
        (OTHER_NODE, "team/app", 200),
        (OTHER_NODE, "open/app", 403),
        (FOREIGN_NODE, "open/app", 200),
        (FOREIGN_NODE, "team/app", 403),
        (THIRD, "team/app", 403),
    ],
    ids=str,
)
async def test_a_node_reads_the_blobs_that_a_rule_sends_to_it(
    source: NodeId, repository: str, status: int, node: PeerNode
) -> None:
    async with node.wire_client(basic("ann", "secret")) as ann:
        for content in [*IMAGE.blobs.values(), b"named by no manifest"]:
            await ann.push_blob(repository, content)
        assert (await ann.push_manifest(repository, "v1", IMAGE.manifest)).status == 201
    async with node.wire_client(token(source)) as peer:
        for digest in IMAGE.blobs:
            assert (await peer.get(f"/v2/{repository}/blobs/{digest}")).status == status, digest
            assert (await peer.head(f"/v2/{repository}/blobs/{digest}")).status == status, digest
        stray = digest_of(b"named by no manifest")
        for path in ("manifests/v1", f"manifests/{IMAGE.digest}", f"referrers/{IMAGE.digest}", f"blobs/{stray}"):
            assert (await peer.get(f"/v2/{repository}/{path}")).status == 403, path


async def test_a_node_does_nothing_else_below_v2(node: PeerNode) -> None:
    async with node.wire_client(token()) as peer:
        assert (await peer.get("/v2/")).status == 200
        for path in ("_catalog", "token", f"{APP}/tags/list", f"{APP}/blobs/uploads/some-session"):
            assert (await peer.get(f"/v2/{path}")).status == 403, path
        for method, path in (
            ("POST", f"{APP}/blobs/uploads/"),
            ("POST", f"{APP}/blobs/uploads/?mount={DIGEST}&from=secret/app"),
            ("PATCH", f"{APP}/blobs/uploads/some-session"),
            ("PUT", f"{APP}/blobs/uploads/some-session?digest={DIGEST}"),
            ("PUT", f"{APP}/manifests/v1"),
            ("DELETE", f"{APP}/manifests/v1"),
            ("DELETE", f"{APP}/blobs/{DIGEST}"),
        ):
            assert (await peer.send(method, f"/v2/{path}", body=b"{}")).status == 403, (method, path)


# Messages that no node would send


def deep(opening: bytes, count: int = 100_000) -> bytes:
    return opening * count


HOSTILE = {
    "nothing": b"",
    "no JSON": b"<html>",
    "cut off": b'{"repository": "team',
    "no UTF-8": b'{"repository": "\xff\xfe"}',
    "deep list": deep(b"["),
    "deep object": deep(b'{"a":'),
    "NaN": b'{"repository": NaN}',
    "endless number": b'{"limit": 1e999}',
    "long number": b'{"limit": ' + b"9" * 10_000 + b"}",
    "list": b"[]",
    "text": b'"offer"',
    "null": b"null",
    "number": b"1",
    "surrogate": b'{"repository": "team/app", "after": "\\ud800", "limit": 1}',
    "NUL": b'{"repository": "team/app", "after": "\\u0000", "limit": 1}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
async def test_what_is_no_message_is_refused(body: bytes, node: PeerNode) -> None:
    async with node.wire_client(token()) as client:
        for name in MESSAGES:
            answer = await client.send("POST", PEER + name, body=body)
            assert answer.status in {400, 413}, name
            assert answer.json()["errors"]


STRANGE: list[object] = [None, True, -1, 1.5, 2**80, "", "x" * 5000, "../../etc", "a\u2028", [], {}, [[]], {"a": {}}]


@pytest.mark.parametrize("name", MESSAGES)
async def test_a_message_with_a_strange_part_is_refused_or_means_nothing(name: str, node: PeerNode) -> None:
    """Whatever stands in the place of a part: never a failure of ours."""
    async with node.wire_client(token()) as client:
        for field in MESSAGES[name]:
            for value in STRANGE:
                body = json.dumps({**MESSAGES[name], field: value}).encode()
                answer = await client.send("POST", PEER + name, body=body)
                assert answer.status in {200, 400, 404, 413}, (field, value, answer)
            missing = {key: value for key, value in MESSAGES[name].items() if key != field}
            answer = await client.send("POST", PEER + name, body=json.dumps(missing).encode())
            assert answer.status in {200, 400}, field


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
DOCUMENTS = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(DOCUMENTS)
@settings(deadline=None)
def test_no_document_is_more_than_refused(value: object) -> None:
    body = json.dumps(value, allow_nan=True).encode()
    for parse in (Offer.from_json, Delivery.from_json, Deletion.from_json):
        with pytest.raises(InvalidInput):
            parse(parse_message(body))


async def test_a_manifest_is_checked_by_the_receiver(node: PeerNode) -> None:
    """A peer's word for a digest is nothing (SEC-32)."""
    sent = SentManifest(digest_of(b"another"), OCI_MANIFEST, IMAGE.manifest)
    answer = await asked(node, "deliver", Delivery(APP, (sent,), REVISION).to_json())
    assert answer.status == 400
    broken = {**DELIVERY.to_json(), "manifests": [{"digest": DIGEST, "mediaType": "x", "content": "no Base64"}]}
    assert (await asked(node, "deliver", broken)).status == 400


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_message_has_its_bounds(is_chunked: bool, node: PeerNode) -> None:
    piece = b" " * 2**20
    pieces = [piece] * (MAX_DELIVERY_BYTES // len(piece) + 1)
    async with node.wire_client(token()) as client:
        body, chunks = (None, pieces) if is_chunked else (b"".join(pieces), None)
        assert (await client.send("POST", f"{PEER}deliver", body=body, chunks=chunks)).status == 413
    assert node.outcomes[-1].received <= MAX_DELIVERY_BYTES + 2 * len(piece)


async def test_few_large_messages_are_held_at_the_same_time(node: PeerNode) -> None:
    """Those that send slowly make other large ones wait, and no small one."""
    size = 200_000
    head = head_of("POST", f"{PEER}deliver", size)
    connections = [await asyncio.open_connection("127.0.0.1", node.port) for _ in range(6)]
    try:
        for _, writer in connections:
            writer.write(head + b" " * (size - 1))
            await writer.drain()
        assert (await asked(node, "hashes", MESSAGES["hashes"])).status == 200
        assert node.statuses("peer_deliver") == []
        for _, writer in connections:
            writer.write(b" ")
        for reader, _ in connections:
            assert b"400" in await reader.readline()
    finally:
        for _, writer in connections:
            writer.close()


# Blobs


@pytest.mark.parametrize(
    "query",
    [
        "",
        "size=5",
        "size=5&offset=0",
        "size=-5&offset=0&length=5",
        "size=5&offset=-1&length=5",
        "size=5&offset=0&length=6",
        "size=5&offset=1&length=5",
        "size=5&offset=x&length=5",
        "size=5&offset=0&length=5.0",
        "size=5&offset=0&length=\u0665",
        "size=5&offset=0&length=5&start=1",
        "size=5&offset=0&length=5&stripe=1&step=2",
        "size=5&offset=0&length=5&stripe=70000&step=60000",
        f"size=5&offset=0&length={'9' * 30}",
        f"size={'9' * 18}&offset=0&length={'9' * 18}",
    ],
)
async def test_a_part_that_cannot_be_is_refused(query: str, node: PeerNode) -> None:
    target = f"{BLOB}&{query}"
    async with node.wire_client(token()) as client:
        answer = await client.send("PUT", target.encode().decode("latin-1"), body=b"12345")
        assert answer.status == 400, answer


@pytest.mark.parametrize(
    "path",
    [
        f"{PEER}blobs/{DIGEST}?size=5&offset=0&length=5",
        f"{PEER}blobs/{DIGEST}?repository=../x&size=5&offset=0&length=5",
        f"{PEER}blobs/{DIGEST}?repository=A&size=5&offset=0&length=5",
        f"{PEER}blobs/sha256:x?repository={APP}&size=5&offset=0&length=5",
        f"{PEER}blobs/?repository={APP}&size=5&offset=0&length=5",
        f"{PEER}blobs/../../v2/?repository={APP}&size=5&offset=0&length=5",
    ],
)
async def test_a_blob_needs_a_name_and_a_place(path: str, node: PeerNode) -> None:
    async with node.wire_client(token()) as client:
        assert (await client.send("PUT", path, body=b"12345")).status == 400


async def test_a_blob_that_is_not_what_it_says_is_not_kept(node: PeerNode) -> None:
    async with node.wire_client(token()) as client:
        answer = await client.send("PUT", whole(), body=b"other bytes of blob"[: len(CONTENT)])
        assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
        answer = await client.send("PUT", whole(size=1000), body=CONTENT)
        assert answer.json() == {"offset": len(CONTENT), "isComplete": False}
        assert await node.pulls.find_blob(APP, DIGEST) is None


async def test_a_length_that_contradicts_the_body_is_refused(node: PeerNode) -> None:
    async with node.wire_client(token()) as client:
        assert (await client.send("PUT", whole(length=3), body=CONTENT)).status == 400
        answer = await client.send("PUT", whole(), chunks=[CONTENT, b"more"])
        assert answer.status in {200, 400}  # complete before the rest came, or found too long
        found = await node.pulls.find_blob(APP, DIGEST)
        assert found is None or found.size == len(CONTENT)


async def test_a_compressed_blob_is_refused(node: PeerNode) -> None:
    async with node.wire_client(token()) as client:
        answer = await client.send("PUT", whole(), body=CONTENT, headers={"Content-Encoding": "gzip"})
        assert answer.status == 415


async def test_a_connection_that_ends_early_leaves_what_came(node: PeerNode) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    writer.write(head_of("PUT", whole(), 15) + CONTENT[:5])
    async with asyncio.timeout(10):
        while await node.uploads.offset_of(OTHER_NODE, APP, DIGEST) < 5:  # noqa: ASYNC110 - each gets its turn
            await asyncio.sleep(0)
    writer.write_eof()
    await node.finished(1)
    assert node.statuses() == [499]
    assert await reader.read() == b""
    writer.close()
    async with node.wire_client(token()) as client:
        asked_for = await client.send("PUT", BLOB, body=b"", size=15, offset=0, length=0)
        assert asked_for.json() == {"offset": 5, "isComplete": False}
        rest = await client.send("PUT", BLOB, body=CONTENT[5:], size=15, offset=5, length=10)
        assert rest.json() == {"offset": 15, "isComplete": True}


async def test_smuggled_lengths_are_refused(node: PeerNode) -> None:
    answers = await exchange(node.port, head_of("PUT", whole(), "15\r\nContent-Length: 3") + CONTENT)
    assert answers[0].status == 400
