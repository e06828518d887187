"""What replication is still to bring can be pulled at once, and stays."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.platforms import Platform
from replicator.core.replication import Rename, ReplicationState
from replicator.core.rights import Grant, Right
from replicator.registry_api.users import User
from tests.support.images import Built, build_image, build_index
from tests.support.nodes import ACCOUNT, OTHER_ACCOUNT, Cluster, NodePlan, cluster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

US, EU = "us-east-1", "eu-west-1"
APP = "team/app"
IMAGE = build_image([b"first layer" * 20_000, b"second layer", b"x" * 3_000_000])
AMD64, ARM64 = build_image([b"amd64"]), build_image([b"arm64"], platform=("linux", "arm64"))
INDEX = build_index([AMD64, ARM64])


@contextlib.asynccontextmanager
async def lagging(
    directory: Path, source: NodePlan | None = None, there: NodePlan | None = None
) -> AsyncIterator[Cluster]:
    """Run a source that cannot reach its destination, which can reach the source."""
    plans = (source or NodePlan(US), there or NodePlan(EU, read_from=[US]))
    async with cluster(directory, *plans) as nodes:
        await nodes.wire(US, EU).refuse()
        yield nodes


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Cluster]:
    async with lagging(tmp_path) as found:
        yield found


async def status_of(nodes: Cluster, path: str, method: str = "GET") -> int:
    async with nodes[EU].client() as client:
        return (await client.send(method, f"/v2/{path}")).status


async def pull(nodes: Cluster, image: Built, reference: str, repository: str = APP) -> None:
    """Pull an image from the destination as a client does: its manifest by reference, then the rest."""
    async with nodes[EU].client() as client:
        answer = await client.get(f"/v2/{repository}/manifests/{reference}")
        assert (answer.status, answer.body) == (200, image.manifest), answer
    await nodes[EU].check(image, repository)


class TestPull:
    @pytest.mark.parametrize("image", [IMAGE, INDEX, build_index([INDEX, IMAGE])])
    @pytest.mark.parametrize("by_tag", [True, False])
    async def test_of_what_has_not_come_yet_is_served_at_once_and_kept(
        self, nodes: Cluster, image: Built, by_tag: bool
    ) -> None:
        await nodes[US].push(image, APP, "v1")
        reference = "v1" if by_tag else image.digest
        await pull(nodes, image, reference)
        await nodes[EU].read_through.idle()
        await nodes.wire(EU, US).refuse()
        await pull(nodes, image, reference)

    async def test_of_one_platform_brings_the_index(self, nodes: Cluster) -> None:
        await nodes[US].push(INDEX, APP, "v1")
        async with nodes[EU].client() as client:
            for path in ("manifests/v1", f"manifests/{ARM64.digest}", f"blobs/{ARM64.layers[0]}"):
                assert (await client.get(f"/v2/{APP}/{path}")).status == 200
        await nodes[EU].read_through.idle()
        await nodes.wire(EU, US).refuse()
        await pull(nodes, INDEX, "v1")

    async def test_by_many_asks_the_source_once(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        nodes[US].recorder.requests.clear()

        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(pull(nodes, IMAGE, "v1"))
        await nodes[EU].read_through.idle()
        asked = [one.route for one in nodes[US].recorder.requests]
        assert asked.count("peer_image") == 1
        assert asked.count("blob") == len(IMAGE.blobs)

    async def test_of_a_manifest_alone_brings_no_blobs(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        assert await status_of(nodes, f"{APP}/manifests/v1", "HEAD") == 200
        await nodes[EU].read_through.idle()
        assert not await nodes[EU].holds(APP, IMAGE.digest)
        assert "blob" not in [one.route for one in nodes[US].recorder.requests if one.method == "GET"]

    async def test_whose_blobs_are_here_already_is_kept_by_its_manifest(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        await nodes[EU].push(IMAGE, "team/other", "v1")
        assert await status_of(nodes, f"{APP}/manifests/v1") == 200
        await nodes[EU].read_through.idle()
        assert await nodes[EU].tag(APP, "v1") == IMAGE.digest

    async def test_of_a_tag_whose_image_is_here_sets_it(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        await pull(nodes, IMAGE, IMAGE.digest)
        await nodes[EU].read_through.idle()
        await nodes[US].push(IMAGE, APP, "v2")
        assert await status_of(nodes, f"{APP}/manifests/v2") == 200
        await nodes[EU].read_through.idle()
        assert await nodes[EU].tag(APP, "v2") == IMAGE.digest

    async def test_of_a_repository_of_another_name_there(self, tmp_path: Path) -> None:
        source = NodePlan(US, rule={"rename": (Rename("team/", "mirror/"),)})
        async with lagging(tmp_path, source) as nodes:
            await nodes[US].push(IMAGE, APP, "v1")
            await pull(nodes, IMAGE, "v1", "mirror/app")
            await nodes[EU].read_through.idle()
            assert await nodes[EU].tag("mirror/app", "v1") == IMAGE.digest

    async def test_of_a_blob_by_a_range_is_served(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        digest = IMAGE.layers[2]
        async with nodes[EU].client() as client:
            assert (await client.get(f"/v2/{APP}/manifests/v1")).status == 200
            answer = await client.get(f"/v2/{APP}/blobs/{digest}", headers={"Range": "bytes=100-199"})
            assert (answer.status, answer.body) == (206, b"x" * 100)

    async def test_after_a_restart_goes_on_with_blobs_whose_manifest_was_served_before(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        assert await status_of(nodes, f"{APP}/manifests/v1") == 200
        await nodes[EU].restart()
        assert await status_of(nodes, f"{APP}/blobs/{IMAGE.layers[0]}") == 200

    async def test_of_an_index_too_large_for_one_message_is_served_and_kept(self, nodes: Cluster) -> None:
        images = [build_image([b"%d" % number], annotations={"note": "x" * 3_500_000}) for number in range(3)]
        index = build_index(images)
        await nodes[US].push(index, APP, "v1")
        await pull(nodes, index, "v1")
        await nodes[EU].read_through.idle()
        await nodes.wire(EU, US).refuse()
        await pull(nodes, index, "v1")


class TestLaterReplication:
    async def test_finds_everything_there(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        await pull(nodes, IMAGE, "v1")
        await nodes[EU].read_through.idle()
        await nodes.wire(US, EU).heal()
        nodes[EU].recorder.requests.clear()
        await nodes.heal_with_time()
        assert [one.sent for one in nodes[US].recorder.replications] == [0]
        assert "peer_blob" not in [one.route for one in nodes[EU].recorder.requests]
        (status,) = await nodes[US].statuses(APP, "v1")
        assert status.status is ReplicationState.COMPLETE

    async def test_moves_the_tag_on(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        await pull(nodes, IMAGE, "v1")
        await nodes[EU].read_through.idle()
        await nodes[US].push(AMD64, APP, "v1")
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        await nodes[EU].check(AMD64, APP, "v1")


class TestDeleted:
    async def test_image_does_not_come_back(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        await pull(nodes, IMAGE, "v1")
        await nodes[EU].read_through.idle()
        await nodes[EU].delete(APP, IMAGE.digest)
        for reference in ("v1", IMAGE.digest):
            assert await status_of(nodes, f"{APP}/manifests/{reference}") == 404

    async def test_tag_does_not_come_back(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        await pull(nodes, IMAGE, "v1")
        await nodes[EU].read_through.idle()
        await nodes[EU].delete(APP, "v1")
        assert await status_of(nodes, f"{APP}/manifests/v1") == 404
        assert await status_of(nodes, f"{APP}/manifests/{IMAGE.digest}") == 200

    async def test_image_comes_again_when_it_is_pushed_again(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        await pull(nodes, IMAGE, "v1")
        await nodes[EU].read_through.idle()
        await nodes[EU].delete(APP, IMAGE.digest)
        nodes.clock.advance(1)
        await nodes[US].push(IMAGE, APP, "v1")
        await pull(nodes, IMAGE, "v1")


class TestRefused:
    async def test_by_a_source_whose_rules_send_nothing_here(self, tmp_path: Path) -> None:
        async with lagging(tmp_path, NodePlan(US, filters=("other/",))) as nodes:
            await nodes[US].push(IMAGE, APP, "v1")
            for path in ("manifests/v1", f"manifests/{IMAGE.digest}", f"blobs/{IMAGE.config}"):
                assert await status_of(nodes, f"{APP}/{path}") == 404

    @pytest.mark.parametrize("rule", [{"tags": ("v*",)}, {"excluded_tags": ("dev-*",)}], ids=str)
    async def test_of_a_tag_that_the_rule_leaves_out(self, tmp_path: Path, rule: dict[str, Any]) -> None:
        async with lagging(tmp_path, NodePlan(US, rule=rule)) as nodes:
            await nodes[US].push(IMAGE, APP, "dev-1")
            for path in ("manifests/dev-1", f"manifests/{IMAGE.digest}", f"blobs/{IMAGE.config}"):
                assert await status_of(nodes, f"{APP}/{path}") == 404, path

    @pytest.mark.parametrize("index_first", [True, False])
    async def test_of_a_platform_that_the_rule_leaves_out(self, tmp_path: Path, index_first: bool) -> None:
        source = NodePlan(US, rule={"platforms": (Platform("linux", "amd64"),)})
        async with lagging(tmp_path, source, NodePlan(EU, read_from=[US], sparse_indexes=True)) as nodes:
            await nodes[US].push(INDEX, APP, "v1")
            if index_first:
                await pull(nodes, AMD64, AMD64.digest)
                assert await status_of(nodes, f"{APP}/manifests/v1") == 200
                await nodes[EU].read_through.idle()
            for path in (f"manifests/{ARM64.digest}", f"blobs/{ARM64.config}", f"blobs/{ARM64.layers[0]}"):
                assert await status_of(nodes, f"{APP}/{path}") == 404, path

    async def test_of_an_index_in_part_where_whole_ones_are_wanted(self, tmp_path: Path) -> None:
        async with lagging(tmp_path, NodePlan(US, rule={"platforms": (Platform("linux", "amd64"),)})) as nodes:
            await nodes[US].push(INDEX, APP, "v1")
            assert await status_of(nodes, f"{APP}/manifests/v1") == 404

    async def test_for_an_account_that_may_not_replicate_here(self, tmp_path: Path) -> None:
        async with lagging(tmp_path, NodePlan(US, account=OTHER_ACCOUNT)) as nodes:
            await nodes[US].push(IMAGE, APP, "v1")
            assert await status_of(nodes, f"{APP}/manifests/v1") == 404
            assert nodes.wire(EU, US).connections == 0

    async def test_for_an_account_that_may_replicate_here_it_is_served(self, tmp_path: Path) -> None:
        there = NodePlan(EU, account=ACCOUNT, accept_from={OTHER_ACCOUNT: ["team/*"]}, read_from=[US])
        async with lagging(tmp_path, NodePlan(US, account=OTHER_ACCOUNT), there) as nodes:
            await nodes[US].push(IMAGE, APP, "v1")
            await pull(nodes, IMAGE, "v1")

    async def test_to_a_caller_who_may_not_pull_here_before_anybody_is_asked(self, tmp_path: Path) -> None:
        users = [User("ann", b"$2b$04$invalid", (Grant(frozenset({Right.PULL}), ("other/*",)),))]
        async with lagging(tmp_path, None, NodePlan(EU, users=users, read_from=[US])) as nodes:
            await nodes[US].push(IMAGE, APP, "v1")
            assert await status_of(nodes, f"{APP}/manifests/v1") == 401
            assert nodes.wire(EU, US).connections == 0

    async def test_head_of_a_blob_that_is_not_here_so_that_it_is_pushed(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        assert await status_of(nodes, f"{APP}/blobs/{IMAGE.config}", "HEAD") == 404
        await nodes[EU].push(IMAGE, APP, "mine")

    async def test_head_of_a_blob_of_an_image_that_was_shown_has_it_brought(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        assert await status_of(nodes, f"{APP}/manifests/v1") == 200
        assert await status_of(nodes, f"{APP}/blobs/{IMAGE.layers[0]}", "HEAD") == 200
        await nodes.wire(EU, US).refuse()
        assert await status_of(nodes, f"{APP}/blobs/{IMAGE.layers[0]}") == 200


class TestSourceThatFails:
    async def test_by_being_down_leaves_the_answer_of_here(self, nodes: Cluster) -> None:
        await nodes.wire(EU, US).refuse()
        assert await status_of(nodes, f"{APP}/manifests/v1") == 404
        assert await status_of(nodes, f"{APP}/blobs/{IMAGE.config}") == 404

    async def test_by_hanging_does_not_hang_the_puller(self, nodes: Cluster) -> None:
        nodes.wire(EU, US).hold_after(0)
        async with asyncio.timeout(8):
            assert await status_of(nodes, f"{APP}/manifests/v1") == 404
            assert await status_of(nodes, f"{APP}/manifests/v2") == 404, "it is left alone for a while"
        await nodes.wire(EU, US).heal()

    async def test_is_asked_again_later(self, nodes: Cluster) -> None:
        await nodes.wire(EU, US).refuse()
        assert await status_of(nodes, f"{APP}/manifests/v1") == 404
        await nodes.wire(EU, US).heal()
        await nodes[US].push(IMAGE, APP, "v1")
        nodes.clock.advance(10)
        await pull(nodes, IMAGE, "v1")

    async def test_in_the_middle_of_a_blob_leaves_nothing_half_here(self, nodes: Cluster) -> None:
        await nodes[US].push(IMAGE, APP, "v1")
        assert await status_of(nodes, f"{APP}/manifests/v1") == 200
        await nodes.wire(EU, US).refuse()
        assert await status_of(nodes, f"{APP}/blobs/{IMAGE.layers[2]}") in {502, 503, 504}
        await nodes[EU].read_through.idle()
        assert nodes[EU].ingests == []

    async def test_to_have_a_name_is_not_asked_for_it_again_and_again(self, nodes: Cluster) -> None:
        for _ in range(5):
            assert await status_of(nodes, f"{APP}/manifests/never") == 404
        assert [one.route for one in nodes[US].recorder.requests].count("peer_image") == 1
        nodes.clock.advance(10)
        assert await status_of(nodes, f"{APP}/manifests/never") == 404
        assert [one.route for one in nodes[US].recorder.requests].count("peer_image") == 2


async def test_two_nodes_that_read_from_each_other_do_not_ask_in_circles(tmp_path: Path) -> None:
    plans = (NodePlan(US, destinations=[EU], read_from=[EU]), NodePlan(EU, destinations=[US], read_from=[US]))
    async with cluster(tmp_path, *plans) as nodes:
        assert await status_of(nodes, f"{APP}/manifests/never") == 404
        assert await status_of(nodes, f"{APP}/blobs/{IMAGE.config}") == 404
        assert nodes.wire(US, EU).connections == 0


async def test_stopping_gives_up_what_is_under_way(nodes: Cluster) -> None:
    await nodes[US].push(IMAGE, APP, "v1")
    assert await status_of(nodes, f"{APP}/manifests/v1") == 200
    wire = nodes.wire(EU, US)
    wire.hold_after(0)
    async with asyncio.TaskGroup() as group:
        pulling = group.create_task(_broken_pull(nodes, f"{APP}/blobs/{IMAGE.layers[2]}"))
        await wire.struck()
        await nodes[EU].stop()
        await pulling
    await wire.heal()
    await nodes[EU].start()
    assert nodes[EU].ingests == []


async def _broken_pull(nodes: Cluster, path: str) -> None:
    with contextlib.suppress(OSError, EOFError, asyncio.IncompleteReadError):
        assert await status_of(nodes, path) >= 500
