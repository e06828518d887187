"""An image that another node sends, taken in by one transaction.

1. the peer's account may replicate here; 2. the image is not deleted since; 3. everything that it refers to, and that
the source expects, is here or comes with it; 4. the repository is there; 5. children, image, tag, in this order; 6. a
lost tag is noted; 7. a rule that chains sends on what is new; 8. what the source expects is read back.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.core.delivery import DeliveryDecision, ImageDelivery, ImageOutcome, decide_delivery
from replicator.core.digest import algorithm_of, digest_of
from replicator.core.errors import ClockSkew, DigestMismatch, InvalidInput, ManifestTooLarge
from replicator.core.manifest import parse_manifest
from replicator.core.names import parse_node
from replicator.core.peer_messages import MAX_DELIVERY_BYTES, Receipt
from replicator.core.replication import Change, Origin
from replicator.core.revisions import MergeOutcome, Revision, is_too_far_ahead
from replicator.core.templates import CreationCause
from replicator.registry.access import authorize_replication
from replicator.registry.events import record_replication
from replicator.registry.follow_ups import plan_follow_up
from replicator.registry.repository_creation import ensure_repository
from replicator.storage.metadata import blobs, image_states, images, repositories, tag_conflicts, tags
from replicator.storage.metadata.images import StoredImage, StoredManifest
from replicator.storage.metadata.tag_conflicts import TagConflict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.digest import Digest
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.peer_messages import Delivery, OfferedTag
    from replicator.core.revisions import TagRegister
    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.images import ListedImage
    from replicator.storage.metadata.statement import Steps

MAX_SENT_BYTES = MAX_DELIVERY_BYTES // 2
"""Bytes of manifests in one delivery: they are sent in Base64, with everything else."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A delivery whose manifests were checked against their digests; `sent` holds them, children first."""

    peer: NodeId
    delivery: Delivery
    sent: Mapping[Digest, StoredImage]
    now: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a message from a peer did: the answer, the conflict that it uncovered, whether jobs were stored."""

    receipt: Receipt
    conflict: TagConflict | None = None
    has_jobs: bool = False

    @property
    def answer(self) -> Receipt:
        """The receipt, with the loser of a conflict."""
        return self.receipt if self.conflict is None else replace(self.receipt, loser=self.conflict.loser)


async def open_delivery(settings: RegistrySettings, peer: NodeId, delivery: Delivery, now: float) -> Arrival:
    """Check a delivery before anything is written.

    Raises InvalidManifest, ManifestTooLarge, DigestMismatch, ClockSkew, or InvalidInput for a tag of another image.
    """
    check_clock(delivery.revision, now)
    check_tag(delivery.tag, delivery.digest, now)
    sent: dict[Digest, StoredImage] = {}
    for manifest in delivery.manifests:
        if len(manifest.content) > settings.max_manifest_size:
            raise ManifestTooLarge(
                f"the manifest {manifest.digest} has {len(manifest.content)} bytes; this registry accepts up to"
                f" {settings.max_manifest_size}"
            )
        if digest_of(manifest.content, algorithm_of(manifest.digest)) != manifest.digest:
            raise DigestMismatch(f"the manifest sent as {manifest.digest} has another digest")
        parsed = parse_manifest(manifest.content, manifest.media_type)
        stored = StoredManifest(manifest.digest, parsed.media_type, manifest.content)
        sent[manifest.digest] = StoredImage(stored, parsed, Origin.REPLICA)
        await asyncio.sleep(0)  # megabytes of them must not hold others up
    return Arrival(peer, delivery, sent, now)


def check_clock(revision: Revision, now: float) -> None:
    """Raise ClockSkew for a revision that lies too far in our future."""
    if is_too_far_ahead(revision, now):
        raise ClockSkew(f"the revision {revision} lies more than a day in the future of this node's clock")


def check_tag(tag: OfferedTag | None, digest: Digest | None, now: float) -> None:
    """Raise InvalidInput for a tag that does not point to the image it comes with, ClockSkew as `check_clock`."""
    if tag is None:
        return
    if tag.register.digest != digest or digest is None:
        raise InvalidInput(f"expected the tag {tag.name} to point to {digest}, got {tag.register.digest}")
    check_register(tag.register, now)


def check_register(register: TagRegister, now: float) -> None:
    """Raise ClockSkew for a tag written too far in our future, or in knowledge of such a write.

    Who claims to know of what other nodes have yet to write would keep every conflict with them from being found.
    """
    check_clock(register.revision, now)
    for node, counter in register.seen.items():
        check_clock(Revision(register.revision.epoch, counter, node), now)


def deliver(node: RegistryNode, arrival: Arrival) -> Steps[Outcome]:
    """Take a delivery in; see the module. Raises ReplicationDenied."""
    delivery = arrival.delivery
    repository = yield from repositories.find(delivery.repository)
    authorize_replication(node.settings, arrival.peer, delivery.repository, exists=repository is not None)
    current = None if delivery.tag is None else (yield from tags.find(delivery.repository, delivery.tag.name))
    decision = None
    if delivery.digest is not None:
        known = yield from images.find_register(delivery.repository, delivery.digest)
        is_mutable = repository is None or delivery.tag is None or repository.mutability.is_mutable(delivery.tag.name)
        offered = ImageDelivery(
            delivery.digest, delivery.revision, None if delivery.tag is None else delivery.tag.register
        )
        decision = decide_delivery(known, current, offered, is_mutable=is_mutable)
        if decision.outcome is ImageOutcome.DELETED:
            return (yield from _keep_deleted(arrival, decision, current))
    lacking = yield from _lacking(node.settings, arrival)
    if any(lacking):
        return Outcome(Receipt(ImageOutcome.INCOMPLETE, None, current, *lacking))
    yield from ensure_repository(node, delivery.repository, arrival.now, CreationCause.REPLICATION)
    if decision is None:
        return (yield from _store_parts(arrival))
    return (yield from _store(node, arrival, decision, current))


def _keep_deleted(arrival: Arrival, decision: DeliveryDecision, current: TagRegister | None) -> Steps[Outcome]:
    """Store nothing of an image that was deleted here since, but that its tag has moved."""
    conflict = yield from _store_tag(arrival, decision, current)
    if decision.tag is None:
        return Outcome(Receipt(ImageOutcome.DELETED, None, current))
    return Outcome(Receipt(ImageOutcome.DELETED, decision.tag.outcome, decision.tag.register), conflict)


def _lacking(settings: RegistrySettings, arrival: Arrival) -> Steps[tuple[tuple[Digest, ...], tuple[Digest, ...]]]:
    """Return the manifests and blobs that are neither here nor sent."""
    delivery, root = arrival.delivery, arrival.delivery.digest
    manifests = dict.fromkeys(delivery.expected_manifests)
    wanted_blobs = dict.fromkeys(delivery.expected_blobs)
    for image in arrival.sent.values():
        if not settings.sparse_indexes:
            manifests.update(dict.fromkeys(image.parsed.children))
        if not settings.sparse_images:
            wanted_blobs.update(dict.fromkeys(image.parsed.required_blobs))
    unsent = [digest for digest in manifests if digest not in arrival.sent and digest != root]
    absent = yield from images.missing(delivery.repository, unsent)
    # What is archived is to be sent again with an index that lists it; the image itself comes back by what is here.
    if root is not None and root not in arrival.sent and not (yield from images.find_origin(delivery.repository, root)):
        absent = (*absent, root)
    return absent, (yield from blobs.missing(delivery.repository, list(wanted_blobs)))


def _store_parts(arrival: Arrival) -> Steps[Outcome]:
    """Store manifests of an image that is still to come; none that was deleted here since."""
    delivery, stored = arrival.delivery, False
    for digest, image in arrival.sent.items():
        known = yield from images.find_register(delivery.repository, digest)
        decision = decide_delivery(known, None, ImageDelivery(digest, delivery.revision), is_mutable=True)
        if decision.outcome is ImageOutcome.STORED:
            stored = True
            yield from images.put_register(
                delivery.repository, image, decision.image.revision, arrival.now, arrival.peer
            )
        elif decision.outcome is ImageOutcome.PRESENT:
            yield from image_states.restore(delivery.repository, digest, arrival.now)
    lacking = yield from _absent(delivery)
    return Outcome(Receipt(ImageOutcome.STORED if stored else ImageOutcome.PRESENT, None, None, *lacking))


def _store(
    node: RegistryNode, arrival: Arrival, decision: DeliveryDecision, current: TagRegister | None
) -> Steps[Outcome]:
    delivery, digest = arrival.delivery, arrival.delivery.digest
    assert digest is not None  # noqa: S101 - there is a decision only about an image
    for each, image in arrival.sent.items():
        if each != digest:
            yield from _store_child(node, arrival, each, image)
    if decision.outcome is ImageOutcome.STORED:
        yield from images.put_register(
            delivery.repository, arrival.sent[digest], decision.image.revision, arrival.now, arrival.peer
        )
    else:
        yield from _renew(node, arrival, digest, decision.image.revision)
    conflict = yield from _store_tag(arrival, decision, current)
    yield from _tell(node, arrival, decision)
    has_jobs = yield from _send_on(node, arrival, decision)
    lacking = yield from _absent(delivery)
    register = None if delivery.tag is None else (yield from tags.find(delivery.repository, delivery.tag.name))
    outcome = None if decision.tag is None else decision.tag.outcome
    return Outcome(Receipt(decision.outcome, outcome, register, *lacking), conflict, has_jobs)


def _store_child(node: RegistryNode, arrival: Arrival, digest: Digest, image: StoredImage) -> Steps[None]:
    """Store what an index needs, also where it was deleted here since: the index is not."""
    repository, revision = arrival.delivery.repository, arrival.delivery.revision
    known = yield from images.find_register(repository, digest)
    if known is not None and known.is_present:
        yield from _renew(node, arrival, digest, known.revision)
        return
    newest = revision if known is None else max(revision, known.revision)
    yield from images.put_register(repository, image, newest, arrival.now, arrival.peer)


def _renew(node: RegistryNode, arrival: Arrival, digest: Digest, revision: Revision) -> Steps[None]:
    """Note that an image which is here was sent again; it stays the one's who may delete it.

    An archived one is active at once, like one that is pushed again (ECR §9.3, §13.1).
    """
    repository = arrival.delivery.repository
    image = yield from images.find_listed(repository, digest)
    if image is not None and may_change(node, arrival.peer, image):
        yield from images.renew(repository, digest, revision, arrival.peer)
    yield from image_states.restore(repository, digest, arrival.now)


def may_change(node: RegistryNode, peer: NodeId, image: ListedImage) -> bool:
    """Tell whether an image is not another account's: nodes of this registry's own account may change any replica."""
    if image.source is None or peer.account == node.settings.node.account:
        return True
    return parse_node(image.source).account == peer.account


def _store_tag(arrival: Arrival, decision: DeliveryDecision, current: TagRegister | None) -> Steps[TagConflict | None]:
    tag, merged, repository = arrival.delivery.tag, decision.tag, arrival.delivery.repository
    if tag is None or merged is None:
        return None
    if merged.register != current:
        yield from tags.set_register(repository, tag.name, merged.register, arrival.now)
    if merged.loser is None:
        return None
    return (yield from note_conflict(repository, tag, merged.register, merged.loser, arrival.now))


def note_conflict(
    repository: RepositoryName, tag: OfferedTag, winner: TagRegister, loser: Digest, now: float
) -> Steps[TagConflict]:
    """Store that an image lost its tag to a write that did not know of it."""
    conflict = TagConflict(repository, tag.name, loser, winner.digest, str(winner.revision), now)
    yield from tag_conflicts.put(conflict)
    return conflict


def _tell(node: RegistryNode, arrival: Arrival, decision: DeliveryDecision) -> Steps[None]:
    """Tell of an image that is new here, or of a tag that is: a delivery that changed nothing is told to nobody."""
    delivery = arrival.delivery
    if decision.is_change and delivery.digest is not None:
        has_tag = delivery.tag is not None and decision.tag is not None and decision.tag.outcome is MergeOutcome.SET
        name = delivery.tag.name if delivery.tag is not None and has_tag else None
        yield from record_replication(node, delivery.repository, delivery.digest, name, arrival.peer, arrival.now)


def _send_on(node: RegistryNode, arrival: Arrival, decision: DeliveryDecision) -> Steps[bool]:
    """Store the jobs of rules that chain; a replica that changed nothing goes nowhere, so that no ring loops."""
    delivery = arrival.delivery
    if not decision.is_change or delivery.digest is None:
        return False
    has_tag = delivery.tag is not None and decision.tag is not None and decision.tag.outcome is MergeOutcome.SET
    names = (delivery.tag.name,) if delivery.tag is not None and has_tag else ()
    image = yield from images.find_listed(delivery.repository, delivery.digest)
    is_referrer = image is not None and image.subject is not None
    change = Change(delivery.repository, delivery.digest, names, Origin.REPLICA, is_referrer, arrival.peer)
    return (yield from plan_follow_up(node, change, arrival.now))


def _absent(delivery: Delivery) -> Steps[tuple[tuple[Digest, ...], tuple[Digest, ...]]]:
    return (
        (yield from images.missing(delivery.repository, delivery.expected_manifests)),
        (yield from blobs.missing(delivery.repository, delivery.expected_blobs)),
    )
