"""How many images and tags there are, counted no further than somebody wants to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.storage.metadata.schema import images, tags
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Collection

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag

_HAS = Statement(
    sa.select(images.c.digest).where(
        images.c.repository == sa.bindparam("repository"), images.c.digest == sa.bindparam("digest")
    )
)
_NTH = Statement(
    sa.select(images.c.digest)
    .where(images.c.repository == sa.bindparam("repository"))
    .order_by(images.c.digest)
    .limit(1)
    .offset(sa.bindparam("number", type_=sa.Integer))
)
_TAGS = Statement(
    sa.select(tags.c.tag)
    .where(tags.c.repository == sa.bindparam("repository"), tags.c.digest == sa.bindparam("digest"))
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def is_full(repository: RepositoryName, digest: Digest, limit: int) -> Steps[bool]:
    """Tell whether a repository holds `limit` images or more, and this one is none of them."""
    full = yield from _NTH(repository=repository, number=max(0, limit - 1))
    return bool(full) and not (yield from _HAS(repository=repository, digest=digest))


def other_tags(repository: RepositoryName, digest: Digest, known: Collection[Tag], limit: int) -> Steps[int]:
    """Return how many tags besides `known` an image has; not much more than `limit` are counted."""
    rows = yield from _TAGS(repository=repository, digest=digest, limit=limit + len(known))
    return sum(row[0] not in known for row in rows)
