"""One attempt to bring one image to one destination.

A tag is set only while it still points to the image at the source, and by one attempt at a time: a late one therefore
never moves it backwards. What this cannot rule out is a tag that an attempt set without living to see the answer; the
next attempt finds it and says so, and what the tag should point to is sent once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ManifestNotFound, UpstreamNotFound
from replicator.storage.metadata import images, tags
from replicator.telemetry.logs import get_logger
from replicator.transfer.push_image import ImagePush

if TYPE_CHECKING:
    from replicator.core.names import Tag
    from replicator.core.replication import ReplicateImage
    from replicator.registry.node import RegistryNode
    from replicator.replication.lane import Lane
    from replicator.transfer.push_image import ContentSource, Destination

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Delivered:
    """The image is at the destination. `left_stale_tag`: the tag points to it there, but no longer at the source."""

    left_stale_tag: bool = False


class Attempt:
    """Carries out one replication. May be cancelled or fail anywhere: the next one goes on with what has arrived."""

    def __init__(
        self,
        node: RegistryNode,
        source: ContentSource,
        destination: Destination,
        lane: Lane,
        replication: ReplicateImage,
        parallel: int,
    ) -> None:
        self._node = node
        self._destination = destination
        self._lane = lane
        self._replication = replication
        self._push = ImagePush(source, destination, lane.blobs, parallel)

    @property
    def sent(self) -> int:
        """Blob bytes sent so far."""
        return self._push.sent

    async def run(self) -> Delivered:
        """Copy the image, set its tag and read back. Raises like ImagePush; ManifestNotFound when the image is gone."""
        replication = self._replication
        await self._require_image()
        image = await self._push.copy(replication.repository, replication.digest)
        if replication.tag is None:
            await self._push.publish(image, None)
            return Delivered()
        async with self._lane.tag(replication.repository, replication.tag):
            if not await self._is_current(replication.tag):
                await self._push.publish(image, None)
                return Delivered(left_stale_tag=await self._is_tagged_there(replication.tag))
            if not await self._push.publish(image, replication.tag):
                _log.info(
                    "tag kept by the destination",
                    node=str(self._node.settings.node),
                    destination=str(replication.destination),
                    repository=replication.repository,
                    tag=replication.tag,
                    digest=replication.digest,
                )
            return Delivered()

    async def _require_image(self) -> None:
        """Check that the image is still here; a source with a cache would fetch a deleted one again."""
        repository, digest = self._replication.repository, self._replication.digest
        if await self._node.database.read(images.find_origin(repository, digest)) is None:
            raise ManifestNotFound(f"repository {repository} has no manifest {digest}")

    async def _is_current(self, tag: Tag) -> bool:
        state = await self._node.database.read(tags.find(self._replication.repository, tag))
        return state is not None and state.digest == self._replication.digest

    async def _is_tagged_there(self, tag: Tag) -> bool:
        try:
            found = await self._destination.head_manifest(self._replication.repository, tag)
        except UpstreamNotFound:
            return False
        return found.digest == self._replication.digest
