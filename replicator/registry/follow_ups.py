"""What follows from an image that arrives, comes back or goes: jobs, scans and signings, stored in its transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.names import parse_node
from replicator.core.replication import Change, ReplicateImage, plan_deletion, plan_replication
from replicator.registry.scans import scan_on_arrival
from replicator.registry.signings import record_signings
from replicator.storage.metadata import images, jobs, replication_status, tags

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import NodeId, RepositoryName, Tag
    from replicator.core.revisions import Revision
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.images import StoredImage
    from replicator.storage.metadata.statement import Steps


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
