"""Job rows: the outbox that use cases write and workers lease from.

The key makes a job unique. Enqueuing one that is leased raises its generation, so that the worker's `complete` puts it back
instead of removing it: what was asked for while it ran is not lost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.jobs import Job, JobKind, JobState, NewJob
from replicator.storage.metadata.schema import jobs
from replicator.storage.metadata.statement import Row, Statement, Steps


@dataclass(frozen=True, slots=True)
class LeasedJob:
    """A job with the generation its lease was taken at."""

    job: Job
    generation: int


@dataclass(frozen=True, slots=True)
class JobCount:
    """How many jobs of a kind are in a state, and since when the oldest waits (Unix seconds)."""

    kind: JobKind
    state: JobState
    count: int
    oldest: float


_new = insert(jobs).values(
    kind=sa.bindparam("kind"),
    key=sa.bindparam("key"),
    payload=sa.bindparam("payload"),
    priority=sa.bindparam("priority"),
    state=JobState.QUEUED.value,
    attempts=0,
    generation=1,
    enqueued_at=sa.bindparam("now"),
    not_before=sa.bindparam("now"),
)
_ENQUEUE = Statement(
    _new.on_conflict_do_update(
        index_elements=["kind", "key"],
        set_={
            "payload": _new.excluded.payload,
            "priority": _new.excluded.priority,
            "generation": jobs.c.generation + 1,
            "not_before": _new.excluded.not_before,
            "attempts": 0,
            "enqueued_at": sa.case(
                (jobs.c.state == JobState.QUEUED.value, jobs.c.enqueued_at), else_=_new.excluded.enqueued_at
            ),
            "state": sa.case(
                (jobs.c.state == JobState.LEASED.value, jobs.c.state), else_=JobState.QUEUED.value
            ),
        },
    )
)
_COLUMNS = (
    jobs.c.id,
    jobs.c.kind,
    jobs.c.key,
    jobs.c.payload,
    jobs.c.priority,
    jobs.c.attempts,
    jobs.c.enqueued_at,
    jobs.c.lease_owner,
    jobs.c.generation,
)
_available = sa.or_(
    sa.and_(jobs.c.state == JobState.QUEUED.value, jobs.c.not_before <= sa.bindparam("now")),
    sa.and_(jobs.c.state == JobState.LEASED.value, jobs.c.lease_until <= sa.bindparam("now")),
)
_LEASE = Statement(
    sa.update(jobs)
    .where(
        jobs.c.id.in_(
            sa.select(jobs.c.id)
            .where(jobs.c.kind == sa.bindparam("job_kind"), _available)
            .order_by(jobs.c.priority, jobs.c.not_before, jobs.c.id)
            .limit(sa.bindparam("limit", type_=sa.Integer))
            .with_for_update(skip_locked=True)
        )
    )
    .values(
        state=JobState.LEASED.value,
        attempts=jobs.c.attempts + 1,
        lease_owner=sa.bindparam("owner"),
        lease_until=sa.bindparam("until"),
    )
    .returning(*_COLUMNS)
)
_mine = sa.and_(
    jobs.c.id == sa.bindparam("job"),
    jobs.c.lease_owner == sa.bindparam("owner"),
    jobs.c.state == JobState.LEASED.value,
)
_COMPLETE = Statement(
    sa.delete(jobs).where(_mine, jobs.c.generation == sa.bindparam("leased")).returning(jobs.c.id)
)
_RELEASE = Statement(
    sa.update(jobs)
    .where(_mine)
    .values(
        state=sa.bindparam("next"),
        not_before=sa.bindparam("retry_at"),
        last_error=sa.bindparam("error"),
        lease_owner=None,
        lease_until=None,
    )
)
_RENEW = Statement(sa.update(jobs).where(_mine).values(lease_until=sa.bindparam("until")).returning(jobs.c.id))
_NEXT = Statement(
    sa.select(sa.func.min(sa.case((jobs.c.state == JobState.LEASED.value, jobs.c.lease_until), else_=jobs.c.not_before)))
    .where(jobs.c.kind == sa.bindparam("job_kind"), jobs.c.state != JobState.DEAD.value)
)
_COUNTS = Statement(
    sa.select(jobs.c.kind, jobs.c.state, sa.func.count(), sa.func.min(jobs.c.enqueued_at)).group_by(
        jobs.c.kind, jobs.c.state
    )
)


def enqueue(job: NewJob, now: float) -> Steps[None]:
    """Store a job, or renew the one with its key: a queued one is due at once, a leased one runs again afterwards."""
    yield from _ENQUEUE(
        kind=job.kind.value, key=job.key, payload=json.dumps(job.payload), priority=job.priority, now=now
    )


def lease(kind: JobKind, owner: str, now: float, until: float, limit: int) -> Steps[list[LeasedJob]]:
    """Take up to `limit` due jobs, or ones whose lease has run out, most urgent first."""
    rows = yield from _LEASE(job_kind=kind.value, owner=owner, now=now, until=until, limit=limit)
    return sorted((_leased(row) for row in rows), key=lambda leased: (leased.job.priority, leased.job.id))


def _leased(row: Row) -> LeasedJob:
    job_id, kind, key, payload, priority, attempts, enqueued_at, owner, generation = row
    job = Job(job_id, JobKind(kind), key, json.loads(payload), priority, attempts, enqueued_at, owner)
    return LeasedJob(job, generation)


def renew(leased: LeasedJob, until: float) -> Steps[bool]:
    """Hold on to a job that takes long; return False when the lease was lost."""
    rows = yield from _RENEW(job=leased.job.id, owner=leased.job.lease_owner, until=until)
    return bool(rows)


def complete(leased: LeasedJob, now: float) -> Steps[bool]:
    """Remove a job that is done; return False when it was asked for again meanwhile and so was put back."""
    rows = yield from _COMPLETE(job=leased.job.id, owner=leased.job.lease_owner, leased=leased.generation)
    if rows:
        return True
    yield from release(leased, now, None)
    return False


def release(leased: LeasedJob, retry_at: float, error: str | None) -> Steps[None]:
    """Put a job back, due at `retry_at`."""
    yield from _settle(leased, JobState.QUEUED, retry_at, error)


def bury(leased: LeasedJob, now: float, error: str) -> Steps[None]:
    """Keep a job that failed for good, with its error."""
    yield from _settle(leased, JobState.DEAD, now, error)


def _settle(leased: LeasedJob, state: JobState, retry_at: float, error: str | None) -> Steps[None]:
    yield from _RELEASE(
        job=leased.job.id, owner=leased.job.lease_owner, next=state.value, retry_at=retry_at, error=error
    )


def next_due(kind: JobKind) -> Steps[float | None]:
    """Return when the next job of a kind is due or its lease runs out (Unix seconds), if there is one."""
    rows = yield from _NEXT(job_kind=kind.value)
    return None if rows[0][0] is None else float(rows[0][0])


def counts() -> Steps[list[JobCount]]:
    """Return the number of jobs by kind and state."""
    rows = yield from _COUNTS()
    return [JobCount(JobKind(kind), JobState(state), count, oldest) for kind, state, count, oldest in rows]
