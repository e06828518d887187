"""What was pushed before there was a rule, or a region, is brought by a backfill: whole, once, and nothing deleted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from replicator.core.backfill import BackfillState
from replicator.core.drift import DriftKind
from replicator.core.errors import InvalidInput, ManifestNotFound, RepositoryNotFound
from replicator.core.names import RepositoryName, Tag
from replicator.core.replication import ReplicationRule, ReplicationState
from tests.support.drift import Keeper, lose_jobs, restart_with_rules
from tests.support.images import build_image, build_index
from tests.support.nodes import OTHER_ACCOUNT, NodePlan, cluster

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.core.jobs import JobKind

EU, US, AP = "eu-west-1", "us-east-1", "ap-south-1"
APP, WEB = "team/app", "team/web"
IMAGE = build_image([b"base" * 1000, b"app"])
INDEX = build_index([build_image([b"amd64"]), build_image([b"arm64"], platform=("linux", "arm64"))])
SIGNATURE = build_image([b"signature"], subject=IMAGE, artifact_type="application/vnd.example.signature")
BEFORE = NodePlan(US, destinations=())


class TestJoin:
    async def test_a_rule_that_was_added_later_reaches_what_was_there(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, BEFORE, EU) as nodes:
            us, eu = nodes[US], nodes[EU]
            await us.push(IMAGE, APP, "v1", "latest")
            await us.push(SIGNATURE, APP)
            await us.push(INDEX, WEB, "v1")
            await us.push(build_image([b"never sent"]), APP)
            await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
            keeper = Keeper(nodes, us)
            ended = await keeper.run(eu.plan.id)
            assert ended.state is BackfillState.COMPLETE
            assert ended.progress is not None
            assert (ended.progress.total, ended.progress.complete) == (4, 4)
            found = (await keeper.backfills.images(ended.id)).images
            assert {(one.repository, one.digest, one.tag) for one in found} == {
                (APP, IMAGE.digest, "latest"),
                (APP, IMAGE.digest, "v1"),
                (APP, SIGNATURE.digest, None),
                (WEB, INDEX.digest, "v1"),
            }
            await eu.check(IMAGE, APP, "v1", "latest")
            await eu.check(SIGNATURE, APP)
            await eu.check(INDEX, WEB, "v1")
            assert await keeper.check(eu.plan.id) == {}

    async def test_a_region_that_joins_empty_ends_clean_although_single_images_are_refused(
        self, tmp_path: Path
    ) -> None:
        """REL-36: errors stay with the image that has them."""
        joining = NodePlan(EU, account=OTHER_ACCOUNT, accept_from={"111111111111": ["team/*"]})
        async with cluster(tmp_path, BEFORE, joining) as nodes:
            us, eu = nodes[US], nodes[EU]
            for number in range(3):
                await us.push(build_image([b"%d" % number]), f"team/app{number}", "v1")
            await us.push(IMAGE, "secret/app", "v1")
            await restart_with_rules(us, ReplicationRule("join", (eu.plan.id,)))
            keeper = Keeper(nodes, us)
            backfill = await keeper.backfills.start(eu.plan.id)
            await keeper.backfills.work()
            await nodes.until_attempts(US, 4)
            await nodes.until_resting()
            await keeper.backfills.work()
            ended = await keeper.backfills.get(backfill)
            assert ended.state is BackfillState.COMPLETE
            assert ended.progress is not None
            assert (ended.progress.complete, ended.progress.failed) == (3, 1)
            assert ended.progress.failure_codes == ("AccessDenied:ecr:ReplicateImage",)
            (failed,) = (await keeper.backfills.images(backfill, ReplicationState.FAILED)).images
            assert (failed.repository, failed.digest, failed.tag) == ("secret/app", IMAGE.digest, "v1")
            for number in range(3):
                assert await eu.tag(f"team/app{number}", "v1") is not None
            assert not await eu.holds("secret/app", IMAGE.digest)

    async def test_it_goes_on_after_the_source_was_killed_in_the_middle(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, BEFORE, EU) as nodes:
            us, eu = nodes[US], nodes[EU]
            built = [build_image([b"image %d" % number]) for number in range(12)]
            for number, image in enumerate(built):
                await us.push(image, f"team/app{number % 3}", f"v{number}")
            await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
            first = Keeper(nodes, us)
            first.backfills = type(first.backfills)(us.registry, page_size=2)
            backfill = await first.backfills.start(eu.plan.id)
            working = asyncio.create_task(first.backfills.work())  # noqa: TID251 - ended below

            def kill(_: JobKind) -> None:
                working.cancel()

            us.registry.on_jobs(kill)
            with pytest.raises(asyncio.CancelledError):
                await working
            await us.crash()
            await us.start()
            keeper = Keeper(nodes, us)
            assert (await keeper.backfills.get(backfill)).state is BackfillState.PREPARING
            ended = await keeper.finish(backfill)
            assert ended.state is BackfillState.COMPLETE
            assert ended.progress is not None
            assert ended.progress.total == 12
            for number, image in enumerate(built):
                await eu.check(image, f"team/app{number % 3}", f"v{number}")
            assert await keeper.check(eu.plan.id) == {}

    async def test_a_destination_that_is_down_makes_it_wait(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, BEFORE, EU) as nodes:
            us, eu = nodes[US], nodes[EU]
            await us.push(IMAGE, APP, "v1")
            await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
            await eu.stop()
            keeper = Keeper(nodes, us)
            backfill = await keeper.backfills.start(eu.plan.id)
            await keeper.backfills.work()
            await nodes.until_attempts(US, 1, "retry")
            await keeper.backfills.work()
            assert (await keeper.backfills.get(backfill)).state is BackfillState.IN_PROGRESS
            await eu.start()
            await nodes.heal_with_time()
            await keeper.backfills.work()
            assert (await keeper.backfills.get(backfill)).state is BackfillState.COMPLETE


async def test_the_service_ends_a_backfill_as_soon_as_its_last_image_is_settled(tmp_path: Path) -> None:
    async with cluster(tmp_path, BEFORE, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.push(IMAGE, APP, "v1")
        await us.push(INDEX, WEB, "v1")
        await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
        keeper, began = Keeper(nodes, us), nodes.clock.now()
        async with keeper.running():
            backfill = await keeper.backfills.start(eu.plan.id)
            while not (await keeper.backfills.get(backfill)).state.is_terminal:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0)
        ended = await keeper.backfills.get(backfill)
        assert (ended.state, ended.finished_at) == (BackfillState.COMPLETE, began)
        await eu.check(INDEX, WEB, "v1")


class TestDeletions:
    async def test_nothing_that_was_deleted_comes_back(self, tmp_path: Path) -> None:
        """REL-34: neither what the destination deleted since, nor what the source did."""
        async with cluster(tmp_path, NodePlan(US, rule={"delete_replication": True}), EU) as nodes:
            us, eu = nodes[US], nodes[EU]
            gone_there, gone_here, kept = (build_image([text]) for text in (b"there", b"here", b"kept"))
            for tag, image in (("there", gone_there), ("here", gone_here), ("kept", kept), ("also", IMAGE)):
                await us.push(image, APP, tag)
            await nodes.until_quiet()
            nodes.clock.advance(10)
            await eu.delete(APP, gone_there.digest)
            await us.delete(APP, gone_here.digest)
            await nodes.until_quiet()
            keeper = Keeper(nodes, us)
            ended = await keeper.run(eu.plan.id)
            assert ended.state is BackfillState.COMPLETE
            assert ended.progress is not None
            assert ended.progress.failure_codes == ("DeletedAtDestination",)
            assert not await eu.holds(APP, gone_there.digest)
            assert not await eu.holds(APP, gone_here.digest)
            assert (await eu.tag(APP, "there"), await eu.tag(APP, "here")) == (None, None)
            await eu.check(kept, APP, "kept")

    async def test_an_image_deleted_while_it_waits_is_not_brought(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, BEFORE, EU) as nodes:
            us, eu = nodes[US], nodes[EU]
            await us.push(IMAGE, APP, "v1")
            await us.push(INDEX, APP, "v2")
            await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
            await us.worker.stop(0)
            keeper = Keeper(nodes, us)
            backfill = await keeper.backfills.start(eu.plan.id)
            await keeper.backfills.work()
            await us.delete(APP, IMAGE.digest)
            await us.restart()
            keeper = Keeper(nodes, us)
            ended = await keeper.finish(backfill)
            assert ended.state is BackfillState.COMPLETE
            assert ended.progress is not None
            assert ended.progress.total == 1
            assert not await eu.holds(APP, IMAGE.digest)


class TestSync:
    async def test_a_plan_says_what_would_move_and_why_and_moves_nothing(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, BEFORE, EU) as nodes:
            us, eu = nodes[US], nodes[EU]
            shared = build_image([b"base" * 1000, b"other"])
            await us.push(IMAGE, APP, "v1", "v2")
            await us.push(shared, WEB, "v1")
            await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
            keeper = Keeper(nodes, us)
            plan = await keeper.sync.plan()
            assert [(one.repository, one.tag, one.digest) for one in plan] == [
                (APP, "v1", IMAGE.digest),
                (APP, "v2", IMAGE.digest),
                (WEB, "v1", shared.digest),
            ]
            assert {(one.kind, one.rule, one.destination) for one in plan} == {
                (DriftKind.MISSING_TAG, "later", eu.plan.id)
            }
            assert sum(one.bytes or 0 for one in plan) == sum(map(len, {**IMAGE.blobs, **shared.blobs}.values()))
            assert not await eu.holds(APP, IMAGE.digest)
            ended = await keeper.finish(await keeper.sync.execute(plan))
            assert ended.state is BackfillState.COMPLETE
            await eu.check(IMAGE, APP, "v1", "v2")
            await eu.check(shared, WEB, "v1")
            assert await keeper.sync.plan() == []

    async def test_one_image_that_was_never_replicated(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, BEFORE, EU) as nodes:
            us, eu = nodes[US], nodes[EU]
            untagged = build_image([b"untagged"])
            await us.push(IMAGE, APP, "v1", "v2")
            await us.push(INDEX, APP, "v3")
            await us.push(untagged, APP)
            await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
            keeper = Keeper(nodes, us)
            repository = RepositoryName(APP)
            (by_tag,) = await keeper.sync.plan(repository, Tag("v1"), eu.plan.id)
            assert (by_tag.digest, by_tag.tag) == (IMAGE.digest, "v1")
            (by_digest,) = await keeper.sync.plan(repository, untagged.digest)
            assert (by_digest.digest, by_digest.tag) == (untagged.digest, None)
            await keeper.finish(await keeper.sync.execute([by_tag, by_digest]))
            await eu.check(IMAGE, APP, "v1")
            await eu.check(untagged, APP)
            assert await eu.tag(APP, "v2") is None
            assert not await eu.holds(APP, INDEX.digest)

    async def test_it_says_which_permission_is_missing(self, tmp_path: Path) -> None:
        closed = NodePlan(EU, account=OTHER_ACCOUNT)
        async with cluster(tmp_path, BEFORE, closed) as nodes:
            us, eu = nodes[US], nodes[EU]
            await us.push(IMAGE, APP, "v1")
            await restart_with_rules(us, ReplicationRule("later", (eu.plan.id,)))
            (item,) = await Keeper(nodes, us).sync.plan()
            assert item.missing_permission == "ecr:ReplicateImage"

    async def test_what_was_asked_for_must_be_there(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, US, EU, AP) as nodes:
            us = nodes[US]
            await us.push(IMAGE, APP, "v1")
            await nodes.until_quiet()
            keeper = Keeper(nodes, us)
            with pytest.raises(RepositoryNotFound):
                await keeper.sync.plan(RepositoryName("no/such"))
            with pytest.raises(ManifestNotFound):
                await keeper.sync.plan(RepositoryName(APP), Tag("v2"))
            with pytest.raises(InvalidInput):
                await keeper.sync.plan(destination=us.plan.id)
            assert await keeper.sync.plan() == []

    async def test_deletions_that_were_lost_are_planned_and_done_like_copies(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, NodePlan(US, rule={"delete_replication": True}), EU, AP) as nodes:
            us, eu, ap = nodes[US], nodes[EU], nodes[AP]
            await us.push(IMAGE, APP, "v1", "v2")
            await nodes.until_quiet()
            nodes.clock.advance(10)
            await us.worker.stop(0)
            await us.delete(APP, "v1")
            await lose_jobs(us)
            await us.restart()
            keeper = Keeper(nodes, us)
            plan = await keeper.sync.plan()
            assert {(one.kind, one.tag, one.destination, one.bytes) for one in plan} == {
                (DriftKind.NOT_DELETED, "v1", region.plan.id, 0) for region in (eu, ap)
            }
            ended = await keeper.finish(await keeper.sync.execute(plan))
            assert (ended.state, ended.destination) == (BackfillState.COMPLETE, "")
            assert ended.progress is not None
            assert (ended.progress.total, ended.progress.complete) == (2, 2)
            for region in (eu, ap):
                assert await region.tag(APP, "v1") is None
                await region.check(IMAGE, APP, "v2")
