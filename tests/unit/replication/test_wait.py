"""Waiting for an image: rows are written as the engine writes them, and the node announces each change."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import ManifestNotFound, ShuttingDown, Throttled
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, parse_tag
from replicator.core.principal import UNRESTRICTED
from replicator.core.reference import parse_reference
from replicator.core.replication import ReplicateImage, ReplicationRule, ReplicationState
from replicator.registry.node import RegistryNode
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.replication import wait as wait_module
from replicator.replication.wait import LOOK_AGAIN, ReplicationWaiter, WaitResult, WaitState, Wanted
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata import replication_status
from replicator.storage.metadata.sqlite import SqliteDatabase
from tests.support.clock import FakeClock
from tests.support.images import BuiltImage, build_image

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.digest import Digest

ACCOUNT = AccountId("111111111111")
SOURCE, EU, AP = (NodeId(ACCOUNT, Region(name)) for name in ("us-east-1", "eu-west-1", "ap-south-1"))
REPOSITORY = RepositoryName("team/app")
RULES = (ReplicationRule("all", (EU, AP), ("team/",)),)
TAG = parse_tag("v1")


@dataclass
class Scene:
    """A node whose replication a test plays."""

    node: RegistryNode
    clock: FakeClock
    waiter: ReplicationWaiter
    stopping: asyncio.Event

    async def push(self, image: BuiltImage, tag: str = "v1", repository: RepositoryName = REPOSITORY) -> None:
        for digest, content in image.blobs.items():
            await Uploads(self.node).put_blob(UNRESTRICTED, repository, digest, _once(content))
        await Pushes(self.node).put_manifest(
            UNRESTRICTED, repository, parse_reference(tag), image.manifest, image.media_type
        )

    async def settle(
        self,
        digest: Digest,
        destination: NodeId,
        state: ReplicationState,
        code: str | None = None,
        *,
        heard: bool = True,
    ) -> None:
        """Write down how a replication stands, and announce it unless nobody of this process did it."""
        image = ReplicateImage(REPOSITORY, digest, TAG, destination, "all")
        await self.node.database.write(lambda: replication_status.settle(image, state, self.clock.now(), code=code))
        if heard:
            self.node.announce_settled(REPOSITORY, digest)

    @asynccontextmanager
    async def waiting(
        self, reference: str = "v1", wanted: Wanted | None = None, seconds: float = 60.0, *, until_failed: bool = False
    ) -> AsyncIterator[asyncio.Task[WaitResult]]:
        """Wait until the block ends; it begins when the wait does."""
        found = self.waiter.wait(
            REPOSITORY, parse_reference(reference), wanted or Wanted(), seconds, until_failed=until_failed
        )
        task = asyncio.create_task(found)  # noqa: TID251 - ended below
        await self.clock.sleepers(1)
        assert not task.done()
        try:
            yield task
        finally:
            task.cancel()


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


def states(result: WaitResult) -> dict[str, WaitState]:
    return {one.destination: one.state for one in result.outcomes}


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    database, store, clock = SqliteDatabase(tmp_path / "metadata.db"), MemoryBlobStore(), FakeClock()
    await database.open()
    await store.open()
    node = RegistryNode(RegistrySettings(SOURCE, replication_rules=RULES), database, store, clock)
    stopping = asyncio.Event()
    yield Scene(node, clock, ReplicationWaiter(node, stopping), stopping)
    await store.close()
    await database.close()


@pytest.fixture
async def image(scene: Scene) -> BuiltImage:
    built = build_image([b"one"])
    await scene.push(built)
    return built


async def test_it_returns_when_the_last_destination_is_complete(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting() as task:
        await scene.settle(image.digest, EU, ReplicationState.COMPLETE)
        await scene.clock.sleepers(1)
        assert not task.done()
        await scene.settle(image.digest, AP, ReplicationState.COMPLETE)
        result = await task
    assert result.is_complete
    assert result.digest == image.digest
    assert states(result) == {str(EU): WaitState.COMPLETE, str(AP): WaitState.COMPLETE}
    assert scene.clock.monotonic() == 1000.0, "no time passed: nobody polled"


async def test_only_what_is_asked_for_is_waited_for(scene: Scene, image: BuiltImage) -> None:
    for wanted in (Wanted(destinations=(str(EU),)), Wanted(regions=(EU.region,))):
        async with scene.waiting(wanted=wanted) as task:
            await scene.settle(image.digest, EU, ReplicationState.COMPLETE)
            assert states(await task) == {str(EU): WaitState.COMPLETE}
        await scene.settle(image.digest, EU, ReplicationState.IN_PROGRESS)


async def test_time_runs_out_with_the_reason(scene: Scene, image: BuiltImage) -> None:
    await scene.settle(image.digest, EU, ReplicationState.COMPLETE)
    async with scene.waiting(seconds=10.0) as task:
        scene.clock.advance(10.0)
        result = await task
    assert not result.is_complete
    assert states(result) == {str(EU): WaitState.COMPLETE, str(AP): WaitState.IN_PROGRESS}
    assert [one.reason for one in result.outcomes if one.reason] == [
        "it is on its way, or waits for its next attempt; the status has the failures"
    ]


async def test_no_time_is_an_answer_at_once(scene: Scene, image: BuiltImage) -> None:
    result = await scene.waiter.wait(REPOSITORY, TAG, Wanted(), 0.0)
    assert states(result) == {str(EU): WaitState.IN_PROGRESS, str(AP): WaitState.IN_PROGRESS}


async def test_a_failure_is_waited_for_because_it_is_tried_again(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting(wanted=Wanted(regions=(EU.region,))) as task:
        await scene.settle(image.digest, EU, ReplicationState.FAILED, "AccessDenied:ecr:ReplicateImage")
        await scene.clock.sleepers(1)
        assert not task.done()
        await scene.settle(image.digest, EU, ReplicationState.COMPLETE)
        assert (await task).is_complete


async def test_a_failure_ends_a_wait_that_asks_for_it(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting(wanted=Wanted(regions=(EU.region,)), until_failed=True) as task:
        await scene.settle(image.digest, EU, ReplicationState.FAILED, "AccessDenied:ecr:ReplicateImage")
        (outcome,) = (await task).outcomes
    assert (outcome.state, outcome.failure_code) == (WaitState.FAILED, "AccessDenied:ecr:ReplicateImage")


async def test_a_failure_is_what_is_left_when_time_runs_out(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting(wanted=Wanted(regions=(EU.region,)), seconds=5.0) as task:
        await scene.settle(image.digest, EU, ReplicationState.FAILED, "RefusedByDestination")
        await scene.clock.sleepers(1)
        scene.clock.advance(5.0)
        (outcome,) = (await task).outcomes
    assert (outcome.state, outcome.failure_code) == (WaitState.FAILED, "RefusedByDestination")


async def test_a_tag_means_what_it_points_to_when_the_wait_begins(scene: Scene, image: BuiltImage) -> None:
    newer = build_image([b"two"])
    async with scene.waiting(wanted=Wanted(regions=(EU.region,))) as task:
        await scene.push(newer)
        scene.node.announce_settled(REPOSITORY, image.digest)
        result = await task
    assert result.digest == image.digest
    assert states(result) == {str(EU): WaitState.SUPERSEDED}
    assert "newer push" in result.outcomes[0].reason


@pytest.mark.parametrize("wanted", [Wanted(regions=("sa-east-1",)), Wanted(destinations=("222222222222/sa-east-1",))])
async def test_where_no_rule_sends_it_nobody_waits(scene: Scene, image: BuiltImage, wanted: Wanted) -> None:
    (outcome,) = (await scene.waiter.wait(REPOSITORY, TAG, wanted, 3600.0)).outcomes
    assert outcome.state is WaitState.NOT_REPLICATED
    assert outcome.reason == "no replication rule sends it there"


async def test_a_repository_that_no_rule_covers_goes_nowhere(scene: Scene) -> None:
    private = RepositoryName("private/app")
    await scene.push(build_image([b"one"]), repository=private)
    result = await scene.waiter.wait(private, TAG, Wanted(regions=(EU.region,)), 3600.0)
    assert states(result) == {str(EU): WaitState.NOT_REPLICATED}


async def test_an_image_from_before_the_rule_needs_a_sync(scene: Scene, image: BuiltImage) -> None:
    await scene.node.database.write(lambda: replication_status.forget(REPOSITORY, image.digest))
    (outcome,) = (await scene.waiter.wait(REPOSITORY, TAG, Wanted(regions=(EU.region,)), 3600.0)).outcomes
    assert outcome.state is WaitState.NOT_REPLICATED
    assert outcome.reason == "rule all would send it there, but was added after the push; sync or backfill it"


async def test_the_nodes_own_region_has_it_already(scene: Scene, image: BuiltImage) -> None:
    result = await scene.waiter.wait(REPOSITORY, TAG, Wanted(regions=(SOURCE.region,)), 3600.0)
    assert states(result) == {str(SOURCE): WaitState.COMPLETE}
    assert result.is_complete


async def test_what_another_process_did_is_noticed_by_looking_again(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting(wanted=Wanted(regions=(EU.region,)), seconds=3600.0) as task:
        await scene.settle(image.digest, EU, ReplicationState.COMPLETE, heard=False)
        scene.clock.advance(LOOK_AGAIN)
        assert (await task).is_complete


@pytest.mark.parametrize("reference", ["nothing", "sha256:" + "0" * 64])
async def test_an_image_that_is_not_here_cannot_be_waited_for(scene: Scene, image: BuiltImage, reference: str) -> None:
    with pytest.raises(ManifestNotFound, match="has no manifest"):
        await scene.waiter.wait(REPOSITORY, parse_reference(reference), Wanted(), 60.0)


async def test_an_image_that_is_deleted_meanwhile_is_not_waited_for(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting() as task:
        await Pushes(scene.node).delete_manifest(UNRESTRICTED, REPOSITORY, image.digest)
        scene.node.announce_settled(REPOSITORY, image.digest)
        with pytest.raises(ManifestNotFound):
            await task


async def test_a_node_that_stops_ends_its_waits(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting() as task:
        scene.stopping.set()
        with pytest.raises(ShuttingDown):
            await task


async def test_waits_leave_nothing_behind(scene: Scene, image: BuiltImage) -> None:
    async with scene.waiting() as task:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert scene.waiter._waits == {}


async def test_there_is_room_for_so_many_waits(
    scene: Scene, image: BuiltImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wait_module, "MAX_WAITS", 1)
    async with scene.waiting():
        with pytest.raises(Throttled):
            await scene.waiter.wait(REPOSITORY, TAG, Wanted(), 60.0)
