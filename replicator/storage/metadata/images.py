"""Manifests, and the images that make a manifest readable in a repository."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.delivery import ImageRegister
from replicator.core.image_status import ImageStatus
from replicator.core.media_types import OCI_INDEX, OCI_MANIFEST
from replicator.core.replication import Origin
from replicator.core.revisions import NEVER, Revision, next_revision, parse_revision
from replicator.storage.metadata import image_signings, scans
from replicator.storage.metadata.schema import deleted_images, images, manifest_references, manifests, tags
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.manifest import Manifest
    from replicator.core.names import NodeId, RepositoryName, Tag

BLOB, CHILD = "blob", "manifest"

_MAX_SIZE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class StoredManifest:
    """The exact bytes of a manifest, and the media type it was pushed under; `status` is that of its image here."""

    digest: Digest
    media_type: str
    content: bytes
    status: str = ImageStatus.ACTIVE.value

    @property
    def is_active(self) -> bool:
        """Whether it may be pulled."""
        return self.status == ImageStatus.ACTIVE


@dataclass(frozen=True, slots=True)
class ListedImage:
    """One image of a repository, as anti-entropy and backfill see it. `source` is the node that sent a replica."""

    digest: Digest
    origin: Origin
    revision: Revision
    source: str | None
    subject: Digest | None


@dataclass(frozen=True, slots=True)
class StoredImage:
    """A manifest with what it points to and how it came here."""

    manifest: StoredManifest
    parsed: Manifest
    origin: Origin


_COLUMNS = (manifests.c.digest, manifests.c.media_type, manifests.c.content, images.c.status)
_FIND = Statement(
    sa.select(*_COLUMNS)
    .join(images, images.c.digest == manifests.c.digest)
    .where(images.c.repository == sa.bindparam("repository"), images.c.digest == sa.bindparam("digest"))
)
_FIND_BY_TAG = Statement(
    sa.select(*_COLUMNS)
    .select_from(tags)
    .join(images, (images.c.repository == tags.c.repository) & (images.c.digest == tags.c.digest))
    .join(manifests, manifests.c.digest == tags.c.digest)
    .where(tags.c.repository == sa.bindparam("repository"), tags.c.tag == sa.bindparam("tag"))
)
_manifest = insert(manifests).values(
    digest=sa.bindparam("digest"),
    media_type=sa.bindparam("media_type"),
    content=sa.bindparam("content"),
    artifact_type=sa.bindparam("artifact_type"),
    subject=sa.bindparam("subject"),
    config_digest=sa.bindparam("config_digest"),
)
_PUT_MANIFEST = Statement(
    _manifest.on_conflict_do_update(
        index_elements=["digest"],
        set_={"content": _manifest.excluded.content, "media_type": _manifest.excluded.media_type},
        # Damaged on the disk, then this repairs it; or somebody else's typeless document, stored as one of Docker's by
        # PutImage: what it is to everybody else, it stays or becomes for all.
        where=(manifests.c.content != _manifest.excluded.content)
        | (
            ((_manifest.excluded.media_type == OCI_MANIFEST) | (_manifest.excluded.media_type == OCI_INDEX))
            & (manifests.c.media_type != _manifest.excluded.media_type)
        ),
    )
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
    revision=sa.bindparam("revision"),
    source=sa.bindparam("source"),
    size=sa.bindparam("size"),
)
_PUT_IMAGE = Statement(
    _image.on_conflict_do_update(
        index_elements=["repository", "digest"],
        set_={
            "origin": sa.case(
                (_image.excluded.origin == Origin.DIRECT.value, _image.excluded.origin), else_=images.c.origin
            ),
            "revision": _image.excluded.revision,
            "source": sa.func.coalesce(_image.excluded.source, images.c.source),
            "size": _image.excluded.size,
            # An archived image that comes again is active at once (ECR §13.1).
            "status": ImageStatus.ACTIVE.value,
            "activated_at": sa.case(
                (images.c.status == ImageStatus.ACTIVE.value, images.c.activated_at), else_=_image.excluded.pushed_at
            ),
        },
    )
)
_RENEW = Statement(
    sa.update(images)
    .where(images.c.repository == sa.bindparam("of_repository"), images.c.digest == sa.bindparam("of_digest"))
    .values(revision=sa.bindparam("new_revision"), source=sa.bindparam("new_source"))
)
_REGISTER = Statement(
    sa.select(images.c.origin, images.c.revision).where(
        images.c.repository == sa.bindparam("repository"), images.c.digest == sa.bindparam("digest")
    )
)
_USABLE = Statement(
    sa.select(images.c.digest).where(
        images.c.repository == sa.bindparam("repository"),
        images.c.digest == sa.bindparam("digest"),
        images.c.status != ImageStatus.ARCHIVED.value,
    )
)
_DELETED = Statement(
    sa.select(deleted_images.c.revision).where(
        deleted_images.c.repository == sa.bindparam("repository"), deleted_images.c.digest == sa.bindparam("digest")
    )
)
_deleted = insert(deleted_images).values(
    repository=sa.bindparam("repository"),
    digest=sa.bindparam("digest"),
    revision=sa.bindparam("revision"),
    deleted_at=sa.bindparam("deleted_at"),
)
_REMEMBER_DELETION = Statement(
    _deleted.on_conflict_do_update(
        index_elements=["repository", "digest"],
        set_={"revision": _deleted.excluded.revision, "deleted_at": _deleted.excluded.deleted_at},
    )
)
_FORGET_DELETION = Statement(
    sa.delete(deleted_images).where(
        deleted_images.c.repository == sa.bindparam("repository"), deleted_images.c.digest == sa.bindparam("digest")
    )
)
_PARENTS = Statement(
    sa.select(images.c.digest)
    .join(manifest_references, manifest_references.c.parent == images.c.digest)
    .where(
        images.c.repository == sa.bindparam("repository"),
        manifest_references.c.kind == CHILD,
        manifest_references.c.child == sa.bindparam("digest"),
    )
    .order_by(images.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_WITH_BLOB = Statement(
    sa.select(images.c.digest)
    .join(manifest_references, manifest_references.c.parent == images.c.digest)
    .where(
        images.c.repository == sa.bindparam("repository"),
        manifest_references.c.kind == BLOB,
        manifest_references.c.child == sa.bindparam("digest"),
        images.c.digest > sa.bindparam("after"),
    )
    .order_by(images.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LISTED = (images.c.digest, images.c.origin, images.c.revision, images.c.source, images.c.subject)
_FIND_LISTED = Statement(
    sa.select(*_LISTED).where(
        images.c.repository == sa.bindparam("repository"), images.c.digest == sa.bindparam("digest")
    )
)
_LIST = Statement(
    sa.select(*_LISTED)
    .where(images.c.repository == sa.bindparam("repository"), images.c.digest > sa.bindparam("after"))
    .order_by(images.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_LIST_DELETED = Statement(
    sa.select(deleted_images.c.digest, deleted_images.c.revision)
    .where(deleted_images.c.repository == sa.bindparam("repository"), deleted_images.c.digest > sa.bindparam("after"))
    .order_by(deleted_images.c.digest)
    .limit(sa.bindparam("limit", type_=sa.Integer))
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
    rows = yield from _REGISTER(repository=repository, digest=digest)
    return Origin(rows[0][0]) if rows else None


def missing(repository: RepositoryName, digests: Sequence[Digest]) -> Steps[tuple[Digest, ...]]:
    """Return those of `digests` that are no image of this repository, in order.

    So are archived ones: they cannot be pulled, and come back by being pushed, as if they had not been here.
    """
    absent = []
    for digest in digests:
        rows = yield from _USABLE(repository=repository, digest=digest)
        if not rows:
            absent.append(digest)
    return tuple(absent)


def put(
    repository: RepositoryName,
    image: StoredImage,
    by: NodeId,
    pushed_at: float,
    source: NodeId | None = None,
    *,
    not_before: Revision = NEVER,
) -> Steps[Revision]:
    """Store an image with everything its manifest points to, in a new revision made by `by`; return the revision.

    A repeated push renews the revision, and makes a replica an image of our own. `not_before` is the newest revision
    of the tags that are set with it: an image is never older than its tags, so that its deletion is newer than both.
    """
    known = yield from find_register(repository, image.manifest.digest)
    revision = max(next_revision(known.revision if known else None, by, pushed_at), not_before)
    yield from put_register(repository, image, revision, pushed_at, source)
    return revision


def put_register(
    repository: RepositoryName, image: StoredImage, revision: Revision, pushed_at: float, source: NodeId | None = None
) -> Steps[None]:
    """Store an image in a revision that was decided on elsewhere; `source` is the node that sent it, if one did."""
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
        revision=str(revision),
        source=None if source is None else str(source),
        size=size_of_layers(parsed),
    )
    yield from _FORGET_DELETION(repository=repository, digest=manifest.digest)


def size_of_layers(parsed: Manifest) -> int | None:
    """Return the bytes of an image's layers; None for an index, which is as large as its largest image."""
    return None if parsed.is_index else min(sum(layer.size for layer in parsed.layers), _MAX_SIZE)


def find_register(repository: RepositoryName, digest: Digest) -> Steps[ImageRegister | None]:
    """Return since when an image is here, or is deleted; None when the repository never knew it."""
    rows = yield from _REGISTER(repository=repository, digest=digest)
    if rows:
        return ImageRegister(Origin(rows[0][0]), stored_revision(rows[0][1]))
    rows = yield from _DELETED(repository=repository, digest=digest)
    return ImageRegister(None, stored_revision(rows[0][0])) if rows else None


def remember_deletion(repository: RepositoryName, digest: Digest, revision: Revision, deleted_at: float) -> Steps[None]:
    """Note that an image is deleted since a revision, so that an older copy of it does not come back."""
    yield from _REMEMBER_DELETION(repository=repository, digest=digest, revision=str(revision), deleted_at=deleted_at)


def renew(repository: RepositoryName, digest: Digest, revision: Revision, source: NodeId) -> Steps[None]:
    """Note that an image which is here was sent again by `source`, and the revision that it has now."""
    yield from _RENEW(of_repository=repository, of_digest=digest, new_revision=str(revision), new_source=str(source))


def find_listed(repository: RepositoryName, digest: Digest) -> Steps[ListedImage | None]:
    """Return how an image came and in which revision it is, or None when it is not there."""
    rows = yield from _FIND_LISTED(repository=repository, digest=digest)
    return _listed(rows[0]) if rows else None


def parents(repository: RepositoryName, digest: Digest, limit: int) -> Steps[list[Digest]]:
    """Return up to `limit` indexes of this repository that list an image."""
    rows = yield from _PARENTS(repository=repository, digest=digest, limit=limit)
    return [row[0] for row in rows]


def with_blob(repository: RepositoryName, digest: Digest, after: str, limit: int) -> Steps[list[Digest]]:
    """Return up to `limit` images of this repository that refer to a blob and sort after `after`, in order."""
    rows = yield from _WITH_BLOB(repository=repository, digest=digest, after=after, limit=limit)
    return [row[0] for row in rows]


def is_child(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Tell whether an index of this repository lists an image."""
    return bool((yield from parents(repository, digest, 1)))


def list_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[ListedImage]]:
    """Return up to `limit` images whose digests sort after `after`, in order."""
    rows = yield from _LIST(repository=repository, after=after, limit=limit)
    return [_listed(row) for row in rows]


def deletions_after(repository: RepositoryName, after: str, limit: int) -> Steps[list[tuple[Digest, Revision]]]:
    """Return up to `limit` deleted images whose digests sort after `after`, with their deletions, in order."""
    rows = yield from _LIST_DELETED(repository=repository, after=after, limit=limit)
    return [(row[0], stored_revision(row[1])) for row in rows]


def _listed(row: Row) -> ListedImage:
    digest, origin, revision, source, subject = row
    return ListedImage(digest, Origin(origin), stored_revision(revision), source, subject)


def stored_revision(text: str) -> Revision:
    """Return the revision that a row states; one from before there were revisions states none."""
    return parse_revision(text) if text else NEVER


def delete(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Take an image out of a repository; return whether it was there. Its tags are the caller's to delete."""
    rows = yield from _DELETE(repository=repository, digest=digest)
    if not rows:
        return False
    yield from image_signings.forget(repository, digest)
    yield from scans.forget(repository, digest)
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
