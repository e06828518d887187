"""Blob rows, and the links that make a blob readable in a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.names import RepositoryName
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.metadata.schema import blobs, repository_blobs
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest

STORED = "stored"
CORRUPT = "corrupt"

_COLUMNS = (blobs.c.digest, blobs.c.size, blobs.c.location, blobs.c.verified_at)
_FIND_LINKED = Statement(
    sa.select(*_COLUMNS)
    .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
    .where(
        repository_blobs.c.repository == sa.bindparam("repository"),
        repository_blobs.c.digest == sa.bindparam("digest"),
        blobs.c.state == STORED,
    )
)
_FIND = Statement(sa.select(*_COLUMNS).where(blobs.c.digest == sa.bindparam("digest"), blobs.c.state == STORED))
_values = insert(blobs).values(
    digest=sa.bindparam("digest"),
    size=sa.bindparam("size"),
    location=sa.bindparam("location"),
    state=STORED,
    verified_at=sa.bindparam("verified_at"),
)
_RECORD = Statement(
    _values.on_conflict_do_update(
        index_elements=["digest"],
        set_={
            "location": _values.excluded.location,
            "size": _values.excluded.size,
            "state": _values.excluded.state,
            "verified_at": _values.excluded.verified_at,
        },
        where=blobs.c.state != STORED,
    )
)
_LINK = Statement(
    insert(repository_blobs)
    .values(repository=sa.bindparam("repository"), digest=sa.bindparam("digest"), linked_at=sa.bindparam("linked_at"))
    .on_conflict_do_nothing(index_elements=["repository", "digest"])
)
_UNLINK = Statement(
    sa.delete(repository_blobs)
    .where(
        repository_blobs.c.repository == sa.bindparam("repository"), repository_blobs.c.digest == sa.bindparam("digest")
    )
    .returning(repository_blobs.c.digest)
)
_DROP_UNLINKED = Statement(
    sa.delete(blobs)
    .where(
        blobs.c.digest == sa.bindparam("digest"),
        ~sa.exists().where(repository_blobs.c.digest == sa.bindparam("digest")),
    )
    .returning(*_COLUMNS)
)
_LOCATION = Statement(sa.select(blobs.c.location).where(blobs.c.digest == sa.bindparam("digest")))
_HOLDERS = Statement(
    sa.select(repository_blobs.c.repository)
    .where(
        repository_blobs.c.digest == sa.bindparam("digest"),
        repository_blobs.c.repository > sa.bindparam("after"),
    )
    .order_by(repository_blobs.c.repository)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_MARK = Statement(
    sa.update(blobs)
    .where(blobs.c.digest == sa.bindparam("wanted"), blobs.c.location == sa.bindparam("lies_at"))
    .values(state=CORRUPT)
)
_TOTALS = Statement(sa.select(sa.func.count(), sa.func.coalesce(sa.cast(sa.func.sum(blobs.c.size), sa.BigInteger), 0)))


def find_linked(repository: RepositoryName, digest: Digest) -> Steps[StoredBlob | None]:
    """Return the blob if this repository may serve it and the store has it whole."""
    rows = yield from _FIND_LINKED(repository=repository, digest=digest)
    return StoredBlob(*rows[0]) if rows else None


def find(digest: Digest) -> Steps[StoredBlob | None]:
    """Return the blob wherever it is linked; for filling and mounting, never to answer a caller."""
    rows = yield from _FIND(digest=digest)
    return StoredBlob(*rows[0]) if rows else None


def record(blob: StoredBlob, verified_at: float) -> Steps[bool]:
    """Store a verified blob's row; return False when another copy is recorded already, which then stays."""
    yield from _RECORD(digest=blob.digest, size=blob.size, location=blob.location, verified_at=verified_at)
    kept = yield from find(blob.digest)
    return kept is not None and kept.location == blob.location


def link(repository: RepositoryName, digest: Digest, linked_at: float) -> Steps[None]:
    """Make a blob readable in a repository."""
    yield from _LINK(repository=repository, digest=digest, linked_at=linked_at)


def unlink(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Take a blob out of a repository; return whether it was there."""
    rows = yield from _UNLINK(repository=repository, digest=digest)
    return bool(rows)


def drop_unlinked(digest: Digest) -> Steps[StoredBlob | None]:
    """Drop the row of a blob that no repository holds; return it, so that its bytes are deleted after the commit."""
    rows = yield from _DROP_UNLINKED(digest=digest)
    return StoredBlob(*rows[0]) if rows else None


def find_location(digest: Digest) -> Steps[str | None]:
    """Return where a blob lies, a damaged one too."""
    rows = yield from _LOCATION(digest=digest)
    return str(rows[0][0]) if rows else None


def missing(repository: RepositoryName, digests: Sequence[Digest]) -> Steps[tuple[Digest, ...]]:
    """Return those of `digests` that this repository does not hold, in order."""
    absent = []
    for digest in digests:
        found = yield from find_linked(repository, digest)
        if found is None:
            absent.append(digest)
    return tuple(absent)


def holders(digest: Digest, after: str, limit: int) -> Steps[list[RepositoryName]]:
    """Return up to `limit` repositories that hold the blob and sort after `after`."""
    rows = yield from _HOLDERS(digest=digest, after=after, limit=limit)
    return [RepositoryName(row[0]) for row in rows]


def mark_corrupt(blob: StoredBlob) -> Steps[None]:
    """Stop serving these bytes; the next push or fill of the digest replaces them."""
    yield from _MARK(wanted=blob.digest, lies_at=blob.location)


def totals() -> Steps[tuple[int, int]]:
    """Return the number of blobs and the sum of their sizes in bytes."""
    rows = yield from _TOTALS()
    return int(rows[0][0]), int(rows[0][1])
