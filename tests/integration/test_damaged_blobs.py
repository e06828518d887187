"""A blob that the disk lost is not acknowledged, mounted or announced as if it were there; a push brings it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.digest import digest_of
from tests.support.single_node import serve_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from tests.support.single_node import SingleNode
    from tests.support.wire_client import WireClient

CONTENT = b"a layer that the disk will lose"
BLOB = f"/v2/team/app/blobs/{digest_of(CONTENT)}"


def unlink(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SingleNode]:
    async with serve_node(tmp_path) as node:
        yield node


@pytest.fixture
async def client(node: SingleNode) -> AsyncIterator[WireClient]:
    async with node.client() as client:
        await client.push_blob("team/app", CONTENT)
        yield client


@pytest.mark.parametrize("damage", [unlink, empty])
async def test_rel_07_the_first_push_of_a_damaged_blob_repairs_it(
    damage: Callable[[Path], None], node: SingleNode, client: WireClient
) -> None:
    """Nobody has pulled it meanwhile, so nobody has noticed: the push has to."""
    damage(node.files[0])
    await client.push_blob("team/app", CONTENT)
    answer = await client.get(BLOB)
    assert (answer.status, answer.body) == (200, CONTENT)


async def test_a_push_of_what_is_here_already_keeps_one_copy(node: SingleNode, client: WireClient) -> None:
    before = node.files
    await client.push_blob("team/other", CONTENT)
    assert node.files == before
    assert (await client.get(BLOB)).body == CONTENT


@pytest.mark.parametrize("damage", [unlink, empty])
async def test_a_damaged_blob_is_not_announced(
    damage: Callable[[Path], None], node: SingleNode, client: WireClient
) -> None:
    """A client that is told a blob is here does not push it, and then nothing would ever repair it."""
    damage(node.files[0])
    assert (await client.head(BLOB)).status == 404
    assert (await client.get(BLOB)).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_damaged_blob_is_a_missing_one_from_the_first_request_on(
    method: str, node: SingleNode, client: WireClient
) -> None:
    unlink(node.files[0])
    assert [(await client.send(method, BLOB)).status for _ in range(2)] == [404, 404]


async def test_a_damaged_blob_is_not_mounted(node: SingleNode, client: WireClient) -> None:
    unlink(node.files[0])
    mount = f"/v2/team/other/blobs/uploads/?mount={digest_of(CONTENT)}&from=team/app"
    assert (await client.send("POST", mount)).status == 202
