"""A node in memory, as the destination of replication: it takes what it is sent, and can fail, wait or lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.delivery import ImageOutcome
from replicator.core.digest import algorithm_of, digest_of
from replicator.core.errors import UpstreamContent
from replicator.core.peer_messages import LackedBlob, Lacks, Receipt
from replicator.core.revisions import MergeOutcome, TagRegister, merge
from tests.support.recorded_calls import RecordedCalls

if TYPE_CHECKING:
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.peer_messages import Deletion, Delivery, Offer


@dataclass
class _Repository:
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    manifests: dict[Digest, bytes] = field(default_factory=dict)
    tags: dict[Tag, TagRegister] = field(default_factory=dict)


class MemoryPeer(RecordedCalls):
    """A PeerDestination. `calls` are `offer`, `blob`, `deliver` or `delete` a digest.

    `claims_all` has it say of an offer that it lacks nothing, `forgets` lose every blob that it acknowledged.
    A blob of another repository is mounted.
    """

    def __init__(self, *, accepts_sparse: bool = False) -> None:
        super().__init__()
        self.repositories: dict[RepositoryName, _Repository] = {}
        self.accepts_sparse = accepts_sparse
        self.claims_all = False
        self.forgets = False
        self.deletions: list[Deletion] = []

    def repository(self, name: RepositoryName) -> _Repository:
        return self.repositories.setdefault(name, _Repository())

    async def offer(self, offer: Offer) -> Lacks:
        await self.called(f"offer {offer.digest}")
        held = self.repository(offer.repository)
        if self.claims_all:
            return Lacks((), (), ImageOutcome.PRESENT, None, self.accepts_sparse)
        elsewhere = {digest: content for one in self.repositories.values() for digest, content in one.blobs.items()}
        held.blobs |= {blob.digest: elsewhere[blob.digest] for blob in offer.blobs if blob.digest in elsewhere}
        return Lacks(
            tuple(digest for digest in offer.manifests if digest not in held.manifests),
            tuple(LackedBlob(blob.digest) for blob in offer.blobs if blob.digest not in held.blobs),
            ImageOutcome.PRESENT if offer.digest in held.manifests else None,
            None if offer.tag is None else held.tags.get(offer.tag.name),
            self.accepts_sparse,
        )

    async def put_blob(
        self, repository: RepositoryName, digest: Digest, size: int, content: BlobContent, offset: int
    ) -> int:
        await self.called(f"blob {digest}")
        read = b"".join([bytes(piece) async for piece in content.read(offset, size - offset)])
        if digest_of(read, algorithm_of(digest)) != digest:
            raise UpstreamContent
        if not self.forgets:
            self.repository(repository).blobs[digest] = read
        return len(read)

    async def deliver(self, delivery: Delivery) -> Receipt:
        await self.called(f"deliver {delivery.digest}")
        held = self.repository(delivery.repository)
        coming = {one.digest: one.content for one in delivery.manifests}
        absent = tuple(one for one in delivery.expected_manifests if one not in held.manifests and one not in coming)
        blobs = tuple(one for one in delivery.expected_blobs if one not in held.blobs)
        if absent or blobs:
            return Receipt(ImageOutcome.INCOMPLETE, None, None, absent, blobs)
        held.manifests |= coming
        if delivery.tag is None:
            return Receipt(ImageOutcome.STORED)
        merged = merge(held.tags.get(delivery.tag.name), delivery.tag.register)
        held.tags[delivery.tag.name] = merged.register
        return Receipt(ImageOutcome.STORED, merged.outcome, merged.register)

    async def delete(self, deletion: Deletion) -> Receipt:
        await self.called(f"delete {deletion.digest}")
        self.deletions.append(deletion)
        return Receipt(ImageOutcome.DELETED, MergeOutcome.SET)
