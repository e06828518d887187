"""Backfills, and how far each image of one is.

A row of `backfill_images` names the job that it waits for (kind and key). While that job is stored the image is under
way; once it is gone the image is settled, by whoever settled the job or, where nobody did, by `resolve`. Rows of a
backfill that is over are never changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.backfill import BackfillCause, BackfillCounts, BackfillState
from replicator.core.jobs import JobKind, JobState, Priority
from replicator.core.replication import ReplicationState
from replicator.storage.metadata.replication_status import SUPERSEDED
from replicator.storage.metadata.schema import backfill_images, backfills, jobs, replication_status
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.replication import DeleteReplica, ReplicateImage

STOPPED = "STOPPED"
"""Status of an image that a stop left undone."""

_UNKNOWN = "UnknownFailure"
_NO_TAG = ""
_IN_PROGRESS = ReplicationState.IN_PROGRESS.value


@dataclass(frozen=True, slots=True)
class StoredBackfill:
    """A backfill. `destination` is empty for a sync to several, `repository` None for all of them.

    `position` is how far the preparation has come, in the words of whoever prepares. Times are Unix seconds.
    """

    id: str
    cause: BackfillCause
    destination: str
    repository: RepositoryName | None
    state: BackfillState
    created_at: float
    finished_at: float | None = None
    prepared_at: float | None = None
    position: str = ""
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class BackfillImage:
    """One (image, tag) pair of a backfill. `bytes` are those that had to be sent."""

    repository: RepositoryName
    digest: Digest
    tag: Tag | None
    destination: str
    kind: JobKind
    status: str
    failure_code: str | None
    bytes: int

    @property
    def cursor(self) -> tuple[str, str, str, str]:
        """Where a listing goes on after this image."""
        return self.repository, self.digest, self.tag or _NO_TAG, self.destination


_bf, _bi = backfills.c, backfill_images.c


def _is_one_of(column: sa.Column[str], values: Iterable[str]) -> sa.ColumnElement[bool]:
    return sa.or_(*(column == value for value in values))


_is_active = _is_one_of(_bf.state, [state.value for state in BackfillState if not state.is_terminal])
_is_result = _is_one_of(_bi.status, [ReplicationState.COMPLETE.value, ReplicationState.FAILED.value])
_COLUMNS = (
    _bf.id,
    _bf.cause,
    _bf.destination,
    _bf.repository,
    _bf.state,
    _bf.created_at,
    _bf.finished_at,
    _bf.prepared_at,
    _bf.position,
    _bf.failure,
)
_CREATE = Statement(
    sa.insert(backfills).values(
        id=sa.bindparam("id"),
        cause=sa.bindparam("cause"),
        destination=sa.bindparam("destination"),
        repository=sa.bindparam("repository"),
        state=BackfillState.PREPARING.value,
        created_at=sa.bindparam("created_at"),
        position="",
    )
)
_FIND = Statement(sa.select(*_COLUMNS).where(_bf.id == sa.bindparam("id")))
_ACTIVE_ONES = Statement(sa.select(*_COLUMNS).where(_is_active).order_by(_bf.created_at, _bf.id))
_before = sa.or_(
    _bf.created_at < sa.bindparam("before", type_=sa.Double),
    sa.and_(_bf.created_at == sa.bindparam("before", type_=sa.Double), _bf.id > sa.bindparam("after_id")),
)
_recent = (
    sa.select(*_COLUMNS)
    .where(sa.or_(_bf.finished_at.is_(None), _bf.finished_at >= sa.bindparam("since")), _before)
    .order_by(_bf.created_at.desc(), _bf.id)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_RECENT = Statement(_recent)
_RECENT_OF_CAUSE = Statement(_recent.where(_bf.cause == sa.bindparam("cause")))
_OLD = Statement(
    sa.select(_bf.id).where(_bf.finished_at < sa.bindparam("until")).limit(sa.bindparam("limit", type_=sa.Integer))
)
_FORGET = Statement(sa.delete(backfills).where(_bf.id == sa.bindparam("of")))
_FORGET_IMAGES = Statement(sa.delete(backfill_images).where(_bi.backfill == sa.bindparam("of")))
_ADVANCE = Statement(
    sa.update(backfills)
    .where(
        _bf.id == sa.bindparam("of"),
        _bf.state == BackfillState.PREPARING.value,
        _bf.position == sa.bindparam("seen"),
    )
    .values(position=sa.bindparam("reached"))
    .returning(_bf.id)
)
_CHANGE = Statement(
    sa.update(backfills)
    .where(_bf.id == sa.bindparam("of"), _bf.state == sa.bindparam("seen"))
    .values(
        state=sa.bindparam("new_state"),
        finished_at=sa.bindparam("ended"),
        prepared_at=sa.func.coalesce(_bf.prepared_at, sa.bindparam("prepared", type_=sa.Double)),
        failure=sa.func.coalesce(_bf.failure, sa.bindparam("code", type_=sa.Text)),
    )
    .returning(_bf.id)
)
_ADD = Statement(
    insert(backfill_images)
    .values(
        backfill=sa.bindparam("backfill"),
        repository=sa.bindparam("repository"),
        digest=sa.bindparam("digest"),
        tag=sa.bindparam("tag"),
        destination=sa.bindparam("destination"),
        kind=sa.bindparam("kind"),
        key=sa.bindparam("key"),
        status=_IN_PROGRESS,
        bytes=0,
    )
    .on_conflict_do_nothing(index_elements=["backfill", "repository", "digest", "tag", "destination"])
)
_COUNTS = Statement(
    sa.select(_bi.status, sa.func.count()).where(_bi.backfill == sa.bindparam("of")).group_by(_bi.status)
)
_UNDER_WAY = Statement(
    sa.select(_bi.repository).where(_bi.backfill == sa.bindparam("of"), _bi.status == _IN_PROGRESS).limit(1)
)
_CODES = Statement(
    sa.select(_bi.failure_code)
    .where(_bi.backfill == sa.bindparam("of"), _bi.failure_code.is_not(None))
    .distinct()
    .order_by(_bi.failure_code)
)
_BYTES = Statement(
    sa.select(sa.func.coalesce(sa.cast(sa.func.sum(_bi.bytes), sa.BigInteger), 0)).where(
        _bi.backfill == sa.bindparam("of")
    )
)
_after = sa.tuple_(_bi.repository, _bi.digest, _bi.tag, _bi.destination) > sa.tuple_(
    sa.bindparam("repository", type_=sa.Text),
    sa.bindparam("digest", type_=sa.Text),
    sa.bindparam("tag", type_=sa.Text),
    sa.bindparam("destination", type_=sa.Text),
)
_images = (
    sa.select(_bi.repository, _bi.digest, _bi.tag, _bi.destination, _bi.kind, _bi.status, _bi.failure_code, _bi.bytes)
    .where(_bi.backfill == sa.bindparam("of"), _after)
    .order_by(_bi.repository, _bi.digest, _bi.tag, _bi.destination)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_IMAGES = Statement(_images.where(_is_result))
_IMAGES_OF_STATUS = Statement(_images.where(_bi.status == sa.bindparam("of_status")))
_of_job = sa.and_(_bi.kind == sa.bindparam("of_kind"), _bi.key == sa.bindparam("of_key"))
_SETTLE = Statement(
    sa.update(backfill_images)
    .where(
        _of_job,
        _bi.digest == sa.bindparam("of_digest"),
        _is_one_of(_bi.status, [_IN_PROGRESS, ReplicationState.FAILED.value]),
        _bi.backfill.in_(sa.select(_bf.id).where(_is_active)),
    )
    .values(
        status=sa.bindparam("new_status"),
        failure_code=sa.bindparam("code"),
        bytes=_bi.bytes + sa.bindparam("sent", type_=sa.BigInteger),
    )
)
_LEAVE_OTHERS = Statement(
    sa.delete(backfill_images).where(_of_job, _bi.digest != sa.bindparam("of_digest"), _bi.status == _IN_PROGRESS)
)
_LEAVE = Statement(
    sa.delete(backfill_images).where(_of_job, _bi.digest == sa.bindparam("of_digest"), _bi.status == _IN_PROGRESS)
)
_one = sa.and_(
    _bi.backfill == sa.bindparam("of"),
    _bi.repository == sa.bindparam("of_repository"),
    _bi.digest == sa.bindparam("of_digest"),
    _bi.tag == sa.bindparam("of_tag"),
    _bi.destination == sa.bindparam("at"),
    _bi.status == _IN_PROGRESS,
)
_MARK = Statement(
    sa.update(backfill_images).where(_one).values(status=sa.bindparam("new_status"), failure_code=sa.bindparam("code"))
)
_REMOVE = Statement(sa.delete(backfill_images).where(_one))
_others = backfill_images.alias("others")
_QUEUED = Statement(
    sa.select(
        _bi.repository,
        _bi.digest,
        _bi.tag,
        _bi.destination,
        jobs.c.id,
        sa.and_(
            jobs.c.priority >= int(Priority.BACKGROUND),
            ~sa.exists().where(
                _others.c.kind == _bi.kind,
                _others.c.key == _bi.key,
                _others.c.status == _IN_PROGRESS,
                _others.c.backfill != _bi.backfill,
            ),
        ),
    )
    .join(jobs, sa.and_(jobs.c.kind == _bi.kind, jobs.c.key == _bi.key, jobs.c.state == JobState.QUEUED.value))
    .where(_bi.backfill == sa.bindparam("of"), _bi.status == _IN_PROGRESS)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_DELETE_JOB = Statement(sa.delete(jobs).where(jobs.c.id == sa.bindparam("job"), jobs.c.state == JobState.QUEUED.value))
_FORGET_STATUS = Statement(
    sa.delete(replication_status).where(
        replication_status.c.repository == sa.bindparam("of_repository"),
        replication_status.c.digest == sa.bindparam("of_digest"),
        replication_status.c.tag == sa.bindparam("of_tag"),
        replication_status.c.destination == sa.bindparam("at"),
        replication_status.c.status == _IN_PROGRESS,
    )
)
_SETTLED_ELSEWHERE = Statement(
    sa.select(
        _bi.repository,
        _bi.digest,
        _bi.tag,
        _bi.destination,
        _bi.kind,
        jobs.c.state,
        replication_status.c.status,
        replication_status.c.failure_code,
    )
    .select_from(backfill_images)
    .outerjoin(jobs, sa.and_(jobs.c.kind == _bi.kind, jobs.c.key == _bi.key))
    .outerjoin(
        replication_status,
        sa.and_(
            replication_status.c.repository == _bi.repository,
            replication_status.c.digest == _bi.digest,
            replication_status.c.tag == _bi.tag,
            replication_status.c.destination == _bi.destination,
        ),
    )
    .where(
        _bi.backfill == sa.bindparam("of"),
        _bi.status == _IN_PROGRESS,
        sa.or_(jobs.c.id.is_(None), jobs.c.state == JobState.DEAD.value),
    )
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def create(backfill: StoredBackfill) -> Steps[None]:
    """Store a backfill that is about to be prepared."""
    yield from _CREATE(
        id=backfill.id,
        cause=backfill.cause.value,
        destination=backfill.destination,
        repository=backfill.repository,
        created_at=backfill.created_at,
    )


def find(backfill: str) -> Steps[StoredBackfill | None]:
    """Return a backfill."""
    rows = yield from _FIND(id=backfill)
    return _stored(rows[0]) if rows else None


def active() -> Steps[list[StoredBackfill]]:
    """Return the backfills that are not over, oldest first."""
    rows = yield from _ACTIVE_ONES()
    return [_stored(row) for row in rows]


def recent(
    since: float, limit: int, before: float = float("inf"), after_id: str = "", cause: BackfillCause | None = None
) -> Steps[list[StoredBackfill]]:
    """Return up to `limit` backfills that are not over or ended after `since`, the youngest first; of one cause or all.

    A page goes on with `created_at` and `id` of the last one before it.
    """
    before = min(before, 1e300)  # not every driver knows infinity
    if cause is None:
        rows = yield from _RECENT(since=since, before=before, after_id=after_id, limit=limit)
    else:
        rows = yield from _RECENT_OF_CAUSE(
            since=since, before=before, after_id=after_id, limit=limit, cause=cause.value
        )
    return [_stored(row) for row in rows]


def forget_ended(until: float, limit: int) -> Steps[int]:
    """Drop up to `limit` backfills that ended before `until`; return how many there were."""
    rows = yield from _OLD(until=until, limit=limit)
    for (backfill,) in rows:
        yield from _FORGET_IMAGES(of=backfill)
        yield from _FORGET(of=backfill)
    return len(rows)


def advance(backfill: StoredBackfill, position: str) -> Steps[bool]:
    """Note how far the preparation has come; False when it was stopped or somebody else prepares it."""
    return bool((yield from _ADVANCE(of=backfill.id, seen=backfill.position, reached=position)))


def change_state(
    backfill: StoredBackfill, state: BackfillState, now: float, *, is_prepared: bool = False, failure: str | None = None
) -> Steps[bool]:
    """Move a backfill on from the state it was read in; False when it has another one by now."""
    rows = yield from _CHANGE(
        of=backfill.id,
        seen=backfill.state.value,
        new_state=state.value,
        ended=now if state.is_terminal else None,
        prepared=now if is_prepared else None,
        code=failure,
    )
    return bool(rows)


def _stored(row: Row) -> StoredBackfill:
    return StoredBackfill(row[0], BackfillCause(row[1]), row[2], row[3], BackfillState(row[4]), *row[5:])


# Images


def add_image(backfill: str, image: ReplicateImage | DeleteReplica) -> Steps[None]:
    """Note that a backfill waits for an image; the caller stores its job in the same transaction."""
    job = image.to_job()
    yield from _ADD(
        backfill=backfill,
        repository=image.repository,
        digest=image.digest,
        tag=image.tag or _NO_TAG,
        destination=str(image.destination),
        kind=job.kind.value,
        key=job.key,
    )


def counts(backfill: str) -> Steps[BackfillCounts]:
    """Return how many images of a backfill are in which state."""
    rows = yield from _COUNTS(of=backfill)
    by_status = {row[0]: int(row[1]) for row in rows}
    return BackfillCounts(
        by_status.get(_IN_PROGRESS, 0),
        by_status.get(ReplicationState.COMPLETE.value, 0),
        by_status.get(ReplicationState.FAILED.value, 0),
        by_status.get(STOPPED, 0),
    )


def is_under_way(backfill: str) -> Steps[bool]:
    """Tell whether an image of a backfill is not settled."""
    return bool((yield from _UNDER_WAY(of=backfill)))


def failure_codes(backfill: str) -> Steps[tuple[str, ...]]:
    """Return the failure codes of a backfill's images, each once."""
    rows = yield from _CODES(of=backfill)
    return tuple(row[0] for row in rows)


def sent_bytes(backfill: str) -> Steps[int]:
    """Return the bytes that had to be sent for a backfill so far."""
    rows = yield from _BYTES(of=backfill)
    return int(rows[0][0])


def images_after(
    backfill: str, after: tuple[str, str, str, str], limit: int, status: ReplicationState | None = None
) -> Steps[list[BackfillImage]]:
    """Return up to `limit` images that sort after `after` (see `BackfillImage.cursor`), in order, stopped ones not."""
    repository, digest, tag, destination = after
    page = {"repository": repository, "digest": digest, "tag": tag, "destination": destination}
    if status is None:
        rows = yield from _IMAGES(of=backfill, limit=limit, **page)
    else:
        rows = yield from _IMAGES_OF_STATUS(of=backfill, limit=limit, of_status=status.value, **page)
    return [BackfillImage(row[0], row[1], row[2] or None, row[3], JobKind(row[4]), *row[5:]) for row in rows]


def settle_image(
    image: ReplicateImage | DeleteReplica, status: ReplicationState, sent: int = 0, code: str | None = None
) -> Steps[None]:
    """Note in every backfill under way how a replication ended, in the transaction that settles its job."""
    job = image.to_job()
    yield from _SETTLE(
        of_kind=job.kind.value, of_key=job.key, of_digest=image.digest, new_status=status.value, code=code, sent=sent
    )


def leave_others(image: ReplicateImage | DeleteReplica) -> Steps[None]:
    """Wait no longer for images that this one took the tag from; call it where its job is done."""
    job = image.to_job()
    yield from _LEAVE_OTHERS(of_kind=job.kind.value, of_key=job.key, of_digest=image.digest)


def leave_image(image: ReplicateImage | DeleteReplica) -> Steps[None]:
    """Wait no longer for an image that is gone at the source; call it where its job is dropped."""
    job = image.to_job()
    yield from _LEAVE(of_kind=job.kind.value, of_key=job.key, of_digest=image.digest)


def resolve(backfill: str, limit: int) -> Steps[int]:
    """Settle up to `limit` images that wait for a job which is gone; return how many there were."""
    rows = yield from _SETTLED_ELSEWHERE(of=backfill, limit=limit)
    for repository, digest, tag, destination, kind, job_state, status, code in rows:
        place = {"of_repository": repository, "of_digest": digest, "of_tag": tag, "at": destination}
        verdict = _verdict(JobKind(kind), job_state, status, code)
        if verdict is None:
            yield from _REMOVE(of=backfill, **place)
        else:
            yield from _MARK(of=backfill, new_status=verdict[0].value, code=verdict[1], **place)
    return len(rows)


def _verdict(
    kind: JobKind, job_state: str | None, status: str | None, code: str | None
) -> tuple[ReplicationState, str | None] | None:
    """Return what became of an image whose job is gone or dead; None when the image or its tag is gone."""
    if job_state is not None:
        return ReplicationState.FAILED, code or _UNKNOWN
    if kind is JobKind.DELETE_REPLICA or status == ReplicationState.COMPLETE.value:
        return ReplicationState.COMPLETE, None
    if status is None or code == SUPERSEDED:
        return None
    return ReplicationState.FAILED, code or _UNKNOWN


def take_back(backfill: str, limit: int) -> Steps[int]:
    """Leave up to `limit` images that wait in the queue undone; return how many there were.

    Only jobs that nobody else asked for are removed, with a status that says no more than that they were to come.
    """
    rows = yield from _QUEUED(of=backfill, limit=limit)
    for repository, digest, tag, destination, job, is_ours in rows:
        place = {"of_repository": repository, "of_digest": digest, "of_tag": tag, "at": destination}
        yield from _MARK(of=backfill, new_status=STOPPED, code=None, **place)
        if is_ours:
            yield from _DELETE_JOB(job=job)
            yield from _FORGET_STATUS(**place)
    return len(rows)
