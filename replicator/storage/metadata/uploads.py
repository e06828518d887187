"""Upload sessions: who may write where. The bytes, and so the offset, are the blob store's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.storage.metadata.schema import uploads
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName


@dataclass(frozen=True, slots=True)
class UploadSession:
    """An open upload. `expires_at` moves on with every request that adds to it (Unix seconds)."""

    id: str
    repository: RepositoryName
    principal: str
    algorithm: str
    started_at: float
    expires_at: float
    parts: int = 0
    """Parts that came through the ECR API."""
    short_parts: int = 0
    """How many of them came since the first one that was too small to be followed, with it: 1 when that is the last."""


_FIND = Statement(sa.select(uploads).where(uploads.c.id == sa.bindparam("id")))
_CREATE = Statement(sa.insert(uploads).values({column.name: sa.bindparam(column.name) for column in uploads.columns}))
_EXTEND = Statement(
    sa.update(uploads).where(uploads.c.id == sa.bindparam("session")).values(expires_at=sa.bindparam("until"))
)
_ADD_PART = Statement(
    sa.update(uploads)
    .where(uploads.c.id == sa.bindparam("session"))
    .values(
        parts=uploads.c.parts + 1,
        short_parts=uploads.c.short_parts
        + sa.case((uploads.c.short_parts > 0, 1), else_=sa.bindparam("short", type_=sa.Integer)),
        expires_at=sa.bindparam("until"),
    )
)
_DELETE = Statement(sa.delete(uploads).where(uploads.c.id == sa.bindparam("id")).returning(uploads.c.id))
_EXPIRED = Statement(
    sa.select(uploads).where(uploads.c.expires_at <= sa.bindparam("now")).order_by(uploads.c.expires_at)
)
_ALL = Statement(sa.select(uploads.c.id))


def find(session: str) -> Steps[UploadSession | None]:
    """Return an open session."""
    rows = yield from _FIND(id=session)
    return UploadSession(*rows[0]) if rows else None


def create(session: UploadSession) -> Steps[None]:
    """Store a new session."""
    yield from _CREATE(
        id=session.id,
        repository=session.repository,
        principal=session.principal,
        algorithm=session.algorithm,
        started_at=session.started_at,
        expires_at=session.expires_at,
        parts=session.parts,
        short_parts=session.short_parts,
    )


def extend(session: str, until: float) -> Steps[None]:
    """Move a session's expiry."""
    yield from _EXTEND(session=session, until=until)


def add_part(session: str, *, is_short: bool, until: float) -> Steps[None]:
    """Note that a part came through the ECR API, and move the session's expiry."""
    yield from _ADD_PART(session=session, short=int(is_short), until=until)


def delete(session: str) -> Steps[bool]:
    """Forget a session; return whether it was there."""
    rows = yield from _DELETE(id=session)
    return bool(rows)


def expired(now: float) -> Steps[list[UploadSession]]:
    """Return the sessions whose time has run out."""
    rows = yield from _EXPIRED(now=now)
    return [UploadSession(*row) for row in rows]


def ids() -> Steps[list[str]]:
    """Return the ids of all sessions."""
    rows = yield from _ALL()
    return [row[0] for row in rows]
