"""Which image of a repository a layer belongs to, and whether that can be pulled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.image_status import ImageStatus
from replicator.storage.metadata.images import BLOB
from replicator.storage.metadata.schema import images, manifest_references, manifests
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName

_FIND = Statement(
    sa.select(images.c.status, manifests.c.media_type, manifests.c.content)
    .select_from(images)
    .join(manifest_references, manifest_references.c.parent == images.c.digest)
    .join(manifests, manifests.c.digest == images.c.digest)
    .where(
        images.c.repository == sa.bindparam("repository"),
        manifest_references.c.kind == BLOB,
        manifest_references.c.child == sa.bindparam("digest"),
    )
    .order_by(sa.case((images.c.status == ImageStatus.ACTIVE.value, 0), else_=1), images.c.digest)
    .limit(1)
)

_HAS_INACTIVE = Statement(
    sa.select(images.c.digest)
    .where(images.c.repository == sa.bindparam("repository"), sa.text("status <> 'ACTIVE'"))
    .limit(1)
)


def _find_user(*selected: sa.ColumnElement[bool]) -> Statement:
    return Statement(
        sa.select(images.c.digest)
        .join(manifest_references, manifest_references.c.parent == images.c.digest)
        .where(
            images.c.repository == sa.bindparam("repository"),
            manifest_references.c.kind == BLOB,
            manifest_references.c.child == sa.bindparam("digest"),
            *selected,
        )
        .limit(1)
    )


_ACTIVE_USER = _find_user(images.c.status == ImageStatus.ACTIVE.value)
_USER = _find_user()


@dataclass(frozen=True, slots=True)
class LayerReference:
    """An image that a layer belongs to: where it stands, and its manifest."""

    status: ImageStatus
    media_type: str
    content: bytes


def find_reference(repository: RepositoryName, digest: Digest) -> Steps[LayerReference | None]:
    """Return an image of the repository that the layer, or config, belongs to; one that can be pulled, if any can."""
    rows = yield from _FIND(repository=repository, digest=digest)
    if not rows:
        return None
    status, media_type, content = rows[0]
    return LayerReference(ImageStatus(status), media_type, bytes(content))


def is_archived(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Tell whether images of the repository have the blob, and none of them can be pulled."""
    if not (yield from _HAS_INACTIVE(repository=repository)):
        return False
    if (yield from _ACTIVE_USER(repository=repository, digest=digest)):
        return False
    return bool((yield from _USER(repository=repository, digest=digest)))
