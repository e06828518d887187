"""Taking a repository away with everything that is kept of it.

Nothing stays that would mean something to a repository of the same name that is made later: no tombstones of tags and
images, no links to blobs, no sessions of uploads. What is a record of the past stays: backfills, and events.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.jobs import JobKind
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.metadata.schema import (
    backfill_images,
    blobs,
    images,
    jobs,
    manifest_references,
    manifests,
    metadata,
    repositories,
    repository_blobs,
)
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName

KEPT = frozenset({"backfills", "backfill_images", "events", "event_deliveries"})
"""Tables that go on naming repositories which are gone."""

_of_repository: sa.BindParameter[str] = sa.bindparam("of_repository")
_elsewhere = images.alias("elsewhere")
_alone = sa.select(images.c.digest).where(
    images.c.repository == _of_repository,
    ~sa.exists().where(_elsewhere.c.digest == images.c.digest, _elsewhere.c.repository != _of_repository),
)
_other_links = repository_blobs.alias("other_links")
_IS_EMPTY = Statement(sa.select(images.c.digest).where(images.c.repository == _of_repository).limit(1))
_FORGET_REFERENCES = Statement(sa.delete(manifest_references).where(manifest_references.c.parent.in_(_alone)))
_FORGET_MANIFESTS = Statement(sa.delete(manifests).where(manifests.c.digest.in_(_alone)))
_DROP_BLOBS = Statement(
    sa.delete(blobs)
    .where(
        blobs.c.digest.in_(sa.select(repository_blobs.c.digest).where(repository_blobs.c.repository == _of_repository)),
        ~sa.exists().where(_other_links.c.digest == blobs.c.digest, _other_links.c.repository != _of_repository),
    )
    .returning(blobs.c.digest, blobs.c.size, blobs.c.location, blobs.c.verified_at)
)
_of_tag: sa.BindParameter[str] = sa.bindparam("of_tag")
_of_digest: sa.BindParameter[str] = sa.bindparam("of_digest")
_DROP_JOBS = Statement(
    sa.delete(jobs).where(
        jobs.c.kind == JobKind.REPLICATE.value,
        sa.or_(jobs.c.key.like(_of_tag, escape="!"), jobs.c.key.like(_of_digest, escape="!")),
        # One that a backfill waits for ends by itself, and tells it.
        ~sa.exists().where(backfill_images.c.kind == jobs.c.kind, backfill_images.c.key == jobs.c.key),
    )
)
_DELETES = tuple(
    Statement(sa.delete(table).where(table.c.repository == _of_repository))
    for table in metadata.sorted_tables
    if "repository" in table.c and table.name not in KEPT
)
_DELETE = Statement(sa.delete(repositories).where(repositories.c.name == _of_repository))


def holds_images(repository: RepositoryName) -> Steps[bool]:
    """Tell whether there is an image in a repository, of whatever status."""
    return bool((yield from _IS_EMPTY(of_repository=repository)))


def remove(repository: RepositoryName) -> Steps[list[StoredBlob]]:
    """Take a repository away with all that it holds; return blobs whose bytes nobody refers to any more.

    Nothing is deleted anywhere else for it, and copies of its images that are under way end.
    """
    yield from _FORGET_REFERENCES(of_repository=repository)
    yield from _FORGET_MANIFESTS(of_repository=repository)
    dropped = yield from _DROP_BLOBS(of_repository=repository)
    name = repository.replace("_", "!_")
    yield from _DROP_JOBS(of_tag=f"%|{name}:%", of_digest=f"%|{name}@%")
    for statement in _DELETES:
        yield from statement(of_repository=repository)
    yield from _DELETE(of_repository=repository)
    return [StoredBlob(*row) for row in dropped]
