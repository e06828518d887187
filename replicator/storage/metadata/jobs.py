"""Job rows: the outbox that use cases write and workers lease from.

The key makes a job unique. Enqueuing one that is leased raises its generation, so that the worker's `complete` puts it
back instead of removing it: what was asked for while it ran is not lost.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.jobs import Job, JobKind, JobState, NewJob, Priority
from replicator.storage.metadata.schema import jobs
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping


_LOWEST, _HIGHEST = 1 - 2**31, 2**31 - 1
_LAST_CHARACTER = "\U0010ffff"
"""Sorts after everything that a key can hold."""


@dataclass(frozen=True, slots=True)
class Band:
    """Priorities from `first` to `last`, both included."""

    first: int = _LOWEST
    last: int = _HIGHEST


ALL_PRIORITIES = Band()
PUSHES = Band(last=Priority.BACKGROUND - 1)
BACKGROUND = Band(first=Priority.BACKGROUND)
REPLICATION = (JobKind.REPLICATE, JobKind.DELETE_REPLICA)
"""The kinds that share the lane of a destination."""


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


@dataclass(frozen=True, slots=True)
class LaneCount:
    """How many jobs of a lane are in a state, and since when the oldest waits (Unix seconds)."""

    lane: str
    state: JobState
    count: int
    oldest: float


@dataclass(frozen=True, slots=True)
class TroubledJob:
    """A job whose last attempt failed, when it is tried again, and why it failed. Times are Unix seconds."""

    key: str
    lane: str
    payload: Mapping[str, object]
    state: JobState
    attempts: int
    enqueued_at: float
    retry_at: float
    error: str


_new = insert(jobs).values(
    kind=sa.bindparam("kind"),
    key=sa.bindparam("key"),
    lane=sa.bindparam("lane"),
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
            "lane": _new.excluded.lane,
            "priority": sa.case(
                (
                    sa.and_(jobs.c.state != JobState.DEAD.value, jobs.c.priority < _new.excluded.priority),
                    jobs.c.priority,
                ),
                else_=_new.excluded.priority,
            ),
            "generation": jobs.c.generation + 1,
            "not_before": _new.excluded.not_before,
            "attempts": 0,
            "enqueued_at": sa.case(
                (jobs.c.state == JobState.QUEUED.value, jobs.c.enqueued_at), else_=_new.excluded.enqueued_at
            ),
            "state": sa.case((jobs.c.state == JobState.LEASED.value, jobs.c.state), else_=JobState.QUEUED.value),
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


def _of(*, lane: bool) -> sa.ColumnElement[bool]:
    """Restrict to a kind, and to one lane of it."""
    kind = jobs.c.kind == sa.bindparam("job_kind")
    return sa.and_(kind, jobs.c.lane == sa.bindparam("job_lane")) if lane else kind


_due = sa.and_(jobs.c.state == JobState.QUEUED.value, jobs.c.not_before <= sa.bindparam("now"))
_limit = sa.bindparam("limit", type_=sa.Integer)


def _lease(wanted: sa.Select[tuple[int]]) -> Statement:
    # Run once, whatever PostgreSQL plans: a subquery that it runs per row leases past the limit.
    chosen = wanted.cte("chosen")
    return Statement(
        sa.update(jobs)
        .where(jobs.c.id.in_(sa.select(chosen.c.id)))
        .values(
            state=JobState.LEASED.value,
            attempts=jobs.c.attempts + 1,
            lease_owner=sa.bindparam("owner"),
            lease_until=sa.bindparam("until"),
        )
        .returning(*_COLUMNS)
    )


def _due_ones(*, lane: bool) -> sa.Select[tuple[int]]:
    """Return the most urgent due jobs of one kind."""
    return (
        sa.select(jobs.c.id)
        .where(_of(lane=lane), _due)
        .order_by(jobs.c.priority, jobs.c.not_before, jobs.c.id)
        .limit(_limit)
        .with_for_update(skip_locked=True)
    )


def _candidates(kind: JobKind) -> sa.Select[tuple[int, int, float]]:
    """Return the most urgent due jobs of one kind in a lane, which one index gives in order."""
    band = jobs.c.priority.between(sa.bindparam("first"), sa.bindparam("last"))
    found = (
        sa.select(jobs.c.id, jobs.c.priority, jobs.c.not_before)
        .where(jobs.c.kind == kind.value, jobs.c.lane == sa.bindparam("job_lane"), _due, band)
        .order_by(jobs.c.priority, jobs.c.not_before, jobs.c.id)
        .limit(_limit)
        .with_for_update(skip_locked=True)
        .subquery()
    )
    return sa.select(found.c.id, found.c.priority, found.c.not_before)


def _due_replication() -> sa.Select[tuple[int]]:
    """Return the most urgent due copies and deletions of a lane."""
    found = sa.union_all(*map(_candidates, REPLICATION)).subquery()
    return sa.select(found.c.id).order_by(found.c.priority, found.c.not_before, found.c.id).limit(_limit)


def _expire(*, lane: bool) -> Statement:
    expired = sa.and_(jobs.c.state == JobState.LEASED.value, jobs.c.lease_until <= sa.bindparam("now"))
    return Statement(
        sa.update(jobs)
        .where(_of(lane=lane), expired)
        .values(state=JobState.QUEUED.value, lease_owner=None, lease_until=None)
    )


_LEASE, _LEASE_IN_LANE = _lease(_due_ones(lane=False)), _lease(_due_ones(lane=True))
_LEASE_REPLICATION = _lease(_due_replication())
_EXPIRE, _EXPIRE_IN_LANE = _expire(lane=False), _expire(lane=True)
_in_lane = _of(lane=True)
_queued = sa.and_(_in_lane, jobs.c.state == JobState.QUEUED.value)
# Each of these finds its answer at one place of the index, however many jobs wait.
_NEXT_PRIORITY = Statement(
    sa.select(sa.func.min(jobs.c.priority)).where(_queued, jobs.c.priority > sa.bindparam("above"))
)
_NEXT_DUE = Statement(
    sa.select(sa.func.min(jobs.c.not_before)).where(_queued, jobs.c.priority == sa.bindparam("of_priority"))
)
_NEXT_EXPIRY = Statement(
    sa.select(sa.func.min(jobs.c.lease_until)).where(_in_lane, jobs.c.state == JobState.LEASED.value)
)
_FIRST_LANE = Statement(sa.select(sa.func.min(jobs.c.lane)).where(_of(lane=False)))
_NEXT_LANE = Statement(sa.select(sa.func.min(jobs.c.lane)).where(_of(lane=False), jobs.c.lane > sa.bindparam("after")))
_FREE_ALL = Statement(
    sa.update(jobs)
    .where(jobs.c.state == JobState.LEASED.value)
    .values(state=JobState.QUEUED.value, not_before=sa.bindparam("now"), lease_owner=None, lease_until=None)
)
_IS_PENDING = Statement(
    sa.select(jobs.c.id).where(
        jobs.c.kind == sa.bindparam("job_kind"),
        jobs.c.key == sa.bindparam("job_key"),
        jobs.c.state != JobState.DEAD.value,
    )
)
_GIVE_UP = Statement(
    sa.update(jobs)
    .where(jobs.c.lease_owner == sa.bindparam("owner"), jobs.c.state == JobState.LEASED.value)
    .values(state=JobState.QUEUED.value, not_before=sa.bindparam("now"), lease_owner=None, lease_until=None)
)
_later: sa.BindParameter[float] = sa.bindparam("horizon")
_PULL_IN = Statement(
    sa.update(jobs)
    .where(_of(lane=False), jobs.c.state == JobState.QUEUED.value, jobs.c.not_before > _later)
    .values(not_before=sa.bindparam("now"))
)
_CUT_SHORT = Statement(
    sa.update(jobs)
    .where(_of(lane=False), jobs.c.state == JobState.LEASED.value, jobs.c.lease_until > _later)
    .values(lease_until=sa.bindparam("now"))
)
_mine = sa.and_(
    jobs.c.id == sa.bindparam("job"),
    jobs.c.lease_owner == sa.bindparam("owner"),
    jobs.c.state == JobState.LEASED.value,
)
_COMPLETE = Statement(sa.delete(jobs).where(_mine, jobs.c.generation == sa.bindparam("leased")).returning(jobs.c.id))
_RELEASE = Statement(
    sa.update(jobs)
    .where(_mine)
    .values(
        state=JobState.QUEUED.value,
        # Who asked for it again while it ran need not wait for what that run made of it.
        not_before=sa.case(
            (jobs.c.generation == sa.bindparam("leased"), sa.bindparam("retry_at", type_=sa.Double)),
            else_=jobs.c.not_before,
        ),
        last_error=sa.bindparam("error"),
        lease_owner=None,
        lease_until=None,
    )
)
_BURY = Statement(
    sa.update(jobs)
    .where(_mine)
    .values(
        state=sa.case((jobs.c.generation == sa.bindparam("leased"), JobState.DEAD.value), else_=JobState.QUEUED.value),
        not_before=sa.bindparam("now"),
        last_error=sa.bindparam("error"),
        lease_owner=None,
        lease_until=None,
    )
)
_RENEW = Statement(sa.update(jobs).where(_mine).values(lease_until=sa.bindparam("until")).returning(jobs.c.id))
_PAYLOAD = Statement(sa.select(jobs.c.payload).where(jobs.c.id == sa.bindparam("job")))
_waiting = sa.and_(_queued, jobs.c.not_before > sa.bindparam("now"))
_MAKE_DUE = Statement(
    sa.update(jobs)
    .where(_waiting, jobs.c.key >= sa.bindparam("first_key"), jobs.c.key <= sa.bindparam("last_key"))
    .values(not_before=sa.bindparam("now"))
    .returning(jobs.c.id)
)
_MAKE_DUE_AFTER = Statement(
    sa.update(jobs).where(_waiting, jobs.c.last_error == sa.bindparam("error")).values(not_before=sa.bindparam("now"))
)
_PULL_FORWARD = Statement(
    sa.update(jobs).where(_waiting, jobs.c.not_before <= sa.bindparam("until")).values(not_before=sa.bindparam("now"))
)
_COUNTS = Statement(
    sa.select(jobs.c.kind, jobs.c.state, sa.func.count(), sa.func.min(jobs.c.enqueued_at)).group_by(
        jobs.c.kind, jobs.c.state
    )
)
_LANE_COUNTS = Statement(
    sa.select(jobs.c.lane, jobs.c.state, sa.func.count(), sa.func.min(jobs.c.enqueued_at))
    .where(jobs.c.kind == sa.bindparam("job_kind"))
    .group_by(jobs.c.lane, jobs.c.state)
    .order_by(jobs.c.lane, jobs.c.state)
)
_TROUBLED = Statement(
    sa.select(
        jobs.c.key,
        jobs.c.lane,
        jobs.c.payload,
        jobs.c.state,
        jobs.c.attempts,
        jobs.c.enqueued_at,
        jobs.c.not_before,
        jobs.c.last_error,
    )
    .where(jobs.c.kind == sa.bindparam("job_kind"), jobs.c.last_error.is_not(None))
    .order_by(jobs.c.enqueued_at.desc(), jobs.c.id.desc())
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def enqueue(job: NewJob, now: float) -> Steps[None]:
    """Store a job, or renew the one with its key: a queued one is due at once, a leased one runs again afterwards."""
    yield from _ENQUEUE(
        kind=job.kind.value,
        key=job.key,
        lane=job.lane,
        payload=json.dumps(job.payload),
        priority=job.priority,
        now=now,
    )


def is_pending(kind: JobKind, key: str) -> Steps[bool]:
    """Tell whether a job with this key waits or runs."""
    return bool((yield from _IS_PENDING(job_kind=kind.value, job_key=key)))


def lease(
    kind: JobKind, owner: str, now: float, until: float, limit: int, lane: str | None = None
) -> Steps[list[LeasedJob]]:
    """Take up to `limit` due jobs of a kind (and lane), those whose lease has run out among them, most urgent first."""
    if lane is None:
        yield from _EXPIRE(job_kind=kind.value, now=now)
        rows = yield from _LEASE(job_kind=kind.value, owner=owner, now=now, until=until, limit=limit)
    else:
        yield from _EXPIRE_IN_LANE(job_kind=kind.value, job_lane=lane, now=now)
        rows = yield from _LEASE_IN_LANE(
            job_kind=kind.value, job_lane=lane, owner=owner, now=now, until=until, limit=limit
        )
    return sorted((_leased(row) for row in rows), key=lambda leased: (leased.job.priority, leased.job.id))


def lease_replication(
    owner: str, now: float, until: float, limit: int, lane: str, band: Band = ALL_PRIORITIES
) -> Steps[list[LeasedJob]]:
    """Take up to `limit` due jobs of a destination's lane, of both kinds and of some priorities, most urgent first."""
    for kind in REPLICATION:
        yield from _EXPIRE_IN_LANE(job_kind=kind.value, job_lane=lane, now=now)
    rows = yield from _LEASE_REPLICATION(
        job_lane=lane, owner=owner, now=now, until=until, limit=limit, first=band.first, last=band.last
    )
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
    """Put a job back, due at `retry_at`; at once when it was asked for again meanwhile."""
    yield from _RELEASE(
        job=leased.job.id, owner=leased.job.lease_owner, leased=leased.generation, retry_at=retry_at, error=error
    )


def payload_of(leased: LeasedJob) -> Steps[Mapping[str, object] | None]:
    """Return what a job asks for by now, which is not what it was leased for when it was asked for again."""
    rows = yield from _PAYLOAD(job=leased.job.id)
    return json.loads(rows[0][0]) if rows else None


def make_due(kind: JobKind, lane: str, now: float, repository: str | None = None) -> Steps[int]:
    """Make due at once what waits in a lane, or only what concerns a repository; return how many jobs there were.

    Keys begin with lane, repository and `:tag` or `@digest`.
    """
    starts = [f"{lane}|"] if repository is None else [f"{lane}|{repository}:", f"{lane}|{repository}@"]
    found = 0
    for start in starts:
        rows = yield from _MAKE_DUE(
            job_kind=kind.value, job_lane=lane, now=now, first_key=start, last_key=start + _LAST_CHARACTER
        )
        found += len(rows)
    return found


def make_due_after(kind: JobKind, lane: str, now: float, error: str) -> Steps[None]:
    """Make due at once what waits in a lane because of an error."""
    yield from _MAKE_DUE_AFTER(job_kind=kind.value, job_lane=lane, now=now, error=error)


def pull_forward(kind: JobKind, lane: str, now: float, until: float) -> Steps[None]:
    """Make due at once what waits in a lane until `until` or less."""
    yield from _PULL_FORWARD(job_kind=kind.value, job_lane=lane, now=now, until=until)


def bury(leased: LeasedJob, now: float, error: str) -> Steps[None]:
    """Keep a job that failed for good, with its error; put it back when it was asked for again meanwhile."""
    yield from _BURY(job=leased.job.id, owner=leased.job.lease_owner, leased=leased.generation, now=now, error=error)


def give_up(owner: str, now: float) -> Steps[None]:
    """Put back every job that `owner` has leased, due at once; what it last failed of stays noted."""
    yield from _GIVE_UP(owner=owner, now=now)


def free_all(now: float) -> Steps[None]:
    """Put back every leased job, due at once: for a database that no other process uses."""
    yield from _FREE_ALL(now=now)


def pull_in(kind: JobKind, now: float, horizon: float) -> Steps[None]:
    """Make due at once what waits, or is leased, until after `horizon`: a clock that ran ahead has put it there."""
    yield from _PULL_IN(job_kind=kind.value, now=now, horizon=horizon)
    yield from _CUT_SHORT(job_kind=kind.value, now=now, horizon=horizon)


def next_due(kind: JobKind, lane: str | None = None, band: Band = ALL_PRIORITIES) -> Steps[float | None]:
    """Return when the next job of a kind (and lane) is due or its lease runs out (Unix seconds), if there is one.

    Leases count whatever the priority of their job.
    """
    times: list[float] = []
    names = [lane] if lane is not None else (yield from lanes(kind))
    for name in names:
        times += yield from _next_due_in(kind, name, band)
    return min(times, default=None)


def _next_due_in(kind: JobKind, lane: str, band: Band) -> Steps[list[float]]:
    times: list[float] = []
    above = band.first - 1
    while True:
        ((priority,),) = yield from _NEXT_PRIORITY(job_kind=kind.value, job_lane=lane, above=above)
        if priority is None or priority > band.last:
            break
        ((due_at,),) = yield from _NEXT_DUE(job_kind=kind.value, job_lane=lane, of_priority=priority)
        times.append(float(due_at))
        above = priority
    ((expires_at,),) = yield from _NEXT_EXPIRY(job_kind=kind.value, job_lane=lane)
    return times if expires_at is None else [*times, float(expires_at)]


def lanes(kind: JobKind) -> Steps[list[str]]:
    """Return the lanes that hold jobs of a kind, in order."""
    found: list[str] = []
    ((lane,),) = yield from _FIRST_LANE(job_kind=kind.value)
    while lane is not None:
        found.append(lane)
        ((lane,),) = yield from _NEXT_LANE(job_kind=kind.value, after=lane)
    return found


def lane_counts(kind: JobKind) -> Steps[list[LaneCount]]:
    """Return the number of jobs of a kind by lane and state."""
    rows = yield from _LANE_COUNTS(job_kind=kind.value)
    return [LaneCount(lane, JobState(state), count, oldest) for lane, state, count, oldest in rows]


def troubled(kind: JobKind, limit: int) -> Steps[list[TroubledJob]]:
    """Return up to `limit` jobs whose last attempt failed, the youngest first."""
    rows = yield from _TROUBLED(job_kind=kind.value, limit=limit)
    return [TroubledJob(row[0], row[1], json.loads(row[2]), JobState(row[3]), *row[4:]) for row in rows]


def counts() -> Steps[list[JobCount]]:
    """Return the number of jobs by kind and state."""
    rows = yield from _COUNTS()
    return [JobCount(JobKind(kind), JobState(state), count, oldest) for kind, state, count, oldest in rows]
