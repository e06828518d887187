"""Backfills over rows alone, on either database: named in pages, settled one by one, stopped, resumed, forgotten."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.backfill import RETENTION, BackfillCause, BackfillState
from replicator.core.destinations import RegistryRef
from replicator.core.digest import Digest, digest_of
from replicator.core.errors import (
    BackfillInProgress,
    BackfillInvalidStatus,
    BackfillLimit,
    BackfillNotFound,
    InvalidInput,
    RepositoryNotFound,
)
from replicator.core.jobs import JobKind, Priority
from replicator.core.manifest import parse_manifest
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.mutability import MutabilityRule
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.core.replication import Origin, ReplicateImage, ReplicationRule, ReplicationState
from replicator.registry.node import RegistryNode
from replicator.registry.settings import RegistrySettings
from replicator.replication.backfill import Backfills
from replicator.replication.backfill_preparation import prepare_page
from replicator.replication.background import BackgroundWork
from replicator.replication.expected import Expectation
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata import backfills, images, jobs, replication_status, repositories, tags
from replicator.storage.metadata.backfills import StoredBackfill
from replicator.storage.metadata.images import StoredImage, StoredManifest
from replicator.storage.metadata.repositories import Repository
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.jobs import LeasedJob
    from replicator.storage.metadata.statement import Steps

ACCOUNT = AccountId("111111111111")
SOURCE, EU, AP = (NodeId(ACCOUNT, Region(name)) for name in ("us-east-1", "eu-west-1", "ap-south-1"))
APP, WEB = RepositoryName("team/app"), RepositoryName("team/web")
V1 = Tag("v1")


def manifest(number: int) -> StoredManifest:
    content = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "annotations": {"number": str(number)}, **_PARTS}
    )
    return StoredManifest(digest_of(content.encode()), OCI_MANIFEST, content.encode())


_CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b"{}"), "size": 2}
_PARTS: dict[str, object] = {"config": _CONFIG, "layers": []}


class Scene:
    """A node of rows, its backfills, and a worker that settles as a test says."""

    def __init__(self, database: Database, clock: FakeClock, page_size: int = 3) -> None:
        rules = (ReplicationRule("all", (EU, AP)),)
        self.database, self.clock = database, clock
        self.node = RegistryNode(RegistrySettings(SOURCE, replication_rules=rules), database, MemoryBlobStore(), clock)
        self.page_size = page_size
        self.backfills = Backfills(self.node, page_size)

    def restart(self) -> None:
        """Forget everything but the rows."""
        self.backfills = Backfills(self.node, self.page_size)

    async def put(
        self, repository: RepositoryName, numbers: Sequence[int], origin: Origin = Origin.DIRECT
    ) -> list[Digest]:
        """Store images with a tag each, as before there was a rule."""
        return await self.database.write(partial(_put, repository, numbers, origin, self.clock.now()))

    async def lease(self, limit: int = 100, kind: JobKind = JobKind.REPLICATE) -> list[LeasedJob]:
        now = self.clock.now()
        return await self.database.write(lambda: jobs.lease(kind, "worker", now, now + 60, limit))

    async def settle(self, leased: LeasedJob, code: str | None = None) -> None:
        """Settle a job as the worker does, done or refused."""
        await self.database.write(partial(_settle, leased, code, self.clock.now()))

    async def state(self, backfill: str) -> BackfillState:
        return (await self.backfills.get(backfill)).state

    async def jobs(self) -> int:
        return sum(one.count for one in await self.database.read(jobs.counts()))


def _put(repository: RepositoryName, numbers: Sequence[int], origin: Origin, now: float) -> Steps[list[Digest]]:
    yield from repositories.create(Repository(repository, now, "push", MutabilityRule()))
    for number in numbers:
        stored = manifest(number)
        parsed = parse_manifest(stored.content, stored.media_type)
        source = EU if origin is Origin.REPLICA else None
        yield from images.put(repository, StoredImage(stored, parsed, origin), SOURCE, now, source)
        yield from tags.put(repository, Tag(f"v{number}"), stored.digest, SOURCE, now)
    return [manifest(number).digest for number in numbers]


def _settle(leased: LeasedJob, code: str | None, now: float) -> Steps[None]:
    replication = ReplicateImage.from_payload(leased.job.payload)
    if code is None:
        yield from jobs.complete(leased, now)
        yield from replication_status.settle(replication, ReplicationState.COMPLETE, now, 10)
        yield from backfills.settle_image(replication, ReplicationState.COMPLETE, 10)
        yield from backfills.leave_others(replication)
    else:
        yield from jobs.release(leased, now + 600, code)
        yield from replication_status.settle(replication, ReplicationState.FAILED, now, 0, code)
        yield from backfills.settle_image(replication, ReplicationState.FAILED, 0, code)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def scene(database: Database, clock: FakeClock) -> Scene:
    return Scene(database, clock)


class TestStart:
    async def test_it_is_prepared_and_has_no_progress_before(self, scene: Scene) -> None:
        await scene.put(APP, range(7))
        backfill = await scene.backfills.start(EU)
        shown = await scene.backfills.get(backfill)
        assert (shown.state, shown.progress, shown.cause) == (BackfillState.PREPARING, None, BackfillCause.BACKFILL)
        await scene.backfills.work()
        shown = await scene.backfills.get(backfill)
        assert shown.state is BackfillState.IN_PROGRESS
        assert shown.progress is not None
        assert (shown.progress.total, shown.progress.in_progress) == (7, 7)

    async def test_a_destination_without_a_rule_is_refused(self, scene: Scene) -> None:
        for other in (RegistryRef("harbor"), SOURCE):
            with pytest.raises(InvalidInput):
                await scene.backfills.start(other)

    async def test_an_unknown_repository_is_refused(self, scene: Scene) -> None:
        with pytest.raises(RepositoryNotFound):
            await scene.backfills.start(EU, APP)

    async def test_one_at_a_time_for_each_destination(self, scene: Scene) -> None:
        first = await scene.backfills.start(EU)
        with pytest.raises(BackfillInProgress):
            await scene.backfills.start(EU)
        await scene.backfills.start(AP)
        await scene.backfills.work()
        assert await scene.state(first) is BackfillState.COMPLETE
        await scene.backfills.start(EU)

    async def test_at_most_ten_syncs_at_a_time(self, scene: Scene) -> None:
        await scene.put(APP, [1])
        work = BackgroundWork(ReplicateImage(APP, manifest(1).digest, V1, EU, "all"))
        for _ in range(10):
            await scene.backfills.start_sync([work])
        with pytest.raises(BackfillLimit):
            await scene.backfills.start_sync([work])

    async def test_one_repository(self, scene: Scene) -> None:
        await scene.put(APP, range(4))
        await scene.put(WEB, range(3))
        backfill = await scene.backfills.start(EU, WEB)
        await scene.backfills.work()
        assert {one.job.payload["repository"] for one in await scene.lease()} == {WEB}
        shown = await scene.backfills.get(backfill)
        assert shown.progress is not None
        assert shown.progress.total == 3

    async def test_jobs_wait_behind_every_push_and_keep_the_urgency_of_one(self, scene: Scene) -> None:
        (digest, _) = await scene.put(APP, [1, 2])
        pushed = ReplicateImage(APP, digest, V1, EU, "all").to_job(Priority.PUSH + 5)
        await scene.database.write(lambda: jobs.enqueue(pushed, scene.clock.now()))
        await scene.backfills.start(EU)
        await scene.backfills.work()
        assert [one.job.priority for one in await scene.lease()] == [Priority.PUSH + 5, Priority.BACKGROUND + 5]

    async def test_replicas_are_left_out(self, scene: Scene) -> None:
        await scene.put(APP, [1])
        await scene.put(WEB, [2], Origin.REPLICA)
        await scene.backfills.start(AP)
        await scene.backfills.work()
        assert [one.job.payload["repository"] for one in await scene.lease()] == [APP]


class TestSettling:
    async def test_complete_when_all_images_are(self, scene: Scene) -> None:
        await scene.put(APP, range(3))
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        for leased in await scene.lease():
            assert (await scene.backfills.images(backfill)).images == ()
            await scene.settle(leased)
        await scene.backfills.work()
        shown = await scene.backfills.get(backfill)
        assert (shown.state, shown.finished_at) == (BackfillState.COMPLETE, scene.clock.now())
        assert shown.progress is not None
        assert (shown.progress.complete, shown.progress.sent_bytes) == (3, 30)

    async def test_failures_are_isolated_and_told(self, scene: Scene) -> None:
        await scene.put(APP, range(5))
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        for number, leased in enumerate(await scene.lease()):
            await scene.settle(leased, "AccessDenied" if number < 2 else None)
        await scene.backfills.work()
        shown = await scene.backfills.get(backfill)
        assert shown.state is BackfillState.COMPLETE
        assert shown.progress is not None
        assert (shown.progress.failed, shown.progress.failure_codes) == (2, ("AccessDenied",))
        page = await scene.backfills.images(backfill, ReplicationState.FAILED)
        assert [one.failure_code for one in page.images] == ["AccessDenied"] * 2

    async def test_failed_when_half_of_the_images_are(self, scene: Scene) -> None:
        await scene.put(APP, range(2))
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        refused, taken = await scene.lease()
        await scene.settle(refused, "RefusedByDestination")
        await scene.settle(taken)
        await scene.backfills.work()
        shown = await scene.backfills.get(backfill)
        assert (shown.state, shown.failure) == (BackfillState.FAILED, "TooManyFailures")

    async def test_what_comes_after_the_end_changes_no_result(self, scene: Scene) -> None:
        await scene.put(APP, [1])
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        (leased,) = await scene.lease()
        await scene.settle(leased, "AccessDenied")
        await scene.backfills.work()
        scene.clock.advance(600)
        (again,) = await scene.lease()
        await scene.settle(again)
        assert [one.status for one in (await scene.backfills.images(backfill)).images] == ["FAILED"]

    async def test_an_image_whose_tag_moved_on_is_no_longer_waited_for(self, scene: Scene) -> None:
        await scene.put(APP, [1, 2])
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        newer = ReplicateImage(APP, digest_of(b"newer"), V1, EU, "all")
        await scene.database.write(lambda: jobs.enqueue(newer.to_job(), scene.clock.now()))
        for leased in await scene.lease():
            await scene.settle(leased)
        await scene.backfills.work()
        shown = await scene.backfills.get(backfill)
        assert shown.state is BackfillState.COMPLETE
        assert shown.progress is not None
        assert shown.progress.total == 1

    async def test_a_job_that_went_unseen_is_settled_by_its_status(self, scene: Scene) -> None:
        one, _, gone = await scene.put(APP, [1, 2, 3])
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        done = ReplicateImage(APP, one, V1, EU, "all")

        def elsewhere() -> Steps[None]:
            for leased in (yield from jobs.lease(JobKind.REPLICATE, "other", scene.clock.now(), 1e12, 9)):
                yield from jobs.complete(leased, scene.clock.now())
            yield from replication_status.settle(done, ReplicationState.COMPLETE, scene.clock.now())
            yield from replication_status.forget(APP, gone)

        await scene.database.write(elsewhere)
        scene.clock.advance(31)
        await scene.backfills.work()
        found = (await scene.backfills.images(backfill)).images
        assert {image.digest: image.status for image in found} == {one: "COMPLETE", manifest(2).digest: "FAILED"}

    async def test_results_come_in_pages(self, scene: Scene) -> None:
        await scene.put(APP, range(5))
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        for leased in await scene.lease():
            await scene.settle(leased)
        await scene.backfills.work()
        seen: list[Digest] = []
        after = None
        while True:
            page = await scene.backfills.images(backfill, size=2, after=after)
            seen += [one.digest for one in page.images]
            after = page.next_after
            if after is None:
                break
        assert seen == sorted(manifest(number).digest for number in range(5))
        with pytest.raises(InvalidInput):
            await scene.backfills.images(backfill, after="nonsense")


class TestStop:
    async def test_what_waits_is_taken_back(self, scene: Scene) -> None:
        await scene.put(APP, range(7))
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        stopped = await scene.backfills.stop(backfill)
        assert stopped.state is BackfillState.STOPPED
        assert stopped.progress is not None
        assert (stopped.progress.total, stopped.progress.stopped) == (7, 7)
        assert await scene.jobs() == 0
        assert await scene.database.read(replication_status.of_image(APP, manifest(1).digest)) == []

    async def test_before_it_is_prepared_it_never_has_progress(self, scene: Scene) -> None:
        await scene.put(APP, range(7))
        backfill = await scene.backfills.start(EU)
        stopped = await scene.backfills.stop(backfill)
        await scene.backfills.work()
        assert (stopped.state, stopped.progress) == (BackfillState.STOPPED, None)
        assert await scene.jobs() == 0

    async def test_copies_under_way_go_on_to_their_end(self, scene: Scene) -> None:
        await scene.put(APP, range(4))
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        (leased,) = await scene.lease(1)
        assert (await scene.backfills.stop(backfill)).state is BackfillState.STOPPING
        assert await scene.lease() == []
        await scene.settle(leased)
        await scene.backfills.work()
        shown = await scene.backfills.get(backfill)
        assert shown.state is BackfillState.STOPPED
        assert shown.progress is not None
        assert (shown.progress.complete, shown.progress.stopped) == (1, 3)

    async def test_a_copy_under_way_that_fails_is_taken_back(self, scene: Scene) -> None:
        await scene.put(APP, [1])
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        (leased,) = await scene.lease(1)
        await scene.backfills.stop(backfill)
        await scene.database.write(lambda: jobs.release(leased, scene.clock.now() + 60, "unreachable"))
        await scene.backfills.work()
        assert await scene.state(backfill) is BackfillState.STOPPED
        assert await scene.jobs() == 0

    async def test_what_somebody_else_wants_is_sent_all_the_same(self, scene: Scene) -> None:
        pushed, shared, _ = await scene.put(APP, [1, 2, 3])
        first = ReplicateImage(APP, pushed, V1, EU, "all")
        await scene.database.write(lambda: jobs.enqueue(first.to_job(), scene.clock.now()))
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        sync = await scene.backfills.start_sync([BackgroundWork(ReplicateImage(APP, shared, Tag("v2"), EU, "all"))])
        assert (await scene.backfills.stop(backfill)).state is BackfillState.STOPPED
        assert [one.job.payload["digest"] for one in await scene.lease()] == [pushed, shared]
        assert await scene.state(sync) is BackfillState.IN_PROGRESS

    async def test_what_is_over_cannot_be_stopped(self, scene: Scene) -> None:
        backfill = await scene.backfills.start(EU)
        await scene.backfills.work()
        with pytest.raises(BackfillInvalidStatus):
            await scene.backfills.stop(backfill)
        with pytest.raises(BackfillNotFound):
            await scene.backfills.stop("00000000-0000-0000-0000-000000000000")


class TestRestart:
    async def test_preparation_goes_on_where_it_was_killed(self, scene: Scene) -> None:
        await scene.put(APP, range(8))
        await scene.put(WEB, range(4))
        backfill = await scene.backfills.start(EU)
        before = len(scene.node._listeners)
        scene.node.on_jobs(_kill)
        with pytest.raises(_KilledError):
            await scene.backfills.work()
        del scene.node._listeners[before:]
        (stored,) = await scene.database.read(backfills.active())
        assert stored.position
        assert stored.state is BackfillState.PREPARING
        scene.restart()
        await scene.backfills.work()
        shown = await scene.backfills.get(backfill)
        assert shown.progress is not None
        assert shown.progress.total == 12
        assert await scene.jobs() == 12

    async def test_two_processes_prepare_one_backfill_once(
        self, databases: tuple[Database, Database], clock: FakeClock
    ) -> None:
        one, other = (Scene(database, clock) for database in databases)
        await one.put(APP, range(7))
        backfill = await one.backfills.start(EU)
        (stored,) = await other.database.read(backfills.active())
        await one.backfills.work()
        again = partial(prepare_page, Expectation(other.node.settings, EU), stored, clock.now(), 3)
        assert await other.database.write(again) is None
        shown = await other.backfills.get(backfill)
        assert shown.progress is not None
        assert shown.progress.total == 7

    async def test_a_sync_that_lost_who_named_its_images_ends_failed(self, scene: Scene) -> None:
        await scene.put(APP, [1])
        sync = await scene.backfills.start_sync(
            [BackgroundWork(ReplicateImage(APP, manifest(1).digest, V1, EU, "all"))]
        )
        await scene.settle((await scene.lease())[0])
        await scene.database.write(partial(_unprepare, sync))
        scene.restart()
        await scene.backfills.work()
        assert await scene.state(sync) is BackfillState.PREPARING
        scene.clock.advance(301)
        await scene.backfills.work()
        shown = await scene.backfills.get(sync)
        assert (shown.state, shown.failure) == (BackfillState.FAILED, "Interrupted")


class _KilledError(Exception):
    """The process was killed."""


def _kill(kind: JobKind) -> None:
    raise _KilledError(kind)


def _unprepare(sync: str) -> Steps[None]:
    stored = yield from backfills.find(sync)
    assert stored is not None
    yield from backfills.change_state(stored, BackfillState.PREPARING, 0.0)


class TestList:
    async def test_the_youngest_first_in_pages(self, scene: Scene) -> None:
        started = []
        for _ in range(5):
            started.append(await scene.backfills.start(EU))
            await scene.backfills.work()
            scene.clock.advance(1)
        first = await scene.backfills.list(3)
        rest = await scene.backfills.list(3, first.next_after)
        assert [one.id for one in (*first.backfills, *rest.backfills)] == started[::-1]
        assert rest.next_after is None

    async def test_one_that_is_over_is_forgotten_after_ninety_days(self, scene: Scene) -> None:
        await scene.put(APP, [1])
        over = await scene.backfills.start(AP, None)
        await scene.backfills.work()
        await scene.settle((await scene.lease())[0])
        await scene.backfills.work()
        scene.clock.advance(RETENTION)
        assert [one.id for one in (await scene.backfills.list()).backfills] == [over]
        scene.clock.advance(1)
        assert (await scene.backfills.list()).backfills == ()
        await scene.backfills.work()
        with pytest.raises(BackfillNotFound):
            await scene.backfills.get(over)


async def test_recent_ones_are_listed_of_one_cause_or_of_all(database: Database) -> None:
    made = [
        (BackfillCause.BACKFILL, "eu"),
        (BackfillCause.SYNC, ""),
        (BackfillCause.BACKFILL, "ap"),
        (BackfillCause.SYNC, ""),
    ]
    for number, (cause, destination) in enumerate(made):
        one = StoredBackfill(f"b{number}", cause, destination, None, BackfillState.PREPARING, 10.0 + number)
        await database.write(partial(backfills.create, one))

    async def listed(cause: BackfillCause | None) -> list[str]:
        found: list[StoredBackfill] = []
        while True:
            before = (found[-1].created_at, found[-1].id) if found else (float("inf"), "")
            page = await database.read(backfills.recent(0.0, 1, *before, cause=cause))
            if not page:
                return [one.id for one in found]
            found += page

    assert await listed(None) == ["b3", "b2", "b1", "b0"]
    assert await listed(BackfillCause.BACKFILL) == ["b2", "b0"]
    assert await listed(BackfillCause.SYNC) == ["b3", "b1"]
