"""What blobs and manifests take up, and who needs them: the sums and the dependencies that eviction is decided by.

A repository holds a blob by a link. It needs the blob while one of its images refers to it; a link that no image
needs any more, or that an upload or a lone download made, is *loose*.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.digest import Digest
from replicator.core.names import RepositoryName
from replicator.storage.metadata.images import BLOB, CHILD
from replicator.storage.metadata.name_ranges import is_below
from replicator.storage.metadata.schema import blobs, images, manifest_references, manifests, repository_blobs
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.storage.metadata.name_ranges import NameRange

_MAX_HOLDERS = 5000
"""More repositories or images than these are not counted: nobody will have given up all of them at once."""


@dataclass(frozen=True, slots=True)
class HeldBlob:
    """A stored blob, or a manifest, with all the repositories that hold it."""

    digest: Digest
    size: int
    repositories: tuple[RepositoryName, ...]


_BLOBS = Statement(
    sa.select(blobs.c.digest, blobs.c.size)
    .where(blobs.c.digest > sa.bindparam("after"))
    .order_by(blobs.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_SIZE = Statement(sa.select(blobs.c.size).where(blobs.c.digest == sa.bindparam("digest")))
_LINKS = Statement(
    sa.select(repository_blobs.c.digest, repository_blobs.c.repository).where(
        repository_blobs.c.digest > sa.bindparam("after"), repository_blobs.c.digest <= sa.bindparam("last")
    )
)
_LENGTH = sa.func.length(manifests.c.content)
_MANIFESTS = Statement(
    sa.select(manifests.c.digest, _LENGTH)
    .where(manifests.c.digest > sa.bindparam("after"))
    .order_by(manifests.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_MANIFEST_SIZE = Statement(sa.select(_LENGTH).where(manifests.c.digest == sa.bindparam("digest")))
_IMAGES = Statement(
    sa.select(images.c.digest, images.c.repository).where(
        images.c.digest > sa.bindparam("after"), images.c.digest <= sa.bindparam("last")
    )
)
_OF_IMAGE = Statement(
    sa.select(blobs.c.digest, blobs.c.size)
    .join(manifest_references, manifest_references.c.child == blobs.c.digest)
    .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
    .where(
        manifest_references.c.parent == sa.bindparam("image"),
        manifest_references.c.kind == BLOB,
        repository_blobs.c.repository == sa.bindparam("repository"),
    )
)
_CHILDREN = Statement(
    sa.select(images.c.digest)
    .join(manifest_references, manifest_references.c.child == images.c.digest)
    .where(
        manifest_references.c.parent == sa.bindparam("parent"),
        manifest_references.c.kind == CHILD,
        images.c.repository == sa.bindparam("repository"),
    )
    .order_by(images.c.digest)
)
_needed = (
    sa.select(manifest_references.c.child)
    .join(images, images.c.digest == manifest_references.c.parent)
    .where(images.c.repository == sa.bindparam("repository"), manifest_references.c.kind == BLOB)
)
_LOOSE = Statement(
    sa.select(repository_blobs.c.digest)
    .where(
        repository_blobs.c.repository == sa.bindparam("repository"),
        repository_blobs.c.linked_at < sa.bindparam("before"),
        repository_blobs.c.digest.not_in(_needed),
    )
    .order_by(repository_blobs.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)


def held_blobs(after: str, limit: int) -> Steps[list[HeldBlob]]:
    """Return up to `limit` blobs whose digests sort after `after`, in order."""
    return (yield from _held(_BLOBS, _LINKS, after, limit))


def held_manifests(after: str, limit: int) -> Steps[list[HeldBlob]]:
    """Return up to `limit` manifests whose digests sort after `after`, in order."""
    return (yield from _held(_MANIFESTS, _IMAGES, after, limit))


def _held(sizes: Statement, links_to: Statement, after: str, limit: int) -> Steps[list[HeldBlob]]:
    rows = yield from sizes(after=after, limit=limit)
    if not rows:
        return []
    links = yield from links_to(after=after, last=rows[-1][0])
    holders: dict[str, list[RepositoryName]] = {}
    for digest, repository in links:
        holders.setdefault(digest, []).append(RepositoryName(repository))
    return [HeldBlob(Digest(row[0]), row[1], tuple(holders.get(row[0], ()))) for row in rows]


def blobs_of(repository: RepositoryName, image: Digest) -> Steps[dict[Digest, int]]:
    """Return the sizes of those blobs of an image that its repository holds."""
    rows = yield from _OF_IMAGE(repository=repository, image=image)
    return {Digest(row[0]): row[1] for row in rows}


def find_size(digest: Digest) -> Steps[int]:
    """Return the size of a blob, 0 of one that is not here."""
    rows = yield from _SIZE(digest=digest)
    return int(rows[0][0]) if rows else 0


def manifest_size(digest: Digest) -> Steps[int]:
    """Return how many bytes a manifest has, 0 for one that is not here."""
    rows = yield from _MANIFEST_SIZE(digest=digest)
    return int(rows[0][0]) if rows else 0


def children(repository: RepositoryName, digest: Digest) -> Steps[list[Digest]]:
    """Return those images an index lists that are in its repository."""
    rows = yield from _CHILDREN(repository=repository, parent=digest)
    return [Digest(row[0]) for row in rows]


def loose_blobs(repository: RepositoryName, linked_before: float, limit: int) -> Steps[list[Digest]]:
    """Return up to `limit` blobs that a repository holds since long and that none of its images refers to."""
    rows = yield from _LOOSE(repository=repository, before=linked_before, limit=limit)
    return [Digest(row[0]) for row in rows]


def count_needing(digest: Digest, names: NameRange) -> Steps[int]:
    """Return how many images of repositories in `names` keep a blob there; a loose link counts as one."""
    links = yield from _holders(names)(digest=digest, limit=_MAX_HOLDERS)
    users = yield from _users(names)(digest=digest, limit=_MAX_HOLDERS)
    counts = Counter(row[0] for row in users)
    return sum(max(1, counts[row[0]]) for row in links)


def is_held(digest: Digest, names: NameRange) -> Steps[bool]:
    """Tell whether a repository in `names` holds a blob."""
    return bool((yield from _holders(names)(digest=digest, limit=1)))


def count_images(digest: Digest, names: NameRange) -> Steps[int]:
    """Return how many repositories in `names` have an image."""
    return len((yield from _with_image(names)(digest=digest, limit=_MAX_HOLDERS)))


@lru_cache(maxsize=256)
def _with_image(names: NameRange) -> Statement:
    return Statement(
        sa.select(images.c.repository)
        .where(images.c.digest == sa.bindparam("digest"), is_below(images.c.repository, names))
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


@lru_cache(maxsize=256)
def _holders(names: NameRange) -> Statement:
    return Statement(
        sa.select(repository_blobs.c.repository)
        .where(repository_blobs.c.digest == sa.bindparam("digest"), is_below(repository_blobs.c.repository, names))
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )


@lru_cache(maxsize=256)
def _users(names: NameRange) -> Statement:
    return Statement(
        sa.select(images.c.repository)
        .join(manifest_references, manifest_references.c.parent == images.c.digest)
        .where(
            manifest_references.c.child == sa.bindparam("digest"),
            manifest_references.c.kind == BLOB,
            is_below(images.c.repository, names),
        )
        .limit(sa.bindparam("limit", type_=sa.Integer))
    )
