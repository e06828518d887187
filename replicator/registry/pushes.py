"""Writing manifests: one transaction that stores the image, moves its tags and plans what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.access import Action
from replicator.core.digest import Digest, algorithm_of, digest_of
from replicator.core.errors import (
    Denied,
    DigestMismatch,
    ImageExists,
    ImageReferenced,
    ManifestNotFound,
    ManifestTooLarge,
    MissingImages,
    MissingLayers,
    RepositoryNotFound,
    TagImmutable,
)
from replicator.core.image_status import ImageStatus
from replicator.core.jobs import JobKind
from replicator.core.manifest import Manifest, check_states_type, parse_manifest
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.reference import Reference, as_digest, as_tag
from replicator.core.replication import Change, Origin, ReplicateImage, plan_deletion, plan_replication
from replicator.core.revisions import NEVER, Revision, next_revision
from replicator.core.templates import CreationCause, template_for
from replicator.registry.access import authorize, authorize_push, check_pushable
from replicator.registry.events import record_deletion, record_push, tell_refused_push
from replicator.registry.image_quotas import check_quotas
from replicator.registry.repository_creation import add_for
from replicator.registry.scans import scan_on_arrival
from replicator.registry.signings import record_signings
from replicator.storage.metadata import (
    blobs,
    image_states,
    images,
    jobs,
    replication_status,
    repositories,
    tags,
)
from replicator.storage.metadata.images import StoredImage, StoredManifest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.access import Principal
    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
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


def delete_image(node: RegistryNode, repository: RepositoryName, digest: Digest, now: float) -> Steps[bool]:
    """Delete an image with all its tags and referrers, and store the jobs that delete its replicas.

    Returns whether it was there. Raises ImageReferenced where an index lists it, Denied where a tag of it is protected;
    nothing is changed then. A referrer that an index lists stays, and so does one that has a protected tag.
    """
    parents = yield from images.parents(repository, digest, _NAMED)
    if parents:
        raise ImageReferenced(texts.image_referenced(parents))
    yield from check_deletable(node, repository, (yield from tags.of_digest(repository, digest)))
    left = yield from image_states.referrers(repository, digest)
    deleted = yield from _delete_one(node, repository, digest, now)
    while deleted and left:
        referrer = left.pop()
        if not (yield from images.is_child(repository, referrer)) and not (
            yield from is_protected(node, repository, (yield from tags.of_digest(repository, referrer)))
        ):
            left += yield from image_states.referrers(repository, referrer)
            yield from _delete_one(node, repository, referrer, now)
    return deleted


def check_deletable(node: RegistryNode, repository: RepositoryName, names: Sequence[Tag]) -> Steps[None]:
    """Raise Denied where one of these tags must not go: an immutable one, if the node protects these."""
    for tag in names:
        if (yield from is_protected(node, repository, [tag])):
            raise Denied(texts.tag_protected(tag, repository))


def is_protected(node: RegistryNode, repository: RepositoryName, names: Sequence[Tag]) -> Steps[bool]:
    """Tell whether one of these tags is immutable, and the node protects these."""
    if not node.settings.protect_immutable_tags or not names:
        return False
    found = yield from repositories.find(repository)
    return found is not None and not all(found.mutability.is_mutable(tag) for tag in names)


def _delete_one(node: RegistryNode, repository: RepositoryName, digest: Digest, now: float) -> Steps[bool]:
    found = yield from images.find(repository, digest)
    register = yield from images.find_register(repository, digest)
    if found is None or register is None or register.origin is None:
        return False
    by = node.settings.node
    is_referrer = parse_manifest(found.content, found.media_type).subject is not None
    names = yield from tags.of_digest(repository, digest)
    newest = register.revision
    change = Change(repository, digest, tuple(names), register.origin, is_referrer)
    yield from record_deletion(node, repository, digest, names, now)
    for tag in names:
        deleted = yield from tags.put(repository, tag, None, by, now)
        newest = max(newest, deleted.revision)
        yield from plan_deletions(node, change, tag, deleted.revision, now)
    revision = next_revision(newest, by, now)
    yield from images.delete(repository, digest)
    yield from images.remember_deletion(repository, digest, revision, now)
    yield from plan_deletions(node, change, None, revision, now)
    yield from replication_status.forget(repository, digest)
    return True


def delete_tag(node: RegistryNode, repository: RepositoryName, tag: Tag, now: float) -> Steps[bool]:
    """Delete a tag, and store the jobs that delete it at the destinations; return whether it was there.

    Raises Denied for a protected one.
    """
    state = yield from tags.find(repository, tag)
    if state is None or state.digest is None:
        return False
    yield from check_deletable(node, repository, (tag,))
    origin = yield from images.find_origin(repository, state.digest)
    yield from record_deletion(node, repository, state.digest, (tag,), now)
    deleted = yield from tags.put(repository, tag, None, node.settings.node, now)
    change = Change(repository, state.digest, (tag,), origin or Origin.DIRECT)
    yield from plan_deletions(node, change, tag, deleted.revision, now)
    return True


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


def change_of(
    repository: RepositoryName, image: StoredImage, kept: Sequence[Tag], came_from: NodeId | None = None
) -> Change:
    """Return what the arrival of an image under the tags it kept means for replication."""
    is_referrer = image.parsed.subject is not None
    return Change(repository, image.manifest.digest, tuple(kept), image.origin, is_referrer, came_from)


def plan_follow_up(node: RegistryNode, change: Change, now: float) -> Steps[bool]:
    """Store the jobs that an image causes, in the transaction that stores the image; return whether there are any.

    A queued job of the same tag gives way to the newer image. Nothing follows from an image of a public repository.
    """
    if node.settings.public_registry.covers(change.repository):
        return False
    yield from record_signings(node.settings, change, now)
    yield from scan_on_arrival(node, change.repository, change.digest, now)
    planned = plan_replication(node.settings.replication_rules, node.settings.node, change)
    for replication, job in planned:
        yield from replication_status.supersede(replication, now)
        yield from replication_status.start(replication, now)
        yield from jobs.enqueue(job, now)
    return bool(planned)


def replicate_again(node: RegistryNode, repository: RepositoryName, digest: Digest, now: float) -> Steps[bool]:
    """Store the jobs that a push of an image with all its tags would cause: for one that was restored (ECR §9.2).

    Call it in the transaction that restores the image; return whether there are any jobs.
    """
    image = yield from images.find_listed(repository, digest)
    if image is None:
        return False
    names = yield from tags.of_digest(repository, digest)
    came_from = None if image.source is None else parse_node(image.source)
    change = Change(repository, digest, tuple(names), image.origin, image.subject is not None, came_from)
    return (yield from plan_follow_up(node, change, now))


def plan_deletions(node: RegistryNode, change: Change, tag: Tag | None, revision: Revision, now: float) -> Steps[bool]:
    """Store the jobs that delete a tag, or an image (`tag` is None), elsewhere; return whether there are any.

    Call it before the status of a deleted image is forgotten.
    """
    sent: list[ReplicateImage] = []
    if node.settings.public_registry.covers(change.repository):
        return False
    if tag is None:
        rows = yield from replication_status.of_image(change.repository, change.digest)
        sent = [row.replication for row in rows]
    planned = plan_deletion(node.settings.replication_rules, node.settings.node, change, tag, revision, sent)
    for deletion in planned:
        yield from jobs.enqueue(deletion.to_job(), now)
    return bool(planned)


def may_create(settings: RegistrySettings, name: RepositoryName, cause: CreationCause) -> bool:
    """Tell whether a missing repository is created for `cause` (ECR §11): a push needs the setting, or a template.

    A public repository is only created by hand.
    """
    if settings.public_registry.covers(name):
        return False
    return (
        cause is not CreationCause.CREATE_ON_PUSH
        or settings.create_on_push
        or template_for(settings.templates, name, cause) is not None
    )


def ensure_repository(
    node: RegistryNode, name: RepositoryName, now: float, cause: CreationCause = CreationCause.CREATE_ON_PUSH
) -> Steps[Repository]:
    """Return the repository, creating it where the settings allow; raise RepositoryNotFound where they do not.

    A new one has the settings that `add_for` gives it, which raises LimitExceeded, and Denied, too.
    """
    found = yield from repositories.find(name)
    if found is not None:
        return found
    if not may_create(node.settings, name, cause):
        raise no_repository(node, name)
    return (yield from add_for(node, name, now, cause))


def ensure_pushable(node: RegistryNode, principal: Principal, name: RepositoryName, now: float) -> Steps[Repository]:
    """Return the repository that a user pushes into, like `ensure_repository`; raise Denied where a cache fills it.

    A missing one is made for whoever may create repositories, and looks missing to others.

    Looked at in the transaction of the push, because the cache may have made the repository a moment ago.
    """
    if not principal.may(Action.CREATE_REPOSITORY, name):
        yield from require_repository(node, name)
    repository = yield from ensure_repository(node, name, now)
    check_pushable(node.settings, repository)
    return repository


def require_repository(node: RegistryNode, name: RepositoryName) -> Steps[Repository]:
    """Return the repository; raise RepositoryNotFound when there is none."""
    found = yield from repositories.find(name)
    if found is None:
        raise no_repository(node, name)
    return found


def no_repository(node: RegistryNode, name: RepositoryName) -> RepositoryNotFound:
    """Return the error of a repository that is not there, in ECR's words."""
    return RepositoryNotFound(texts.repository_not_found(name, node.settings.node.account))
