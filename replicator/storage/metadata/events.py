"""Rows of events: what happened, each once, and nothing of it that no sink wants.

An event is written in the transaction of the change it tells of, together with one delivery per sink that wants it
(`event_deliveries`). It stays for a while after the last of these is settled, so that people can look it up.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from replicator.storage.metadata import event_deliveries as deliveries
from replicator.storage.metadata.schema import event_deliveries, events
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event about to be stored: `document` is EventBridge's, `subject` the image or repository it is about."""

    event_id: str
    detail_type: str
    subject: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event with its place in the order of all; `created_at` is in Unix seconds."""

    id: int
    event_id: str
    subject: str
    document: Mapping[str, Any]
    created_at: float


_INSERT = Statement(
    sa.insert(events)
    .values(
        event_id=sa.bindparam("event_id"),
        detail_type=sa.bindparam("detail_type"),
        subject=sa.bindparam("subject"),
        content=sa.bindparam("content"),
        created_at=sa.bindparam("now"),
    )
    .returning(events.c.id)
)
_COLUMNS = (events.c.id, events.c.event_id, events.c.subject, events.c.content, events.c.created_at)
_GET = Statement(sa.select(*_COLUMNS).where(events.c.id == sa.bindparam("wanted")))
_FIND = Statement(sa.select(*_COLUMNS).where(events.c.event_id == sa.bindparam("wanted")))
_LATEST = Statement(
    sa.select(*_COLUMNS)
    .where(events.c.id < sa.bindparam("before", type_=sa.BigInteger))
    .order_by(events.c.id.desc())
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_undelivered = sa.exists().where(event_deliveries.c.event == events.c.id)
_LAST = Statement(sa.select(sa.func.max(events.c.id)))
_FORGET = Statement(
    sa.delete(events)
    .where(
        events.c.id.in_(
            sa.select(events.c.id)
            .where(
                sa.or_(
                    events.c.created_at < sa.bindparam("older", type_=sa.Double),
                    events.c.id <= sa.bindparam("last", type_=sa.BigInteger),
                ),
                ~_undelivered,
            )
            .order_by(events.c.id)
            .limit(sa.bindparam("limit", type_=sa.Integer))
        )
    )
    .returning(events.c.id)
)
_ALL = 2**62


def put(event: NewEvent, sinks: Sequence[tuple[str, str]], now: float) -> Steps[None]:
    """Store an event and its deliveries to `sinks`: their names, each with the row that the event joins there."""
    rows = yield from _INSERT(
        event_id=event.event_id,
        detail_type=event.detail_type,
        subject=event.subject,
        content=json.dumps(event.document, separators=(",", ":")),
        now=now,
    )
    for sink, row in sinks:
        yield from deliveries.put(rows[0][0], sink, row, now)


def find(event_id: str) -> Steps[StoredEvent | None]:
    """Return the event with this id, or None when there is none, or no more."""
    rows = yield from _FIND(wanted=event_id)
    return _stored(rows[0]) if rows else None


def get(event: int) -> Steps[StoredEvent]:
    """Return an event that has deliveries, by its place."""
    rows = yield from _GET(wanted=event)
    return _stored(rows[0])


def latest(limit: int, before: int | None = None) -> Steps[list[StoredEvent]]:
    """Return up to `limit` events that are still known, the last first; those before a place, where one is given."""
    rows = yield from _LATEST(before=_ALL if before is None else before, limit=limit)
    return [_stored(row) for row in rows]


def forget(older_than: float, most: int, limit: int) -> Steps[int]:
    """Delete up to `limit` settled events: those older than a time, and all but the last `most`; return how many."""
    ((last,),) = yield from _LAST()
    rows = yield from _FORGET(older=older_than, last=(last or 0) - most, limit=limit)
    return len(rows)


def _stored(row: Row) -> StoredEvent:
    return StoredEvent(row[0], row[1], row[2], json.loads(row[3]), row[4])
