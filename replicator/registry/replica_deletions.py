"""The deletion of a tag or an image at its source, carried out here: only what came by replication goes (ECR §9.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.delivery import ImageOutcome, decide_image_deletion, decide_untag, hold, without_image
from replicator.core.errors import InvalidInput
from replicator.core.peer_messages import Receipt
from replicator.core.replication import Change, Origin
from replicator.core.revisions import MergeOutcome
from replicator.registry.access import authorize_replication
from replicator.registry.deletions import is_protected
from replicator.registry.deliveries import Outcome, check_clock, check_register, may_change, note_conflict
from replicator.registry.events import record_deletion
from replicator.registry.follow_ups import plan_deletions, plan_follow_up
from replicator.storage.metadata import images, replication_status, tags

if TYPE_CHECKING:
    from replicator.core.names import NodeId, Tag
    from replicator.core.peer_messages import Deletion, OfferedTag
    from replicator.core.revisions import TagRegister
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.images import ListedImage
    from replicator.storage.metadata.statement import Steps


def check_deletion(deletion: Deletion, now: float) -> None:
    """Raise ClockSkew for a deletion in the far future, InvalidInput for a tag that is not deleted."""
    check_clock(deletion.revision, now)
    if deletion.tag is None:
        return
    check_register(deletion.tag.register, now)
    if deletion.tag.register.digest is not None:
        raise InvalidInput(f"expected the tag {deletion.tag.name} to be deleted, got {deletion.tag.register.digest}")


def delete_replica(node: RegistryNode, peer: NodeId, deletion: Deletion, now: float) -> Steps[Outcome]:
    """Delete a tag, or an image with its tags, unless it is our own or newer; raises ReplicationDenied.

    Nor does an account delete what another one sent, nor anybody an immutable tag that this node protects.
    What is not here yet is remembered as deleted, so that a copy which is late does not come after all.
    """
    authorize_replication(node.settings, peer, deletion.repository, exists=True)
    if deletion.tag is not None:
        return (yield from _untag(node, peer, deletion, deletion.tag, now))
    return (yield from _delete_image(node, peer, deletion, now))


def _untag(node: RegistryNode, peer: NodeId, deletion: Deletion, tag: OfferedTag, now: float) -> Steps[Outcome]:
    repository, name = deletion.repository, tag.name
    current = yield from tags.find(repository, name)
    image = None
    if current is not None and current.digest is not None:
        image = yield from images.find_listed(repository, current.digest)
        if image is not None and not may_change(node, peer, image):
            return Outcome(Receipt(ImageOutcome.KEPT, MergeOutcome.KEPT_NEWER, current))
    if current is not None and current.digest is not None and (yield from is_protected(node, repository, [name])):
        return Outcome(Receipt(ImageOutcome.KEPT, MergeOutcome.KEPT_NEWER, current))
    merged = decide_untag(current, tag.register, is_replica=image is None or image.origin is Origin.REPLICA)
    if current is not None and image is not None and merged.register.rank < tag.register.rank:
        return (yield from _hold(node, deletion, tag, current, image, now))
    has_jobs = False
    if merged.register != current:
        yield from tags.set_register(repository, name, merged.register, now)
    if merged.outcome is MergeOutcome.SET and image is not None:
        yield from record_deletion(node, repository, image.digest, (name,), now)
        change = _change(deletion, peer, image, ())
        has_jobs = yield from plan_deletions(node, change, name, merged.register.revision, now)
    conflict = None
    if merged.loser is not None:
        conflict = yield from note_conflict(repository, tag, merged.register, merged.loser, now)
    outcome = ImageOutcome.DELETED if merged.register.digest is None else ImageOutcome.KEPT
    return Outcome(Receipt(outcome, merged.outcome, merged.register), conflict, has_jobs)


def _hold(
    node: RegistryNode, deletion: Deletion, tag: OfferedTag, current: TagRegister, image: ListedImage, now: float
) -> Steps[Outcome]:
    """Keep our own tag by a write that is newer than the deletion, and replicate it like every write of ours."""
    held = hold(current, tag.register, node.settings.node, now)
    yield from tags.set_register(deletion.repository, tag.name, held, now)
    change = Change(deletion.repository, image.digest, (tag.name,), image.origin, image.subject is not None)
    has_jobs = yield from plan_follow_up(node, change, now)
    return Outcome(Receipt(ImageOutcome.KEPT, MergeOutcome.KEPT_NEWER, held), None, has_jobs)


def _delete_image(node: RegistryNode, peer: NodeId, deletion: Deletion, now: float) -> Steps[Outcome]:
    repository, digest = deletion.repository, deletion.digest
    image = yield from images.find_listed(repository, digest)
    known = yield from images.find_register(repository, digest)
    is_child = yield from images.is_child(repository, digest)
    if image is not None and not may_change(node, peer, image):
        return Outcome(Receipt(ImageOutcome.KEPT))
    if image is not None and (
        yield from is_protected(node, repository, (yield from tags.of_digest(repository, digest)))
    ):
        return Outcome(Receipt(ImageOutcome.KEPT))
    decision = decide_image_deletion(known, deletion.revision, is_child=is_child)
    if decision.outcome is not ImageOutcome.DELETED or decision.image is None:
        return Outcome(Receipt(decision.outcome))
    has_jobs = False
    if image is not None:
        names = yield from tags.of_digest(repository, digest)
        yield from record_deletion(node, repository, digest, names, now)
        for name in names:
            register = yield from tags.find(repository, name)
            if register is not None:
                yield from tags.set_register(repository, name, without_image(register), now)
        yield from images.delete(repository, digest)
        change = _change(deletion, peer, image, tuple(names))
        has_jobs = yield from plan_deletions(node, change, None, decision.image.revision, now)
        yield from replication_status.forget(repository, digest)
    if decision.image != known:
        yield from images.remember_deletion(repository, digest, decision.image.revision, now)
    return Outcome(Receipt(decision.outcome), None, has_jobs)


def _change(deletion: Deletion, peer: NodeId, image: ListedImage, names: tuple[Tag, ...]) -> Change:
    return Change(deletion.repository, image.digest, names, Origin.REPLICA, image.subject is not None, peer)
