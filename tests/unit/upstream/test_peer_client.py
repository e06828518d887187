"""What a node says to a peer, over wires that break and to peers that are none."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import pytest

from replicator.core.digest import Digest, digest_of
from replicator.core.errors import (
    CorruptBlob,
    PermissionMissing,
    UpstreamClockSkew,
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.names import RepositoryName
from replicator.core.peer_messages import Offer
from replicator.core.reference import parse_reference
from replicator.core.replication import ReplicationRule
from replicator.core.revisions import Revision
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.memory import MemoryBlob
from tests.support.images import build_image
from tests.support.peer_nodes import FOREIGN_NODE, PeerNode, peer_client, serve_peer, wired
from tests.support.single_node import NODE, OTHER_NODE
from tests.support.upstreams import FakeServer, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

REPOSITORY = RepositoryName("team/app")
MIB = 1024 * 1024


def blob(size: int) -> tuple[Digest, MemoryBlob]:
    content = os.urandom(size)
    digest = digest_of(content)
    return digest, MemoryBlob(digest, content)


async def held(node: PeerNode, digest: Digest) -> bytes:
    found = await node.pulls.find_blob(REPOSITORY, digest)
    assert found is not None
    async with await node.pulls.read(found) as content:
        return b"".join([bytes(piece) async for piece in content.read(0, content.size)])


@pytest.mark.parametrize("size", [0, 1, 300_000, 5 * MIB, 40 * MIB + 17])
async def test_a_blob_arrives(tmp_path: Path, size: int) -> None:
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node, peer_client(node.port) as client:
        assert await client.put_blob(REPOSITORY, digest, size, content) == size
        assert await held(node, digest) == content._content
        assert node.uploads.held_back == 0
        assert await node.uploads.offset_of(OTHER_NODE, REPOSITORY, digest) == 0
        assert len(node.statuses()) == (4 if size > 32 * MIB else 1)


async def test_large_blobs_share_connections_and_small_ones_take_none(tmp_path: Path) -> None:
    sizes = (1000, 40 * MIB, 41 * MIB)
    blobs = [blob(size) for size in sizes]
    async with serve_peer(tmp_path) as node, peer_client(node.port) as client:
        async with asyncio.TaskGroup() as group:
            for (digest, content), size in zip(blobs, sizes, strict=True):
                group.create_task(client.put_blob(REPOSITORY, digest, size, content))
        for digest, content in blobs:
            assert await held(node, digest) == content._content
        assert len(node.statuses()) == 1 + 4 + 2


async def arrived(node: PeerNode, digest: Digest, least: int) -> int:
    """Return how much of a blob has come, once it is that much."""
    async with asyncio.timeout(10):
        while await node.uploads.offset_of(OTHER_NODE, REPOSITORY, digest) < least:  # noqa: ASYNC110 - each gets a turn
            await asyncio.sleep(0)
    return await node.uploads.offset_of(OTHER_NODE, REPOSITORY, digest)


# Wires that break


@pytest.mark.parametrize(("size", "connections"), [(24 * MIB, 1), (48 * MIB, 4)], ids=["one stream", "stripes"])
async def test_what_came_before_a_cut_is_not_sent_again(tmp_path: Path, size: int, connections: int) -> None:
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node, wired(node) as (wire, client):
        wire.cut_after(size - 4 * MIB)
        sent = await client.put_blob(REPOSITORY, digest, size, content)
        assert await held(node, digest) == content._content
        # What was on its way over the one connection that broke, in buffers of either end, is all that goes twice.
        assert size < wire.forwarded < size + 16 * MIB
        assert size < sent < size + 16 * MIB
        assert connections <= wire.connections <= connections + 1
        assert node.received < size + 12 * MIB


async def test_a_wire_that_breaks_again_and_again_gets_the_blob_across(tmp_path: Path) -> None:
    size = 12 * MIB
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node, wired(node) as (wire, client):

        async def breaking() -> None:
            while True:
                wire.cut_after(3 * MIB)
                await wire.struck()

        async with asyncio.TaskGroup() as group:
            cutting = group.create_task(breaking())
            await client.put_blob(REPOSITORY, digest, size, content)
            cutting.cancel()
        assert await held(node, digest) == content._content
        assert wire.connections > 3


async def test_a_wire_that_lets_nothing_through_is_given_up_and_what_came_is_kept(tmp_path: Path) -> None:
    size = 8 * MIB
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node:
        async with wired(node) as (wire, client):
            wire.cut_after(4 * MIB)

            async def refusing() -> None:
                await wire.struck()
                await wire.refuse()

            async with asyncio.TaskGroup() as group:
                group.create_task(refusing())
                with pytest.raises(UpstreamUnavailable):
                    await client.put_blob(REPOSITORY, digest, size, content)
        offset = await arrived(node, digest, MIB)
        async with wired(node) as (wire, client):
            assert await client.put_blob(REPOSITORY, digest, size, content, offset) == size - offset
            assert wire.forwarded < size - offset + 64 * 1024
        assert await held(node, digest) == content._content


async def test_a_wire_that_falls_silent_is_left_for_another(tmp_path: Path) -> None:
    size = 40 * MIB
    digest, content = blob(size)
    async with (
        serve_peer(tmp_path, patience=1.0) as node,
        wired(node, stall_timeout=0.5, total_timeout=2) as (wire, client),
    ):
        wire.hold_after(5 * MIB)

        async def healing() -> None:
            await wire.struck()
            await wire.refuse()
            await wire.heal()

        async with asyncio.TaskGroup() as group:
            group.create_task(healing())
            await client.put_blob(REPOSITORY, digest, size, content)
        assert await held(node, digest) == content._content


async def test_a_destination_that_restarts_in_between_goes_on(tmp_path: Path) -> None:
    size = 40 * MIB
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node, wired(node) as (wire, client):
        wire.cut_after(20 * MIB)
        with contextlib.suppress(UpstreamError):
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(client.put_blob(REPOSITORY, digest, size, content))
                await wire.struck()
                sending.cancel()
    async with serve_peer(tmp_path) as node, peer_client(node.port) as client:
        offset = await node.uploads.offset_of(OTHER_NODE, REPOSITORY, digest)
        assert offset > 0
        assert await client.put_blob(REPOSITORY, digest, size, content, offset) == size - offset
        assert await held(node, digest) == content._content


async def test_a_damaged_beginning_at_the_destination_is_sent_anew(tmp_path: Path) -> None:
    size = 6 * MIB
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node, peer_client(node.port) as client:
        wrong = MemoryBlob(digest, bytes(MIB))
        with pytest.raises(CorruptBlob):  # the source's own copy ends early
            await client.put_blob(REPOSITORY, digest, size, Short(wrong, lambda: arrived(node, digest, MIB)))
        assert await arrived(node, digest, 1) == MIB
        assert await client.put_blob(REPOSITORY, digest, size, content, MIB) == 2 * size - MIB
        assert await held(node, digest) == content._content


async def test_content_that_is_not_the_blob_is_given_up(tmp_path: Path) -> None:
    size = 1000
    digest, _ = blob(size)
    async with serve_peer(tmp_path) as node, peer_client(node.port) as client:
        with pytest.raises(UpstreamContent):
            await client.put_blob(REPOSITORY, digest, size, MemoryBlob(digest, bytes(size)))
        assert await node.pulls.find_blob(REPOSITORY, digest) is None
        assert node.received == 2 * size


async def test_a_bit_that_flips_on_the_way_is_sent_again(tmp_path: Path) -> None:
    size = 40 * MIB
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node, peer_client(node.port) as client:
        await client.put_blob(REPOSITORY, digest, size, Flipping(content, at=13 * MIB))
        assert await held(node, digest) == content._content


class Short:
    """Content that breaks off, once what there is of it has arrived: the source's copy is damaged."""

    def __init__(self, content: MemoryBlob, has_arrived: Callable[[], Awaitable[object]]) -> None:
        self._content = content
        self._has_arrived = has_arrived
        self.digest, self.size = content.digest, content.size

    async def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        async for piece in self._content.read(start, min(length, self.size - start)):
            yield piece
        await self._has_arrived()
        raise CorruptBlob("ends early")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None


class Flipping:
    """Content of which one bit is another one the first time that it is read."""

    def __init__(self, content: MemoryBlob, at: int) -> None:
        self._content = content
        self._at: int | None = at
        self.digest, self.size = content.digest, content.size

    async def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        async for piece in self._content.read(start, length):
            if self._at is not None and start <= self._at < start + len(piece):
                damaged = bytearray(piece)
                damaged[self._at - start] ^= 1
                self._at = None
                yield bytes(damaged)
            else:
                yield piece
            start += len(piece)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None


# Messages


OFFER = Offer(REPOSITORY, digest_of(b"{}"), Revision(1, 1_700_000_000_000, str(OTHER_NODE)), (digest_of(b"{}"),), ())


async def test_messages_are_asked_and_answered_over_one_connection(tmp_path: Path) -> None:
    async with serve_peer(tmp_path) as node, wired(node) as (wire, client):
        assert (await client.offer(OFFER)).manifests == OFFER.manifests
        assert await client.hashes() == []
        assert await client.listing(REPOSITORY) == []
        assert await client.find_image(REPOSITORY, parse_reference("v1")) is None
        await client.ping()
        assert wire.connections == 1


async def test_an_idle_connection_that_was_closed_costs_nothing(tmp_path: Path) -> None:
    """As a restart of the peer, or its keep-alive, leaves it."""
    async with serve_peer(tmp_path) as node, wired(node) as (wire, client):
        await client.offer(OFFER)
        await wire.refuse()
        await wire.heal()
        assert (await client.offer(OFFER)).manifests == OFFER.manifests
        assert wire.connections == 2


async def test_a_permission_that_is_missing_is_known_by_its_name(tmp_path: Path) -> None:
    digest, content = blob(10)
    async with serve_peer(tmp_path) as node, peer_client(node.port, FOREIGN_NODE) as client:
        with pytest.raises(PermissionMissing) as missing:
            await client.offer(OFFER)
        assert missing.value.permission == "ecr:ReplicateImage"
        with pytest.raises(PermissionMissing):
            await client.put_blob(REPOSITORY, digest, 10, content)


async def test_a_peer_that_does_not_know_us_denies(tmp_path: Path) -> None:
    async with serve_peer(tmp_path) as node, peer_client(node.port, secret=b"another") as client:
        with pytest.raises(UpstreamDenied) as denied:
            await client.offer(OFFER)
        assert not isinstance(denied.value, PermissionMissing)


async def test_a_clock_that_runs_ahead_is_known(tmp_path: Path) -> None:
    ahead = replace(OFFER, revision=Revision(1, 10**15, str(OTHER_NODE)))
    async with serve_peer(tmp_path) as node, peer_client(node.port) as client:
        with pytest.raises(UpstreamClockSkew):
            await client.offer(ahead)


async def test_a_node_reads_a_blob_that_is_sent_to_it(tmp_path: Path) -> None:
    rules = (ReplicationRule("all", (OTHER_NODE,)),)
    layer = os.urandom(3 * MIB)
    image = build_image([layer])
    async with serve_peer(tmp_path, settings=RegistrySettings(NODE, replication_rules=rules)) as node:
        async with node.wire_client() as user:
            for content in image.blobs.values():
                await user.push_blob(REPOSITORY, content)
            await user.push_manifest(REPOSITORY, "v1", image.manifest)
        async with peer_client(node.port) as client, client.open_blob(REPOSITORY, image.layers[0], MIB) as stream:
            assert b"".join([chunk async for chunk in stream.chunks]) == layer[MIB:]


# Peers that are none


HTML = Fault(status=200, body=b"<html>welcome</html>", content_type="text/html")
ANSWERS = {
    "HTML": HTML,
    "nothing": Fault(status=200, body=b""),
    "a list": Fault(status=200, body=b"[]"),
    "deep": Fault(status=200, body=b"[" * 200_000),
    "NaN": Fault(status=200, body=b'{"offset": NaN, "manifests": NaN}'),
    "another thing": Fault(status=200, body=b'{"offset": "5", "manifests": "all"}'),
    "cut off": Fault(status=200, body=b'{"manifests": [', length=100),
    "201": Fault(status=201, body=b"{}"),
    "redirect": Fault(redirect="http://127.0.0.1:9/"),
}


@pytest.mark.parametrize("fault", ANSWERS.values(), ids=ANSWERS.keys())
async def test_what_is_no_answer_is_not_believed(fault: Fault) -> None:
    digest, content = blob(1000)
    async with FakeServer() as server:
        server.faults.on("*", fault)
        async with peer_client(server.port) as client:
            for asking in (
                client.offer(OFFER),
                client.hashes(),
                client.listing(REPOSITORY),
                client.find_image(REPOSITORY, parse_reference("v1")),
                client.put_blob(REPOSITORY, digest, 1000, content),
            ):
                with pytest.raises(UpstreamContent):
                    await asking


async def test_no_redirect_is_followed_and_no_token_goes_elsewhere() -> None:
    digest, content = blob(40 * MIB)
    async with FakeServer() as server, FakeServer() as elsewhere:
        server.faults.on("*", Fault(status=307, redirect=f"{elsewhere.url}/_replicator/v1/peer/offer"))
        async with peer_client(server.port) as client:
            for asking in (client.offer(OFFER), client.put_blob(REPOSITORY, digest, content.size, content)):
                with pytest.raises(UpstreamContent):
                    await asking
        assert elsewhere.requests == []
        assert server.authorizations()


async def test_a_peer_that_claims_to_get_on_and_does_not_is_given_up() -> None:
    """It takes every byte, and asks for them again without end."""
    digest, content = blob(1000)
    async with FakeServer() as server:
        server.faults.on("*", Fault(status=200, body=b'{"offset": 0, "isComplete": false}'))
        async with peer_client(server.port) as client:
            with pytest.raises(UpstreamContent):
                await client.put_blob(REPOSITORY, digest, 1000, content)
        assert server.count() < 10


async def test_a_peer_that_has_no_such_interface_is_said_to_have_none() -> None:
    async with FakeServer() as server, peer_client(server.port) as client:
        with pytest.raises(UpstreamNotFound):
            await client.offer(OFFER)


async def test_a_peer_that_says_nothing_is_not_waited_for() -> None:
    async with FakeServer() as server:
        server.faults.on("*", Fault(hold=Hold()))
        async with peer_client(server.port, total_timeout=0.3) as client:
            with pytest.raises(UpstreamTimeout):
                await client.offer(OFFER)


async def test_bytes_and_requests_are_limited(tmp_path: Path) -> None:
    size = MIB
    digest, content = blob(size)
    async with serve_peer(tmp_path) as node, peer_client(node.port, bytes_per_second=2.0 * size) as client:
        clock = asyncio.get_running_loop().time
        started = clock()
        await client.put_blob(REPOSITORY, digest, size, content)
        assert clock() - started > 0.2  # a quarter of a second's worth is free
