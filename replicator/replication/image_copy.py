"""One image on its way to another node: offered, its blobs sent, delivered, and confirmed by digest.

    offer     one round trip: what is lacking there, and how far a blob came that broke off
    blobs     those that are lacking, in parallel, each once however many images share it
    deliver   one round trip: all manifests, the image and its tag in one transaction; none where nothing was lacking

Nothing is visible at the destination before the delivery, and nothing counts as done but what its receipt confirms. A
destination that confirms less than it was sent is sent the rest again, some times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.delivery import ImageOutcome
from replicator.core.errors import BlobNotFound, NotFound, UpstreamContent
from replicator.core.peer_messages import MAX_DELIVERY_BYTES, Delivery, LackedBlob, Offer, OfferedBlob, SentManifest
from replicator.replication.attempt import SourceState, find_state
from replicator.replication.failures import SparseIndexRefused
from replicator.replication.graph import ImageGraph
from replicator.transfer.push_image import for_each

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.peer_messages import Lacks, OfferedTag, Receipt
    from replicator.replication.graph import GraphReader
    from replicator.replication.lane import LanePass
    from replicator.replication.peer_destination import PeerDestination
    from replicator.replication.source import OwnContent
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.images import StoredManifest

_ROUNDS = 4
"""How often an image is offered, or delivered, before a destination that always lacks something is left alone."""

_DIGEST_BYTES = 160
_ENVELOPE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Route:
    """Where the images of one attempt come from and go to. `target` is the repository's name at the destination."""

    database: Database
    content: OwnContent
    reader: GraphReader
    destination: PeerDestination
    lane: LanePass
    repository: RepositoryName
    target: RepositoryName
    parallel: int

    async def state(self, digest: Digest, tag: Tag | None) -> SourceState:
        """Return what the source knows of an image now; raises ManifestNotFound."""
        return await self.database.read(find_state(self.repository, digest, tag))


class ImageCopy:
    """One image, with a tag or without. Call `read`, `offer`, `bring_blobs` and `deliver` in this order.

    `sent` counts blob bytes. Every method may be cancelled; all raise what `Attempt.run` names.
    """

    def __init__(self, route: Route, digest: Digest, tag: Tag | None = None) -> None:
        self.sent = 0
        self.graph = ImageGraph()
        self._route = route
        self._digest = digest
        self._tag = tag
        self._lacks: Lacks | None = None
        self._delivered: tuple[Receipt, OfferedTag | None] | None = None
        self._mark = 0
        self._is_elsewhere = False
        self._unconfirmed: list[Digest] = []
        self._absent: set[Digest] = set()

    async def read(self) -> None:
        """Learn at the source what the image consists of."""
        self.graph = await self._route.reader.read(self._route.repository, self._digest)

    async def offer(self, *, is_final: bool = False) -> Lacks:
        """Learn what the destination lacks; by a final offer, deliver the image where that is nothing."""
        route = self._route
        state = await route.state(self._digest, self._tag)
        blobs = tuple(self._offered())
        self._mark = route.lane.slots.mark
        manifests = tuple(self.graph.manifests)
        offer = Offer(route.target, self._digest, state.revision, manifests, blobs, state.tag, is_final)
        lacks = self._lacks = await route.destination.offer(offer)
        wants_it = lacks.image is not ImageOutcome.DELETED and self._digest in lacks.manifests
        if self.graph.is_sparse and wants_it and not lacks.accepts_sparse_index:
            raise SparseIndexRefused(
                f"the destination refuses index {self._digest}, of which not every manifest is to be copied: expected"
                " sparse_indexes: allow there, or a rule without platforms"
            )
        if lacks.receipt is not None and _is_whole(lacks.receipt):
            self._delivered = lacks.receipt, state.tag
        return lacks

    @property
    def is_wanted(self) -> bool:
        """Whether the destination was asked and lacked anything of the image."""
        lacks = self._lacks
        if lacks is None or lacks.image is ImageOutcome.DELETED:
            return False
        return lacks.image is None or bool(lacks.manifests or lacks.blobs)

    @property
    def is_deleted_there(self) -> bool:
        """Whether the destination deleted the image by a later write, so that it is not to be sent."""
        return self._lacks is not None and self._lacks.image is ImageOutcome.DELETED

    # Blobs

    async def bring_blobs(self) -> None:
        """Send the blobs that are lacking, until the destination lacks none."""
        lacks = self._lacks
        for _ in range(_ROUNDS):
            if lacks is None:
                lacks = await self.offer()
            self._is_elsewhere = False
            await self._send(lacks.blobs)
            if not self._is_elsewhere:
                return
            lacks = None  # another image brought some: ask where they are now
        raise UpstreamContent(f"the destination lacks blobs of {self._digest} however often they are sent")

    def _offered(self) -> Iterable[OfferedBlob]:
        return (
            OfferedBlob(one.digest, one.size) for one in self.graph.blobs.values() if one.digest not in self._absent
        )

    async def _send(self, blobs: Sequence[LackedBlob]) -> None:
        wanted = [one for one in blobs if one.digest in self.graph.blobs]
        await for_each(wanted, self._route.parallel, self._send_blob)

    async def _send_blob(self, blob: LackedBlob) -> None:
        route, digest, slots = self._route, blob.digest, self._route.lane.slots
        async with slots.of(digest, route.lane.priority):
            if slots.was_sent_since(digest, self._mark):
                self._is_elsewhere = True
                return
            content = await self._open(digest)
            if content is None:
                return
            async with content:
                offset = blob.offset if blob.offset <= content.size else 0
                sent = await route.destination.put_blob(route.target, digest, content.size, content, offset)
            self.sent += sent
            slots.sent(digest)

    async def _open(self, digest: Digest) -> BlobContent | None:
        """Open a blob; None for a non-distributable layer that is not here, as it need not be."""
        try:
            return await self._route.content.open_blob(self._route.repository, digest)
        except BlobNotFound:
            if not self.graph.blobs[digest].is_foreign:
                raise
            self._absent.add(digest)
            return None

    # Manifests

    async def deliver(self) -> tuple[Receipt, OfferedTag | None]:
        """Deliver the image, under its tag while that points to it; return the receipt and the tag that was sent."""
        if self._delivered is not None:
            return self._delivered
        lacking = set(self._lacks.manifests if self._lacks else self.graph.manifests)
        for _ in range(_ROUNDS):
            receipt, tag = await self._deliver([one for one in self.graph.manifests if one in lacking])
            if receipt.image is ImageOutcome.DELETED or _is_whole(receipt):
                return receipt, tag
            # What was stored piece by piece is there; the last message counts as a whole.
            lacking = {*receipt.lacking_manifests, *self._unconfirmed}
            self._mark = self._route.lane.slots.mark
            await self._send([LackedBlob(digest) for digest in receipt.lacking_blobs])
        raise UpstreamContent(f"the destination accepted {self._digest} but does not have all of it")

    async def _deliver(self, wanted: Sequence[Digest]) -> tuple[Receipt, OfferedTag | None]:
        route = self._route
        room = (
            MAX_DELIVERY_BYTES - _ENVELOPE_BYTES - _DIGEST_BYTES * (len(self.graph.manifests) + len(self.graph.blobs))
        )
        part: list[SentManifest] = []
        left = room
        async for manifest in self._contents(wanted):
            size = len(manifest.content) * 4 // 3 + _ENVELOPE_BYTES
            if part and size > left:
                await self._deliver_children(part)
                part, left = [], room
            part.append(SentManifest(manifest.digest, manifest.media_type, manifest.content))
            left -= size
        self._unconfirmed = [manifest.digest for manifest in part]
        state = await route.state(self._digest, self._tag)
        whole = Delivery(
            route.target,
            tuple(part),
            state.revision,
            self._digest,
            state.tag,
            tuple(self.graph.manifests),
            tuple(one.digest for one in self._offered()),
        )
        return await route.destination.deliver(whole), state.tag

    async def _deliver_children(self, part: Sequence[SentManifest]) -> None:
        """Deliver manifests of a graph that is too large for one message; the last message has them confirmed."""
        state = await self._route.state(self._digest, None)
        await self._route.destination.deliver(Delivery(self._route.target, tuple(part), state.revision))

    async def _contents(self, wanted: Iterable[Digest]) -> AsyncIterator[StoredManifest]:
        repository = self._route.repository
        for digest in wanted:
            manifest = self.graph.kept.get(digest) or await self._route.content.find_manifest(repository, digest)
            if manifest is None:
                raise NotFound(f"repository {repository} lost manifest {digest} during the copy")
            yield manifest


def _is_whole(receipt: Receipt) -> bool:
    lacks_nothing = not receipt.lacking_manifests and not receipt.lacking_blobs
    return receipt.image in {ImageOutcome.STORED, ImageOutcome.PRESENT} and lacks_nothing
