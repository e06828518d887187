"""Tags that may not move, and tags that many move at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.registry.settings import RegistrySettings
from tests.support.images import BuiltImage, build_image
from tests.support.single_node import NODE, serve_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.single_node import SingleNode
    from tests.support.wire_client import WireClient

ONE, OTHER = build_image([b"one"]), build_image([b"other"])
RULE = MutabilityRule(TagMutability.IMMUTABLE_WITH_EXCLUSION, ("dev-*",))


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SingleNode]:
    """A node whose tags do not move, but for `dev-…`; `v1` and `dev-1` point to ONE."""
    async with serve_node(tmp_path, settings=RegistrySettings(NODE, mutability=RULE)) as node, node.client() as client:
        await push_blobs(client, ONE, OTHER)
        for tag in ("v1", "dev-1"):
            assert (await client.push_manifest("a", tag, ONE.manifest)).status == 201
        yield node


async def push_blobs(client: WireClient, *images: BuiltImage) -> None:
    for image in images:
        for content in image.blobs.values():
            await client.push_blob("a", content)


async def tagged(client: WireClient, tag: str) -> bytes:
    return (await client.get(f"/v2/a/manifests/{tag}")).body


async def test_an_immutable_tag_stays(node: SingleNode) -> None:
    async with node.client() as client:
        for reference, query in (("v1", ""), (OTHER.digest, "?tag=v1"), (OTHER.digest, "?tag=v2&tag=v1&tag=dev-1")):
            answer = await client.push_manifest("a", reference + query, OTHER.manifest)
            assert (answer.status, answer.codes) == (400, ["TAG_INVALID"])
            assert await tagged(client, "v1") == await tagged(client, "dev-1") == ONE.manifest
        assert (await client.get("/v2/a/manifests/v2")).status == 404
        assert (await client.get(f"/v2/a/manifests/{OTHER.digest}")).status == 404


async def test_an_excluded_tag_moves(node: SingleNode) -> None:
    async with node.client() as client:
        assert (await client.push_manifest("a", "dev-1", OTHER.manifest)).status == 201
        assert await tagged(client, "dev-1") == OTHER.manifest


async def test_the_same_push_again_is_no_move(node: SingleNode) -> None:
    async with node.client() as client:
        assert (await client.push_manifest("a", "v1", ONE.manifest)).status == 201
        assert (await client.push_manifest("a", f"{ONE.digest}?tag=v1", ONE.manifest)).status == 201


@pytest.mark.parametrize("deleted", ["v1", ONE.digest], ids=["tag", "image"])
async def test_a_deleted_tag_is_free_again(deleted: str, node: SingleNode) -> None:
    async with node.client() as client:
        assert (await client.delete(f"/v2/a/manifests/{deleted}")).status == 202
        assert (await client.get("/v2/a/manifests/v1")).status == 404
        assert (await client.push_manifest("a", "v1", OTHER.manifest)).status == 201
        assert await tagged(client, "v1") == OTHER.manifest


async def test_the_last_acknowledged_of_many_writers_is_what_is_read(tmp_path: Path) -> None:
    """One tag as a register: a read that begins after a write was acknowledged sees it or a later one."""
    images = [build_image([b"same layer"], annotations={"number": str(number)}) for number in range(30)]
    async with serve_node(tmp_path) as node:
        clients = [node.client() for _ in range(4)]
        await push_blobs(clients[0], images[0])
        order: list[bytes] = []

        async def write(client: WireClient, mine: list[BuiltImage]) -> None:
            for image in mine:
                assert (await client.push_manifest("a", "v1", image.manifest)).status == 201
                order.append(image.manifest)

        async def read(client: WireClient) -> None:
            while len(order) < len(images):
                acknowledged = set(order[:-3])  # two other writers may overtake; what was long ago is gone
                found = await tagged(client, "v1")
                assert found not in acknowledged

        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(clients[:3]):
                group.create_task(write(client, images[number::3]))
            group.create_task(read(clients[3]))
        last = await tagged(clients[0], "v1")
        assert last in order[-3:]
        for client in clients:
            assert await tagged(client, "v1") == last
            await client.close()


async def test_a_tag_never_points_to_what_is_not_there(tmp_path: Path) -> None:
    """While images come and go under one tag, whoever reads it can read all of the image, or finds nothing."""
    images = [build_image([b"layer"], annotations={"number": str(number)}) for number in range(5)]
    async with serve_node(tmp_path) as node:
        writer, reader = node.client(), node.client()
        await push_blobs(writer, images[0])
        done = asyncio.Event()

        async def come_and_go() -> None:
            for image in images * 4:
                assert (await writer.push_manifest("a", "v1", image.manifest)).status == 201
                assert (await writer.delete(f"/v2/a/manifests/{image.digest}")).status == 202
                assert (await writer.get("/v2/a/manifests/v1")).status == 404
            done.set()

        async def look() -> None:
            while not done.is_set():
                found = await reader.get("/v2/a/manifests/v1")
                assert found.status in {200, 404}
                if found.status == 200:
                    assert found.body in {image.manifest for image in images}

        async with asyncio.TaskGroup() as group:
            group.create_task(come_and_go())
            group.create_task(look())
        for client in (writer, reader):
            await client.close()
