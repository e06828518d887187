"""One node: its transactions as the registry makes them, and the attempts of its replication worker.

Only state, order and transport are modelled here; every decision is made by `replicator.core`. A transaction is one
call: it happens whole or not at all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import delivery as decisions
from replicator.core import drift, replication, revisions
from replicator.core.delivery import ImageDelivery, ImageOutcome
from replicator.core.drift import REPAIRABLE, Drift, DriftKind
from replicator.core.jobs import NewJob, Priority
from replicator.core.names import NodeId
from replicator.core.peer_messages import (
    Deletion,
    Delivery,
    HeldImage,
    LackedBlob,
    Lacks,
    Offer,
    OfferedBlob,
    OfferedTag,
    Receipt,
    SentManifest,
)
from replicator.core.replication import Change, DeleteReplica, Origin, ReplicateImage, ReplicationState
from replicator.core.retry import Backoff
from replicator.core.revisions import MergeOutcome, TagRegister
from tests.simulation.contents import BLOBS, CONTENTS, PARENTS, PARTS
from tests.simulation.store import JobRow, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from replicator.core.digest import Digest
    from replicator.core.mutability import MutabilityRule
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.replication import ReplicationRule
    from tests.simulation.store import JobKey
    from tests.simulation.world import World

_BACKOFF = Backoff()
_ROUNDS = 3
"""Deliveries of one attempt, before what is still lacking makes it a failure."""


class Lost(Exception):
    """No answer came in time: the message, or its answer, is lost or late."""


@dataclass(frozen=True, slots=True)
class Call:
    """A message to another node, which is answered."""

    to: NodeId
    what: str
    handle: Callable[[Node], object]
    sent: Delivery | None = None
    offer: Offer | None = None


def _node_of(work: ReplicateImage | DeleteReplica) -> NodeId:
    assert isinstance(work.destination, NodeId)
    return work.destination


@dataclass(slots=True)
class Clock:
    """The wall clock of one node: off by `offset` seconds, and slow or fast by `rate`."""

    offset: float = 0.0
    rate: float = 1.0


class Node:
    """A registry node with its replication worker."""

    def __init__(self, world: World, name: NodeId, clock: Clock, mutability: MutabilityRule) -> None:
        self.world = world
        self.name = name
        self.clock = clock
        self.mutability = mutability
        self.rules: Sequence[ReplicationRule] = ()
        self.store = Store(str(name)[-1])
        self.is_up = True
        self.incarnation = 0

    def now(self) -> float:
        """Return Unix seconds, as this node believes."""
        return self.world.start + self.world.now * self.clock.rate + self.clock.offset

    # What clients do

    def push(self, repository: RepositoryName, digest: Digest, tags: tuple[Tag, ...]) -> bool:
        """Store a manifest whose blobs the client has brought; return whether that was acknowledged."""
        store, now = self.store, self.now()
        content = CONTENTS[digest]
        if any((repository, child) not in store.images for child in content.children):
            return False
        for tag in tags:
            current = store.tags.get((repository, tag))
            if not self.mutability.permits(tag, current.digest if current else None, digest):
                return False
        store.blobs.update((repository, blob) for blob in content.blobs)
        store.damaged.difference_update((repository, blob) for blob in content.blobs)
        newest = revisions.NEVER
        for tag in tags:
            register = revisions.write(store.tags.get((repository, tag)), digest, self.name, now)
            newest = max(newest, register.revision)
            store.set_tag((repository, tag), register)
            store.writes[repository, tag] = register
            self.world.oracle.wrote(self, repository, tag, register)
        self._write_image(repository, digest, now, newest)
        change = Change(repository, digest, tags, Origin.DIRECT, content.is_referrer)
        self._follow_up(change)
        store.acknowledged.add((repository, digest))
        return True

    def _write_image(
        self, repository: RepositoryName, digest: Digest, now: float, not_before: revisions.Revision
    ) -> None:
        known = self.store.register(repository, digest)
        revision = max(revisions.next_revision(known.revision if known else None, self.name, now), not_before)
        self.store.put_image((repository, digest), Origin.DIRECT, revision, None)

    def delete_image(self, repository: RepositoryName, digest: Digest) -> bool:
        """Delete an image with its tags; return whether it was there (and no index lists it)."""
        store, now = self.store, self.now()
        found = store.images.get((repository, digest))
        if found is None or store.is_child(repository, digest):
            return False
        tags = tuple(store.tags_of(repository, digest))
        change = Change(repository, digest, tags, found.origin, CONTENTS[digest].is_referrer)
        newest = found.revision
        for tag in tags:
            newest = max(newest, self._write_tombstone(repository, tag, change, now))
        revision = revisions.next_revision(newest, self.name, now)
        store.acknowledged.discard((repository, digest))
        store.bury((repository, digest), revision)
        self._plan_deletions(change, None, revision)
        self._forget_status(repository, digest)
        return True

    def _forget_status(self, repository: RepositoryName, digest: Digest) -> None:
        for key in [key for key in self.store.status if key[:2] == (repository, digest)]:
            del self.store.status[key]

    def delete_tag(self, repository: RepositoryName, tag: Tag) -> bool:
        """Delete a tag; return whether it was there."""
        register = self.store.tags.get((repository, tag))
        if register is None or register.digest is None:
            return False
        origin = self.store.images[repository, register.digest].origin
        self._write_tombstone(repository, tag, Change(repository, register.digest, (tag,), origin), self.now())
        return True

    def _write_tombstone(self, repository: RepositoryName, tag: Tag, change: Change, now: float) -> revisions.Revision:
        register = revisions.write(self.store.tags.get((repository, tag)), None, self.name, now)
        self.store.set_tag((repository, tag), register)
        self.store.writes[repository, tag] = register
        self.world.oracle.wrote(self, repository, tag, register)
        if change.origin is Origin.REPLICA and not any(rule.chain for rule in self.rules):
            self.world.oracle.untagged_replica(register)
        self._plan_deletions(change, tag, register.revision)
        return register.revision

    # What follows from a change

    def _follow_up(self, change: Change) -> None:
        for image, job in replication.plan_replication(self.rules, self.name, change):
            self._supersede(image)
            self.store.status[image.repository, image.digest, image.tag, str(image.destination)] = (
                ReplicationState.IN_PROGRESS
            )
            self.enqueue(job, image)

    def _supersede(self, image: ReplicateImage) -> None:
        if image.tag is None:
            return
        at = str(image.destination)
        for key, state in self.store.status.items():
            is_its_tag = (key[0], key[2], key[3]) == (image.repository, image.tag, at)
            if is_its_tag and key[1] != image.digest and state is ReplicationState.IN_PROGRESS:
                self.store.status[key] = ReplicationState.FAILED

    def _plan_deletions(self, change: Change, tag: Tag | None, revision: revisions.Revision) -> None:
        for deletion in replication.plan_deletion(self.rules, self.name, change, tag, revision):
            self.enqueue(deletion.to_job(), deletion)

    def enqueue(self, job: NewJob, work: ReplicateImage | DeleteReplica) -> None:
        """Store a job, or renew the one with its key; a leased one runs again afterwards."""
        key = (job.kind, job.key)
        row = self.store.jobs.get(key)
        if row is None:
            self.store.jobs[key] = JobRow(job, work, self.world.now)
        else:
            row.job, row.work, row.due, row.attempts = job, work, self.world.now, 0
            row.generation += 1
        self.world.enqueued(self, key)

    # What other nodes ask of it

    def offer(self, peer: NodeId, offer: Offer) -> Lacks:
        """Answer what an image lacks here."""
        store, repository = self.store, offer.repository
        register = None if offer.tag is None else offer.tag.register
        decision = decisions.decide_delivery(
            store.register(repository, offer.digest),
            None,
            ImageDelivery(offer.digest, offer.revision, register),
            is_mutable=True,
        )
        if decision.outcome is ImageOutcome.DELETED:
            return Lacks((), (), ImageOutcome.DELETED)
        outcome = ImageOutcome.PRESENT if decision.outcome is ImageOutcome.PRESENT else None
        return Lacks(
            tuple(one for one in offer.manifests if (repository, one) not in store.images),
            tuple(LackedBlob(one.digest) for one in offer.blobs if (repository, one.digest) not in store.blobs),
            outcome,
            store.tags.get((repository, offer.tag.name)) if offer.tag else None,
        )

    def put_blob(self, repository: RepositoryName, digest: Digest) -> bool:
        """Link a blob that has arrived whole."""
        self.store.blobs.add((repository, digest))
        self.store.damaged.discard((repository, digest))
        return True

    def deliver(self, peer: NodeId, sent: Delivery) -> Receipt:
        """Store what a delivery brings, in one transaction."""
        assert sent.digest is not None
        store, repository, digest = self.store, sent.repository, sent.digest
        place = None if sent.tag is None else (repository, sent.tag.name)
        decision = decisions.decide_delivery(
            store.register(repository, digest),
            None if place is None else store.tags.get(place),
            ImageDelivery(digest, sent.revision, sent.tag.register if sent.tag else None),
            is_mutable=sent.tag is None or self.mutability.is_mutable(sent.tag.name),
        )
        if decision.outcome is ImageOutcome.DELETED:
            if decision.tag is not None and sent.tag is not None:
                self._merge_tag(repository, sent.tag.name, decision.tag)
            return Receipt(ImageOutcome.DELETED)
        arriving = tuple(one.digest for one in sent.manifests)
        lacking = self._lacking(repository, digest, arriving)
        if lacking is not None:
            return lacking
        for child in arriving:
            if child != digest:
                self._keep_child(peer, repository, child, sent.revision)
        origin = decision.image.origin
        assert origin is not None
        store.put_image((repository, digest), origin, decision.image.revision, peer)
        if decision.tag is not None and sent.tag is not None:
            self._merge_tag(repository, sent.tag.name, decision.tag)
        if decision.is_change:
            moved = decision.tag is not None and decision.tag.outcome is MergeOutcome.SET
            kept = (sent.tag.name,) if sent.tag is not None and moved else ()
            is_referrer = CONTENTS[digest].is_referrer
            self._follow_up(Change(repository, digest, kept, Origin.REPLICA, is_referrer, peer))
        return Receipt(
            decision.outcome,
            decision.tag.outcome if decision.tag else None,
            store.tags.get(place) if place else None,
            tuple(one for one in sent.expected_manifests if (repository, one) not in store.images),
            tuple(one for one in sent.expected_blobs if (repository, one) not in store.blobs),
        )

    def _lacking(self, repository: RepositoryName, digest: Digest, arriving: tuple[Digest, ...]) -> Receipt | None:
        store = self.store
        needed = (*CONTENTS[digest].children, digest)
        manifests = tuple(one for one in needed if one not in arriving and (repository, one) not in store.images)
        blobs = tuple(store.lacking(repository, (*arriving, digest)))
        if not manifests and not blobs:
            return None
        return Receipt(ImageOutcome.INCOMPLETE, None, None, manifests, blobs)

    def _keep_child(
        self, peer: NodeId, repository: RepositoryName, child: Digest, revision: revisions.Revision
    ) -> None:
        """Store what an index needs, also where it was deleted here since: the index is not."""
        known = self.store.register(repository, child)
        if known is not None and known.origin is not None:
            self.store.put_image((repository, child), known.origin, known.revision, peer)
        else:
            newest = revision if known is None else max(known.revision, revision)
            self.store.put_image((repository, child), Origin.REPLICA, newest, peer)

    def _merge_tag(self, repository: RepositoryName, tag: Tag, merged: revisions.Merge) -> None:
        self.store.set_tag((repository, tag), merged.register)
        if merged.loser is not None:
            self.store.conflicts.add((repository, tag, merged.loser))

    def delete(self, peer: NodeId, deletion: Deletion) -> Receipt:
        """Delete a tag or an image that was deleted at its source, in one transaction."""
        if deletion.tag is not None:
            return self._untag(peer, deletion, deletion.tag)
        store, repository, digest = self.store, deletion.repository, deletion.digest
        known = store.register(repository, digest)
        decision = decisions.decide_image_deletion(
            known, deletion.revision, is_child=store.is_child(repository, digest)
        )
        if decision.outcome is ImageOutcome.KEPT or decision.image is None:
            return Receipt(decision.outcome)
        tags = store.tags_of(repository, digest)
        store.bury((repository, digest), decision.image.revision)
        self._forget_status(repository, digest)
        for tag in tags:
            gone = decisions.without_image(store.tags[repository, tag])
            store.set_tag((repository, tag), gone)
        if known is not None and known.is_present:
            is_referrer = CONTENTS[digest].is_referrer
            change = Change(repository, digest, tuple(tags), Origin.REPLICA, is_referrer, peer)
            self._plan_deletions(change, None, decision.image.revision)
        return Receipt(decision.outcome)

    def _untag(self, peer: NodeId, deletion: Deletion, tag: OfferedTag) -> Receipt:
        store, repository, place = self.store, deletion.repository, (deletion.repository, tag.name)
        current = store.tags.get(place)
        held = None if current is None or current.digest is None else store.images[repository, current.digest]
        is_replica = held is None or held.origin is Origin.REPLICA
        merged = decisions.decide_untag(current, tag.register, is_replica=is_replica)
        if current is not None and held is not None and merged.register.rank < tag.register.rank:
            register = decisions.hold(current, tag.register, self.name, self.now())
            store.set_tag(place, register)
            self.world.oracle.wrote(self, repository, tag.name, register)
            assert register.digest is not None
            self._follow_up(Change(repository, register.digest, (tag.name,), Origin.DIRECT))
            return Receipt(ImageOutcome.KEPT, merged.outcome, register)
        self._merge_tag(repository, tag.name, merged)
        self.world.oracle.untagged(self, tag.name, current, merged.register)
        if merged.outcome is MergeOutcome.SET and current is not None and current.digest is not None:
            is_referrer = CONTENTS[current.digest].is_referrer
            change = Change(repository, current.digest, (), Origin.REPLICA, is_referrer, peer)
            self._plan_deletions(change, tag.name, merged.register.revision)
        return Receipt(ImageOutcome.DELETED, merged.outcome, merged.register)

    def listing(self, peer: NodeId, repository: RepositoryName) -> list[HeldImage]:
        """List what this node knows of a repository.

        An image that lost a blob is left out: the comparison finds it by an offer, which is not modelled on its own.
        """
        store = self.store
        lines = [
            HeldImage(digest, one.revision, None, True, one.origin is Origin.REPLICA)
            for (name, digest), one in store.images.items()
            if name == repository and store.is_whole(repository, digest)
        ]
        lines += [
            HeldImage(digest, revision, None, False)
            for (name, digest), revision in store.deletions.items()
            if name == repository
        ]
        for (name, tag), register in store.tags.items():
            if name == repository:
                lines.append(self._tag_line(repository, tag, register))
        return lines

    def _tag_line(self, repository: RepositoryName, tag: Tag, register: TagRegister) -> HeldImage:
        if register.digest is None:
            return HeldImage(None, register.revision, tag, False)
        is_replica = self.store.images[repository, register.digest].origin is Origin.REPLICA
        return HeldImage(register.digest, register.revision, tag, True, is_replica, not self.mutability.is_mutable(tag))

    def find_image(self, peer: NodeId, repository: RepositoryName, digest: Digest, tag: Tag) -> Delivery | None:
        """Return an image with its tag for a peer that reads through to this node."""
        if (repository, digest) not in self.store.images:
            return None
        return self._delivery(repository, repository, digest, tag, PARTS[digest])

    # The worker

    def run(self, key: JobKey) -> None:
        """Lease a job that is due and begin an attempt."""
        row = self.store.jobs.get(key)
        if row is None or row.is_leased or row.due > self.world.now or not self.is_up:
            return
        row.is_leased = True
        row.attempts += 1
        work, generation = row.work, row.generation
        steps = (
            self._replicate(work, key, generation)
            if isinstance(work, ReplicateImage)
            else self._undo(work, key, generation)
        )
        self.world.begin(self, steps, lambda: self._failed(key))

    def _replicate(self, work: ReplicateImage, key: JobKey, generation: int) -> Generator[Call, object, None]:
        source, target, digest = work.repository, work.target_repository, work.digest
        to = _node_of(work)
        for _ in range(_ROUNDS):
            offer = self._offer(work)
            if offer is None:
                self._dropped(work, key, generation)
                return
            lacks = yield Call(to, "offer", lambda node, offer=offer: node.offer(self.name, offer), None, offer)  # type: ignore[misc]
            assert isinstance(lacks, Lacks)
            if lacks.image is ImageOutcome.DELETED and work.tag is None:
                self._dropped(work, key, generation)
                return
            for blob in lacks.blobs:
                if (source, blob.digest) not in self.store.blobs:
                    raise Lost
                yield Call(to, "blob", lambda node, blob=blob: node.put_blob(target, blob.digest))  # type: ignore[misc]
            if (source, digest) not in self.store.images:
                self._dropped(work, key, generation)
                return
            sent = self._delivery(source, target, digest, work.tag, lacks.manifests)
            receipt = yield Call(to, "deliver", lambda node, sent=sent: node.deliver(self.name, sent), sent)  # type: ignore[misc]
            assert isinstance(receipt, Receipt)
            if receipt.image is ImageOutcome.DELETED:
                self._dropped(work, key, generation)
                return
            if not receipt.lacking_manifests and not receipt.lacking_blobs:
                self._completed(work, key, generation, sent)
                return
        raise Lost

    def _offer(self, work: ReplicateImage) -> Offer | None:
        found = self.store.images.get((work.repository, work.digest))
        if found is None:
            return None
        tag = None if work.tag is None else self._current(work.repository, work.tag, work.digest)
        return Offer(
            work.target_repository,
            work.digest,
            found.revision,
            PARTS[work.digest],
            tuple(OfferedBlob(blob, 1) for blob in BLOBS[work.digest]),
            tag,
        )

    def _current(self, repository: RepositoryName, tag: Tag, digest: Digest) -> OfferedTag | None:
        register = self.store.tags.get((repository, tag))
        return OfferedTag(tag, register) if register is not None and register.digest == digest else None

    def _delivery(
        self,
        source: RepositoryName,
        target: RepositoryName,
        digest: Digest,
        tag: Tag | None,
        manifests: tuple[Digest, ...],
    ) -> Delivery:
        """Build a delivery of what is here now: an attempt reads registers right before it sends them."""
        return Delivery(
            target,
            tuple(SentManifest(one, "", b"") for one in manifests),
            self.store.images[source, digest].revision,
            digest,
            None if tag is None else self._current(source, tag, digest),
            PARTS[digest],
            BLOBS[digest],
        )

    def _undo(self, work: DeleteReplica, key: JobKey, generation: int) -> Generator[Call, object, None]:
        deletion = self._deletion(work)
        if deletion is not None:
            yield Call(_node_of(work), "delete", lambda node: node.delete(self.name, deletion))
        self._settled(key, generation)

    def _deletion(self, work: DeleteReplica) -> Deletion | None:
        """Return what to send now; None where the tag or the image has come back since."""
        if work.tag is None:
            revision = self.store.deletions.get((work.repository, work.digest))
            return None if revision is None else Deletion(work.target_repository, work.digest, revision)
        register = self.store.tags.get((work.repository, work.tag))
        if register is None or register.digest is not None:
            return None
        if register.revision != work.revision:
            register = TagRegister(None, work.revision)
        return Deletion(work.target_repository, work.digest, register.revision, OfferedTag(work.tag, register))

    def _completed(self, work: ReplicateImage, key: JobKey, generation: int, sent: Delivery) -> None:
        status = (work.repository, work.digest, work.tag, str(work.destination))
        is_done = self._settled(key, generation)
        if (is_done or self.store.jobs[key].work.digest != work.digest) and status in self.store.status:
            self.world.oracle.completed(self, work, sent)
            self.store.status[status] = ReplicationState.COMPLETE

    def _dropped(self, work: ReplicateImage, key: JobKey, generation: int) -> None:
        if self._settled(key, generation):
            self.store.status.pop((work.repository, work.digest, work.tag, str(work.destination)), None)

    def _settled(self, key: JobKey, generation: int) -> bool:
        row = self.store.jobs[key]
        if row.generation == generation:
            del self.store.jobs[key]
            return True
        row.is_leased, row.due = False, self.world.now
        self.world.enqueued(self, key)
        return False

    def _failed(self, key: JobKey) -> None:
        row = self.store.jobs[key]
        row.is_leased = False
        row.due = self.world.now + _BACKOFF.delay(row.attempts, self.world.rng.random())
        self.world.enqueued(self, key)

    # Anti-entropy

    def compare(self, to: NodeId) -> Generator[Call, object, None]:
        """Compare what the rules say `to` should hold with what it holds, and plan what mends it."""
        for repository, target in self.world.repositories_for(self, to):
            held = yield Call(to, "listing", lambda node, target=target: node.listing(self.name, target))  # type: ignore[misc]
            assert isinstance(held, list)
            for one in self.find_drift(to, repository, held):
                self._repair(to, repository, one)

    def find_drift(self, to: NodeId, repository: RepositoryName, held: list[HeldImage]) -> list[Drift]:
        """Return the drift of a repository that is to be repaired.

        A replica that came from elsewhere is deleted from there, unless the rule chains.
        """
        deletes = any(rule.delete_replication for rule in self.rules if to in rule.destinations)
        found = drift.find_drift(self._expected(to, repository), held, delete_replication=deletes)
        ours = {(one.tag, one.digest) for one in held if one.revision.node == str(self.name)}
        is_chained = any(rule.chain for rule in self.rules if to in rule.destinations)
        return [
            one
            for one in found
            if one.kind in REPAIRABLE
            and (one.kind is not DriftKind.NOT_DELETED or is_chained or (one.tag, one.digest) in ours)
        ]

    def _expected(self, to: NodeId, repository: RepositoryName) -> list[HeldImage]:
        store = self.store
        lines = [
            HeldImage(digest, image.revision)
            for (name, digest), image in store.images.items()
            if name == repository and self.carrier(to, repository, digest) is not None
        ]
        lines += [
            HeldImage(digest, revision, None, False)
            for (name, digest), revision in store.deletions.items()
            if name == repository
        ]
        for (name, tag), register in store.tags.items():
            if name == repository and self.covers_tag(to, repository, tag, register):
                lines.append(HeldImage(register.digest, register.revision, tag, register.digest is not None))
        return lines

    def carrier(self, to: NodeId, repository: RepositoryName, digest: Digest) -> tuple[Digest, Tag | None] | None:
        """Return what brings an image to a node that should hold it: itself with a tag, or the index that lists it."""
        for tag in self.store.tags_of(repository, digest):
            if self._goes(to, repository, digest, tag):
                return digest, tag
        for parent in PARENTS[digest]:
            found = self.carrier(to, repository, parent) if (repository, parent) in self.store.images else None
            if found is not None:
                return found
        was_sent = any((name, one, at) == (repository, digest, str(to)) for name, one, _, at in self.store.status)
        return (digest, None) if was_sent and self._goes(to, repository, digest, None) else None

    def _goes(self, to: NodeId, repository: RepositoryName, digest: Digest, tag: Tag | None) -> bool:
        image = self.store.images[repository, digest]
        if image.origin is Origin.REPLICA and image.source == to:
            return False
        is_referrer = CONTENTS[digest].is_referrer or tag is None
        rules = self._rules_for(image.origin)
        found = replication.destinations_of(rules, self.name, repository, tag, is_referrer=is_referrer)
        return any(one.id == to for one in found)

    def covers_tag(self, to: NodeId, repository: RepositoryName, tag: Tag, register: TagRegister) -> bool:
        """Tell whether a rule sends a tag of ours, or its deletion, to a node."""
        if register.digest is not None:
            return self._goes(to, repository, register.digest, tag)
        found = replication.destinations_of(self.rules, self.name, repository, tag)
        return any(one.id == to and one.rule.delete_replication for one in found)

    def _rules_for(self, origin: Origin) -> Sequence[ReplicationRule]:
        return [rule for rule in self.rules if rule.chain] if origin is Origin.REPLICA else self.rules

    def _repair(self, to: NodeId, repository: RepositoryName, one: Drift) -> None:
        self.world.repairs.add((self.name, to, repository, one))
        rule = next(rule for rule in self.rules if to in rule.destinations)
        target = rule.renamed(repository)
        target_or_none = None if target == repository else target
        priority = Priority.BACKGROUND + rule.priority
        if one.kind is DriftKind.NOT_DELETED:
            deletion = DeleteReplica(repository, one.digest, one.tag, to, rule.name, one.revision, target_or_none)
            self.enqueue(deletion.to_job(priority), deletion)
        else:
            digest, tag = one.digest, one.tag
            if (repository, digest) not in self.store.images:
                return
            if tag is None:
                digest, tag = self.carrier(to, repository, digest) or (digest, None)
            image = ReplicateImage(repository, digest, tag, to, rule.name, target_or_none)
            self.store.status[repository, digest, tag, str(to)] = ReplicationState.IN_PROGRESS
            self.enqueue(image.to_job(priority), image)

    # Read-through

    def read_through(
        self, to: NodeId, repository: RepositoryName, digest: Digest, tag: Tag
    ) -> Generator[Call, object, None]:
        """Fetch an image that a rule will bring, for a client that asks for it now, and keep it."""
        sent = yield Call(to, "find", lambda node: node.find_image(self.name, repository, digest, tag))
        if isinstance(sent, Delivery):
            for blob in sent.expected_blobs:
                if (repository, blob) not in self.store.blobs:
                    held = yield Call(to, "read", lambda node, blob=blob: (repository, blob) in node.store.blobs)  # type: ignore[misc]
                    if not held:
                        return
                    self.put_blob(repository, blob)
            self.deliver(to, sent)
