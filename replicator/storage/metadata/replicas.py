"""What a node holds of one source: the lines from which anti-entropy makes a repository's fingerprint.

Everything is read in pages by an index: a read must not take long, because reads of SQLite hold up the loop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.names import RepositoryName, Tag
from replicator.core.replication import Origin
from replicator.core.revisions import Revision
from replicator.storage.metadata.schema import images, tags
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest

_limit = sa.bindparam("limit", type_=sa.Integer)
_sent = sa.and_(images.c.source.is_not(None), images.c.source == sa.bindparam("source"))
_NEXT = Statement(sa.select(sa.func.min(images.c.repository)).where(_sent, images.c.repository > sa.bindparam("after")))
_IMAGES = Statement(
    sa.select(images.c.digest)
    .where(_sent, images.c.repository == sa.bindparam("repository"), images.c.digest > sa.bindparam("after"))
    .order_by(images.c.digest)
    .limit(_limit)
)
# All tags of the repository, not only those of the source: a page then costs the same wherever they lie.
_TAGS = Statement(
    sa.select(
        tags.c.tag, tags.c.digest, tags.c.epoch, tags.c.counter, tags.c.origin_node, images.c.origin, images.c.source
    )
    .join(
        images,
        sa.and_(images.c.repository == tags.c.repository, images.c.digest == tags.c.digest),
        isouter=True,
    )
    .where(tags.c.repository == sa.bindparam("repository"), tags.c.tag > sa.bindparam("after"))
    .order_by(tags.c.tag)
    .limit(_limit)
)


@dataclass(frozen=True, slots=True)
class HeldTag:
    """A tag (of no digest: deleted), whether its image is a replica, and the node that sent the image last."""

    tag: Tag
    digest: Digest | None
    revision: Revision
    is_replica: bool
    source: str | None


def repositories_after(source: str, after: str, limit: int) -> Steps[list[RepositoryName]]:
    """Return up to `limit` repositories that hold images of a source and sort after `after`, in order."""
    found: list[RepositoryName] = []
    while len(found) < limit:
        ((name,),) = yield from _NEXT(source=source, after=after)
        if name is None:
            break
        found.append(RepositoryName(name))
        after = name
    return found


def images_after(source: str, repository: RepositoryName, after: str, limit: int) -> Steps[list[Digest]]:
    """Return up to `limit` images that a source sent and whose digests sort after `after`, in order."""
    rows = yield from _IMAGES(source=source, repository=repository, after=after, limit=limit)
    return [row[0] for row in rows]


def tags_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[HeldTag]]:
    """Return up to `limit` tags that sort after `after`, deleted ones included, in order."""
    rows = yield from _TAGS(repository=repository, after=after, limit=limit)
    return [
        HeldTag(Tag(tag), digest, Revision(epoch, counter, node), origin == Origin.REPLICA.value, source)
        for tag, digest, epoch, counter, node, origin, source in rows
    ]
