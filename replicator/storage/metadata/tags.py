"""Tags: versioned registers that point to a digest, or say that the tag was deleted.

A deleted tag keeps its row (a tombstone) and its counter, so that a late copy from elsewhere can be told from a newer
one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.digest import Digest
from replicator.core.names import Tag
from replicator.core.revisions import Revision, TagRegister, write
from replicator.storage.metadata.schema import tags
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from replicator.core.names import NodeId, RepositoryName


_FIND = Statement(
    sa.select(tags.c.digest, tags.c.epoch, tags.c.counter, tags.c.origin_node, tags.c.seen).where(
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
    seen=sa.bindparam("seen"),
)
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["repository", "tag"],
        set_={
            name: _put.excluded[name] for name in ("digest", "epoch", "counter", "origin_node", "changed_at", "seen")
        },
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
_POINTING = Statement(
    sa.select(tags.c.tag, tags.c.digest, tags.c.changed_at)
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
_REMOVE = Statement(
    sa.delete(tags)
    .where(
        tags.c.repository == sa.bindparam("repository"),
        tags.c.tag == sa.bindparam("tag"),
        tags.c.digest == sa.bindparam("digest"),
    )
    .returning(tags.c.tag)
)
_STATES = Statement(
    sa.select(tags.c.tag, tags.c.digest, tags.c.epoch, tags.c.counter, tags.c.origin_node, tags.c.seen)
    .where(tags.c.repository == sa.bindparam("repository"), tags.c.tag > sa.bindparam("after"))
    .order_by(tags.c.tag)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def find(repository: RepositoryName, tag: Tag) -> Steps[TagRegister | None]:
    """Return the register of a tag, that of a deleted one, too."""
    rows = yield from _FIND(repository=repository, tag=tag)
    return _register(rows[0]) if rows else None


def put(
    repository: RepositoryName, tag: Tag, digest: Digest | None, by: NodeId, changed_at: float
) -> Steps[TagRegister]:
    """Point a tag to a digest, or delete it (None), in a new revision made by `by`; return the new register."""
    previous = yield from find(repository, tag)
    register = write(previous, digest, by, changed_at)
    yield from set_register(repository, tag, register, changed_at)
    return register


def remove(repository: RepositoryName, tag: Tag, digest: Digest) -> Steps[bool]:
    """Remove a tag that points to a digest as if it had never been; return whether it did.

    For what the cache brought: no other node needs to learn of it, and it may come again.
    """
    rows = yield from _REMOVE(repository=repository, tag=tag, digest=digest)
    return bool(rows)


def set_register(repository: RepositoryName, tag: Tag, register: TagRegister, changed_at: float) -> Steps[None]:
    """Store a register that was decided on elsewhere (`core.revisions.merge`)."""
    yield from _PUT(
        repository=repository,
        tag=tag,
        digest=register.digest,
        epoch=register.revision.epoch,
        counter=register.revision.counter,
        origin_node=register.revision.node,
        changed_at=changed_at,
        seen=json.dumps(register.seen, separators=(",", ":"), sort_keys=True),
    )


def registers_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[tuple[Tag, TagRegister]]]:
    """Return up to `limit` tags that sort after `after` with their registers, deleted ones included, in order."""
    rows = yield from _STATES(repository=repository, after=after, limit=limit)
    return [(Tag(row[0]), _register(row[1:])) for row in rows]


def _register(row: Row) -> TagRegister:
    digest, epoch, counter, node, seen = row
    return TagRegister(digest, Revision(epoch, counter, node), json.loads(seen))


def names_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[Tag]]:
    """Return up to `limit` tags that sort after `after`, in order."""
    rows = yield from _LIST(repository=repository, after=after, limit=limit)
    return [Tag(row[0]) for row in rows]


def pointing_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[tuple[Tag, Digest, float]]]:
    """Return up to `limit` tags that sort after `after`, in order, with what they point to and since when."""
    rows = yield from _POINTING(repository=repository, after=after, limit=limit)
    return [(Tag(tag), Digest(digest), changed_at) for tag, digest, changed_at in rows]


def of_digest(repository: RepositoryName, digest: Digest) -> Steps[list[Tag]]:
    """Return the tags that point to a digest, in order."""
    rows = yield from _OF_DIGEST(repository=repository, digest=digest)
    return [Tag(row[0]) for row in rows]
