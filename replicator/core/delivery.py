"""What a destination makes of an image or a deletion that another node sends: pure decisions, one transaction each.

Images and tags are registers: present or deleted since a revision. A delivery that is older than what the destination
knows changes nothing, however late or often it comes, so nothing that was deleted comes back (reliability, REL-32 to
REL-34).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.replication import Origin
from replicator.core.revisions import Merge, MergeOutcome, Revision, TagRegister, merge, write

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import NodeId


class ImageOutcome(enum.StrEnum):
    """What became of a delivered image, or of the deletion of one."""

    STORED = "stored"
    PRESENT = "present"
    DELETED = "deleted"
    """It is deleted here: since a later write than the delivery, or by this deletion."""
    KEPT = "kept"
    """It stays: it was pushed here, is newer than the deletion, or an index lists it."""
    INCOMPLETE = "incomplete"
    """It was not stored: something that it refers to, or that the source expects, is not here."""


@dataclass(frozen=True, slots=True)
class ImageRegister:
    """What a repository knows of an image: present with its origin, or deleted (`origin` is None), since `revision`."""

    origin: Origin | None
    revision: Revision

    @property
    def is_present(self) -> bool:
        """Whether the repository holds the image."""
        return self.origin is not None


@dataclass(frozen=True, slots=True)
class ImageDelivery:
    """An image as it is sent: since when the source has it, and its tag there, if it comes with one."""

    digest: Digest
    revision: Revision
    tag: TagRegister | None = None

    @property
    def newest(self) -> Revision:
        """The last write that wants the image to be there: its push, or that of its tag, which may be ahead of it."""
        return self.revision if self.tag is None else max(self.revision, self.tag.revision)


@dataclass(frozen=True, slots=True)
class DeliveryDecision:
    """What to store: the image's register, and the tag's (None: no tag was sent)."""

    outcome: ImageOutcome
    image: ImageRegister
    tag: Merge | None

    @property
    def is_change(self) -> bool:
        """Whether the repository holds something it did not hold before: only this is replicated on by a chain."""
        moved = self.tag is not None and self.tag.outcome is MergeOutcome.SET
        return self.outcome is ImageOutcome.STORED or (moved and self.outcome is ImageOutcome.PRESENT)


def decide_delivery(
    known: ImageRegister | None, tag: TagRegister | None, delivery: ImageDelivery, *, is_mutable: bool
) -> DeliveryDecision:
    """Decide about an image that arrives: `known` is the image's register here, `tag` the tag's, None if never seen.

    An image that was deleted here after it was pushed there stays deleted. Its tag moves like any other, but to
    nothing: what it pointed to here is as old as it would be with the image.
    """
    merged = None if delivery.tag is None else merge(tag, delivery.tag, is_mutable=is_mutable)
    if known is not None and not known.is_present and known.revision >= delivery.newest:
        return DeliveryDecision(ImageOutcome.DELETED, known, None if merged is None else _without_image(merged))
    if known is None or known.origin is None:
        return DeliveryDecision(ImageOutcome.STORED, ImageRegister(Origin.REPLICA, delivery.newest), merged)
    register = ImageRegister(known.origin, max(known.revision, delivery.newest))
    return DeliveryDecision(ImageOutcome.PRESENT, register, merged)


def _without_image(merged: Merge) -> Merge:
    if merged.outcome is not MergeOutcome.SET:
        return merged
    return Merge(merged.outcome, without_image(merged.register), merged.loser)


@dataclass(frozen=True, slots=True)
class DeletionDecision:
    """What becomes of an image whose deletion arrives; `image` is what to store."""

    outcome: ImageOutcome
    image: ImageRegister | None


def decide_image_deletion(
    known: ImageRegister | None, revision: Revision, *, is_child: bool = False
) -> DeletionDecision:
    """Decide about the deletion of an image at the source, made in `revision` (ECR §9.4).

    Only what came by replication goes, only if it is older than the deletion, and not while an index here lists it.
    The deletion is remembered in any case where it is newer, so that a late copy does not bring the image back.
    """
    if known is None or not known.is_present:
        newest = revision if known is None else max(known.revision, revision)
        return DeletionDecision(ImageOutcome.DELETED, ImageRegister(None, newest))
    if known.origin is not Origin.REPLICA or known.revision >= revision or is_child:
        return DeletionDecision(ImageOutcome.KEPT, known)
    return DeletionDecision(ImageOutcome.DELETED, ImageRegister(None, revision))


def decide_untag(current: TagRegister | None, deletion: TagRegister, *, is_replica: bool = True) -> Merge:
    """Decide about the removal of a tag at the source; a tag that was set since stays.

    So does one that was set to an image of the destination's own (`is_replica` is false) by a write that the deletion
    did not know of; its outcome is KEPT_NEWER with a register older than the deletion, and `hold` is to follow.
    """
    is_own = current is not None and current.digest is not None and not is_replica
    if current is not None and is_own and not deletion.knows(current) and deletion.rank > current.rank:
        return Merge(MergeOutcome.KEPT_NEWER, current)
    return merge(current, deletion)


def hold(current: TagRegister, deletion: TagRegister, node: NodeId, now: float) -> TagRegister:
    """Return the register of a tag that `node` keeps in spite of a deletion: the same digest, in a write after it.

    Without that write the deletion would be newer than the tag wherever else both are known, and the nodes disagree.
    """
    merged = merge(current, deletion).register
    return write(merged, current.digest, node, now)


def without_image(current: TagRegister) -> TagRegister:
    """Return the register of a tag whose image is deleted: gone, in the revision it had.

    A newer revision would keep out what the source pointed the tag to before it deleted the image.
    """
    return TagRegister(None, current.revision, current.seen)
