"""What other nodes replicate into this one, and what this one tells them about its own images.

A peer may do here what its account's permissions allow, nothing else: every method asks the registry policy, or the
rules that send an image to the peer, before it reads or writes. A delivery is one transaction, after which everything
or nothing of it is visible: a tag never points to an image whose manifests and blobs are not here. What is decided is
decided in `core.delivery`; a late or repeated message changes nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from replicator.core.delivery import ImageDelivery, ImageOutcome, decide_delivery
from replicator.core.drift import Fingerprint
from replicator.core.errors import InvalidInput
from replicator.core.jobs import JobKind
from replicator.core.mutability import MutabilityRule
from replicator.core.peer_messages import Delivery, HeldImage, LackedBlob, Lacks, RepositoryHash
from replicator.core.replication import Origin
from replicator.core.templates import CreationCause
from replicator.registry.access import authorize_replication, may_replicate
from replicator.registry.deliveries import check_clock, check_tag, deliver, open_delivery
from replicator.registry.peer_reads import find_image
from replicator.registry.replica_deletions import check_deletion, delete_replica
from replicator.registry.repository_creation import ensure_repository
from replicator.storage.metadata import blobs, images, replicas, repositories, tags
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.peer_messages import Deletion, Offer, Receipt
    from replicator.core.reference import Reference
    from replicator.core.revisions import TagRegister
    from replicator.registry.deliveries import Outcome
    from replicator.registry.node import RegistryNode
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.statement import Steps
    from replicator.storage.metadata.tag_conflicts import TagConflict

_log = get_logger(__name__)

_MOUNT_CANDIDATES = 1000
_BLOBS_AT_ONCE = 16
_LINES = 1000
"""Lines in one read: reads of SQLite hold up the loop."""

_LOOKUPS = 500
"""Digests in one read, each of which is a query or some."""


class PartialBlobs(Protocol):
    """Where the beginnings of blobs lie whose transfer broke off."""

    async def offset_of(self, peer: NodeId, repository: RepositoryName, digest: Digest) -> int:
        """Return how many bytes of a blob from its start are here; 0 when none are."""
        ...


class ConflictObserver(Protocol):
    """Hears of every tag that two nodes set without knowing of each other."""

    def conflict_found(self, conflict: TagConflict) -> None:
        """Note a conflict that was stored."""
        ...


@dataclass(frozen=True, slots=True)
class _Holdings:
    """What is here of an offered image. `mounts` are blobs that other repositories hold, by digest."""

    is_deleted: bool
    is_present: bool
    tag: TagRegister | None
    manifests: tuple[Digest, ...]
    held: Mapping[Digest, StoredBlob]
    mounts: Mapping[Digest, StoredBlob]


class Replicas:
    """The peer's use cases. Every method raises a StorageError when the store fails."""

    def __init__(
        self, node: RegistryNode, partial_blobs: PartialBlobs, observer: ConflictObserver | None = None
    ) -> None:
        self._node = node
        self._partial = partial_blobs
        self._observer = observer

    async def offer(self, peer: NodeId, offer: Offer) -> Lacks:
        """Say what an image lacks here; take a final offer in like a delivery when it lacks nothing.

        A blob that another repository holds, into which the peer may replicate, is mounted, unless it is damaged.
        Raises ReplicationDenied, ClockSkew or InvalidInput; nothing is changed then.
        """
        settings, now = self._node.settings, self._node.clock.now()
        check_clock(offer.revision, now)
        check_tag(offer.tag, offer.digest, now)
        found = await self._holdings(peer, offer)
        if found.is_deleted:
            return Lacks((), (), ImageOutcome.DELETED, found.tag)
        whole = await self._whole({**found.held, **found.mounts})
        mounts = [digest for digest in found.mounts if digest in whole]
        if mounts:
            await self._node.commit(offer.repository, lambda: self._mount(offer.repository, mounts, now))
        lacked = []
        for digest in dict.fromkeys(blob.digest for blob in offer.blobs):
            if digest not in whole:
                lacked.append(LackedBlob(digest, await self._partial.offset_of(peer, offer.repository, digest)))
                await asyncio.sleep(0)
        is_whole = offer.is_final and not lacked and not found.manifests
        return Lacks(
            found.manifests,
            tuple(lacked),
            ImageOutcome.PRESENT if found.is_present else None,
            found.tag,
            settings.sparse_indexes,
            settings.sparse_images,
            await self.deliver(peer, _as_delivery(offer)) if is_whole else None,
        )

    async def _holdings(self, peer: NodeId, offer: Offer) -> _Holdings:
        """Return what is here, read in several steps; what changes between them is found when it is delivered."""
        found = await self._node.database.read(self._known(peer, offer))
        if found.is_deleted:
            return found
        manifests: list[Digest] = []
        for batch in _batches(offer.manifests):
            manifests += await self._node.database.read(images.missing(offer.repository, batch))
            await asyncio.sleep(0)
        held: dict[Digest, StoredBlob] = {}
        mounts: dict[Digest, StoredBlob] = {}
        for batch in _batches([blob.digest for blob in offer.blobs]):
            await self._node.database.read(self._find_blobs(peer, offer.repository, batch, held, mounts))
            await asyncio.sleep(0)
        return replace(found, manifests=tuple(manifests), held=held, mounts=mounts)

    def _known(self, peer: NodeId, offer: Offer) -> Steps[_Holdings]:
        repository = yield from repositories.find(offer.repository)
        authorize_replication(self._node.settings, peer, offer.repository, exists=repository is not None)
        known = yield from images.find_register(offer.repository, offer.digest)
        tag = None if offer.tag is None else (yield from tags.find(offer.repository, offer.tag.name))
        offered = ImageDelivery(offer.digest, offer.revision, None if offer.tag is None else offer.tag.register)
        decision = decide_delivery(known, None, offered, is_mutable=True)
        outcome = decision.outcome
        return _Holdings(outcome is ImageOutcome.DELETED, outcome is ImageOutcome.PRESENT, tag, (), {}, {})

    def _find_blobs(
        self,
        peer: NodeId,
        repository: RepositoryName,
        digests: Sequence[Digest],
        held: dict[Digest, StoredBlob],
        mounts: dict[Digest, StoredBlob],
    ) -> Steps[None]:
        for digest in digests:
            linked = yield from blobs.find_linked(repository, digest)
            if linked is not None:
                held[digest] = linked
                continue
            elsewhere = yield from self._mountable(peer, digest)
            if elsewhere is not None:
                mounts[digest] = elsewhere

    def _mountable(self, peer: NodeId, digest: Digest) -> Steps[StoredBlob | None]:
        holders = yield from blobs.holders(digest, "", _MOUNT_CANDIDATES)
        if not any(may_replicate(self._node.settings, peer, name) for name in holders):
            return None
        return (yield from blobs.find(digest))

    async def _whole(self, found: Mapping[Digest, StoredBlob]) -> set[Digest]:
        """Return those whose bytes can be read; the others are quarantined, so that what is sent replaces them."""
        whole: set[Digest] = set()

        async def look(blob: StoredBlob) -> None:
            if not await self._node.is_damaged(blob):
                whole.add(blob.digest)

        stored = list(found.values())
        for start in range(0, len(stored), _BLOBS_AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for blob in stored[start : start + _BLOBS_AT_ONCE]:
                    group.create_task(look(blob))
        return whole

    def _mount(self, repository: RepositoryName, digests: Sequence[Digest], now: float) -> Steps[None]:
        yield from ensure_repository(self._node, repository, now, CreationCause.REPLICATION)
        for digest in digests:
            yield from blobs.link(repository, digest, now)

    async def deliver(self, peer: NodeId, delivery: Delivery) -> Receipt:
        """Take an image in, all of it or nothing, and say what is here of it now.

        Nothing is stored (INCOMPLETE) while something is lacking that it refers to or that the source expects. Raises
        ReplicationDenied, InvalidManifest, ManifestTooLarge, DigestMismatch, ClockSkew or InvalidInput; nothing is
        changed then. A cancelled caller does not undo it.
        """
        arrival = await open_delivery(self._node.settings, peer, delivery, self._node.clock.now())
        outcome = await self._node.commit(delivery.repository, partial(deliver, self._node, arrival))
        self._announce(outcome)
        return outcome.answer

    async def delete(self, peer: NodeId, deletion: Deletion) -> Receipt:
        """Delete a tag or an image that was deleted at its source.

        The receipt says DELETED, or KEPT for what is newer, our own, or a manifest that an index here lists; `tag` is
        what the tag is now. Raises ReplicationDenied, ClockSkew or InvalidInput; nothing is changed then.
        """
        now = self._node.clock.now()
        check_deletion(deletion, now)
        outcome = await self._node.commit(deletion.repository, partial(delete_replica, self._node, peer, deletion, now))
        self._announce(outcome)
        return outcome.answer

    def _announce(self, outcome: Outcome) -> None:
        if outcome.has_jobs:
            self._node.announce_jobs(JobKind.REPLICATE)
            self._node.announce_jobs(JobKind.DELETE_REPLICA)
        conflict = outcome.conflict
        if conflict is None:
            return
        _log.warning(
            "two nodes set a tag without knowing of each other",
            repository=conflict.repository,
            tag=conflict.tag,
            winner=conflict.winner,
            loser=conflict.loser,
        )
        if self._observer is not None:
            self._observer.conflict_found(conflict)

    async def hashes(self, peer: NodeId, after: str, limit: int) -> list[RepositoryHash]:
        """Return fingerprints of what up to `limit` repositories that sort after `after` hold of a peer's images.

        Each is read in several steps, between which others go on: one that is changed meanwhile may come out as it
        never was.
        """
        names = await self._node.database.read(replicas.repositories_after(str(peer), after, limit))
        return [RepositoryHash(name, await self._fingerprint(str(peer), name)) for name in names]

    async def _fingerprint(self, source: str, repository: RepositoryName) -> str:
        result, after = Fingerprint(), ""
        while True:
            digests = await self._node.database.read(replicas.images_after(source, repository, after, _LINES))
            for digest in digests:
                result.add(None, digest)
            await asyncio.sleep(0)
            if len(digests) < _LINES:
                break
            after = digests[-1]
        after = ""
        while True:
            held = await self._node.database.read(replicas.tags_after(repository, after, _LINES))
            for one in held:
                if one.digest is not None and one.source == source:
                    result.add(one.tag, one.digest)
            await asyncio.sleep(0)
            if len(held) < _LINES:
                return result.value()
            after = held[-1].tag

    async def listing(self, peer: NodeId, repository: RepositoryName, after: str, limit: int) -> list[HeldImage]:
        """Return up to `limit` lines that follow the one with the cursor `after` (empty: from the start).

        Images and deleted ones come first, by digest, then tags and deleted ones, by name; fewer than `limit` are the
        last. Raises ReplicationDenied, or InvalidInput for what is no cursor.
        """
        authorize_replication(self._node.settings, peer, repository, exists=True)
        if after[:1] not in {"", "@", ":"}:
            raise InvalidInput(f"expected the cursor of a line, got {after[:80]!r}")
        found: list[HeldImage] = []
        while len(found) < limit:
            wanted = min(_LINES, limit - len(found))
            lines = await self._node.database.read(_lines(repository, after, wanted))
            found += lines
            await asyncio.sleep(0)
            if len(lines) < wanted:
                break
            after = lines[-1].cursor
        return found

    async def find_image(self, peer: NodeId, repository: RepositoryName, reference: Reference) -> Delivery | None:
        """Return an image that a rule of this node sends to `peer`, for a peer that is asked for it early.

        `repository` is its name at the peer; the delivery's is its name here, where the blobs are. None when it is
        not here, or when no rule sends it there.
        """
        return await find_image(self._node.database, self._node.settings, peer, repository, reference)


def _as_delivery(offer: Offer) -> Delivery:
    blobs_offered = tuple(blob.digest for blob in offer.blobs)
    return Delivery(offer.repository, (), offer.revision, offer.digest, offer.tag, offer.manifests, blobs_offered)


def _batches(digests: Iterable[Digest]) -> Iterator[list[Digest]]:
    """Yield digests, each once, in what may be looked up in one read."""
    distinct = list(dict.fromkeys(digests))
    for start in range(0, len(distinct), _LOOKUPS):
        yield distinct[start : start + _LOOKUPS]


def _lines(repository: RepositoryName, after: str, limit: int) -> Steps[list[HeldImage]]:
    found: list[HeldImage] = []
    if not after.startswith(":"):
        found = yield from _image_lines(repository, after.removeprefix("@"), limit)
        after = ":"
    held = yield from replicas.tags_after(repository, after.removeprefix(":"), limit - len(found))
    there = yield from repositories.find(repository)
    mutability = MutabilityRule() if there is None else there.mutability
    return found + [
        HeldImage(
            one.digest,
            one.revision,
            one.tag,
            is_present=one.digest is not None,
            is_replica=one.is_replica,
            is_immutable=not mutability.is_mutable(one.tag),
        )
        for one in held
    ]


def _image_lines(repository: RepositoryName, after: str, limit: int) -> Steps[list[HeldImage]]:
    present = yield from images.list_after(repository, after, limit)
    deleted = yield from images.deletions_after(repository, after, limit)
    lines = [HeldImage(one.digest, one.revision, None, True, one.origin is Origin.REPLICA) for one in present]
    lines += [HeldImage(digest, revision, None, False) for digest, revision in deleted]
    return sorted(lines, key=lambda line: line.cursor)[:limit]
