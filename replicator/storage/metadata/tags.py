"""Tags: versioned registers that point to a digest, or say that the tag was deleted.

A deleted tag keeps its row (a tombstone) and its counter, so that a late copy from elsewhere can be told from a newer
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.names import NodeId, RepositoryName, Tag
from replicator.storage.metadata.node import FIRST_EPOCH
from replicator.storage.metadata.schema import tags
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest


@dataclass(frozen=True, slots=True)
class TagState:
    """What a tag points to (None: deleted), and its revision."""

    digest: Digest | None
    epoch: int
    counter: int
    origin_node: str


_FIND = Statement(
    sa.select(tags.c.digest, tags.c.epoch, tags.c.counter, tags.c.origin_node).where(
        tags.c.repository == sa.bindparam("repository"), tags.c.tag == sa.bindparam("tag")
    )
)
_put = insert(tags).values(
    repository=sa.bindparam("repository"),
    tag=sa.bindparam("tag"),
    digest=sa.bindparam("digest"),
    epoch=sa.bindparam("epoch"),
    counter=sa.bindparam("counter"),
    origin_node=sa.bindparam("origin_node"),
    changed_at=sa.bindparam("changed_at"),
)
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["repository", "tag"],
        set_={name: _put.excluded[name] for name in ("digest", "epoch", "counter", "origin_node", "changed_at")},
    )
)
_LIST = Statement(
    sa.select(tags.c.tag)
    .where(
        tags.c.repository == sa.bindparam("repository"),
        tags.c.tag > sa.bindparam("after"),
        tags.c.digest.is_not(None),
    )
    .order_by(tags.c.tag)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_OF_DIGEST = Statement(
    sa.select(tags.c.tag)
    .where(tags.c.repository == sa.bindparam("repository"), tags.c.digest == sa.bindparam("digest"))
    .order_by(tags.c.tag)
)


def find(repository: RepositoryName, tag: Tag) -> Steps[TagState | None]:
    """Return the state of a tag, tombstones included."""
    rows = yield from _FIND(repository=repository, tag=tag)
    return TagState(*rows[0]) if rows else None


def put(repository: RepositoryName, tag: Tag, digest: Digest | None, by: NodeId, changed_at: float) -> Steps[TagState]:
    """Point a tag to a digest, or delete it (None), in a new revision made by `by`; return the new state."""
    previous = yield from find(repository, tag)
    counter = previous.counter + 1 if previous else 1
    epoch = previous.epoch if previous else FIRST_EPOCH
    state = TagState(digest, epoch, counter, str(by))
    yield from _PUT(
        repository=repository,
        tag=tag,
        digest=digest,
        epoch=epoch,
        counter=counter,
        origin_node=state.origin_node,
        changed_at=changed_at,
    )
    return state


def names_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[Tag]]:
    """Return up to `limit` tags that sort after `after`, in order."""
    rows = yield from _LIST(repository=repository, after=after, limit=limit)
    return [Tag(row[0]) for row in rows]


def of_digest(repository: RepositoryName, digest: Digest) -> Steps[list[Tag]]:
    """Return the tags that point to a digest, in order."""
    rows = yield from _OF_DIGEST(repository=repository, digest=digest)
    return [Tag(row[0]) for row in rows]
