"""What a node that was taken over, or is no node of ours, may send to another one, and what it gets for it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.media_types import OCI_INDEX
from replicator.core.message_json import MAX_VALUES
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.peer_messages import Deletion, Delivery, Offer, OfferedBlob, OfferedTag, SentManifest
from replicator.core.principal import UNRESTRICTED
from replicator.core.replication import ReplicationRule
from replicator.core.revisions import MAX_SEEN, Revision, TagRegister
from replicator.core.rights import ALL_RIGHTS, Grant
from replicator.registry import peer_uploads
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.peer_uploads import PeerUploads
from replicator.registry.pushes import Pushes
from replicator.registry.replicas import Replicas
from replicator.registry.settings import RegistrySettings
from replicator.registry_api.users import User
from replicator.storage.metadata import tags
from replicator.telemetry.system_clock import SystemClock
from tests.support.images import build_image
from tests.support.peer_nodes import PeerNode, serve_peer
from tests.support.single_node import NODE, OTHER_NODE, PEER_SECRET, open_node
from tests.support.wire_client import Answer, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.digest import Digest
    from replicator.registry.node import RegistryNode

APP = RepositoryName("team/app")
V1 = Tag("v1")
IMAGE = build_image([b"layer"])
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
SENT = SentManifest(IMAGE.digest, OCI_MANIFEST, IMAGE.manifest)
PEER = "/_replicator/v1/peer/"
THIRD = parse_node("111111111111/ap")
WRITTEN = Revision(1, 1_700_000_000_000, str(OTHER_NODE))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[PeerNode]:
    users = [User.with_password("ann", "secret", [Grant(ALL_RIGHTS)])]
    async with serve_peer(tmp_path, settings=RegistrySettings(NODE), users=users) as served:
        yield served


def token(source: NodeId = OTHER_NODE) -> dict[str, str]:
    return bearer(PeerTokens(source, PEER_SECRET, SystemClock()).issue(NODE))


@dataclass
class Turns:
    """How often everybody else had a turn of the loop."""

    count: int = 0


@asynccontextmanager
async def counting_turns() -> AsyncIterator[Turns]:
    turns = Turns()

    async def count() -> None:
        while True:
            await asyncio.sleep(0)
            turns.count += 1

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        yield turns
        counting.cancel()


async def asked(node: PeerNode, name: str, message: object, source: NodeId = OTHER_NODE) -> Answer:
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    async with node.wire_client(token(source)) as client:
        return await client.send("POST", PEER + name, body=body)


async def upload(node: PeerNode, content: bytes = b"layer", source: NodeId = OTHER_NODE) -> None:
    target = f"{PEER}blobs/{digest_of(content)}?repository={APP}&size={len(content)}&offset=0&length={len(content)}"
    async with node.wire_client(token(source)) as client:
        assert (await client.send("PUT", target, body=content)).status == 200


def delivery(register: TagRegister) -> Delivery:
    return Delivery(APP, (SENT,), WRITTEN, IMAGE.digest, OfferedTag(V1, register))


async def stored(node: PeerNode) -> TagRegister | None:
    return await node.node.database.read(tags.find(APP, V1))


# Registers that would outlast everything


REGISTER = TagRegister(IMAGE.digest, WRITTEN, {str(OTHER_NODE): WRITTEN.counter})


@pytest.mark.parametrize(
    "register",
    [
        pytest.param(replace(REGISTER, revision=Revision(10**18 - 1, 1, str(OTHER_NODE))), id="an epoch of the end"),
        pytest.param(replace(REGISTER, revision=Revision(2, 1, str(OTHER_NODE))), id="the next epoch"),
        pytest.param(replace(REGISTER, seen={str(NODE): 2**62}), id="knows what we have yet to write"),
        pytest.param(replace(REGISTER, seen={str(THIRD): 2**62}), id="knows what a third has yet to write"),
        pytest.param(replace(REGISTER, seen={"nobody": 1}), id="knows of no node"),
        pytest.param(replace(REGISTER, seen={"\uff11" * 12 + "/eu": 1}), id="digits of another script"),
        pytest.param(
            replace(REGISTER, seen={f"{'1' * 12}/r{number}": 1 for number in range(MAX_SEEN + 1)}), id="knows too many"
        ),
    ],
)
async def test_a_tag_cannot_be_poisoned(register: TagRegister, node: PeerNode) -> None:
    for content in IMAGE.blobs.values():
        await upload(node, content)
    tag = OfferedTag(V1, register)
    offer = Offer(APP, IMAGE.digest, WRITTEN, (IMAGE.digest,), (), tag)
    gone = Deletion(APP, IMAGE.digest, WRITTEN, OfferedTag(V1, replace(register, digest=None)))
    messages = {"offer": offer.to_json(), "deliver": delivery(register).to_json(), "delete": gone.to_json()}
    for name, message in messages.items():
        assert (await asked(node, name, message)).status == 400, name
    assert await stored(node) is None
    assert (await asked(node, "deliver", delivery(REGISTER).to_json())).status == 200
    assert await stored(node) == REGISTER


# Messages that cost more than they say


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"[" + b"[]," * MAX_VALUES + b"[]]", id="lists"),
        pytest.param(b"{" + b",".join(b'"%x":1' % number for number in range(MAX_VALUES + 1)) + b"}", id="keys"),
        pytest.param(b'{"after": "\xed\xa0\x80", "limit": 1}', id="a surrogate in bytes"),
        pytest.param('{"after": "a\\u0000", "limit": 1}'.encode("utf-16"), id="NUL in UTF-16"),
    ],
)
async def test_what_is_dear_to_decode_is_not_decoded(body: bytes, node: PeerNode) -> None:
    assert (await asked(node, "offer", body)).status == 400


async def test_questions_are_small(node: PeerNode) -> None:
    for name in ("delete", "hashes", "listing", "image"):
        answer = await asked(node, name, b'{"after": "' + b"x" * 65536 + b'"}')
        assert answer.status == 413, name


async def test_a_large_offer_leaves_others_their_turn(node: PeerNode) -> None:
    digests = tuple(digest_of(b"%d" % number) for number in range(5000))
    offer = Offer(APP, digests[0], WRITTEN, digests, tuple(OfferedBlob(one, 1) for one in digests))
    async with counting_turns() as turns:
        assert (await asked(node, "offer", offer.to_json())).status == 200
        before = turns.count
        lacks = await Replicas(node.node, node.uploads).offer(OTHER_NODE, offer)
    assert len(lacks.blobs) == len(digests)
    assert turns.count - before > 2 * len(digests) / 500


async def test_a_peer_that_never_sends_the_rest_holds_up_nobody_else(node: PeerNode) -> None:
    """Large messages are few at a time; those of one peer must not be all of them."""
    held = []
    lines = ("POST /_replicator/v1/peer/offer HTTP/1.1", "Host: x", "Content-Length: 1000000")
    head = "\r\n".join([*lines, f"Authorization: {token(THIRD)['Authorization']}", "", ""]).encode()
    for _ in range(20):
        _, writer = await asyncio.open_connection("127.0.0.1", node.port)
        writer.write(head + b"{")
        held.append(writer)
    try:
        digests = tuple(digest_of(b"%d" % number) for number in range(1500))
        offer = Offer(APP, digests[0], WRITTEN, digests, ())
        async with asyncio.timeout(20):
            for _ in range(3):
                assert (await asked(node, "offer", offer.to_json())).status == 200
    finally:
        for writer in held:
            writer.close()


async def test_blobs_that_never_end_are_few(node: PeerNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a file: those of one peer must not be all that the process may have."""
    monkeypatch.setattr(peer_uploads, "MAX_OPEN", 5)
    held = []
    try:
        for number in range(5):
            _, writer = await asyncio.open_connection("127.0.0.1", node.port)
            writer.write(begun(digest_of(b"%d" % number)) + b"x")
            held.append(writer)
            async with asyncio.timeout(10):
                while not await node.uploads.offset_of(THIRD, APP, digest_of(b"%d" % number)):  # noqa: ASYNC110 - a turn each
                    await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
        held.append(writer)
        writer.write(begun(digest_of(b"one more")))
        async with asyncio.timeout(10):
            assert (await reader.readline()).split()[1] == b"429"
        await upload(node)
    finally:
        for writer in held:
            writer.close()


def begun(digest: Digest) -> bytes:
    target = f"{PEER}blobs/{digest}?repository={APP}&size=1000&offset=0&length=1000"
    authorization = token(THIRD)["Authorization"]
    lines = (f"PUT {target} HTTP/1.1", "Host: x", "Content-Length: 1000", f"Authorization: {authorization}", "", "")
    return "\r\n".join(lines).encode()


# What a peer asks for early


async def test_what_an_image_consists_of_is_read_a_manifest_at_a_time(tmp_path: Path) -> None:
    """A user who may push made it, and one who may pull elsewhere asks for it: none of them may stop everybody else."""
    rules = (ReplicationRule("all", (OTHER_NODE,)),)
    settings = RegistrySettings(NODE, sparse_indexes=True, replication_rules=rules)
    async with open_node(tmp_path, settings=settings) as node:
        content = b'{"schemaVersion": 2, "mediaType": "%s", "manifests": []}' % OCI_INDEX.encode()
        digests = [await pushed(node, content + b" " * size) for size in range(300)]
        below = index_of([digests[-1]])
        for _ in range(1100):  # deeper than anything may recurse
            await pushed(node, below)
            below = index_of([digest_of(below)])
        await pushed(node, index_of([*digests, digest_of(below)] * 3), V1)
        await pushed(node, below)
        async with counting_turns() as turns:
            found = await Replicas(node, PeerUploads(node)).find_image(OTHER_NODE, APP, V1)
        assert found is not None
        assert len(found.expected_manifests) == len(found.manifests) == 300 + 1101 + 1
        assert turns.count >= len(found.manifests) - 1
        assert found.manifests[-1].digest == found.digest


def index_of(digests: list[Digest]) -> bytes:
    manifests = [{"mediaType": OCI_INDEX, "digest": digest, "size": 1} for digest in digests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}).encode()


async def pushed(node: RegistryNode, content: bytes, tag: Tag | None = None) -> Digest:
    digest = digest_of(content)
    await Pushes(node).put_manifest(UNRESTRICTED, APP, tag or digest, content, OCI_INDEX)
    return digest
