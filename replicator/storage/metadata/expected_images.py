"""What a repository holds, with everything the replication rules ask about it: the images, page by page.

One statement per page, so that a repository of ten thousand images is walked in as many rows and bounded memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.names import Tag
from replicator.core.replication import Origin, ReplicationState
from replicator.core.revisions import Revision
from replicator.storage.metadata.images import CHILD, stored_revision
from replicator.storage.metadata.replication_status import SUPERSEDED
from replicator.storage.metadata.schema import images, manifest_references, replication_status, tags
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName


@dataclass(frozen=True, slots=True)
class ImageWithTags:
    """An image of a repository with its tags and their revisions.

    `source` is the node that sent a replica. `was_sent`: the destination asked about was sent it without a tag, or has
    confirmed it.
    """

    repository: RepositoryName
    digest: Digest
    origin: Origin
    revision: Revision
    source: str | None
    subject: Digest | None
    is_child: bool
    was_sent: bool
    tags: tuple[tuple[Tag, Revision], ...] = ()


_parents = images.alias("parents")
_is_child = (
    sa.exists()
    .where(
        manifest_references.c.kind == CHILD,
        manifest_references.c.child == images.c.digest,
        _parents.c.repository == images.c.repository,
        _parents.c.digest == manifest_references.c.parent,
    )
    .correlate(images)
)
_was_sent = (
    sa.exists()
    .where(
        replication_status.c.repository == images.c.repository,
        replication_status.c.digest == images.c.digest,
        replication_status.c.destination == sa.bindparam("destination"),
        sa.or_(
            replication_status.c.status == ReplicationState.COMPLETE.value,
            sa.and_(
                replication_status.c.tag == "", sa.func.coalesce(replication_status.c.failure_code, "") != SUPERSEDED
            ),
        ),
    )
    .correlate(images)
)
_OF_REPOSITORY = images.c.repository == sa.bindparam("repository")


def _with_tags(*conditions: sa.ColumnElement[bool]) -> Statement:
    page = (
        sa.select(
            images.c.digest,
            images.c.origin,
            images.c.revision,
            images.c.source,
            images.c.subject,
            _is_child.label("is_child"),
            _was_sent.label("was_sent"),
        )
        .where(_OF_REPOSITORY, *conditions)
        .order_by(images.c.digest)
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .subquery("page")
    )
    return Statement(
        sa.select(*page.c, tags.c.tag, tags.c.epoch, tags.c.counter, tags.c.origin_node)
        .outerjoin(tags, sa.and_(tags.c.repository == sa.bindparam("repository"), tags.c.digest == page.c.digest))
        .order_by(page.c.digest, tags.c.tag)
    )


_PAGE = _with_tags(images.c.digest > sa.bindparam("after"))
_ONE = _with_tags(images.c.digest == sa.bindparam("digest"))


def page_after(repository: RepositoryName, destination: str, after: str, limit: int) -> Steps[list[ImageWithTags]]:
    """Return up to `limit` images whose digests sort after `after`, in order."""
    rows = yield from _PAGE(repository=repository, destination=destination, after=after, limit=limit)
    return _grouped(repository, rows)


def find(repository: RepositoryName, destination: str, digest: Digest) -> Steps[ImageWithTags | None]:
    """Return one image."""
    rows = yield from _ONE(repository=repository, destination=destination, digest=digest, limit=1)
    return next(iter(_grouped(repository, rows)), None)


def _grouped(repository: RepositoryName, rows: Sequence[Row]) -> list[ImageWithTags]:
    """Make one image of the rows that differ in the tag only."""
    found: dict[str, Row] = {}
    names: dict[str, list[tuple[Tag, Revision]]] = {}
    for row in rows:
        found.setdefault(row[0], row)
        if row[7] is not None:
            names.setdefault(row[0], []).append((Tag(row[7]), Revision(row[8], row[9], row[10])))
    return [
        ImageWithTags(
            repository,
            row[0],
            Origin(row[1]),
            stored_revision(row[2]),
            row[3],
            row[4],
            bool(row[5]),
            bool(row[6]),
            tuple(names.get(digest, ())),
        )
        for digest, row in found.items()
    ]
