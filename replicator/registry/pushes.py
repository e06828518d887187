"""Writing manifests: one transaction that stores the image, moves its tags and plans what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.actions import Action
from replicator.core.digest import Digest, algorithm_of, digest_of
from replicator.core.errors import (
    DigestMismatch,
    ImageExists,
    ManifestNotFound,
    ManifestTooLarge,
    MissingImages,
    MissingLayers,
    TagImmutable,
)
from replicator.core.image_status import ImageStatus
from replicator.core.jobs import JobKind
from replicator.core.manifest import Manifest, check_states_type, parse_manifest
from replicator.core.names import NodeId, RepositoryName, Tag
from replicator.core.reference import Reference, as_digest, as_tag
from replicator.core.replication import Origin
from replicator.core.revisions import NEVER
from replicator.registry.access import authorize, authorize_push, check_pushable
from replicator.registry.deletions import delete_image, delete_tag
from replicator.registry.events import record_push, tell_refused_push
from replicator.registry.follow_ups import change_of, plan_follow_up
from replicator.registry.image_quotas import check_quotas
from replicator.registry.repository_creation import ensure_pushable
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import (
    blobs,
    image_states,
    images,
    tags,
)
from replicator.storage.metadata.images import StoredImage, StoredManifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.repositories import Repository
    from replicator.storage.metadata.statement import Steps

_NAMED = 100
"""Digests that an error names at most."""


@dataclass(frozen=True, slots=True)
class PushedManifest:
    """A stored manifest: its digest, its subject's (for `OCI-Subject`), and the tags that now point to it."""

    digest: Digest
    subject: Digest | None
    tags: tuple[Tag, ...]


@dataclass(frozen=True, slots=True)
class _Push:
    """One push as the transaction needs it."""

    repository: RepositoryName
    image: StoredImage
    tags: tuple[Tag, ...]
    by: NodeId
    now: float
    pusher: Principal
    by_api: bool = False
    """Whether ECR's PutImage asks for it: no repository is made for it, and what is there already is an error."""


class Pushes:
    """Puts and deletes manifests and tags."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def put_manifest(
        self,
        principal: Principal,
        repository: RepositoryName,
        reference: Reference,
        content: bytes,
        content_type: str | None,
        extra_tags: Sequence[Tag] = (),
    ) -> PushedManifest:
        """Store a manifest under a tag, or under its digest and any `extra_tags` (distribution-spec end-7a, end-7b).

        When this returns, the image is durable and so are the jobs that replicate it. Raises an AccessError,
        InvalidManifest, ManifestTooLarge, DigestMismatch, MissingReferences, TagImmutable, RepositoryNotFound or a
        StorageError; nothing is changed then.
        """
        authorize_push(self._node.settings, principal, Action.PUT_IMAGE, repository)
        self._check_size(content)
        image = _image(as_digest(reference), content, content_type)
        check_states_type(content, image.manifest.media_type)
        tag = as_tag(reference)
        wanted = tuple(dict.fromkeys((*((tag,) if tag else ()), *extra_tags)))
        push = _Push(repository, image, wanted, self._node.settings.node, self._node.clock.now(), principal)
        return await self._store(push)

    async def put_image(
        self,
        principal: Principal,
        repository: RepositoryName,
        content: bytes,
        media_type: str | None,
        tag: Tag | None,
        digest: Digest | None,
    ) -> PushedManifest:
        """Store a manifest as ECR's PutImage does; raises like `put_manifest`, and ImageExists for what is here."""
        authorize_push(self._node.settings, principal, Action.PUT_IMAGE, repository)
        self._check_size(content)
        image = _image(digest, content, media_type)
        wanted = () if tag is None else (tag,)
        by, now = self._node.settings.node, self._node.clock.now()
        return await self._store(_Push(repository, image, wanted, by, now, principal, by_api=True))

    async def _store(self, push: _Push) -> PushedManifest:
        try:
            await self._node.commit(push.repository, lambda: self._put(push))
        except (TagImmutable, MissingImages, MissingLayers):
            await tell_refused_push(self._node, push.repository, push.image, push.tags, push.now)
            raise
        self._node.announce_jobs(JobKind.REPLICATE)
        subject = push.image.parsed.subject
        return PushedManifest(push.image.manifest.digest, subject.digest if subject else None, push.tags)

    def _check_size(self, content: bytes) -> None:
        limit = self._node.settings.max_manifest_size
        if len(content) > limit:
            raise ManifestTooLarge(f"the manifest has {len(content)} bytes; this registry accepts up to {limit}")

    def _put(self, push: _Push) -> Steps[None]:
        repository = yield from self._open(push)
        yield from self._check_references(push.repository, push.image.parsed)
        if push.by_api:
            yield from self._check_new(push)
        yield from _check_tags(repository, push)
        yield from check_quotas(self._node, push.repository, push.image.manifest.digest, push.tags)
        yield from record_push(self._node, push.repository, push.image, push.tags, push.now)
        newest = NEVER
        for tag in push.tags:
            register = yield from tags.put(push.repository, tag, push.image.manifest.digest, push.by, push.now)
            newest = max(newest, register.revision)
        yield from images.put(push.repository, push.image, push.by, push.now, not_before=newest)
        yield from plan_follow_up(self._node, change_of(push.repository, push.image, push.tags), push.now)

    def _open(self, push: _Push) -> Steps[Repository]:
        if not push.by_api:
            return (yield from ensure_pushable(self._node, push.pusher, push.repository, push.now))
        repository = yield from require_repository(self._node, push.repository)
        check_pushable(self._node.settings, repository)
        return repository

    def _check_new(self, push: _Push) -> Steps[None]:
        """Raise ImageExists for what nothing would change about; an archived image comes back by being pushed."""
        digest = push.image.manifest.digest
        status = yield from image_states.find_status(push.repository, digest)
        if status is not ImageStatus.ACTIVE:
            return
        for tag in push.tags:
            register = yield from tags.find(push.repository, tag)
            if register is None or register.digest != digest:
                return
        account = self._node.settings.node.account
        named = push.tags[0] if push.tags else None
        raise ImageExists(texts.image_exists(digest, named, push.repository, account))

    def _check_references(self, repository: RepositoryName, manifest: Manifest) -> Steps[None]:
        settings = self._node.settings
        account = settings.node.account
        if not settings.sparse_images:
            absent = yield from blobs.missing(repository, manifest.required_blobs)
            if absent:
                raise MissingLayers(texts.layers_required(absent[:_NAMED], repository, account), digests=absent)
        if not settings.sparse_indexes:
            absent = yield from images.missing(repository, manifest.children)
            if absent:
                raise MissingImages(texts.images_required(absent[:_NAMED], repository, account), digests=absent)

    async def delete_manifest(self, principal: Principal, repository: RepositoryName, reference: Reference) -> None:
        """Delete a tag, or an image with all its tags; gone on the next request (distribution-spec end-9).

        Raises an AccessError, ManifestNotFound, RepositoryNotFound, ImageReferenced where an index lists the image, or
        a StorageError.
        """
        authorize(principal, Action.BATCH_DELETE_IMAGE, repository)
        digest = as_digest(reference)
        if digest is not None:
            body = partial(self._delete_image, repository, digest)
        else:
            body = partial(self._delete_tag, repository, Tag(reference))
        deleted = await self._node.commit(repository, body)
        self._node.announce_jobs(JobKind.DELETE_REPLICA)
        if not deleted:
            raise ManifestNotFound(texts.IMAGE_NOT_FOUND)

    def _delete_image(self, repository: RepositoryName, digest: Digest) -> Steps[bool]:
        yield from require_repository(self._node, repository)
        return (yield from delete_image(self._node, repository, digest, self._node.clock.now()))

    def _delete_tag(self, repository: RepositoryName, tag: Tag) -> Steps[bool]:
        yield from require_repository(self._node, repository)
        return (yield from delete_tag(self._node, repository, tag, self._node.clock.now()))


def _image(stated: Digest | None, content: bytes, content_type: str | None) -> StoredImage:
    parsed = parse_manifest(content, content_type)
    digest = digest_of(content, algorithm_of(stated)) if stated else digest_of(content)
    if stated is not None and digest != stated:
        raise DigestMismatch(f"the manifest has digest {digest}, not {stated}")
    return StoredImage(StoredManifest(digest, parsed.media_type, content), parsed, Origin.DIRECT)


def _check_tags(repository: Repository, push: _Push) -> Steps[None]:
    for tag in push.tags:
        state = yield from tags.find(push.repository, tag)
        current = state.digest if state else None
        if not repository.mutability.permits(tag, current, push.image.manifest.digest):
            raise TagImmutable(texts.tag_immutable(tag, push.repository))
