"""How many jobs wait where, for how long, and which wait too long: what metrics and status show of replication."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from replicator.core.jobs import JobKind, JobState, Priority
from replicator.storage.metadata.schema import backfills, jobs, replication_status
from replicator.storage.metadata.statement import Statement, Steps

MAX_OVERDUE = 1000
"""Overdue jobs of a lane that are looked at: more would cost time and tell nothing new."""


@dataclass(frozen=True, slots=True)
class WaitingJobs:
    """The jobs of one lane, urgent or not, in one state; `oldest` is when the first was caused (Unix seconds)."""

    kind: JobKind
    lane: str
    is_background: bool
    state: JobState
    count: int
    oldest: float

    @property
    def priority_class(self) -> str:
        """`push` for what a push caused, `background` for what waits for all pushes."""
        return "background" if self.is_background else "push"


_BY_LANE = Statement(
    sa.select(jobs.c.kind, jobs.c.lane, jobs.c.priority, jobs.c.state, sa.func.count(), sa.func.min(jobs.c.enqueued_at))
    .group_by(jobs.c.kind, jobs.c.lane, jobs.c.priority, jobs.c.state)
    .order_by(jobs.c.kind, jobs.c.lane, jobs.c.priority, jobs.c.state)
)
_OVERDUE = Statement(
    sa.select(jobs.c.enqueued_at, jobs.c.payload)
    .where(
        jobs.c.kind == JobKind.REPLICATE.value,
        jobs.c.lane == sa.bindparam("of_lane"),
        jobs.c.state != JobState.DEAD.value,
        jobs.c.priority < int(Priority.BACKGROUND),
        jobs.c.enqueued_at < sa.bindparam("before"),
    )
    .limit(MAX_OVERDUE)
)
# Written out, since a partial index is not found for a parameter.
_SUPERSEDED = Statement(
    sa.select(replication_status.c.destination, sa.func.count())
    .where(replication_status.c.failure_code == sa.literal_column("'Superseded'"))
    .group_by(replication_status.c.destination)
    .order_by(replication_status.c.destination)
)
_BACKFILLS = Statement(
    sa.select(backfills.c.state, sa.func.count()).group_by(backfills.c.state).order_by(backfills.c.state)
)


def by_lane() -> Steps[list[WaitingJobs]]:
    """Return the number of jobs by kind, lane, urgency and state, in order."""
    rows = yield from _BY_LANE()
    found: dict[tuple[str, str, bool, str], WaitingJobs] = {}
    for kind, lane, priority, state, count, oldest in rows:
        place = (kind, lane, priority >= Priority.BACKGROUND, state)
        known = found.get(place)
        if known is not None:
            count, oldest = count + known.count, min(oldest, known.oldest)  # noqa: PLW2901 - two rows become one
        found[place] = WaitingJobs(JobKind(kind), lane, place[2], JobState(state), count, oldest)
    return list(found.values())


def overdue(lane: str, before: float) -> Steps[list[tuple[str, float]]]:
    """Return rule and cause's time of jobs for pushes that were caused before `before`, at most MAX_OVERDUE."""
    rows = yield from _OVERDUE(of_lane=lane, before=before)
    return [(str(json.loads(payload).get("rule")), enqueued_at) for enqueued_at, payload in rows]


def superseded() -> Steps[dict[str, int]]:
    """Return how many images lost their tag to a newer push before they were sent, by destination."""
    rows = yield from _SUPERSEDED()
    return {row[0]: int(row[1]) for row in rows}


def backfill_states() -> Steps[dict[str, int]]:
    """Return how many backfills are in which state, those that are over included until they are forgotten."""
    rows = yield from _BACKFILLS()
    return {row[0]: int(row[1]) for row in rows}
