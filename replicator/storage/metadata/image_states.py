"""The states of images between storage classes, and when they were pulled last.

`activated_at` of an image that is ACTIVATING is when it will be active: a restart changes nothing about that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.image_status import ImageStatus
from replicator.storage.metadata import scans
from replicator.storage.metadata.images import CHILD
from replicator.storage.metadata.schema import images, manifest_references
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.revisions import Revision

_i, _refs = images.c, manifest_references.c
_ACTIVE, _ARCHIVED, _ACTIVATING = (
    status.value for status in (ImageStatus.ACTIVE, ImageStatus.ARCHIVED, ImageStatus.ACTIVATING)
)


@dataclass(frozen=True, slots=True)
class DueImage:
    """An image that is to be active by now."""

    repository: RepositoryName
    digest: Digest


_here = (_i.repository == sa.bindparam("of_repository"), _i.digest == sa.bindparam("of_digest"))
_FIND = Statement(sa.select(_i.status).where(*_here))
_ARCHIVE = Statement(sa.update(images).where(*_here).values(status=_ARCHIVED, archived_at=sa.bindparam("at")))
_ACTIVATE = Statement(sa.update(images).where(*_here).values(status=_ACTIVATING, activated_at=sa.bindparam("at")))
_RESTORE = Statement(
    sa.update(images)
    .where(*_here, _i.status != _ACTIVE)
    .values(status=_ACTIVE, activated_at=sa.bindparam("at"))
    .returning(_i.digest)
)
_DUE = Statement(
    sa.select(_i.repository, _i.digest)
    .where(_i.status == _ACTIVATING, _i.activated_at <= sa.bindparam("at"))
    .order_by(_i.activated_at)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_NEXT_DUE = Statement(sa.select(sa.func.min(_i.activated_at)).where(_i.status == _ACTIVATING))
_FINISH = Statement(
    sa.update(images)
    .where(*_here, _i.status == _ACTIVATING)
    .values(status=_ACTIVE, revision=sa.bindparam("new_revision"))
    .returning(_i.digest)
)
_TOUCH = Statement(
    sa.update(images)
    .where(*_here, sa.or_(_i.pulled_at.is_(None), _i.pulled_at < sa.bindparam("at")))
    .values(pulled_at=sa.bindparam("at"))
)
_REFERRERS = Statement(
    sa.select(_i.digest)
    .where(_i.repository == sa.bindparam("of_repository"), _i.subject == sa.bindparam("of_digest"))
    .order_by(_i.digest)
)
_CHILDREN = Statement(
    sa.select(_i.digest)
    .join(manifest_references, _refs.child == _i.digest)
    .where(
        _i.repository == sa.bindparam("of_repository"),
        _refs.kind == CHILD,
        _refs.parent == sa.bindparam("of_digest"),
    )
    .order_by(_i.digest)
)
_USED_BY_ACTIVE = Statement(
    sa.select(_i.digest)
    .join(manifest_references, _refs.parent == _i.digest)
    .where(
        _i.repository == sa.bindparam("of_repository"),
        _i.status != _ARCHIVED,
        _refs.kind == CHILD,
        _refs.child == sa.bindparam("of_digest"),
    )
    .order_by(_i.digest)
    .limit(1)
)


def find_status(repository: RepositoryName, digest: Digest) -> Steps[ImageStatus | None]:
    """Return the status of an image, or None when it is not there."""
    rows = yield from _FIND(of_repository=repository, of_digest=digest)
    return ImageStatus(rows[0][0]) if rows else None


def archive(repository: RepositoryName, digest: Digest, now: float) -> Steps[None]:
    """Archive an image; what scans found in it goes."""
    yield from _ARCHIVE(of_repository=repository, of_digest=digest, at=now)
    yield from scans.forget(repository, digest)


def begin_activation(repository: RepositoryName, digest: Digest, due: float) -> Steps[None]:
    """Let an image be on its way back; it is active at `due`."""
    yield from _ACTIVATE(of_repository=repository, of_digest=digest, at=due)


def restore(repository: RepositoryName, digest: Digest, now: float) -> Steps[bool]:
    """Make an image active at once; return whether it was not."""
    return bool((yield from _RESTORE(of_repository=repository, of_digest=digest, at=now)))


def finish_activation(repository: RepositoryName, digest: Digest, revision: Revision) -> Steps[bool]:
    """Make an image active that was on its way back, in a new revision; return whether it still was."""
    rows = yield from _FINISH(of_repository=repository, of_digest=digest, new_revision=str(revision))
    return bool(rows)


def due(now: float, limit: int) -> Steps[list[DueImage]]:
    """Return up to `limit` images whose way back is over."""
    rows = yield from _DUE(at=now, limit=limit)
    return [DueImage(*row) for row in rows]


def next_due() -> Steps[float | None]:
    """Return when the next image is active again; None when none is on its way."""
    rows = yield from _NEXT_DUE()
    return None if rows[0][0] is None else float(rows[0][0])


def touch(repository: RepositoryName, digest: Digest, pulled_at: float) -> Steps[None]:
    """Note when an image was pulled, unless it has been pulled since."""
    yield from _TOUCH(of_repository=repository, of_digest=digest, at=pulled_at)


def referrers(repository: RepositoryName, digest: Digest) -> Steps[list[Digest]]:
    """Return the images of this repository whose subject is this one."""
    rows = yield from _REFERRERS(of_repository=repository, of_digest=digest)
    return [row[0] for row in rows]


def children(repository: RepositoryName, digest: Digest) -> Steps[list[Digest]]:
    """Return the images of this repository that an index lists."""
    rows = yield from _CHILDREN(of_repository=repository, of_digest=digest)
    return [row[0] for row in rows]


def is_used(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Tell whether an index that is not archived lists an image."""
    return bool((yield from _USED_BY_ACTIVE(of_repository=repository, of_digest=digest)))
