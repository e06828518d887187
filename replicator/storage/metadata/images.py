"""Manifests, and the images that make a manifest readable in a repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.replication import Origin
from replicator.storage.metadata.schema import images, manifest_references, manifests, tags
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.manifest import Manifest
    from replicator.core.names import RepositoryName, Tag

BLOB, CHILD = "blob", "manifest"


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """The exact bytes of a manifest, and the media type it was pushed under."""

    digest: Digest
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A manifest with what it points to and how it came here."""

    manifest: StoredManifest
    parsed: Manifest
    origin: Origin


_COLUMNS = (manifests.c.digest, manifests.c.media_type, manifests.c.content)
_FIND = Statement(
    sa.select(*_COLUMNS)
    .join(images, images.c.digest == manifests.c.digest)
    .where(images.c.repository == sa.bindparam("repository"), images.c.digest == sa.bindparam("digest"))
)
_FIND_BY_TAG = Statement(
    sa.select(*_COLUMNS)
    .join(tags, tags.c.digest == manifests.c.digest)
    .where(tags.c.repository == sa.bindparam("repository"), tags.c.tag == sa.bindparam("tag"))
)
_EXISTS = Statement(
    sa.select(images.c.origin).where(
        images.c.repository == sa.bindparam("repository"), images.c.digest == sa.bindparam("digest")
    )
)
_PUT_MANIFEST = Statement(
    insert(manifests)
    .values(
        digest=sa.bindparam("digest"),
        media_type=sa.bindparam("media_type"),
        content=sa.bindparam("content"),
        artifact_type=sa.bindparam("artifact_type"),
        subject=sa.bindparam("subject"),
        config_digest=sa.bindparam("config_digest"),
    )
    .on_conflict_do_nothing(index_elements=["digest"])
)
_REFER = Statement(
    insert(manifest_references)
    .values(parent=sa.bindparam("parent"), kind=sa.bindparam("kind"), child=sa.bindparam("child"))
    .on_conflict_do_nothing(index_elements=["parent", "kind", "child"])
)
_image = insert(images).values(
    repository=sa.bindparam("repository"),
    digest=sa.bindparam("digest"),
    subject=sa.bindparam("subject"),
    artifact_type=sa.bindparam("artifact_type"),
    origin=sa.bindparam("origin"),
    pushed_at=sa.bindparam("pushed_at"),
)
_PUT_IMAGE = Statement(
    _image.on_conflict_do_update(
        index_elements=["repository", "digest"],
        set_={"origin": _image.excluded.origin},
        where=_image.excluded.origin == Origin.DIRECT.value,
    )
)
_DELETE = Statement(
    sa.delete(images)
    .where(images.c.repository == sa.bindparam("repository"), images.c.digest == sa.bindparam("digest"))
    .returning(images.c.digest)
)
_FORGET_MANIFEST = Statement(
    sa.delete(manifests)
    .where(
        manifests.c.digest == sa.bindparam("digest"),
        ~sa.exists().where(images.c.digest == sa.bindparam("digest")),
    )
    .returning(manifests.c.digest)
)
_FORGET_REFERENCES = Statement(
    sa.delete(manifest_references).where(manifest_references.c.parent == sa.bindparam("digest"))
)
_referrers = (
    sa.select(*_COLUMNS)
    .join(images, images.c.digest == manifests.c.digest)
    .where(
        images.c.repository == sa.bindparam("repository"),
        images.c.subject == sa.bindparam("subject"),
        images.c.digest > sa.bindparam("after"),
    )
    .order_by(images.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_REFERRERS = Statement(_referrers)
_REFERRERS_OF_TYPE = Statement(_referrers.where(images.c.artifact_type == sa.bindparam("artifact_type")))
_COUNT = Statement(sa.select(sa.func.count()).select_from(images))


def find(repository: RepositoryName, digest: Digest) -> Steps[StoredManifest | None]:
    """Return the manifest of an image of this repository."""
    rows = yield from _FIND(repository=repository, digest=digest)
    return StoredManifest(*rows[0]) if rows else None


def find_by_tag(repository: RepositoryName, tag: Tag) -> Steps[StoredManifest | None]:
    """Return the manifest that a tag points to."""
    rows = yield from _FIND_BY_TAG(repository=repository, tag=tag)
    return StoredManifest(*rows[0]) if rows else None


def find_origin(repository: RepositoryName, digest: Digest) -> Steps[Origin | None]:
    """Return how an image came into this repository, or None when it is not there."""
    rows = yield from _EXISTS(repository=repository, digest=digest)
    return Origin(rows[0][0]) if rows else None


def missing(repository: RepositoryName, digests: Sequence[Digest]) -> Steps[tuple[Digest, ...]]:
    """Return those of `digests` that are no image of this repository, in order."""
    absent = []
    for digest in digests:
        origin = yield from find_origin(repository, digest)
        if origin is None:
            absent.append(digest)
    return tuple(absent)


def put(repository: RepositoryName, image: StoredImage, pushed_at: float) -> Steps[None]:
    """Store an image with everything its manifest points to; a repeated push changes only a replica's origin."""
    manifest, parsed = image.manifest, image.parsed
    subject = parsed.subject.digest if parsed.subject else None
    yield from _PUT_MANIFEST(
        digest=manifest.digest,
        media_type=manifest.media_type,
        content=manifest.content,
        artifact_type=parsed.referrer_type,
        subject=subject,
        config_digest=parsed.config.digest if parsed.config else None,
    )
    for child in parsed.children:
        yield from _REFER(parent=manifest.digest, kind=CHILD, child=child)
    for blob in dict.fromkeys(blob.digest for blob in parsed.blobs):
        yield from _REFER(parent=manifest.digest, kind=BLOB, child=blob)
    yield from _PUT_IMAGE(
        repository=repository,
        digest=manifest.digest,
        subject=subject,
        artifact_type=parsed.referrer_type,
        origin=image.origin.value,
        pushed_at=pushed_at,
    )


def delete(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Take an image out of a repository; return whether it was there. Its tags are the caller's to delete."""
    rows = yield from _DELETE(repository=repository, digest=digest)
    if not rows:
        return False
    forgotten = yield from _FORGET_MANIFEST(digest=digest)
    if forgotten:
        yield from _FORGET_REFERENCES(digest=digest)
    return True


def referrers(
    repository: RepositoryName, subject: Digest, artifact_type: str | None, after: str, limit: int
) -> Steps[list[StoredManifest]]:
    """Return up to `limit` images whose subject is `subject`, by digest, optionally of one artifact type."""
    if artifact_type is None:
        rows = yield from _REFERRERS(repository=repository, subject=subject, after=after, limit=limit)
    else:
        rows = yield from _REFERRERS_OF_TYPE(
            repository=repository, subject=subject, artifact_type=artifact_type, after=after, limit=limit
        )
    return [StoredManifest(*row) for row in rows]


def count() -> Steps[int]:
    """Return how many images all repositories hold together."""
    rows = yield from _COUNT()
    return int(rows[0][0])
