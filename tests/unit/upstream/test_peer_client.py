"""Blobs on their way to a peer, over wires that break."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import Digest, digest_of
from replicator.core.names import RepositoryName
from replicator.storage.blobs.memory import MemoryBlob
from tests.support.peer_nodes import PeerNode, peer_client, serve_peer
from tests.support.single_node import OTHER_NODE

if TYPE_CHECKING:
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
