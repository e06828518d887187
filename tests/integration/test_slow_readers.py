"""Clients that ask for much and read nothing hold little, and are given up in time."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from replicator.core.media_types import OCI_MANIFEST
from replicator.registry_api import answer_body
from tests.support.single_node import serve_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.single_node import SingleNode

CONFIG = b"{}"
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/x", "digest": digest_of(CONFIG), "size": len(CONFIG)},
        "annotations": {"much": "x" * (7 * 2**20)},
    }
).encode()
LAYER = os.urandom(16 * 2**20)
PATHS = {"manifest": "/v2/team/app/manifests/v1", "blob": f"/v2/team/app/blobs/{digest_of(LAYER)}"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SingleNode]:
    async with serve_node(tmp_path) as node:
        async with node.client() as client:
            for content in (CONFIG, LAYER):
                await client.push_blob("team/app", content)
            answer = await client.send("PUT", PATHS["manifest"], body=MANIFEST, headers={"Content-Type": OCI_MANIFEST})
            assert answer.status == 201
        yield node


@pytest.mark.parametrize("kind", PATHS)
async def test_a_client_that_does_not_read_is_given_up(
    kind: str, node: SingleNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_body, "SEND_TIMEOUT", 0.2)
    with socket.create_connection(("127.0.0.1", node.port)) as client:
        client.sendall(f"GET {PATHS[kind]} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        async with asyncio.timeout(20):
            outcome = await node.reached(lambda outcome: outcome.method == "GET")
    assert outcome.path == PATHS[kind]
    assert outcome.status == 500


async def test_a_large_manifest_arrives_whole(node: SingleNode) -> None:
    async with node.client() as client:
        answer = await client.get(PATHS["manifest"])
        assert (answer.status, answer.body, answer.whole) == (200, MANIFEST, True)
        assert answer.headers["Content-Length"] == str(len(MANIFEST))
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
