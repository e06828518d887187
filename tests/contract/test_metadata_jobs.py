"""The outbox: what is enqueued is done at least once, and by one worker at a time, on either database."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.jobs import JobKind, JobState, NewJob, Priority
from replicator.storage.metadata import jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.jobs import LeasedJob
    from replicator.storage.metadata.statement import Steps

KIND = JobKind.REPLICATE


def a_job(key: str = "key", priority: int = Priority.PUSH, lane: str = "", **payload: object) -> NewJob:
    return NewJob(KIND, key, payload, priority, lane)


async def enqueue(database: Database, *new: NewJob, now: float = 100.0) -> None:
    def steps() -> Steps[None]:
        for job in new:
            yield from jobs.enqueue(job, now)

    await database.write(steps)


async def lease(
    database: Database, owner: str = "one", now: float = 100.0, limit: int = 10, lane: str | None = None
) -> list[LeasedJob]:
    return await database.write(lambda: jobs.lease(KIND, owner, now, now + 60, limit, lane))


async def lease_only(database: Database, owner: str = "one", now: float = 100.0) -> LeasedJob:
    (only,) = await lease(database, owner, now)
    return only


async def states(database: Database) -> list[tuple[JobState, int, float]]:
    return sorted((count.state, count.count, count.oldest) for count in await database.read(jobs.counts()))


def keys(leased: Sequence[LeasedJob]) -> list[str]:
    return [each.job.key for each in leased]


class TestLease:
    async def test_a_leased_job_is_what_was_enqueued(self, database: Database) -> None:
        await enqueue(database, a_job("key", 20, tag=None, nested={"é": [1, 2.5]}))
        leased = await lease_only(database, "worker")
        job = leased.job
        assert (job.kind, job.key, job.priority) == (KIND, "key", 20)
        assert (job.attempts, job.enqueued_at, job.lease_owner) == (1, 100.0, "worker")
        assert job.payload == {"tag": None, "nested": {"é": [1, 2.5]}}

    async def test_a_leased_job_is_not_leased_again(self, database: Database) -> None:
        await enqueue(database, a_job())
        await lease_only(database, "one")
        assert await lease(database, "two", now=159.9) == []

    async def test_the_most_urgent_go_first_and_never_more_than_asked_for(self, database: Database) -> None:
        await enqueue(database, a_job("slow", Priority.BACKGROUND), now=10.0)
        await enqueue(database, a_job("b"), now=20.0)
        await enqueue(database, a_job("a"), now=30.0)
        assert await lease(database, limit=0) == []
        assert keys(await lease(database, limit=2)) == ["b", "a"]
        assert keys(await lease(database, limit=2)) == ["slow"]

    async def test_a_job_is_due_at_its_time(self, database: Database) -> None:
        await enqueue(database, a_job())
        leased = await lease_only(database)
        await database.write(lambda: jobs.release(leased, 200.0, "refused"))
        assert await lease(database, now=199.9) == []
        again = await lease_only(database, now=200.0)
        assert again.job.attempts == 2

    async def test_a_lease_that_ran_out_is_taken_over(self, database: Database) -> None:
        await enqueue(database, a_job())
        lost = await lease_only(database, "one", now=100.0)
        assert await lease(database, "two", now=159.9) == []
        taken = await lease_only(database, "two", now=160.0)
        assert (taken.job.lease_owner, taken.job.attempts) == ("two", 2)
        assert not await database.write(lambda: jobs.renew(lost, 999.0))
        assert not await database.write(lambda: jobs.complete(lost, 161.0))
        await database.write(lambda: jobs.release(lost, 0.0, "late"))
        await database.write(lambda: jobs.bury(lost, 0.0, "late"))
        assert await lease(database, "three", now=161.0) == []
        assert await database.write(lambda: jobs.complete(taken, 162.0))
        assert await states(database) == []

    async def test_a_renewed_lease_lasts(self, database: Database) -> None:
        await enqueue(database, a_job())
        leased = await lease_only(database, "one", now=100.0)
        assert await database.write(lambda: jobs.renew(leased, 500.0))
        assert await lease(database, "two", now=499.0) == []
        assert await database.write(lambda: jobs.complete(leased, 499.0))

    async def test_what_a_worker_gives_up_is_due_at_once(self, database: Database) -> None:
        await enqueue(database, a_job("a"), a_job("b"))
        mine = await lease(database, "one", limit=1)
        others = await lease(database, "two", limit=1)
        await database.write(lambda: jobs.give_up("one", 101.0))
        assert keys(await lease(database, "three", now=101.0)) == keys(mine)
        assert await database.write(lambda: jobs.complete(others[0], 102.0))

    async def test_what_the_dead_had_leased_is_free_at_once(self, database: Database) -> None:
        await enqueue(database, a_job("a"), a_job("b"))
        dead = await lease(database, "dead", limit=2)
        await database.write(lambda: jobs.free_all(101.0))
        assert sorted(keys(await lease(database, "alive", now=101.0, limit=2))) == sorted(keys(dead))
        assert not await database.write(lambda: jobs.complete(dead[0], 102.0))

    async def test_what_a_clock_that_ran_ahead_put_off_is_pulled_in(self, database: Database) -> None:
        await enqueue(database, a_job("near", lane="x"), a_job("far", lane="y"), a_job("held", lane="z"), now=100.0)
        (near,) = await lease(database, lane="x")
        (far,) = await lease(database, lane="y")
        (held,) = await lease(database, lane="z")
        await database.write(lambda: jobs.release(near, 500.0, None))
        await database.write(lambda: jobs.release(far, 9e9, None))
        assert await database.write(lambda: jobs.renew(held, 9e9))
        await database.write(lambda: jobs.pull_in(KIND, 200.0, 1000.0))
        assert keys(await lease(database, "two", now=200.0)) == ["far", "held"]
        assert await lease(database, "two", now=259.0) == []

    async def test_lanes_are_apart(self, database: Database) -> None:
        await enqueue(database, a_job("a", lane="x"), a_job("b", lane="y"), a_job("c", lane="x"))
        assert keys(await lease(database, lane="x", limit=1)) == ["a"]
        assert await lease(database, lane="z") == []
        assert keys(await lease(database)) == ["b", "c"]


class TestOutbox:
    async def test_what_is_done_is_gone(self, database: Database) -> None:
        await enqueue(database, a_job())
        leased = await lease_only(database)
        assert await database.write(lambda: jobs.complete(leased, 101.0))
        assert await states(database) == []
        assert not await database.write(lambda: jobs.complete(leased, 102.0))

    async def test_a_queued_job_asked_for_again_is_one_job_due_at_once(self, database: Database) -> None:
        await enqueue(database, a_job(step=1), now=100.0)
        leased = await lease_only(database)
        await database.write(lambda: jobs.release(leased, 9000.0, "refused"))
        await enqueue(database, a_job(step=2, priority=5), now=200.0)
        again = await lease_only(database, now=200.0)
        assert (again.job.payload, again.job.priority, again.job.attempts) == ({"step": 2}, 5, 1)
        assert again.job.enqueued_at == 100.0  # the oldest cause that is not served yet

    async def test_a_leased_job_asked_for_again_runs_again_afterwards(self, database: Database) -> None:
        await enqueue(database, a_job(step=1), now=100.0)
        leased = await lease_only(database, now=100.0)
        await enqueue(database, a_job(step=2), now=110.0)
        assert await lease(database, "two", now=110.0) == []
        assert not await database.write(lambda: jobs.complete(leased, 120.0))
        again = await lease_only(database, "two", now=120.0)
        assert (again.job.payload, again.job.enqueued_at, again.job.attempts) == ({"step": 2}, 110.0, 1)
        assert await database.write(lambda: jobs.complete(again, 130.0))
        assert await states(database) == []

    async def test_a_job_asked_for_again_while_it_failed_for_good_runs_again(self, database: Database) -> None:
        """What was asked for while it ran is not lost, however that attempt ended."""
        await enqueue(database, a_job(step=1), now=100.0)
        leased = await lease_only(database, now=100.0)
        await enqueue(database, a_job(step=2), now=110.0)
        await database.write(lambda: jobs.bury(leased, 120.0, "denied"))
        again = await lease_only(database, now=120.0)
        assert again.job.payload == {"step": 2}

    async def test_a_buried_job_stays_with_its_error_until_it_is_asked_for_again(self, database: Database) -> None:
        await enqueue(database, a_job(step=1), now=100.0)
        leased = await lease_only(database)
        await database.write(lambda: jobs.bury(leased, 101.0, "denied"))
        assert await states(database) == [(JobState.DEAD, 1, 100.0)]
        (troubled,) = await database.read(jobs.troubled(KIND, 10))
        assert (troubled.key, troubled.state, troubled.error) == ("key", JobState.DEAD, "denied")
        assert await lease(database, now=1e9) == []
        await enqueue(database, a_job(step=2), now=200.0)
        again = await lease_only(database, now=200.0)
        assert (again.job.enqueued_at, again.job.attempts) == (200.0, 1)

    async def test_a_job_enqueued_in_steps_that_fail_never_was(self, database: Database) -> None:
        def steps() -> Steps[None]:
            yield from jobs.enqueue(a_job(), 100.0)
            raise ValueError("undone")

        with pytest.raises(ValueError, match="undone"):
            await database.write(steps)
        assert await states(database) == []


class TestPriorities:
    async def test_a_queued_job_keeps_the_more_urgent_of_its_priorities(self, database: Database) -> None:
        await enqueue(database, a_job(priority=Priority.PUSH), now=100.0)
        await enqueue(database, a_job(priority=Priority.BACKGROUND), now=101.0)
        assert (await lease_only(database, now=101.0)).job.priority == Priority.PUSH

    async def test_a_job_that_waits_in_the_background_becomes_urgent_with_a_push(self, database: Database) -> None:
        await enqueue(database, a_job(priority=Priority.BACKGROUND), now=100.0)
        await enqueue(database, a_job(priority=Priority.PUSH), now=101.0)
        assert (await lease_only(database, now=101.0)).job.priority == Priority.PUSH

    async def test_a_buried_job_has_the_priority_it_is_asked_for_with(self, database: Database) -> None:
        await enqueue(database, a_job(priority=Priority.PUSH))
        leased = await lease_only(database)
        await database.write(lambda: jobs.bury(leased, 101.0, "denied"))
        await enqueue(database, a_job(priority=Priority.BACKGROUND), now=102.0)
        assert (await lease_only(database, now=102.0)).job.priority == Priority.BACKGROUND


class TestDestinations:
    """The lane of a destination: copies and deletions, pushes and background work."""

    async def test_both_kinds_are_leased_by_urgency_and_within_a_band(self, database: Database) -> None:
        copies = [a_job("copy", 15, "x"), a_job("late copy", 55, "x"), a_job("elsewhere", 11, "y")]
        deletions = [
            NewJob(JobKind.DELETE_REPLICA, key, {}, priority, "x") for key, priority in (("gone", 12), ("old", 51))
        ]
        await enqueue(database, *copies, *deletions)
        assert keys(await lease_lane(database, "one", 1, jobs.PUSHES)) == ["gone"]
        assert keys(await lease_lane(database, "two", 9, jobs.PUSHES)) == ["copy"]
        assert keys(await lease_lane(database, "three", 1, jobs.BACKGROUND)) == ["old"]
        assert keys(await lease_lane(database, "four", 9)) == ["late copy"]

    async def test_leases_of_both_kinds_run_out(self, database: Database) -> None:
        await enqueue(database, a_job("copy", lane="x"), NewJob(JobKind.DELETE_REPLICA, "gone", {}, lane="x"))
        assert len(await lease_lane(database, "one", 9)) == 2
        assert await lease_lane(database, "two", 9, now=159.9) == []
        assert sorted(keys(await lease_lane(database, "two", 9, now=160.0))) == ["copy", "gone"]

    async def test_what_is_due_next_is_told_by_band(self, database: Database) -> None:
        await enqueue(database, a_job("push", Priority.PUSH, "x"), now=100.0)
        await enqueue(database, a_job("backfill", Priority.BACKGROUND, "x"), now=50.0)
        assert await database.read(jobs.next_due(KIND, "x", jobs.PUSHES)) == 100.0
        assert await database.read(jobs.next_due(KIND, "x", jobs.BACKGROUND)) == 50.0

    async def test_a_job_asked_for_again_while_it_failed_is_due_at_once(self, database: Database) -> None:
        await enqueue(database, a_job(step=1), now=100.0)
        leased = await lease_only(database)
        await enqueue(database, a_job(step=2), now=110.0)
        assert await database.read(jobs.payload_of(leased)) == {"step": 2}
        await database.write(lambda: jobs.release(leased, 9000.0, "refused"))
        assert (await lease_only(database, now=110.0)).job.payload == {"step": 2}

    async def test_an_operator_makes_due_what_waits_in_a_lane_or_for_a_repository(self, database: Database) -> None:
        names = ["x|team/app:v1", "x|team/app@sha256:0", "x|team/app-2:v1", "x|team:v1"]
        await enqueue(database, *(a_job(name, lane="x") for name in names), a_job("y|team/app:v1", lane="y"))
        for one in await lease(database):
            await database.write(partial(jobs.release, one, 9000.0, "refused"))
        assert await database.write(lambda: jobs.make_due(KIND, "x", 200.0, "team/app")) == 2
        assert sorted(keys(await lease(database, now=200.0))) == names[:2]
        assert await database.write(lambda: jobs.make_due(KIND, "x", 200.0)) == 2
        assert sorted(keys(await lease(database, now=200.0))) == sorted(names[2:])


async def lease_lane(
    database: Database, owner: str, limit: int, band: jobs.Band = jobs.ALL_PRIORITIES, now: float = 100.0
) -> list[LeasedJob]:
    return await database.write(lambda: jobs.lease_replication(owner, now, now + 60, limit, "x", band))


class TestNextDue:
    async def test_nothing_waits(self, database: Database) -> None:
        assert await database.read(jobs.next_due(KIND)) is None

    async def test_the_next_is_due_when_it_is_or_when_its_lease_runs_out(self, database: Database) -> None:
        await enqueue(database, a_job("a", lane="x"), now=100.0)
        assert await database.read(jobs.next_due(KIND)) == 100.0
        leased = await lease_only(database, now=100.0)
        assert await database.read(jobs.next_due(KIND)) == 160.0
        await enqueue(database, a_job("b", lane="y"), now=150.0)
        assert await database.read(jobs.next_due(KIND)) == 150.0
        assert await database.read(jobs.next_due(KIND, "x")) == 160.0
        await database.write(lambda: jobs.bury(leased, 151.0, "denied"))
        assert await database.read(jobs.next_due(KIND, "x")) is None


class TestCounts:
    async def test_jobs_are_counted_by_state_and_lane(self, database: Database) -> None:
        await enqueue(database, a_job("a", lane="x"), now=100.0)
        await enqueue(database, a_job("b", lane="y"), now=101.0)
        await enqueue(database, a_job("c", lane="y"), now=102.0)
        await lease(database, limit=1, now=200.0)
        assert await states(database) == [(JobState.LEASED, 1, 100.0), (JobState.QUEUED, 2, 101.0)]
        lanes = await database.read(jobs.lane_counts(KIND))
        assert [(count.lane, count.state, count.count, count.oldest) for count in lanes] == [
            ("x", JobState.LEASED, 1, 100.0),
            ("y", JobState.QUEUED, 2, 101.0),
        ]
        assert await database.read(jobs.lanes(KIND)) == ["x", "y"]


class TestManyWorkers:
    async def test_no_job_is_leased_twice(self, databases: tuple[Database, Database]) -> None:
        await enqueue(databases[0], *(a_job(f"{number:03}") for number in range(100)))

        async def work(database: Database, owner: str) -> list[str]:
            mine: list[str] = []
            while leased := await lease(database, owner, limit=3):
                mine += keys(leased)
            return mine

        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(work(databases[number % 2], f"worker {number}")) for number in range(6)]
        taken = [key for worker in workers for key in worker.result()]
        assert sorted(taken) == [f"{number:03}" for number in range(100)]

    async def test_every_job_is_done_once_however_leasing_enqueuing_and_completing_mix(
        self, databases: tuple[Database, Database]
    ) -> None:
        done: list[str] = []

        async def produce(database: Database, producer: int) -> None:
            for number in range(15):
                await database.write(partial(jobs.enqueue, a_job(f"{producer}-{number}"), 100.0))

        async def work(database: Database, owner: str) -> None:
            while len(done) < 30:
                for leased in await lease(database, owner, limit=2):
                    assert await database.write(partial(jobs.complete, leased, 101.0))
                    done.append(leased.job.key)

        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for number, database in enumerate(databases):
                group.create_task(produce(database, number))
                group.create_task(work(database, f"worker {number}"))
        assert sorted(done) == sorted(f"{producer}-{number}" for producer in range(2) for number in range(15))
        assert await states(databases[0]) == []


async def test_what_waits_because_of_one_error_can_be_made_due(database: Database) -> None:
    """Of one lane, and nothing that waits for another reason or is leased."""
    await enqueue(
        database, *(a_job(key, lane=lane) for key, lane in (("a", "eu"), ("b", "eu"), ("c", "ap"), ("d", "eu")))
    )
    failures = {"a": "unknown destination", "b": "refused", "c": "unknown destination", "d": None}
    for one in await lease(database):
        error = failures[one.job.key]
        if error is not None:
            await database.write(partial(jobs.release, one, 500.0, error))
    await database.write(lambda: jobs.make_due_after(KIND, "eu", 110.0, "unknown destination"))
    assert keys(await lease(database, now=110.0)) == ["a"]
    assert sorted(keys(await lease(database, now=500.0, owner="two"))) == ["a", "b", "c", "d"], "others wait as before"
