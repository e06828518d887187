"""What a cache holds, in pages: its tags, and its images without a tag, sorted by repository and reference.

Two lists are read side by side and joined by their order, so that no page costs more than its length, however much is
cached. A tag counts while it points to what its upstream said; an image that an index lists belongs to that index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.digest import Digest
from replicator.core.names import RepositoryName, Tag
from replicator.storage.metadata.images import BLOB, CHILD
from replicator.storage.metadata.schema import (
    blobs,
    cache_entries,
    cached_images,
    images,
    manifest_references,
    repository_blobs,
    tags,
)
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.storage.metadata.statement import Row


@dataclass(frozen=True, slots=True)
class CachedRow:
    """A cached tag, or with `tag` None a cached image without one."""

    repository: RepositoryName
    tag: Tag | None
    digest: Digest

    @property
    def key(self) -> tuple[str, str]:
        """What rows are sorted by; no tag has the colon of a digest."""
        return self.repository, self.tag or self.digest


@dataclass(frozen=True, slots=True)
class CachedUse:
    """When a cached image was fetched and last used, in Unix seconds."""

    fetched_at: float
    used_at: float


@dataclass(frozen=True, slots=True)
class InventoryPage:
    """Rows in order, and where the next page begins; None when there is none."""

    rows: Sequence[CachedRow]
    next_after: tuple[str, str] | None


@dataclass(frozen=True, slots=True)
class Holdings:
    """What lies here of one image: manifests and blobs, those that it names altogether, and the bytes of these blobs.

    The blobs named by manifests that are not here are not known, and not counted.
    """

    manifests: int
    all_manifests: int
    blobs: int
    all_blobs: int
    size: int


_TAGS = Statement(
    sa.select(cache_entries.c.repository, cache_entries.c.reference, cache_entries.c.digest, tags.c.digest)
    .outerjoin(tags, sa.and_(tags.c.repository == cache_entries.c.repository, tags.c.tag == cache_entries.c.reference))
    .where(
        cache_entries.c.repository >= sa.bindparam("first"),
        cache_entries.c.repository < sa.bindparam("last"),
        sa.tuple_(cache_entries.c.repository, cache_entries.c.reference)
        > sa.tuple_(sa.bindparam("after_repository"), sa.bindparam("after_reference")),
    )
    .order_by(cache_entries.c.repository, cache_entries.c.reference)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_has_tag = sa.exists().where(tags.c.repository == cached_images.c.repository, tags.c.digest == cached_images.c.digest)
_parent = images.alias("parent")
_has_parent = sa.exists().where(
    manifest_references.c.kind == CHILD,
    manifest_references.c.child == cached_images.c.digest,
    _parent.c.digest == manifest_references.c.parent,
    _parent.c.repository == cached_images.c.repository,
)
_IMAGES = Statement(
    sa.select(cached_images.c.repository, cached_images.c.digest, _has_tag, _has_parent)
    .where(
        cached_images.c.repository >= sa.bindparam("first"),
        cached_images.c.repository < sa.bindparam("last"),
        sa.tuple_(cached_images.c.repository, cached_images.c.digest)
        > sa.tuple_(sa.bindparam("after_repository"), sa.bindparam("after_reference")),
    )
    .order_by(cached_images.c.repository, cached_images.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_USE = Statement(
    sa.select(cached_images.c.fetched_at, cached_images.c.used_at).where(
        cached_images.c.repository == sa.bindparam("repository"), cached_images.c.digest == sa.bindparam("digest")
    )
)
_TAGS_OF = Statement(
    sa.select(cache_entries.c.reference)
    .where(cache_entries.c.repository == sa.bindparam("repository"))
    .order_by(cache_entries.c.reference)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_CHILDREN = Statement(
    sa.select(manifest_references.c.child, images.c.digest)
    .outerjoin(
        images,
        sa.and_(images.c.digest == manifest_references.c.child, images.c.repository == sa.bindparam("of_repository")),
    )
    .where(manifest_references.c.parent == sa.bindparam("digest"), manifest_references.c.kind == CHILD)
)
_BLOBS = Statement(
    sa.select(manifest_references.c.child, blobs.c.size)
    .outerjoin(
        repository_blobs,
        sa.and_(
            repository_blobs.c.digest == manifest_references.c.child,
            repository_blobs.c.repository == sa.bindparam("of_repository"),
        ),
    )
    .outerjoin(blobs, sa.and_(blobs.c.digest == repository_blobs.c.digest, blobs.c.state == "stored"))
    .where(manifest_references.c.parent == sa.bindparam("digest"), manifest_references.c.kind == BLOB)
)


def page(first: str, last: str, after: tuple[str, str], limit: int) -> Steps[InventoryPage]:
    """Return up to `limit` rows of repositories from `first` up to but without `last`, that sort after `after`.

    A page may be shorter than `limit`, even empty, while there are more.
    """
    place = {"after_repository": after[0], "after_reference": after[1]}
    tag_rows = yield from _TAGS(first=first, last=last, limit=limit, **place)
    image_rows = yield from _IMAGES(first=first, last=last, limit=limit, **place)
    found = [*map(_tag_row, tag_rows), *map(_image_row, image_rows)]
    found.sort(key=lambda one: one[0].key)
    is_last = len(tag_rows) < limit and len(image_rows) < limit and len(found) <= limit
    kept = found[:limit]
    return InventoryPage([row for row, counts in kept if counts], None if is_last else kept[-1][0].key)


def find_use(repository: RepositoryName, digest: Digest) -> Steps[CachedUse | None]:
    """Return how a cached image is used, or None when the cache has no such image."""
    rows = yield from _USE(repository=repository, digest=digest)
    return CachedUse(*rows[0]) if rows else None


def tags_of(repository: RepositoryName, limit: int) -> Steps[list[Tag]]:
    """Return up to `limit` cached tags of a repository, in order."""
    rows = yield from _TAGS_OF(repository=repository, limit=limit)
    return [Tag(row[0]) for row in rows]


def holdings(repository: RepositoryName, digest: Digest) -> Steps[Holdings]:
    """Return what lies here of an image that is here, and of the images that it lists."""
    children = yield from _CHILDREN(of_repository=repository, digest=digest)
    here = [digest, *(row[0] for row in children if row[1] is not None)]
    sizes: dict[str, int | None] = {}
    for one in here:
        rows = yield from _BLOBS(of_repository=repository, digest=one)
        sizes.update((row[0], row[1]) for row in rows)
    stored = [size for size in sizes.values() if size is not None]
    return Holdings(len(here), len(children) + 1, len(stored), len(sizes), sum(stored))


def _tag_row(row: Row) -> tuple[CachedRow, bool]:
    repository, reference, digest, current = row
    return CachedRow(RepositoryName(repository), Tag(reference), Digest(digest)), digest == current


def _image_row(row: Row) -> tuple[CachedRow, bool]:
    repository, digest, has_tag, has_parent = row
    return CachedRow(RepositoryName(repository), None, Digest(digest)), not has_tag and not has_parent
