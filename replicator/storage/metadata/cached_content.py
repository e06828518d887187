"""Which content of a repository an upstream vouches for.

A blob that is stored here already may be shown in another repository only where the upstream itself put it: by a
manifest that was fetched from there. What users pushed proves nothing about their right to a blob they merely name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.names import RepositoryName
from replicator.core.replication import Origin
from replicator.storage.metadata.images import BLOB, StoredManifest
from replicator.storage.metadata.schema import images, manifest_references, manifests, repository_blobs
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest

_MAX_HOLDERS = 100

_FIND_MANIFEST = Statement(
    sa.select(manifests.c.digest, manifests.c.media_type, manifests.c.content)
    .join(manifest_references, manifest_references.c.parent == manifests.c.digest)
    .join(images, images.c.digest == manifests.c.digest)
    .where(
        manifest_references.c.child == sa.bindparam("digest"),
        manifest_references.c.kind == BLOB,
        images.c.repository == sa.bindparam("repository"),
        images.c.origin == Origin.CACHE.value,
    )
    .limit(1)
)
_HOLDERS = Statement(
    sa.select(repository_blobs.c.repository)
    .join(manifest_references, manifest_references.c.child == repository_blobs.c.digest)
    .join(
        images,
        sa.and_(images.c.digest == manifest_references.c.parent, images.c.repository == repository_blobs.c.repository),
    )
    .where(
        repository_blobs.c.digest == sa.bindparam("digest"),
        manifest_references.c.kind == BLOB,
        images.c.origin == Origin.CACHE.value,
    )
    .distinct()
    .order_by(repository_blobs.c.repository)
    .limit(_MAX_HOLDERS)
)


def find_referring_manifest(repository: RepositoryName, blob: Digest) -> Steps[StoredManifest | None]:
    """Return a manifest of this repository that came from its upstream and refers to a blob."""
    rows = yield from _FIND_MANIFEST(repository=repository, digest=blob)
    return StoredManifest(*rows[0]) if rows else None


def cached_holders(blob: Digest) -> Steps[list[RepositoryName]]:
    """Return the repositories that hold a blob for a manifest that came from their upstream; a hundred at most."""
    rows = yield from _HOLDERS(digest=blob)
    return [RepositoryName(row[0]) for row in rows]
