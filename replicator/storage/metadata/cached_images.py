"""When cached images were last used, which is the order in which they are given up.

An index and the images it lists are used together: whoever uses one uses all, as far as they are here. So an image
never looks older than an index that needs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.digest import Digest
from replicator.core.names import RepositoryName
from replicator.storage.metadata import images
from replicator.storage.metadata.images import CHILD
from replicator.storage.metadata.name_ranges import is_below
from replicator.storage.metadata.schema import cached_images, manifest_references
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.storage.metadata.name_ranges import NameRange

_MAX_PARENTS = 100
_MAX_DEPTH = 3
"""How deep indexes may lie in one another for a use of one to count for all."""


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A cached image and when it was last used."""

    repository: RepositoryName
    digest: Digest
    used_at: float

    @property
    def place(self) -> tuple[float, str, str]:
        """Where it stands in the order of use."""
        return self.used_at, self.repository, self.digest


FIRST = (-1.0, "", "")
"""The place before all others."""

_put = insert(cached_images).values(
    repository=sa.bindparam("repository"),
    digest=sa.bindparam("digest"),
    fetched_at=sa.bindparam("now"),
    used_at=sa.bindparam("now"),
)
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["repository", "digest"],
        set_={"used_at": _put.excluded.used_at},
        where=cached_images.c.used_at < _put.excluded.used_at,
    )
)
_TOUCH = Statement(
    sa.update(cached_images)
    .where(
        cached_images.c.repository == sa.bindparam("of_repository"),
        cached_images.c.digest == sa.bindparam("of_digest"),
        cached_images.c.used_at < sa.bindparam("now"),
    )
    .values(used_at=sa.bindparam("now"))
)
_TOUCH_CHILDREN = Statement(
    sa.update(cached_images)
    .where(
        cached_images.c.repository == sa.bindparam("of_repository"),
        cached_images.c.digest.in_(
            sa.select(manifest_references.c.child).where(
                manifest_references.c.parent == sa.bindparam("of_digest"), manifest_references.c.kind == CHILD
            )
        ),
        cached_images.c.used_at < sa.bindparam("now"),
    )
    .values(used_at=sa.bindparam("now"))
)
_FIND = Statement(
    sa.select(cached_images.c.used_at).where(
        cached_images.c.repository == sa.bindparam("repository"), cached_images.c.digest == sa.bindparam("digest")
    )
)
_FORGET = Statement(
    sa.delete(cached_images).where(
        cached_images.c.repository == sa.bindparam("repository"), cached_images.c.digest == sa.bindparam("digest")
    )
)
_OF_REPOSITORY = Statement(
    sa.select(cached_images.c.digest)
    .where(cached_images.c.repository == sa.bindparam("repository"), cached_images.c.digest > sa.bindparam("after"))
    .order_by(cached_images.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def put(repository: RepositoryName, digest: Digest, now: float) -> Steps[None]:
    """Note that an image was fetched, which counts as a use; call it in the transaction that stores the image."""
    yield from _PUT(repository=repository, digest=digest, now=now)
    yield from touch(repository, digest, now)


def touch(repository: RepositoryName, digest: Digest, now: float) -> Steps[None]:
    """Note that an image was used, and with it the indexes that list it and the images that it lists."""
    yield from _TOUCH(of_repository=repository, of_digest=digest, now=now)
    yield from _TOUCH_CHILDREN(of_repository=repository, of_digest=digest, now=now)
    above = [digest]
    for _ in range(_MAX_DEPTH):
        found: list[Digest] = []
        for one in above:
            found += yield from images.parents(repository, one, _MAX_PARENTS)
        for one in found:
            yield from _TOUCH(of_repository=repository, of_digest=one, now=now)
        above = found


def find_use(repository: RepositoryName, digest: Digest) -> Steps[float | None]:
    """Return when an image was last used, as far as that is written; None when the cache has no such image."""
    rows = yield from _FIND(repository=repository, digest=digest)
    return rows[0][0] if rows else None


def forget(repository: RepositoryName, digest: Digest) -> Steps[None]:
    """Drop what is known of an image's use."""
    yield from _FORGET(repository=repository, digest=digest)


def of_repository(repository: RepositoryName, after: str, limit: int) -> Steps[list[Digest]]:
    """Return up to `limit` cached images of a repository that sort after `after`, in order."""
    rows = yield from _OF_REPOSITORY(repository=repository, after=after, limit=limit)
    return [Digest(row[0]) for row in rows]


def least_recently_used(names: NameRange, after: tuple[float, str, str], limit: int) -> Steps[list[ImageUse]]:
    """Return up to `limit` cached images of the repositories in `names`, those first that were not used for longest."""
    used_at, repository, digest = after
    rows = yield from _by_use(names)(used_at=used_at, repository=repository, digest=digest, limit=limit)
    return [ImageUse(RepositoryName(row[0]), Digest(row[1]), row[2]) for row in rows]


@lru_cache(maxsize=256)
def _by_use(names: NameRange) -> Statement:
    columns = (cached_images.c.used_at, cached_images.c.repository, cached_images.c.digest)
    place = sa.tuple_(sa.bindparam("used_at", type_=sa.Double), sa.bindparam("repository"), sa.bindparam("digest"))
    return Statement(
        sa.select(cached_images.c.repository, cached_images.c.digest, cached_images.c.used_at)
        .where(sa.tuple_(*columns) > place, is_below(cached_images.c.repository, names))
        .order_by(*columns)
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )
