"""What the cache knows of a tag's upstream: which digest it had, and when that was last confirmed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import cache_entries
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """A cached tag. `failed_at` and `last_error` tell of a check that failed since `checked_at`.

    `gone_at` is since when the upstream says that there is no such tag. `pending_digest` is what the upstream has and
    what is not served yet, because it is too new; `drift_digest` what the upstream has and what is never served, as
    the tag is immutable here. `rolled_back_at` is when the upstream last went back to an older digest. `due_at` is when
    it should be checked again, as was known when it was last checked.
    """

    repository: RepositoryName
    tag: Tag
    upstream: str
    digest: Digest
    checked_at: float
    changed_at: float
    used_at: float
    failed_at: float | None = None
    last_error: str | None = None
    gone_at: float | None = None
    pending_digest: Digest | None = None
    drift_digest: Digest | None = None
    rolled_back_at: float | None = None
    due_at: float = 0.0


_NAMES = [column.name for column in cache_entries.columns]
_FIND = Statement(
    sa.select(cache_entries).where(
        cache_entries.c.repository == sa.bindparam("repository"), cache_entries.c.reference == sa.bindparam("reference")
    )
)
_put = insert(cache_entries).values({name: sa.bindparam(name) for name in _NAMES})
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["repository", "reference"],
        set_={name: _put.excluded[name] for name in _NAMES if name not in {"repository", "reference"}},
    )
)
_TOUCH = Statement(
    sa.update(cache_entries)
    .where(
        cache_entries.c.repository == sa.bindparam("of_repository"),
        cache_entries.c.reference == sa.bindparam("of_reference"),
    )
    .values(used_at=sa.bindparam("now"))
)
_DELETE = Statement(
    sa.delete(cache_entries).where(
        cache_entries.c.repository == sa.bindparam("repository"), cache_entries.c.reference == sa.bindparam("reference")
    )
)
_OF_REPOSITORY = Statement(
    sa.select(cache_entries)
    .where(cache_entries.c.repository == sa.bindparam("repository"), cache_entries.c.reference > sa.bindparam("after"))
    .order_by(cache_entries.c.reference)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_COUNT = Statement(sa.select(sa.func.count()).select_from(cache_entries))


def find(repository: RepositoryName, tag: Tag) -> Steps[CacheEntry | None]:
    """Return what is known of a cached tag."""
    rows = yield from _FIND(repository=repository, reference=tag)
    return CacheEntry(*rows[0]) if rows else None


def put(entry: CacheEntry) -> Steps[None]:
    """Store what is known of a cached tag."""
    yield from _PUT(
        repository=entry.repository,
        reference=entry.tag,
        upstream=entry.upstream,
        digest=entry.digest,
        checked_at=entry.checked_at,
        changed_at=entry.changed_at,
        used_at=entry.used_at,
        failed_at=entry.failed_at,
        last_error=entry.last_error,
        gone_at=entry.gone_at,
        pending_digest=entry.pending_digest,
        drift_digest=entry.drift_digest,
        rolled_back_at=entry.rolled_back_at,
        due_at=entry.due_at,
    )


def delete(repository: RepositoryName, tag: Tag) -> Steps[None]:
    """Forget what is known of a cached tag."""
    yield from _DELETE(repository=repository, reference=tag)


def tags_of(repository: RepositoryName, after: str, limit: int) -> Steps[list[CacheEntry]]:
    """Return up to `limit` cached tags of a repository that sort after `after`, in order."""
    rows = yield from _OF_REPOSITORY(repository=repository, after=after, limit=limit)
    return [CacheEntry(*row) for row in rows]


def touch(repository: RepositoryName, tag: Tag, now: float) -> Steps[None]:
    """Note that a cached tag was used."""
    yield from _TOUCH(of_repository=repository, of_reference=tag, now=now)


def count() -> Steps[int]:
    """Return how many cached tags there are."""
    rows = yield from _COUNT()
    return int(rows[0][0])
