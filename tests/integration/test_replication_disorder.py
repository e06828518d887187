"""Two-way rules, chains, deletions, renames and platforms: nodes agree in the end, whatever came in between."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.platforms import Platform
from replicator.core.replication import Rename, ReplicationState
from replicator.storage.metadata import tag_conflicts
from tests.support.images import build_image, build_index
from tests.support.nodes import NodePlan, cluster

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.core.names import NodeId
    from replicator.core.peer_messages import Delivery, Receipt

EU, US, AP = "eu-west-1", "us-east-1", "ap-south-1"
REPOSITORY = "team/app"


# Several writers


async def test_a_tag_set_on_both_sides_of_a_cut_ends_at_the_same_image_on_both(tmp_path: Path) -> None:
    ours, theirs = build_image([b"ours"]), build_image([b"theirs"])
    plans = (NodePlan(US, destinations=[EU]), NodePlan(EU, destinations=[US]))
    async with cluster(tmp_path, *plans) as nodes:
        await nodes.wire(US, EU).refuse()
        await nodes.wire(EU, US).refuse()
        await nodes[US].push(ours, REPOSITORY, "latest")
        nodes.clock.advance(0.5)
        await nodes[EU].push(theirs, REPOSITORY, "latest")
        await nodes.until_attempts(US, 1)
        await nodes.until_attempts(EU, 1)
        await nodes.wire(US, EU).heal()
        await nodes.wire(EU, US).heal()
        await nodes.heal_with_time()
        for region in (US, EU):
            await nodes[region].check(theirs, REPOSITORY, "latest")
            await nodes[region].check(ours, REPOSITORY)
        reported = [one for region in (US, EU) for one in nodes[region].recorder.conflicts]
        assert {(one.loser, one.winner) for one in reported} == {(ours.digest, theirs.digest)}
        for region in (US, EU):
            kept = await nodes[region].database.read(tag_conflicts.recent(10))
            assert [(one.tag, one.loser, one.winner) for one in kept] == [("latest", ours.digest, theirs.digest)]


async def test_chains_in_a_ring_of_three_end(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    ring = [NodePlan(one, destinations=[other], rule={"chain": True}) for one, other in ((US, EU), (EU, AP), (AP, US))]
    async with cluster(tmp_path, *ring) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        for region in (EU, AP):
            await nodes[region].check(image, REPOSITORY, "v1")
        made = [len(nodes[region].recorder.attempts) for region in (US, EU, AP)]
        assert made == [1, 1, 1]  # the last one finds that everything is there


# Deletions


@pytest.fixture
def deleting() -> NodePlan:
    return NodePlan(US, rule={"delete_replication": True})


async def test_a_deleted_tag_and_a_deleted_image_go_at_the_destination_too(tmp_path: Path, deleting: NodePlan) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, deleting, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1", "v2")
        await nodes.until_quiet()
        await nodes[US].delete(REPOSITORY, "v1")
        await nodes.until_quiet()
        assert await nodes[EU].tag(REPOSITORY, "v1") is None
        await nodes[EU].check(image, REPOSITORY, "v2")
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.until_quiet()
        assert not await nodes[EU].holds(REPOSITORY, image.digest)
        assert await nodes[EU].tag(REPOSITORY, "v2") is None


@pytest.mark.parametrize("how", ["moved", "removed"])
async def test_an_image_that_lost_the_tag_it_was_sent_by_goes_too(tmp_path: Path, how: str) -> None:
    image, newer = build_image([b"image"]), build_image([b"newer"])
    rule = {"delete_replication": True, "tags": ("v*",)}
    async with cluster(tmp_path, NodePlan(US, rule=rule), EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1", "dev")
        await nodes.until_quiet()
        if how == "moved":
            await nodes[US].push(newer, REPOSITORY, "v1")
        else:
            await nodes[US].delete(REPOSITORY, "v1")
        await nodes.until_quiet()
        assert await nodes[EU].holds(REPOSITORY, image.digest)
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.until_quiet()
        assert not await nodes[EU].holds(REPOSITORY, image.digest)


async def test_without_delete_replication_the_destination_keeps_what_it_has(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.until_quiet()
        await nodes[EU].check(image, REPOSITORY, "v1")


async def test_an_image_pushed_again_after_its_deletion_comes_back(tmp_path: Path, deleting: NodePlan) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, deleting, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.until_quiet()
        nodes.clock.advance(1)
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[EU].check(image, REPOSITORY, "v1")


async def test_a_deletion_and_a_new_push_that_wait_together_leave_the_image(tmp_path: Path, deleting: NodePlan) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, deleting, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes.wire(US, EU).refuse()
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_attempts(US, 2)
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        await nodes[EU].check(image, REPOSITORY, "v1")


async def test_a_copy_that_comes_after_the_deletion_does_not_bring_the_image_back(
    tmp_path: Path, deleting: NodePlan
) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, deleting, EU) as nodes:
        nodes.wire(US, EU).hold_after(0)
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.wire(US, EU).heal()
        await nodes.until_quiet()
        assert not await nodes[EU].holds(REPOSITORY, image.digest)
        assert await nodes[EU].tag(REPOSITORY, "v1") is None


async def test_a_deletion_waits_out_an_outage_and_a_restart(tmp_path: Path, deleting: NodePlan) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, deleting, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[EU].stop()
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.until_attempts(US, 2)
        await nodes[US].restart()
        await nodes[EU].start()
        await nodes.heal_with_time()
        assert not await nodes[EU].holds(REPOSITORY, image.digest)


# Extensions of a rule


async def test_a_renamed_repository_has_its_new_name_there_and_its_status_here(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    plan = NodePlan(US, rule={"rename": (Rename("team/", "mirror/us/"),), "delete_replication": True})
    async with cluster(tmp_path, plan, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[EU].check(image, "mirror/us/app", "v1")
        assert not await nodes[EU].holds(REPOSITORY, image.digest)
        (status,) = await nodes[US].statuses(REPOSITORY, "v1")
        assert (status.status, status.target) == (ReplicationState.COMPLETE, "mirror/us/app")
        await nodes[US].delete(REPOSITORY, image.digest)
        await nodes.until_quiet()
        assert not await nodes[EU].holds("mirror/us/app", image.digest)


_ARM = build_image([b"arm64"], platform=("linux", "arm64"))
_AMD = build_image([b"amd64"])
_AMD_ONLY = {"platforms": (Platform("linux", "amd64"),)}


async def test_only_the_wanted_platforms_go_where_a_sparse_index_may_be(tmp_path: Path) -> None:
    index = build_index([_AMD, _ARM])
    async with cluster(tmp_path, NodePlan(US, rule=_AMD_ONLY), NodePlan(EU, sparse_indexes=True)) as nodes:
        await nodes[US].push(index, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1)
        await nodes[EU].check(_AMD, REPOSITORY)
        assert await nodes[EU].tag(REPOSITORY, "v1") == index.digest
        assert await nodes[EU].holds(REPOSITORY, index.digest)


async def test_a_destination_that_wants_whole_indexes_is_asked_seldom_and_says_why(tmp_path: Path) -> None:
    index = build_index([_AMD, _ARM])
    async with cluster(tmp_path, NodePlan(US, rule=_AMD_ONLY), EU) as nodes:
        await nodes[US].push(index, REPOSITORY, "v1")

        async def is_failed() -> bool:
            found = await nodes[US].statuses(REPOSITORY, index.digest)
            return any(one.status is ReplicationState.FAILED for one in found)

        await nodes.until(is_failed)
        (status,) = [one for one in await nodes[US].statuses(REPOSITORY, index.digest) if one.tag]
        assert (status.status, status.failure_code) == (ReplicationState.FAILED, "SparseIndexRefused")
        assert await nodes[EU].tag(REPOSITORY, "v1") is None


# Referrers


async def test_referrers_are_there_before_the_tag(tmp_path: Path) -> None:
    image = build_image([b"image"])
    signature = build_image([b"signature"], subject=image, artifact_type="application/vnd.example.signature")
    of_signature = build_image([b"more"], subject=signature, artifact_type="application/vnd.example.signature")
    async with cluster(tmp_path, NodePlan(US, rule={"tags": ("v*",)}), EU) as nodes:
        await nodes.wire(US, EU).refuse()
        for referrer in (of_signature, signature):
            await nodes[US].push(referrer, REPOSITORY)
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1)
        seen: list[bool] = []
        delivered = nodes[EU].replicas.deliver

        async def deliver(peer: NodeId, delivery: Delivery) -> Receipt:
            if delivery.tag is not None:
                seen.append(
                    await nodes[EU].holds(REPOSITORY, signature.digest)
                    and await nodes[EU].holds(REPOSITORY, of_signature.digest)
                )
            return await delivered(peer, delivery)

        nodes[EU].replicas.deliver = deliver  # type: ignore[method-assign]
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        assert seen == [True]


# Shared blobs, round trips and priorities


async def test_a_blob_that_twenty_images_share_crosses_once(tmp_path: Path) -> None:
    base = b"base layer" * 20_000
    images = [build_image([base, b"%d" % number]) for number in range(20)]
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes.wire(US, EU).refuse()
        for number, image in enumerate(images):
            await nodes[US].push(image, f"team/app-{number}", "v1")
        await nodes.until_attempts(US, 1)
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        for number, image in enumerate(images):
            await nodes[EU].check(image, f"team/app-{number}", "v1")
        assert nodes.wire(US, EU).forwarded < 2 * len(base)


async def test_an_unchanged_push_costs_one_round_trip(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        nodes[EU].recorder.requests.clear()
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes[US].push(image, REPOSITORY, "moved")
        await nodes.until_quiet()
        assert [one.route for one in nodes[EU].recorder.requests] == ["peer_offer", "peer_offer"]
        await nodes[EU].check(image, REPOSITORY, "moved")


async def test_an_unchanged_push_of_a_signed_image_costs_two_round_trips(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    signature = build_image([b"signature"], subject=image, artifact_type="application/vnd.example.signature")
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes[US].push(signature, REPOSITORY)
        await nodes.until_quiet()
        nodes[EU].recorder.requests.clear()
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        routes = [one.route for one in nodes[EU].recorder.requests]
        assert sorted(routes) == ["peer_deliver", "peer_offer", "peer_offer"]  # the offers go together
        assert routes[-1] == "peer_deliver"


async def test_an_image_deleted_at_its_destination_since_is_reported_and_stays_deleted(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes.wire(US, EU).refuse()
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1)
        nodes.clock.advance(0.5)
        await nodes[EU].delete(REPOSITORY, image.digest)
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        (status,) = await nodes[US].statuses(REPOSITORY, image.digest)
        assert (status.status, status.failure_code) == (ReplicationState.FAILED, "DeletedAtDestination")
        assert await nodes[EU].tag(REPOSITORY, "v1") is None
