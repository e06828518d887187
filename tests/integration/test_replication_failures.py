"""What stands in the way of replication: it goes on by itself once that is gone, and never leaves a half."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from replicator.core.replication import ReplicationState
from replicator.storage.metadata.schema import jobs as jobs_table
from replicator.storage.metadata.statement import Statement
from tests.support.images import build_image, build_index
from tests.support.nodes import ACCOUNT, OTHER_ACCOUNT, NodePlan, cluster

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.nodes import Node

EU, US, AP = "eu-west-1", "us-east-1", "ap-south-1"
REPOSITORY = "team/app"
LARGE = build_image([bytes([value]) * 200_000 for value in range(4)])


async def test_a_destination_that_was_down_catches_up_by_itself(tmp_path: Path) -> None:
    images = {f"v{number}": build_image([b"image %d" % number]) for number in range(20)}
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes[EU].stop()
        for tag, image in images.items():
            await nodes[US].push(image, REPOSITORY, tag)
        await nodes.until_attempts(US, 1, "retry")
        (status,) = await nodes[US].statuses(REPOSITORY, "v0")
        assert (status.status, status.failure_code) == (ReplicationState.IN_PROGRESS, None)
        await nodes[EU].start()
        await nodes.pass_time(60)
        await nodes.until_quiet()
        for tag, image in images.items():
            await nodes[EU].check(image, REPOSITORY, tag)


async def test_the_first_image_that_gets_through_brings_those_that_wait_for_their_next_attempt(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes.wire(US, EU).refuse()
        for number in range(3):
            await nodes[US].push(build_image([b"image %d" % number]), REPOSITORY, f"v{number}")
        await nodes.until_attempts(US, 1, "retry")
        await nodes.until_resting()
        later = sa.update(jobs_table).where(jobs_table.c.key.like("%:v0")).values(not_before=nodes.clock.now() + 55)
        await nodes[US].database.write(Statement(later))
        await nodes.wire(US, EU).heal()
        await nodes.pass_time(5)
        await nodes.until_quiet()  # without any more time
        assert len(nodes[US].recorder.replications) == 3


async def test_a_destination_that_is_down_for_long_is_asked_seldom(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes.wire(US, EU).refuse()
        for number in range(30):
            await nodes[US].push(build_image([b"image %d" % number]), REPOSITORY, f"v{number}")
        for _ in range(60):
            await nodes.until_resting()
            await nodes.pass_time(60)
        await nodes.until_resting()
        assert 60 <= len(nodes[US].recorder.attempts) <= 70  # one probe a minute, and the first few
        await nodes.wire(US, EU).heal()
        await nodes.pass_time(60)
        await nodes.until_quiet()


async def test_a_destination_that_is_down_holds_up_no_other(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, US, EU, AP) as nodes:
        nodes.wire(US, EU).hold_after(0)
        for number in range(8):
            await nodes[US].push(image, f"team/app-{number}", "v1")

        async def all_arrived() -> bool:
            return all([await nodes[AP].tag(f"team/app-{number}", "v1") for number in range(8)])

        await nodes.until(all_arrived)
        assert await nodes[EU].tag("team/app-0", "v1") is None
        await nodes.wire(US, EU).heal()
        await nodes.until_quiet()


async def test_a_destination_that_hangs_is_given_up_and_tried_again(tmp_path: Path) -> None:
    async with cluster(tmp_path, NodePlan(US, patience=0.3), EU) as nodes:
        nodes.wire(US, EU).hold_after(300_000)
        await nodes[US].push(LARGE, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1, "retry")
        (error,) = await nodes[US].status.recent_errors()
        assert "no answer in time" in error.error
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        await nodes[EU].check(LARGE, REPOSITORY, "v1")


@pytest.mark.parametrize("count", [0, 1_000, 100_000, 500_000])
async def test_a_connection_that_breaks_in_the_middle_is_made_good(tmp_path: Path, count: int) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).cut_after(count)
        await nodes[US].push(LARGE, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        await nodes.heal_with_time()
        await nodes[EU].check(LARGE, REPOSITORY, "v1")
        assert nodes[EU].ingests == []


async def test_many_broken_connections_leave_nothing_behind(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        wire = nodes.wire(US, EU)
        wire.cut_after(50_000)
        await nodes[US].push(LARGE, REPOSITORY, "v1")
        for _ in range(5):
            await wire.struck()
            wire.cut_after(50_000)
        await wire.heal()
        await nodes.heal_with_time()
        await nodes[EU].check(LARGE, REPOSITORY, "v1")
        assert nodes[EU].ingests == []


# Restarts


async def test_queued_jobs_outlive_a_restart_of_the_source(tmp_path: Path) -> None:
    images = {f"v{number}": build_image([b"image %d" % number]) for number in range(3)}
    async with cluster(tmp_path, US, EU) as nodes:
        await nodes.wire(US, EU).refuse()
        for tag, image in images.items():
            await nodes[US].push(image, REPOSITORY, tag)
        await nodes.until_attempts(US, 1)
        await nodes[US].restart()
        await nodes.wire(US, EU).heal()
        await nodes.heal_with_time()
        for tag, image in images.items():
            await nodes[EU].check(image, REPOSITORY, tag)


async def test_a_copy_broken_off_by_a_stop_goes_on_at_once_after_the_start(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(300_000)
        await nodes[US].push(LARGE, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        await nodes[US].stop()
        await nodes.wire(US, EU).heal()
        await nodes[US].start()
        await nodes.until_quiet()  # no time passes
        await nodes[EU].check(LARGE, REPOSITORY, "v1")


async def test_a_stop_with_a_grace_lets_copies_end(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(300_000)
        await nodes[US].push(LARGE, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        await nodes[US].push(build_image([b"another"]), REPOSITORY, "v2")
        await nodes.wire(US, EU).heal()
        await nodes[US].stop(grace=10)
        await nodes[EU].check(LARGE, REPOSITORY, "v1")


@pytest.mark.parametrize("count", [0, 2_000, 300_000, 700_000])
async def test_a_source_killed_in_the_middle_takes_the_job_up_again(tmp_path: Path, count: int) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(count)
        await nodes[US].push(LARGE, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        await nodes[US].crash()
        await nodes.wire(US, EU).heal()
        await nodes[US].start()
        await nodes.pass_time(31)  # the lease of the dead process runs out
        await nodes.until_quiet()
        await nodes[EU].check(LARGE, REPOSITORY, "v1")


@pytest.mark.parametrize("count", [2_000, 300_000, 700_000])
async def test_a_destination_killed_in_the_middle_is_served_again(tmp_path: Path, count: int) -> None:
    index = build_index([LARGE, build_image([b"other"], platform=("linux", "arm64"))])
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(count)
        await nodes[US].push(index, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        await nodes[EU].crash()
        await nodes.wire(US, EU).heal()
        await nodes[EU].start()
        assert nodes[EU].dangling() == []
        await nodes.heal_with_time()
        await nodes[EU].check(index, REPOSITORY, "v1")


async def test_a_lease_outlasts_a_long_copy(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        nodes.wire(US, EU).hold_after(300_000)
        await nodes[US].push(LARGE, REPOSITORY, "v1")
        await nodes.wire(US, EU).struck()
        for _ in range(12):
            await nodes.pass_time(10)
        await nodes.wire(US, EU).heal()
        await nodes.until_quiet()
        assert nodes[US].recorder.outcomes() == ["complete"]


# Who may


async def test_another_account_is_refused_until_it_is_accepted(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    foreign = NodePlan(EU, account=OTHER_ACCOUNT)
    async with cluster(tmp_path, US, foreign) as nodes:
        eu = nodes[EU]
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_attempts(US, 1)
        assert await _failure(nodes[US]) == (ReplicationState.FAILED, "AccessDenied:ecr:ReplicateImage")
        assert {one.status for one in eu.recorder.requests} == {403}
        async with eu.client() as client:
            assert (await client.get("/v2/_catalog")).json() == {"repositories": []}
        eu.plan = replace(eu.plan, accept_from={ACCOUNT: ("team/*",)})
        await eu.restart()
        await nodes.heal_with_time(900)
        await eu.check(image, REPOSITORY, "v1")
        assert await _failure(nodes[US]) == (ReplicationState.COMPLETE, None)


async def test_an_accepted_account_reaches_only_the_repositories_it_is_accepted_for(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    foreign = NodePlan(EU, account=OTHER_ACCOUNT, accept_from={ACCOUNT: ("team/*",)})
    async with cluster(tmp_path, US, foreign) as nodes:
        await nodes[US].push(image, "team/app", "v1")
        await nodes[US].push(image, "other/app", "v1")
        await nodes.until_attempts(US, 2)
        await nodes[EU].check(image, "team/app", "v1")
        assert not await nodes[EU].holds("other/app", image.digest)
        (status,) = await nodes[US].statuses("other/app", "v1")
        assert status.failure_code == "AccessDenied:ecr:ReplicateImage"


async def test_an_accepted_account_may_replicate_and_not_read(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    foreign = NodePlan(EU, account=OTHER_ACCOUNT, accept_from={ACCOUNT: ("*",)})
    async with cluster(tmp_path, US, foreign) as nodes:
        await nodes[EU].push(image, "private/app", "v1")
        token = {"Authorization": f"Bearer {nodes[US].tokens.issue(nodes[EU].plan.id)}"}
        async with nodes[EU].client(token) as client:
            manifest = f"/v2/private/app/manifests/{image.digest}"
            blob = f"/v2/private/app/blobs/{next(iter(image.blobs))}"
            assert (await client.head(manifest)).status == 403
            assert (await client.head(blob)).status == 403
            for path in (manifest, blob, "/v2/private/app/tags/list", "/v2/_catalog"):
                assert (await client.get(path)).status == 403


async def test_a_source_with_another_secret_is_refused(tmp_path: Path) -> None:
    async with cluster(tmp_path, NodePlan(US, secret=b"something else"), EU) as nodes:
        await nodes[US].push(build_image([b"layer"]), REPOSITORY, "v1")
        await nodes.until_attempts(US, 1)
        assert await _failure(nodes[US]) == (ReplicationState.FAILED, "AccessDenied")
        assert {one.status for one in nodes[EU].recorder.requests} == {401}
        assert not await nodes[EU].holds(REPOSITORY, build_image([b"layer"]).digest)


async def test_a_token_for_one_node_is_refused_by_another(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU, AP) as nodes:
        token = {"Authorization": f"Bearer {nodes[US].tokens.issue(nodes[EU].plan.id)}"}
        async with nodes[EU].client(token) as client:
            assert (await client.get("/v2/")).status == 200
        async with nodes[AP].client(token) as client:
            assert (await client.get("/v2/")).status == 401


async def test_replication_creates_the_repository_where_a_push_may_not(tmp_path: Path) -> None:
    image = build_image([b"layer"])
    async with cluster(tmp_path, US, NodePlan(EU, create_on_push=False)) as nodes:
        await nodes[US].push(image, REPOSITORY, "v1")
        await nodes.until_quiet()
        await nodes[EU].check(image, REPOSITORY, "v1")


async def test_a_destination_that_nobody_knows_is_named_as_such(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        nodes[US].endpoints.clear()
        await nodes[US].restart()
        await nodes[US].push(build_image([b"layer"]), REPOSITORY, "v1")
        await nodes.until_attempts(US, 1)
        assert await _failure(nodes[US]) == (ReplicationState.FAILED, "DestinationNotFound")


async def _failure(source: Node) -> tuple[ReplicationState, str | None]:
    (status,) = await source.statuses(REPOSITORY, "v1")
    return status.status, status.failure_code
