"""The worker: what it does with jobs that fail in odd ways, with other workers, and with a database that fails."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import pytest

from replicator.core.errors import (
    StorageFull,
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from replicator.core.jobs import JobKind, JobState, NewJob
from replicator.core.replication import ReplicationState
from replicator.replication.worker import WorkerLimits
from replicator.storage.metadata import jobs
from replicator.storage.metadata.sqlite import SqliteDatabase
from tests.support.images import build_image
from tests.unit.replication.conftest import EU, REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.core.names import NodeId
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Body, Steps
    from tests.unit.replication.conftest import Scene

T = TypeVar("T")

IMAGE, OTHER = build_image([b"layer"]), build_image([b"other layer"])


async def test_a_bug_in_one_copy_does_not_end_the_others(scene: Scene) -> None:
    def explode(call: str) -> None:
        if IMAGE.digest in call:
            raise ZeroDivisionError

    scene.destinations[EU].before_call = explode
    async with scene.working():
        await scene.push(IMAGE)
        await scene.push(OTHER)
        await scene.until_attempts(4)
    assert (await scene.state(IMAGE.digest)).failure_code == "UnknownFailure"
    assert (await scene.state(OTHER.digest)).status is ReplicationState.COMPLETE
    (error,) = await scene.status.recent_errors()
    assert error.error == "unexpected ZeroDivisionError"


async def test_a_job_that_cannot_be_understood_is_kept_and_does_not_come_back(scene: Scene) -> None:
    lane = str(EU)
    await scene.database.write(
        lambda: jobs.enqueue(NewJob(JobKind.REPLICATE, "odd", {"digest": "?"}, lane=lane), scene.clock.now())
    )
    async with scene.working():
        await scene.push(IMAGE)
        await scene.until_attempts(2)
    counts = await scene.database.read(jobs.lane_counts(JobKind.REPLICATE))
    assert [(one.state, one.count) for one in counts] == [(JobState.DEAD, 1)]
    assert [one.dead for one in await scene.status.queues()] == [1]


async def test_an_image_that_is_always_refused_does_not_stop_the_lane(scene: Scene) -> None:
    def refuse(call: str) -> None:
        if IMAGE.digest in call:
            raise UpstreamUnavailable("error 500 for this one")

    scene.destinations[EU].before_call = refuse
    scene.replicate_only_to(EU)
    async with scene.working():
        await scene.push(IMAGE)
        for number in range(10):
            await scene.push(build_image([b"%d" % number]))
        while await _pending(scene, EU) > 1:
            await scene.clock.sleepers(2)
            scene.clock.advance(2)
            await scene.clock.sleepers(2)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.IN_PROGRESS


async def test_a_throttling_destination_is_left_alone_as_long_as_it_says(scene: Scene) -> None:
    def throttle(_: str) -> None:
        raise UpstreamThrottled(retry_after=300)

    scene.replicate_only_to(EU)
    scene.destinations[EU].before_call = throttle
    async with scene.working():
        await scene.push(IMAGE)
        await scene.until_attempts(1)
        scene.destinations[EU].before_call = lambda _: None
        for _ in range(4):
            await scene.clock.sleepers(2)
            scene.clock.advance(60)
        await scene.clock.sleepers(2)
        assert (await scene.state(IMAGE.digest)).status is ReplicationState.IN_PROGRESS
        scene.clock.advance(61)
        await scene.until_attempts(2)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE


async def test_a_destination_that_asks_for_an_absurd_pause_gets_a_long_one(scene: Scene) -> None:
    def throttle(_: str) -> None:
        raise UpstreamThrottled(retry_after=999_999_999)

    scene.replicate_only_to(EU)
    scene.destinations[EU].before_call = throttle
    async with scene.working():
        await scene.push(IMAGE)
        await scene.until_attempts(1)
        await scene.clock.sleepers(2)
        scene.clock.advance(900)
        await scene.until_attempts(2)


async def test_a_clock_that_is_set_back_does_not_keep_jobs_waiting(scene: Scene) -> None:
    def be_down(_: str) -> None:
        raise UpstreamUnavailable

    scene.replicate_only_to(EU)
    scene.destinations[EU].before_call = be_down
    async with scene.working():
        await scene.push(IMAGE)
        await scene.until_attempts(1)
        scene.destinations[EU].before_call = lambda _: None
        await scene.clock.sleepers(2)
        scene.clock.set_wall_clock(scene.clock.now() - 4 * 365 * 86400)
        scene.clock.advance(30)
        await scene.until_attempts(2)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE


async def test_a_push_during_the_copy_has_the_image_sent_once_more(scene: Scene) -> None:
    pushed_again = asyncio.Event()

    async def push_again() -> None:
        await scene.push(IMAGE)
        pushed_again.set()

    scene.replicate_only_to(EU)
    held = _Held(scene, EU, f"deliver {IMAGE.digest}")
    async with scene.working(), asyncio.TaskGroup() as group:
        await scene.push(IMAGE)
        await held.reached.wait()
        group.create_task(push_again())
        await pushed_again.wait()
        held.release.set()
        await scene.until_attempts(2)
    assert scene.destinations[EU].count(f"deliver {IMAGE.digest}") == 2
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE


async def test_a_tag_that_moves_while_it_is_being_set_ends_at_the_newer_image(scene: Scene) -> None:
    scene.replicate_only_to(EU)
    destination = scene.destinations[EU]
    held = _Held(scene, EU, f"deliver {IMAGE.digest}")
    async with scene.working():
        await scene.push(IMAGE, "latest")
        await held.reached.wait()
        await scene.push(OTHER, "latest")
        while not destination.count(f"offer {OTHER.digest}"):  # noqa: ASYNC110 - calls set no event
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)  # long enough for the newer image to overtake, if it could
        held.release.set()
        await scene.until_attempts(4)
    assert {tag: one.digest for tag, one in destination.repository(REPOSITORY).tags.items()} == {"latest": OTHER.digest}


@pytest.mark.parametrize("answer", [None, UpstreamDenied(), UpstreamContent()])
async def test_a_destination_that_answers_again_gets_all_its_images_at_once(
    scene: Scene, answer: UpstreamError | None
) -> None:
    images = [build_image([b"%d" % number]) for number in range(5)]
    destination = scene.destinations[EU]
    scene.replicate_only_to(EU)

    def be_down(_: str) -> None:
        raise UpstreamUnavailable

    def answer_the_first(call: str) -> None:
        if answer is not None and images[0].digest in call:
            raise answer

    destination.before_call = be_down
    async with scene.working(WorkerLimits(images_per_destination=4, blobs_per_image=1)):
        await scene.push(images[0])
        for attempts in range(1, 6):
            await scene.until_attempts(attempts)
            await scene.clock.sleepers(2)
            if attempts == 5:
                for image in images[1:]:
                    await scene.push(image)
                destination.before_call = answer_the_first
                destination.most_at_once = 0
            scene.clock.advance(60)
        await scene.until_attempts(10)
    assert destination.most_at_once > 1


# Several workers


async def test_two_workers_share_the_work_and_do_nothing_twice(scene: Scene) -> None:
    images = [build_image([b"%d" % number]) for number in range(12)]
    for image in images:
        await scene.push(image)
    async with scene.working(), scene.working():
        await scene.until_attempts(24)
    for destination in scene.destinations.values():
        assert destination.count("deliver") == 12
    assert scene.recorder.outcomes() == ["complete"] * 24


async def test_a_worker_that_lost_its_lease_leaves_the_job_to_the_other(scene: Scene) -> None:
    scene.replicate_only_to(EU)
    held = _Held(scene, EU, f"offer {IMAGE.digest}")
    async with scene.working():
        await scene.push(IMAGE)
        await held.reached.wait()
        # As if the process had stood still for so long that its lease ran out and another worker took the job.
        now = scene.clock.now()
        taken = await scene.database.write(
            lambda: jobs.lease(JobKind.REPLICATE, "another", now + 31, now + 300, 10, str(EU))
        )
        await scene.clock.sleepers(2)
        scene.clock.advance(10)
        await held.left.wait()
        assert scene.recorder.attempts == []
    (mine,) = taken
    assert await scene.database.write(lambda: jobs.complete(mine, now))


async def test_a_standstill_does_not_make_a_worker_take_its_own_job_twice(scene: Scene) -> None:
    scene.replicate_only_to(EU)
    held = _Held(scene, EU, f"offer {IMAGE.digest}")
    async with scene.working(WorkerLimits(renew_every=1000)):
        await scene.push(IMAGE)
        await held.reached.wait()
        await scene.clock.sleepers(2)
        scene.clock.advance(300)
        await scene.clock.sleepers(2)
        held.release.set()
        await scene.until_attempts(1)
    assert scene.destinations[EU].count(f"offer {IMAGE.digest}") == 1
    assert scene.recorder.outcomes() == ["complete"]


# A database that fails


async def test_jobs_are_found_again_after_the_database_failed(scene: Scene) -> None:
    await scene.push(IMAGE)
    failing = _FailingDatabase(scene.database)
    scene.registry.database = failing
    failing.fails = True
    async with scene.working():
        await scene.clock.sleepers(2)
        failing.fails = False
        scene.clock.advance(5)
        await scene.until_attempts(2)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE


async def test_an_outcome_that_could_not_be_stored_is_found_out_again(scene: Scene) -> None:
    failing = _FailingDatabase(scene.database)
    scene.registry.database = failing
    scene.replicate_only_to(EU)

    def fail_afterwards(call: str) -> None:
        failing.fails = call.startswith("deliver")

    scene.destinations[EU].before_call = fail_afterwards
    await scene.push(IMAGE)
    async with scene.working():
        await scene.until_attempts(1)
        assert scene.recorder.replications == []
        failing.fails = False
        scene.destinations[EU].before_call = lambda _: None
        await scene.clock.sleepers(2)
        scene.clock.advance(31)
        await scene.until_attempts(2)
    assert len(scene.recorder.replications) == 1
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE


# Stopping


async def test_a_stop_breaks_off_what_outlasts_the_grace_and_starts_nothing_more(scene: Scene) -> None:
    scene.replicate_only_to(EU)
    held = _Held(scene, EU, f"offer {IMAGE.digest}")
    async with scene.working() as worker, asyncio.TaskGroup() as group:
        await scene.push(IMAGE)
        await held.reached.wait()
        stopping = group.create_task(worker.stop(5))
        await scene.clock.sleepers(3)
        await scene.push(OTHER)
        scene.clock.advance(5)
        await stopping
        (queue,) = await scene.status.queues()
        assert (queue.queued, queue.running) == (2, 0)
    assert scene.destinations[EU].count("deliver") == 0
    assert scene.destinations[EU].count(f"offer {OTHER.digest}") == 0


async def test_a_worker_without_work_stops_at_once(scene: Scene) -> None:
    async with scene.working() as worker:
        await scene.clock.sleepers(2)
        await worker.stop(60)


# What is told


async def test_the_status_tells_what_waits_and_why(scene: Scene) -> None:
    def refuse(_: str) -> None:
        raise UpstreamRefused("the destination: answered 400 MANIFEST_INVALID")

    scene.replicate_only_to(EU)
    scene.destinations[EU].before_call = refuse
    async with scene.working():
        await scene.push(IMAGE, "v1")
        await scene.until_attempts(2)
        await scene.clock.sleepers(2)
        scene.clock.advance(10)
        await scene.clock.sleepers(2)
        (queue,) = await scene.status.queues()
        errors = await scene.status.recent_errors()
    assert queue == replace(queue, destination=str(EU), queued=2, running=0, dead=0, oldest_seconds=10.0)
    assert {one.replication.tag for one in errors} == {None, "v1"}
    assert {one.replication.repository for one in errors} == {REPOSITORY}
    assert {one.error for one in errors} == {"the destination: answered 400 MANIFEST_INVALID"}
    assert {one.attempts for one in errors} == {1}
    assert {(one.age_seconds, one.retry_in_seconds) for one in errors} == {(10.0, 20.0)}


async def _pending(scene: Scene, destination: NodeId) -> int:
    return sum(one.queued + one.running for one in await scene.status.queues() if one.destination == str(destination))


class _Held:
    """Has one call to a destination wait until it is released; `left` is set when the caller goes, either way."""

    def __init__(self, scene: Scene, destination: NodeId, call: str) -> None:
        self.reached = asyncio.Event()
        self.release = asyncio.Event()
        self.left = asyncio.Event()
        self._call = call
        target = scene.destinations[destination]
        target.hold = self._wait

    async def _wait(self, call: str) -> None:
        if call == self._call:
            self.reached.set()
            try:
                await self.release.wait()
            finally:
                self.left.set()


class _FailingDatabase:
    """A database that is full whenever a test says so."""

    def __init__(self, behind: Database) -> None:
        self._behind = behind
        self.fails = False

    async def open(self) -> None:
        await self._behind.open()

    async def close(self) -> None:
        await self._behind.close()

    async def read(self, steps: Steps[T]) -> T:
        return await self._behind.read(steps)

    async def write(self, body: Body[T]) -> T:
        if self.fails:
            raise StorageFull
        return await self._behind.write(body)


# How much it costs to look


@pytest.mark.parametrize("band", [jobs.ALL_PRIORITIES, jobs.PUSHES, jobs.BACKGROUND])
async def test_leasing_reads_the_queue_from_its_front_however_many_wait(tmp_path: Path, band: jobs.Band) -> None:
    statements: list[tuple[str, dict[str, object]]] = []
    steps = jobs.lease_replication("me", 10.0, 20.0, 4, str(EU), band)
    execution = next(steps)
    with contextlib.suppress(StopIteration):
        while True:
            written = execution.statement.sqlite
            statements.append((written.text, dict(written.named(execution.parameters))))
            execution = steps.send([])
    database = SqliteDatabase(tmp_path / "metadata.db")
    await database.open()
    await database.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "metadata.db")) as rows:
        for text, parameters in statements:
            plan = [row[3] for row in rows.execute(f"explain query plan {text}", parameters)]
            assert not [step for step in plan if "SCAN jobs" in step], plan
            assert any("jobs_due" in step for step in plan), plan
