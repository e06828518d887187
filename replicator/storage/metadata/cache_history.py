"""Which digests the upstream of a cached tag was seen to have, and which of them the tag had here.

By this a digest that is too new to be served is told from one that is old enough, and an upstream that goes back to
what it had before from one that goes on. A tag's history is bounded: the digests that were neither seen nor served for
longest are forgotten.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import cache_history
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag

KEPT = 100
"""Digests that are remembered of a tag."""


@dataclass(frozen=True, slots=True)
class SeenDigest:
    """A digest that a tag has or had upstream; `served_at` is when the tag was last moved to it here, if it was."""

    digest: Digest
    first_seen_at: float
    served_at: float | None


_of_tag = sa.and_(
    cache_history.c.repository == sa.bindparam("of_repository"), cache_history.c.reference == sa.bindparam("of_tag")
)
_COLUMNS = (cache_history.c.digest, cache_history.c.first_seen_at, cache_history.c.served_at)
_newest = sa.func.coalesce(cache_history.c.served_at, cache_history.c.first_seen_at).desc()
_limit = sa.bindparam("limit", type_=sa.Integer)
_FIND = Statement(sa.select(*_COLUMNS).where(_of_tag, cache_history.c.digest == sa.bindparam("of_digest")))
_LIST = Statement(sa.select(*_COLUMNS).where(_of_tag).order_by(_newest, cache_history.c.digest).limit(_limit))
_values = insert(cache_history).values(
    repository=sa.bindparam("of_repository"),
    reference=sa.bindparam("of_tag"),
    digest=sa.bindparam("of_digest"),
    first_seen_at=sa.bindparam("seen_at"),
    served_at=sa.bindparam("served_at"),
)
_KEY = ["repository", "reference", "digest"]
_SEE = Statement(_values.on_conflict_do_nothing(index_elements=_KEY))
_SERVE = Statement(_values.on_conflict_do_update(index_elements=_KEY, set_={"served_at": _values.excluded.served_at}))
_TRIM = Statement(
    sa.delete(cache_history).where(
        _of_tag,
        cache_history.c.digest.not_in(
            sa.select(cache_history.c.digest).where(_of_tag).order_by(_newest, cache_history.c.digest).limit(_limit)
        ),
    )
)


def find(repository: RepositoryName, tag: Tag, digest: Digest) -> Steps[SeenDigest | None]:
    """Return what is known of a digest of a tag, or None when the tag was never seen to have it."""
    rows = yield from _FIND(of_repository=repository, of_tag=tag, of_digest=digest)
    return SeenDigest(*rows[0]) if rows else None


def newest(repository: RepositoryName, tag: Tag, limit: int = KEPT) -> Steps[list[SeenDigest]]:
    """Return the digests of a tag, those served or seen last first."""
    rows = yield from _LIST(of_repository=repository, of_tag=tag, limit=limit)
    return [SeenDigest(*row) for row in rows]


def see(repository: RepositoryName, tag: Tag, digest: Digest, now: float) -> Steps[SeenDigest]:
    """Note that the upstream's tag has a digest, unless that is known; return what is known of it."""
    yield from _SEE(of_repository=repository, of_tag=tag, of_digest=digest, seen_at=now, served_at=None)
    yield from _TRIM(of_repository=repository, of_tag=tag, limit=KEPT)
    return (yield from find(repository, tag, digest)) or SeenDigest(digest, now, None)


def serve(repository: RepositoryName, tag: Tag, digest: Digest, now: float) -> Steps[None]:
    """Note that a tag moved to a digest here."""
    yield from _SERVE(of_repository=repository, of_tag=tag, of_digest=digest, seen_at=now, served_at=now)
    yield from _TRIM(of_repository=repository, of_tag=tag, limit=KEPT)
