"""How far the replication of each image is, by destination."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.destinations import parse_destination
from replicator.core.names import RepositoryName
from replicator.core.replication import ReplicateImage, ReplicationState
from replicator.storage.metadata.schema import replication_status
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import Tag


@dataclass(frozen=True, slots=True)
class ReplicationStatus:
    """One image, with one tag or none, at one destination. `bytes` are those that had to be sent."""

    repository: RepositoryName
    digest: Digest
    tag: Tag | None
    destination: str
    rule: str
    status: ReplicationState
    failure_code: str | None
    enqueued_at: float
    completed_at: float | None
    bytes: int
    target: str = ""

    @property
    def replication(self) -> ReplicateImage:
        """What was to be done."""
        destination, target = parse_destination(self.destination), RepositoryName(self.target) if self.target else None
        return ReplicateImage(self.repository, self.digest, self.tag, destination, self.rule, target)


SUPERSEDED = "Superseded"
"""Failure code of an image that lost its tag to a newer push before it was sent."""

_WAITS = sa.or_(
    replication_status.c.status == ReplicationState.IN_PROGRESS.value,
    sa.and_(
        replication_status.c.status == ReplicationState.FAILED.value, replication_status.c.failure_code != SUPERSEDED
    ),
)
"""Holds for images that are not there yet and are tried again, those that failed among them."""

_NO_TAG = ""
_start = insert(replication_status).values(
    repository=sa.bindparam("repository"),
    digest=sa.bindparam("digest"),
    tag=sa.bindparam("tag"),
    destination=sa.bindparam("destination"),
    rule=sa.bindparam("rule"),
    status=ReplicationState.IN_PROGRESS.value,
    enqueued_at=sa.bindparam("enqueued_at"),
    bytes=0,
    target=sa.bindparam("target"),
)


def _begin(where: sa.ColumnElement[bool] | None = None) -> Statement:
    begun = {
        "rule": _start.excluded.rule,
        "target": _start.excluded.target,
        "status": _start.excluded.status,
        "failure_code": None,
        "enqueued_at": _start.excluded.enqueued_at,
        "completed_at": None,
    }
    of = ["repository", "digest", "tag", "destination"]
    return Statement(_start.on_conflict_do_update(index_elements=of, set_=begun, where=where))


_START = _begin()
_START_AGAIN = _begin(replication_status.c.status != ReplicationState.COMPLETE.value)
_ONE = sa.and_(
    replication_status.c.repository == sa.bindparam("of_repository"),
    replication_status.c.digest == sa.bindparam("of_digest"),
    replication_status.c.tag == sa.bindparam("of_tag"),
    replication_status.c.destination == sa.bindparam("at"),
)
_SETTLE = Statement(
    sa.update(replication_status)
    .where(_ONE)
    .values(
        status=sa.bindparam("new_status"),
        failure_code=sa.bindparam("code"),
        completed_at=sa.bindparam("now"),
        bytes=replication_status.c.bytes + sa.bindparam("sent", type_=sa.BigInteger),
    )
    .returning(replication_status.c.enqueued_at)
)
_ADD_SENT = Statement(
    sa.update(replication_status)
    .where(_ONE)
    .values(bytes=replication_status.c.bytes + sa.bindparam("sent", type_=sa.BigInteger))
)
_SUPERSEDE = Statement(
    sa.update(replication_status)
    .where(
        replication_status.c.repository == sa.bindparam("of_repository"),
        replication_status.c.tag == sa.bindparam("of_tag"),
        replication_status.c.destination == sa.bindparam("at"),
        replication_status.c.digest != sa.bindparam("newer"),
        _WAITS,
    )
    .values(status=ReplicationState.FAILED.value, failure_code=SUPERSEDED, completed_at=sa.bindparam("now"))
)
_OF_IMAGE = Statement(
    sa.select(replication_status)
    .where(
        replication_status.c.repository == sa.bindparam("repository"),
        replication_status.c.digest == sa.bindparam("digest"),
    )
    .order_by(replication_status.c.destination, replication_status.c.tag)
)
_IS_WAITING = Statement(
    sa.select(replication_status.c.destination)
    .where(
        replication_status.c.repository == sa.bindparam("repository"),
        replication_status.c.digest == sa.bindparam("digest"),
        _WAITS,
    )
    .limit(1)
)
_FORGET = Statement(
    sa.delete(replication_status).where(
        replication_status.c.repository == sa.bindparam("repository"),
        replication_status.c.digest == sa.bindparam("digest"),
    )
)


def start(replication: ReplicateImage, enqueued_at: float) -> Steps[None]:
    """Note that a replication is under way."""
    yield from _START(**_begun(replication, enqueued_at))


def start_again(replication: ReplicateImage, enqueued_at: float) -> Steps[None]:
    """Note that a replication is under way, unless it is complete: it then is only looked at once more."""
    yield from _START_AGAIN(**_begun(replication, enqueued_at))


def _begun(replication: ReplicateImage, enqueued_at: float) -> dict[str, str | float]:
    return {
        "repository": replication.repository,
        "digest": replication.digest,
        "tag": replication.tag or _NO_TAG,
        "destination": str(replication.destination),
        "rule": replication.rule,
        "enqueued_at": enqueued_at,
        "target": replication.target or "",
    }


def supersede(replication: ReplicateImage, now: float) -> Steps[None]:
    """Note that the images which wait to be sent under this tag, or failed so far, are not sent: a newer one is."""
    if replication.tag is not None:
        yield from _SUPERSEDE(
            of_repository=replication.repository,
            of_tag=replication.tag,
            at=str(replication.destination),
            newer=replication.digest,
            now=now,
        )


def settle(
    replication: ReplicateImage, status: ReplicationState, now: float, sent: int = 0, code: str | None = None
) -> Steps[float | None]:
    """Note how a replication ended, and the bytes that this attempt sent; return when it was asked for."""
    rows = yield from _SETTLE(
        of_repository=replication.repository,
        of_digest=replication.digest,
        of_tag=replication.tag or _NO_TAG,
        at=str(replication.destination),
        new_status=status.value,
        code=code,
        now=now,
        sent=sent,
    )
    return rows[0][0] if rows else None


def add_sent(replication: ReplicateImage, sent: int) -> Steps[None]:
    """Add the bytes that an attempt sent before it failed; the status stays as it is."""
    yield from _ADD_SENT(
        of_repository=replication.repository,
        of_digest=replication.digest,
        of_tag=replication.tag or _NO_TAG,
        at=str(replication.destination),
        sent=sent,
    )


def of_image(repository: RepositoryName, digest: Digest) -> Steps[list[ReplicationStatus]]:
    """Return the status of an image at every destination it was ever sent to."""
    rows = yield from _OF_IMAGE(repository=repository, digest=digest)
    return [
        ReplicationStatus(row[0], row[1], row[2] or None, row[3], row[4], ReplicationState(row[5]), *row[6:])
        for row in rows
    ]


def is_waiting(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Tell whether an image is still to be sent somewhere, also where that failed so far."""
    return bool((yield from _IS_WAITING(repository=repository, digest=digest)))


def forget(repository: RepositoryName, digest: Digest) -> Steps[None]:
    """Drop the status of a deleted image."""
    yield from _FORGET(repository=repository, digest=digest)
