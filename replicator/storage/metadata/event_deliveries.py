"""Rows of deliveries: which events a sink is still to get, in the order that it is promised.

Deliveries to one sink stand in rows, such as one per image. Only the head of a row is queued or leased; the others wait
until it is settled, which lets the next one go on in the same transaction. So nobody has to look through those that
wait, and the head of a row is found at one place of an index. A dead delivery stands in no row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.event_sinks import DeliveryState
from replicator.storage.metadata.schema import event_deliveries as table
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery that one worker has: the how manieth attempt it is, and since when the event waits."""

    event: int
    sink: str
    row: str
    attempts: int
    enqueued_at: float
    owner: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as people see it; `retry_at` is when it is tried next, or when it was given up. Unix seconds."""

    event: int
    sink: str
    state: DeliveryState
    attempts: int
    enqueued_at: float
    retry_at: float
    error: str | None


@dataclass(frozen=True, slots=True)
class DeliveryCount:
    """How many deliveries to a sink are in a state, and since when the oldest waits (Unix seconds)."""

    sink: str
    state: DeliveryState
    count: int
    oldest: float


_sink = table.c.sink == sa.bindparam("to_sink")
_row = sa.and_(_sink, table.c.row_key == sa.bindparam("in_row"))
_queued = table.c.state == DeliveryState.QUEUED.value
_leased = table.c.state == DeliveryState.LEASED.value
_waiting = table.c.state == DeliveryState.WAITING.value
_dead = table.c.state == DeliveryState.DEAD.value
_limit = sa.bindparam("limit", type_=sa.Integer)
_FREE = {"lease_owner": None, "lease_until": None}

_HEADS = Statement(
    sa.select(table.c.event).where(_row, sa.or_(_queued, _leased)).limit(1),
)
_INSERT = Statement(
    sa.insert(table).values(
        event=sa.bindparam("event_place"),
        sink=sa.bindparam("to_sink"),
        row_key=sa.bindparam("in_row"),
        state=sa.bindparam("in_state"),
        attempts=0,
        enqueued_at=sa.bindparam("now"),
        not_before=sa.bindparam("now"),
    )
)
_due = (
    sa.select(table.c.event)
    .where(_sink, _queued, table.c.not_before <= sa.bindparam("now"))
    .order_by(table.c.not_before, table.c.event)
    .limit(_limit)
    .with_for_update(skip_locked=True)
    .cte("due")
)
_LEASE = Statement(
    sa.update(table)
    .where(_sink, table.c.event.in_(sa.select(_due.c.event)))
    .values(
        state=DeliveryState.LEASED.value,
        attempts=table.c.attempts + 1,
        lease_owner=sa.bindparam("owner"),
        lease_until=sa.bindparam("until"),
    )
    .returning(table.c.event, table.c.row_key, table.c.attempts, table.c.enqueued_at)
)
_EXPIRE = Statement(
    sa.update(table)
    .where(_sink, _leased, table.c.lease_until <= sa.bindparam("now"))
    .values(state=DeliveryState.QUEUED.value, **_FREE)
)
_FREE_ALL = Statement(sa.update(table).where(_leased).values(state=DeliveryState.QUEUED.value, **_FREE))
_GIVE_UP = Statement(
    sa.update(table)
    .where(_sink, _leased, table.c.lease_owner == sa.bindparam("owner"))
    .values(state=DeliveryState.QUEUED.value, attempts=table.c.attempts - 1, **_FREE)
)
_mine = sa.and_(
    _sink, table.c.event == sa.bindparam("event_place"), _leased, table.c.lease_owner == sa.bindparam("owner")
)
_DONE = Statement(sa.delete(table).where(_mine).returning(table.c.event))
_RELEASE = Statement(
    sa.update(table)
    .where(_mine)
    .values(
        state=DeliveryState.QUEUED.value,
        not_before=sa.bindparam("retry_at"),
        last_error=sa.bindparam("error"),
        **_FREE,
    )
    .returning(table.c.event)
)
_BURY = Statement(
    sa.update(table)
    .where(_mine)
    .values(state=DeliveryState.DEAD.value, not_before=sa.bindparam("now"), last_error=sa.bindparam("error"), **_FREE)
    .returning(table.c.event)
)
_FOLLOWING = Statement(sa.select(table.c.event).where(_row, _waiting).order_by(table.c.event).limit(_limit))
_NEXT = Statement(sa.select(sa.func.min(table.c.event)).where(_row, _waiting))
_PROMOTE = Statement(
    sa.update(table)
    .where(_sink, table.c.event == sa.bindparam("event_place"))
    .values(state=DeliveryState.QUEUED.value, not_before=sa.bindparam("now"))
)
_TAKE = Statement(sa.delete(table).where(_sink, table.c.event == sa.bindparam("event_place"), _waiting))
_NEXT_DUE = Statement(sa.select(sa.func.min(table.c.not_before)).where(_sink, _queued))
_NEXT_EXPIRY = Statement(sa.select(sa.func.min(table.c.lease_until)).where(_sink, _leased))
_MAKE_DUE = Statement(
    sa.update(table)
    .where(_sink, _queued, table.c.not_before > sa.bindparam("now"))
    .values(not_before=sa.bindparam("now"))
    .returning(table.c.event)
)
_horizon: sa.BindParameter[float] = sa.bindparam("horizon", type_=sa.Double)
_PULL_IN = Statement(
    sa.update(table).where(_queued, table.c.not_before > _horizon).values(not_before=sa.bindparam("now"))
)
_CUT_SHORT = Statement(
    sa.update(table).where(_leased, table.c.lease_until > _horizon).values(lease_until=sa.bindparam("now"))
)
_COUNTS = Statement(
    sa.select(table.c.sink, table.c.state, sa.func.count(), sa.func.min(table.c.enqueued_at))
    .group_by(table.c.sink, table.c.state)
    .order_by(table.c.sink, table.c.state)
)
_COLUMNS = (
    table.c.event,
    table.c.sink,
    table.c.state,
    table.c.attempts,
    table.c.enqueued_at,
    table.c.not_before,
    table.c.last_error,
)
_OF_EVENT = Statement(sa.select(*_COLUMNS).where(table.c.event == sa.bindparam("event_place")).order_by(table.c.sink))
_after = sa.and_(_dead, table.c.event > sa.bindparam("after", type_=sa.BigInteger))
_DEAD = Statement(sa.select(*_COLUMNS).where(_after).order_by(table.c.event, table.c.sink).limit(_limit))
_DEAD_OF = Statement(sa.select(*_COLUMNS).where(_sink, _after).order_by(table.c.event).limit(_limit))
_FIND_DEAD = Statement(sa.select(table.c.row_key).where(_sink, table.c.event == sa.bindparam("event_place"), _dead))
_REVIVE = Statement(
    sa.update(table)
    .where(_sink, table.c.event == sa.bindparam("event_place"), _dead)
    .values(
        state=sa.bindparam("in_state"),
        attempts=0,
        not_before=sa.bindparam("now"),
        enqueued_at=sa.bindparam("now"),
    )
)
_DISCARD = Statement(
    sa.delete(table).where(_sink, table.c.event == sa.bindparam("event_place"), _dead).returning(table.c.event)
)
_FORGET_DEAD = Statement(
    sa.delete(table)
    .where(
        sa.tuple_(table.c.event, table.c.sink).in_(
            sa.select(table.c.event, table.c.sink)
            .where(_dead, table.c.not_before < sa.bindparam("older", type_=sa.Double))
            .order_by(table.c.event)
            .limit(_limit)
        )
    )
    .returning(table.c.event)
)
_SINKS = Statement(sa.select(sa.func.min(table.c.sink)).where(table.c.sink > sa.bindparam("after_sink")))
_DROP = Statement(
    sa.delete(table).where(_sink, table.c.enqueued_at < sa.bindparam("older", type_=sa.Double)).returning(table.c.event)
)


def put(event: int, sink: str, row: str, now: float) -> Steps[None]:
    """Store that a sink is to get an event, after what stands in its row there."""
    heads = yield from _HEADS(to_sink=sink, in_row=row)
    state = DeliveryState.WAITING if heads else DeliveryState.QUEUED
    yield from _INSERT(event_place=event, to_sink=sink, in_row=row, in_state=state.value, now=now)


def lease(sink: str, owner: str, now: float, until: float, limit: int) -> Steps[list[LeasedDelivery]]:
    """Take up to `limit` due deliveries, those whose lease has run out among them, the first that are due first."""
    yield from _EXPIRE(to_sink=sink, now=now)
    rows = yield from _LEASE(to_sink=sink, owner=owner, now=now, until=until, limit=limit)
    found = [LeasedDelivery(event, sink, row, attempts, since, owner) for event, row, attempts, since in rows]
    return sorted(found, key=lambda one: one.event)


def following(leased: LeasedDelivery, limit: int) -> Steps[list[int]]:
    """Return up to `limit` events that stand behind a leased one in its row, in order: they are its holder's, too."""
    rows = yield from _FOLLOWING(to_sink=leased.sink, in_row=leased.row, limit=limit)
    return [row[0] for row in rows]


def complete(leased: LeasedDelivery, now: float, followers: Sequence[int] = ()) -> Steps[bool]:
    """Remove a delivery that was made, and those `followers` that were made with it; let the next of the row go on.

    Return False, having done nothing, when another worker has it by now.
    """
    rows = yield from _DONE(to_sink=leased.sink, event_place=leased.event, owner=leased.owner)
    if not rows:
        return False
    for event in followers:
        yield from _TAKE(to_sink=leased.sink, event_place=event)
    yield from _go_on(leased.sink, leased.row, now)
    return True


def release(leased: LeasedDelivery, retry_at: float, error: str) -> Steps[bool]:
    """Put a delivery back that failed, due at `retry_at`; those behind it wait. False when another worker has it."""
    rows = yield from _RELEASE(
        to_sink=leased.sink, event_place=leased.event, owner=leased.owner, retry_at=retry_at, error=error
    )
    return bool(rows)


def bury(leased: LeasedDelivery, now: float, error: str) -> Steps[bool]:
    """Give a delivery up, and let the next of its row go on. Return False when another worker has it by now."""
    rows = yield from _BURY(to_sink=leased.sink, event_place=leased.event, owner=leased.owner, now=now, error=error)
    if rows:
        yield from _go_on(leased.sink, leased.row, now)
    return bool(rows)


def _go_on(sink: str, row: str, now: float) -> Steps[None]:
    ((following_one,),) = yield from _NEXT(to_sink=sink, in_row=row)
    if following_one is not None:
        yield from _PROMOTE(to_sink=sink, event_place=following_one, now=now)


def give_up(sink: str, owner: str) -> Steps[None]:
    """Put back what `owner` has leased, as if it had never been tried."""
    yield from _GIVE_UP(to_sink=sink, owner=owner)


def free_all() -> Steps[None]:
    """Put back everything that is leased: for a database that no other process uses."""
    yield from _FREE_ALL()


def next_due(sink: str) -> Steps[float | None]:
    """Return when the next delivery is due or its lease runs out (Unix seconds), if there is one."""
    ((due_at,),) = yield from _NEXT_DUE(to_sink=sink)
    ((expires_at,),) = yield from _NEXT_EXPIRY(to_sink=sink)
    return min((float(one) for one in (due_at, expires_at) if one is not None), default=None)


def make_due(sink: str, now: float) -> Steps[int]:
    """Make due at once what waits for its next attempt; return how many there were."""
    rows = yield from _MAKE_DUE(to_sink=sink, now=now)
    return len(rows)


def pull_in(now: float, horizon: float) -> Steps[None]:
    """Make due at once what waits, or is leased, until after `horizon`: a clock that ran ahead has put it there."""
    yield from _PULL_IN(now=now, horizon=horizon)
    yield from _CUT_SHORT(now=now, horizon=horizon)


def counts() -> Steps[list[DeliveryCount]]:
    """Return the number of deliveries by sink and state."""
    rows = yield from _COUNTS()
    return [DeliveryCount(sink, DeliveryState(state), count, oldest) for sink, state, count, oldest in rows]


def of_event(event: int) -> Steps[list[Delivery]]:
    """Return the deliveries of an event that are not made."""
    rows = yield from _OF_EVENT(event_place=event)
    return [_delivery(row) for row in rows]


def dead(sink: str | None, after: int, limit: int) -> Steps[list[Delivery]]:
    """Return deliveries that were given up, to one sink or to all, of events after a place, in order.

    Up to `limit`; to all sinks, an event that is given up for several may straddle two pages: page by whole events.
    """
    if sink is None:
        rows = yield from _DEAD(after=after, limit=limit)
    else:
        rows = yield from _DEAD_OF(to_sink=sink, after=after, limit=limit)
    return [_delivery(row) for row in rows]


def revive(event: int, sink: str, now: float) -> Steps[bool]:
    """Try once more what was given up, behind what its row holds by now; return False when it is not among these."""
    rows = yield from _FIND_DEAD(to_sink=sink, event_place=event)
    if not rows:
        return False
    heads = yield from _HEADS(to_sink=sink, in_row=rows[0][0])
    state = DeliveryState.WAITING if heads else DeliveryState.QUEUED
    yield from _REVIVE(to_sink=sink, event_place=event, in_state=state.value, now=now)
    return True


def discard(event: int, sink: str) -> Steps[bool]:
    """Forget what was given up; return False when it is not among these."""
    rows = yield from _DISCARD(to_sink=sink, event_place=event)
    return bool(rows)


def forget_dead(older_than: float, limit: int) -> Steps[int]:
    """Forget up to `limit` deliveries that were given up before a time; return how many there were."""
    rows = yield from _FORGET_DEAD(older=older_than, limit=limit)
    return len(rows)


def sinks() -> Steps[list[str]]:
    """Return the names of the sinks that deliveries are for, in order."""
    found: list[str] = []
    ((name,),) = yield from _SINKS(after_sink="")
    while name is not None:
        found.append(name)
        ((name,),) = yield from _SINKS(after_sink=name)
    return found


def drop_sink(sink: str, older_than: float) -> Steps[int]:
    """Forget the deliveries to a sink that wait since before a time; return how many there were."""
    rows = yield from _DROP(to_sink=sink, older=older_than)
    return len(rows)


def _delivery(row: Row) -> Delivery:
    event, sink, state, *rest = row
    return Delivery(event, sink, DeliveryState(state), *rest)
