"""One attempt to bring one image, or one deletion, to another node.

The registers of image and tag are read when the attempt runs, and once more right before the delivery: what the source
has by then is sent, whatever the job was planned for. Referrers that the source knows go before the image, so that
whoever sees its tag sees its signatures as well.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.delivery import ImageOutcome
from replicator.core.errors import (
    CorruptBlob,
    ManifestNotFound,
    NotFound,
    SizeMismatch,
    UpstreamContent,
    UpstreamRefused,
)
from replicator.core.peer_messages import Deletion, OfferedTag
from replicator.core.replication import Origin
from replicator.core.revisions import MergeOutcome, TagRegister
from replicator.registry.deliveries import note_conflict
from replicator.replication.attempt import Delivered
from replicator.replication.graph import GraphReader
from replicator.replication.image_copy import ImageCopy, Route
from replicator.replication.source import OwnContent
from replicator.storage.metadata import images, tags
from replicator.telemetry.logs import get_logger
from replicator.transfer.push_image import for_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from replicator.core.digest import Digest
    from replicator.core.peer_messages import Receipt
    from replicator.core.replication import DeleteReplica, ReplicateImage, ReplicationRule
    from replicator.registry.node import RegistryNode
    from replicator.replication.lane import LanePass
    from replicator.replication.peer_destination import PeerDestination
    from replicator.storage.metadata.statement import Steps
    from replicator.transfer.push_image import ContentSource

_log = get_logger(__name__)

_MAX_REFERRERS = 500
"""Referrers that go along with an image; more come by jobs of their own, as all do."""

_AT_ONCE = 8


class PeerAttempt:
    """Carries out one replication to a node."""

    def __init__(
        self,
        node: RegistryNode,
        source: ContentSource,
        destination: PeerDestination,
        lane: LanePass,
        replication: ReplicateImage,
        rule: ReplicationRule,
        parallel: int,
    ) -> None:
        self._node = node
        self._lane = lane
        self._replication = replication
        self._rule = rule
        content = OwnContent(source)
        self._route = Route(
            node.database,
            content,
            GraphReader(content, rule),
            destination,
            lane,
            replication.repository,
            replication.target_repository,
            parallel,
        )
        self._image = ImageCopy(self._route, replication.digest, replication.tag)
        self._referrers: list[ImageCopy] = []

    @property
    def sent(self) -> int:
        """Blob bytes sent so far."""
        return self._image.sent + sum(referrer.sent for referrer in self._referrers)

    async def run(self) -> Delivered:
        """Copy the image with its referrers, set its tag, and have all of it confirmed."""
        async with self._lane.image(self._replication.repository, self._replication.digest):
            return await self._run()

    async def _run(self) -> Delivered:
        replication, image = self._replication, self._image
        # A source with a cache would fetch a deleted image again: look first.
        await self._route.state(replication.digest, replication.tag)
        await image.read()
        found = await self._node.database.read(self._find_referrers(image.graph.manifests))
        self._referrers = [ImageCopy(self._route, digest) for digest in found]
        await for_each([image, *self._referrers], _AT_ONCE, self._offer)
        if image.is_deleted_there and replication.tag is None:
            self._note("image stays deleted at the destination")
            return Delivered(stays_deleted=True)
        await for_each([image, *self._referrers], _AT_ONCE, self._bring)
        receipt, tag = await image.deliver()
        self._check(receipt, tag)
        await self._note_conflict(receipt, tag)
        return Delivered(stays_deleted=receipt.image is ImageOutcome.DELETED)

    def _find_referrers(self, subjects: Iterable[Digest]) -> Steps[list[Digest]]:
        """Return the referrers of manifests, and theirs; of replicas only by a rule that chains."""
        repository = self._replication.repository
        found: dict[Digest, None] = {}
        pending = list(subjects)
        while pending and len(found) < _MAX_REFERRERS:
            listed = yield from images.referrers(repository, pending.pop(), None, "", _MAX_REFERRERS - len(found))
            for one in listed:
                origin = yield from images.find_origin(repository, one.digest)
                if one.digest not in found and (self._rule.chain or origin is not Origin.REPLICA):
                    found[one.digest] = None
                    pending.append(one.digest)
        return list(found)

    async def _offer(self, copy: ImageCopy) -> None:
        if copy is self._image:
            await copy.offer(is_final=not self._referrers)  # they go before its tag
        else:
            with _own_faults():
                await copy.read()
                await copy.offer()

    async def _bring(self, copy: ImageCopy) -> None:
        """Send what belongs to an image; a referrer is delivered right away."""
        if copy is self._image:
            await copy.bring_blobs()
        elif copy.is_wanted:
            with _own_faults():
                await copy.bring_blobs()
                await copy.deliver()

    def _check(self, receipt: Receipt, tag: OfferedTag | None) -> None:
        """Believe a receipt only where it says what became of the tag."""
        if receipt.image is ImageOutcome.DELETED:
            self._note("image stays deleted at the destination")
        elif tag is not None:
            self._check_tag(receipt, tag)

    def _check_tag(self, receipt: Receipt, tag: OfferedTag) -> None:
        outcome = receipt.tag_outcome
        if outcome in {MergeOutcome.KEPT_IMMUTABLE, MergeOutcome.KEPT_NEWER}:
            self._note("tag kept by the destination")
        elif outcome is None or receipt.tag is None or receipt.tag.digest != tag.register.digest:
            raise UpstreamContent(f"the destination accepted tag {tag.name} but does not have it")

    async def _note_conflict(self, receipt: Receipt, tag: OfferedTag | None) -> None:
        """Report here as well what the destination reports: that somebody's image lost the tag."""
        if receipt.loser is None or receipt.tag is None or tag is None:
            return
        repository, now = self._replication.repository, self._node.clock.now()
        await self._node.database.write(partial(note_conflict, repository, tag, receipt.tag, receipt.loser, now))

    def _note(self, event: str) -> None:
        replication = self._replication
        _log.info(
            event,
            node=str(self._node.settings.node),
            destination=str(replication.destination),
            repository=replication.target_repository,
            tag=replication.tag,
            digest=replication.digest,
        )


class PeerDeletion:
    """Carries out the deletion of a tag or an image at a node, unless it is there again at the source."""

    sent = 0

    def __init__(
        self, node: RegistryNode, destination: PeerDestination, lane: LanePass, deletion: DeleteReplica
    ) -> None:
        self._node = node
        self._destination = destination
        self._lane = lane
        self._deletion = deletion

    async def run(self) -> Delivered:
        """Have it deleted. Raises ManifestNotFound when the source has it again, so that nothing is to be deleted."""
        wanted = self._deletion
        async with self._lane.image(wanted.repository, wanted.digest):
            await self._destination.delete(await self._node.database.read(find_deletion(wanted)))
            return Delivered()


def find_deletion(wanted: DeleteReplica) -> Steps[Deletion]:
    """Return the deletion as the source knows it now; raises ManifestNotFound when it holds no longer."""
    if wanted.tag is None:
        image = yield from images.find_register(wanted.repository, wanted.digest)
        if image is None or image.is_present:
            raise ManifestNotFound(f"repository {wanted.repository} has {wanted.digest} again")
        return Deletion(wanted.target_repository, wanted.digest, image.revision)
    register = yield from tags.find(wanted.repository, wanted.tag)
    if register is None or register.digest is not None:
        raise ManifestNotFound(f"repository {wanted.repository} has tag {wanted.tag} again")
    if register.revision != wanted.revision:
        # It was deleted once more, by a write that goes nowhere: a replica's tag that a client removed (one hop).
        register = TagRegister(None, wanted.revision)
    tag = OfferedTag(wanted.tag, register)
    return Deletion(wanted.target_repository, wanted.digest, register.revision, tag)


@contextmanager
def _own_faults() -> Iterator[None]:
    """Let what is wrong with a referrer not stop its image; the referrer's own job reports it."""
    with suppress(NotFound, CorruptBlob, SizeMismatch, UpstreamRefused):
        yield
