"""Previews of lifecycle policies: what they are made from, how they stand, and what they found.

There is one preview of a repository at a time; its results are written in pieces while it is IN_PROGRESS, and read once
it is COMPLETE. A newer preview takes them away, and so does the repository when it goes.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.image_status import ImageStatus
from replicator.core.lifecycle import ImageSnapshot
from replicator.core.names import RepositoryName, Tag
from replicator.storage.metadata.schema import Text, images, lifecycle_preview_images, lifecycle_previews, tags
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest


class PreviewStatus(enum.StrEnum):
    """Whether the results are there."""

    IN_PROGRESS = "IN_PROGRESS"
    COMPLETE = "COMPLETE"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True)
class Preview:
    """A preview of a policy's text, and how many images it found for the two actions."""

    repository: RepositoryName
    policy: str
    status: PreviewStatus
    started_at: float
    expiring: int = 0
    transitioning: int = 0


@dataclass(frozen=True, slots=True)
class PreviewImage:
    """What the policy would do with one image; `position` is its place among the results, from 0."""

    position: int
    digest: Digest
    tags: tuple[Tag, ...]
    pushed_at: float
    action: str
    target: str | None
    priority: int
    storage_class: str


_p, _r, _i, _t = lifecycle_previews.c, lifecycle_preview_images.c, images.c, tags.c
_of = sa.bindparam("of_repository", type_=Text)
_limit = sa.bindparam("limit", type_=sa.Integer)
_COLUMNS = (_p.repository, _p.policy, _p.status, _p.started_at, _p.expiring, _p.transitioning)
_FIND = Statement(sa.select(*_COLUMNS).where(_p.repository == _of))
_RUNNING = Statement(
    sa.select(*_COLUMNS)
    .where(_p.status == PreviewStatus.IN_PROGRESS.value)
    .order_by(_p.started_at, _p.repository)
    .limit(_limit)
)
_preview = insert(lifecycle_previews).values(
    {column.name: sa.bindparam(column.name) for column in lifecycle_previews.c}
)
_PUT = Statement(
    _preview.on_conflict_do_update(
        index_elements=["repository"],
        set_={
            name: _preview.excluded[name] for name in ("policy", "status", "started_at", "expiring", "transitioning")
        },
    )
)
_FINISH = Statement(
    sa.update(lifecycle_previews)
    .where(_p.repository == _of, _p.started_at == sa.bindparam("of_start"))
    .values(
        status=sa.bindparam("new_status"),
        expiring=sa.bindparam("new_expiring"),
        transitioning=sa.bindparam("new_transitioning"),
    )
)
_CLEAR = Statement(sa.delete(lifecycle_preview_images).where(_r.repository == _of))
_NAMES = [column.name for column in lifecycle_preview_images.c]
_result_row = insert(lifecycle_preview_images).values({name: sa.bindparam(name) for name in _NAMES})
_ADD = Statement(
    _result_row.on_conflict_do_update(  # two processes may evaluate what a third one left
        index_elements=["repository", "position"], set_={name: _result_row.excluded[name] for name in _NAMES}
    )
)
_RESULT = (_r.position, _r.digest, _r.tags, _r.pushed_at, _r.action, _r.target, _r.priority, _r.storage_class)


def _results(*selected: sa.ColumnElement[bool]) -> Statement:
    return Statement(
        sa.select(*_RESULT)
        .where(_r.repository == _of, _r.position > sa.bindparam("after", type_=sa.Integer), *selected)
        .order_by(_r.position)
        .limit(_limit)
    )


_RESULTS = {None: _results(), True: _results(_r.tags != "[]"), False: _results(_r.tags == "[]")}
_RESULT_OF = Statement(sa.select(*_RESULT).where(_r.repository == _of, _r.digest == sa.bindparam("of_digest")))
_SNAPSHOTS = Statement(
    sa.select(_i.digest, _i.pushed_at, _i.status, _i.pulled_at, _i.archived_at, _i.activated_at, _i.subject)
    .where(_i.repository == _of, _i.digest > sa.bindparam("after"))
    .order_by(_i.digest)
    .limit(_limit)
)
_TAGS = Statement(
    sa.select(_t.digest, _t.tag)
    .where(_t.repository == _of, _t.digest > sa.bindparam("after"), _t.digest <= sa.bindparam("last"))
    .order_by(_t.digest, _t.tag)
)


def find(repository: RepositoryName) -> Steps[Preview | None]:
    """Return the preview of a repository as it was stored last."""
    rows = yield from _FIND(of_repository=repository)
    return _found(rows[0]) if rows else None


def running(limit: int) -> Steps[list[Preview]]:
    """Return up to `limit` previews that are in progress, the oldest first."""
    rows = yield from _RUNNING(limit=limit)
    return [_found(row) for row in rows]


def _found(row: Row) -> Preview:
    repository, policy, status, started_at, expiring, transitioning = row
    return Preview(
        RepositoryName(repository), policy, PreviewStatus(status), started_at, int(expiring), int(transitioning)
    )


def put(preview: Preview) -> Steps[None]:
    """Store a preview in place of the repository's former one, whose results go."""
    yield from _CLEAR(of_repository=preview.repository)
    yield from _PUT(
        repository=preview.repository,
        policy=preview.policy,
        status=preview.status.value,
        started_at=preview.started_at,
        expiring=preview.expiring,
        transitioning=preview.transitioning,
    )


def clear(repository: RepositoryName) -> Steps[None]:
    """Take the results away that were written so far."""
    yield from _CLEAR(of_repository=repository)


def add(repository: RepositoryName, results: Sequence[PreviewImage]) -> Steps[None]:
    """Store results."""
    for one in results:
        yield from _ADD(
            repository=repository,
            position=one.position,
            digest=one.digest,
            tags=json.dumps(one.tags, separators=(",", ":")),
            pushed_at=one.pushed_at,
            action=one.action,
            target=one.target,
            priority=one.priority,
            storage_class=one.storage_class,
        )


def finish(preview: Preview) -> Steps[None]:
    """Store how a preview ended and what it counted, unless it is not there any more."""
    yield from _FINISH(
        of_repository=preview.repository,
        of_start=preview.started_at,
        new_status=preview.status.value,
        new_expiring=preview.expiring,
        new_transitioning=preview.transitioning,
    )


def results_after(
    repository: RepositoryName, after: int, limit: int, *, tagged: bool | None = None
) -> Steps[list[PreviewImage]]:
    """Return up to `limit` results behind a position, in order; `tagged`: only those with tags, or without."""
    rows = yield from _RESULTS[tagged](of_repository=repository, after=after, limit=limit)
    return [_result(row) for row in rows]


def find_result(repository: RepositoryName, digest: Digest) -> Steps[PreviewImage | None]:
    """Return what would become of an image, or None when nothing would."""
    rows = yield from _RESULT_OF(of_repository=repository, of_digest=digest)
    return _result(rows[0]) if rows else None


def _result(row: Row) -> PreviewImage:
    position, digest, names, *rest = row
    return PreviewImage(position, digest, tuple(map(Tag, json.loads(names))), *rest)


def snapshots_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[ImageSnapshot]]:
    """Return up to `limit` images whose digests sort after `after`, as a lifecycle policy sees them, in order."""
    rows = yield from _SNAPSHOTS(of_repository=repository, after=after, limit=limit)
    if not rows:
        return []
    named: dict[str, list[Tag]] = {}
    for digest, tag in (yield from _TAGS(of_repository=repository, after=after, last=rows[-1][0])):
        named.setdefault(digest, []).append(Tag(tag))
    return [_snapshot(row, tuple(named.get(row[0], ()))) for row in rows]


def _snapshot(row: Row, names: tuple[Tag, ...]) -> ImageSnapshot:
    digest, pushed_at, status, pulled_at, archived_at, activated_at, subject = row
    return ImageSnapshot(
        digest, names, pushed_at, ImageStatus(status), pulled_at, archived_at, activated_at, subject is not None
    )
