"""Whatever is lost on either side behind the registry's back is found, counted and repaired; nothing else is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.destinations import RegistryRef
from replicator.core.drift import DriftKind
from replicator.core.errors import UpstreamUnavailable
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag
from replicator.core.replication import Rename, ReplicationRule
from replicator.replication.drift_round import AntiEntropySettings
from replicator.storage.metadata import blobs, tags
from tests.support.drift import Keeper, lose_image, lose_jobs, lose_tag, restart_with_rules
from tests.support.images import build_image, build_index
from tests.support.nodes import NodePlan, cluster

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from replicator.core.revisions import TagRegister
    from replicator.storage.metadata.statement import Steps
    from tests.support.nodes import Node

EU, US = "eu-west-1", "us-east-1"
APP = RepositoryName("team/app")
OLD = build_image([b"old"])
IMAGE = build_image([b"base", b"app"])
CHILD = build_image([b"arm64"], platform=("linux", "arm64"))
INDEX = build_index([build_image([b"amd64"]), CHILD])
SIGNATURE = build_image([b"signature"], subject=IMAGE, artifact_type="application/vnd.example.signature")
DELETING = NodePlan(US, rule={"delete_replication": True})


async def _fill(us: Node) -> None:
    await us.push(OLD, APP, "v1")
    await us.push(IMAGE, APP, "v1", "latest")
    await us.push(INDEX, APP, "index")
    await us.push(SIGNATURE, APP)


async def _intact(eu: Node) -> None:
    await eu.check(IMAGE, APP, "v1", "latest")
    await eu.check(INDEX, APP, "index")
    await eu.check(SIGNATURE, APP)


async def test_regions_that_agree_are_compared_by_fingerprint_alone(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await _fill(us)
        await nodes.until_quiet()
        keeper = Keeper(nodes, us, AntiEntropySettings(offers=0))
        before = len(eu.recorder.requests)
        assert await keeper.check(eu.plan.id) == {}
        assert len(eu.recorder.requests) == before + 1
        assert (keeper.counts.found, keeper.counts.repaired) == ({}, {})


async def _untag(eu: Node) -> None:
    await lose_tag(eu, APP, "latest")


async def _retag(eu: Node) -> None:
    def steps() -> Steps[None]:
        register = yield from tags.find(APP, Tag("v1"))
        assert register is not None
        yield from tags.set_register(APP, Tag("v1"), _older(register), 0.0)

    await eu.registry.commit(APP, steps)


def _older(register: TagRegister) -> TagRegister:
    revision = register.revision
    return type(register)(OLD.digest, type(revision)(revision.epoch, revision.counter - 1, revision.node), {})


async def _lose_image(eu: Node) -> None:
    await lose_image(eu, APP, IMAGE.digest)


async def _lose_referrer(eu: Node) -> None:
    await lose_image(eu, APP, SIGNATURE.digest)


async def _lose_child(eu: Node) -> None:
    await lose_image(eu, APP, CHILD.digest)


async def _unlink_blob(eu: Node) -> None:
    await eu.registry.commit(APP, lambda: blobs.unlink(APP, IMAGE.layers[0]))


async def _lose_bytes(eu: Node) -> None:
    stored = await eu.database.read(blobs.find(IMAGE.layers[1]))
    assert stored is not None
    path = next((eu.directory / "blobs").rglob(f"*{stored.digest.partition(':')[2]}*"))
    path.unlink()
    eu.registry.blob_index.clear()


@pytest.mark.parametrize(
    ("damage", "kind"),
    [
        (_untag, DriftKind.MISSING_TAG),
        (_retag, DriftKind.OTHER_DIGEST),
        (_lose_image, DriftKind.MISSING_IMAGE),
        (_lose_referrer, DriftKind.MISSING_IMAGE),
        (_lose_child, DriftKind.MISSING_CONTENT),
        (_unlink_blob, DriftKind.MISSING_CONTENT),
        (_lose_bytes, DriftKind.MISSING_CONTENT),
    ],
)
async def test_what_was_lost_at_the_destination_is_found_and_repaired(
    tmp_path: Path, damage: Callable[[Node], Awaitable[None]], kind: DriftKind
) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await _fill(us)
        await nodes.until_quiet()
        await damage(eu)
        keeper = Keeper(nodes, us)
        found = await keeper.check(eu.plan.id)
        assert set(found) == {kind}
        assert keeper.counts.repaired == keeper.counts.found == {kind.value: sum(found.values())}
        await _intact(eu)
        assert await keeper.check(eu.plan.id) == {}


async def test_an_image_whose_job_was_lost_at_the_source_is_brought(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.worker.stop(0)
        await us.push(IMAGE, APP, "v1")
        await lose_jobs(us)
        await us.restart()
        keeper = Keeper(nodes, us)
        assert await keeper.check(eu.plan.id) == {DriftKind.MISSING_TAG: 1}
        await eu.check(IMAGE, APP, "v1")


async def test_a_deletion_whose_job_was_lost_is_repeated_for_replicas_only(tmp_path: Path) -> None:
    own = build_image([b"pushed at the destination"])
    async with cluster(tmp_path, DELETING, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        for image, tag in ((OLD, "old"), (IMAGE, "v1"), (own, "own")):
            await us.push(image, APP, tag)
        await nodes.until_quiet()
        nodes.clock.advance(10)
        await eu.push(own, APP, "own")
        await us.worker.stop(0)
        await us.delete(APP, OLD.digest)
        await us.delete(APP, "v1")
        await us.delete(APP, own.digest)
        await lose_jobs(us)
        await us.restart()
        keeper = Keeper(nodes, us)
        assert set(await keeper.check(eu.plan.id)) == {DriftKind.NOT_DELETED}
        assert not await eu.holds(APP, OLD.digest)
        assert (await eu.tag(APP, "old"), await eu.tag(APP, "v1")) == (None, None)
        await eu.check(own, APP, "own")
        assert await keeper.check(eu.plan.id) == {}


async def test_what_the_destination_deleted_is_counted_once_and_stays_deleted(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await _fill(us)
        await nodes.until_quiet()
        nodes.clock.advance(10)
        await eu.delete(APP, IMAGE.digest)
        keeper = Keeper(nodes, us)
        assert set(await keeper.check(eu.plan.id)) == {DriftKind.DELETED_THERE}
        assert keeper.counts.repaired == {}
        assert await keeper.check(eu.plan.id) == {}
        assert not await eu.holds(APP, IMAGE.digest)


async def test_an_immutable_tag_of_the_destination_is_left_alone_but_its_image_is_not(tmp_path: Path) -> None:
    immutable = NodePlan(EU, mutability=MutabilityRule(TagMutability.IMMUTABLE))
    async with cluster(tmp_path, US, immutable) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.push(OLD, APP, "v1")
        await nodes.until_quiet()
        await us.push(IMAGE, APP, "v1")
        await nodes.until_quiet()
        assert await eu.tag(APP, "v1") == OLD.digest
        keeper = Keeper(nodes, us)
        assert await keeper.check(eu.plan.id) == {DriftKind.KEPT_THERE: 1}
        assert keeper.counts.repaired == {}
        assert await keeper.check(eu.plan.id) == {}
        await lose_image(eu, APP, IMAGE.digest)
        assert await keeper.check(eu.plan.id) == {DriftKind.KEPT_THERE: 1, DriftKind.MISSING_IMAGE: 1}
        await eu.check(IMAGE, APP)
        assert await eu.tag(APP, "v1") == OLD.digest


class TestForeignRegistry:
    async def test_tags_that_are_missing_or_point_elsewhere_are_set_again(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, NodePlan(US, destinations=()), EU) as nodes:
            us, harbor = nodes[US], nodes[EU]
            name = RegistryRef("harbor")
            us.plan = replace(us.plan, registries={"harbor": harbor.url})
            await restart_with_rules(us, ReplicationRule("out", (name,)))
            await _fill(us)
            await nodes.until_quiet()
            await _intact(harbor)
            keeper = Keeper(nodes, us)
            assert await keeper.check(name) == {}
            assert await keeper.sync.plan() == []
            await harbor.push(OLD, APP, "v1")
            await harbor.delete(APP, "latest")
            plan = await keeper.sync.plan(APP, destination=name)
            assert [(one.kind, one.tag, one.bytes) for one in plan] == [
                (DriftKind.MISSING_TAG, "latest", None),
                (DriftKind.OTHER_DIGEST, "v1", None),
            ]
            assert await keeper.check(name) == {DriftKind.OTHER_DIGEST: 1, DriftKind.MISSING_TAG: 1}
            await _intact(harbor)
            assert await keeper.check(name) == {}

    async def test_a_few_tags_are_asked_for_in_a_round_and_all_in_turn(self, tmp_path: Path) -> None:
        async with cluster(tmp_path, NodePlan(US, destinations=()), EU) as nodes:
            us, harbor = nodes[US], nodes[EU]
            name = RegistryRef("harbor")
            us.plan = replace(us.plan, registries={"harbor": harbor.url})
            await restart_with_rules(us, ReplicationRule("out", (name,)))
            for number in range(6):
                await us.push(build_image([b"%d" % number]), f"team/app{number % 2}", f"v{number}")
            await nodes.until_quiet()
            for number in range(6):
                await harbor.delete(f"team/app{number % 2}", f"v{number}")
            keeper = Keeper(nodes, us, AntiEntropySettings(heads=2))
            repaired = []
            for _ in range(4):
                await keeper.check(name)
                repaired.append(keeper.counts.repaired.total())
            assert repaired == [2, 4, 6, 6]


async def test_what_is_on_its_way_is_no_drift(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.worker.stop(0)
        await us.push(IMAGE, APP, "v1")
        keeper = Keeper(nodes, us)
        assert await keeper.anti_entropy.check(eu.plan.id) == {}
        assert keeper.counts.found == {}
        await us.restart()
        await nodes.until_quiet()
        await eu.check(IMAGE, APP, "v1")


async def test_a_destination_that_is_down_is_compared_in_another_round(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await _fill(us)
        await nodes.until_quiet()
        await lose_tag(eu, APP, "latest")
        await eu.stop()
        keeper = Keeper(nodes, us)
        with pytest.raises(UpstreamUnavailable):
            await keeper.check(eu.plan.id)
        await eu.start()
        assert await keeper.check(eu.plan.id) == {DriftKind.MISSING_TAG: 1}
        await _intact(eu)


async def test_repairs_are_bounded_and_every_repository_has_its_turn(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        names = [f"team/app{number}" for number in range(3)]
        for name in names:
            for number in range(3):
                await us.push(build_image([b"%d" % number]), name, f"v{number}")
        await nodes.until_quiet()
        for number in range(3):
            await lose_tag(eu, APP, f"v{number}")
        keeper = Keeper(nodes, us, AntiEntropySettings(repairs=4, repairs_per_repository=2))
        repaired = []
        for _ in range(4):
            await keeper.check(eu.plan.id)
            repaired.append(keeper.counts.repaired.total())
        assert repaired == [4, 8, 9, 9]
        for name in names:
            assert [await eu.tag(name, f"v{number}") for number in range(3)] == [
                build_image([b"%d" % number]).digest for number in range(3)
            ]


async def test_renamed_repositories_and_those_that_share_a_name_there(tmp_path: Path) -> None:
    plan = NodePlan(US, rule={"rename": (Rename("a/", "all/"), Rename("b/", "all/")), "delete_replication": True})
    async with cluster(tmp_path, plan, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await us.push(IMAGE, "a/app", "v1")
        await us.push(OLD, "b/app", "v2")
        await nodes.until_quiet()
        keeper = Keeper(nodes, us)
        assert await keeper.check(eu.plan.id) == {}
        await lose_tag(eu, "all/app", "v2")
        assert await keeper.check(eu.plan.id) == {DriftKind.MISSING_TAG: 1}
        assert await eu.tag("all/app", "v2") == OLD.digest


async def test_rounds_come_every_so_often(tmp_path: Path) -> None:
    async with cluster(tmp_path, US, EU) as nodes:
        us, eu = nodes[US], nodes[EU]
        await _fill(us)
        await nodes.until_quiet()
        keeper = Keeper(nodes, us, AntiEntropySettings(interval=100.0))
        await lose_tag(eu, APP, "latest")
        async with keeper.running():
            while await eu.tag(APP, "latest") is None:
                await nodes.clock.sleepers(6)
                nodes.clock.advance(50.0)
                await nodes.until_quiet()
        await _intact(eu)
