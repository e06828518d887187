"""Deleting images and tags: steps of a transaction, which also stores what deletes them at the destinations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import Denied, ImageReferenced
from replicator.core.manifest import parse_manifest
from replicator.core.replication import Change, Origin
from replicator.core.revisions import next_revision
from replicator.registry.events import record_deletion
from replicator.registry.follow_ups import plan_deletions
from replicator.storage.metadata import image_states, images, replication_status, repositories, tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

_NAMED = 100
"""Indexes that an error names at most."""


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
