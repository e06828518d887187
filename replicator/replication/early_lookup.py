"""Asks the nodes that may send an image here whether they have it, briefly and seldom.

A question costs the puller at most `wait` seconds, whoever is down. What nobody has is not asked for again for a while,
nor is a node that did not answer; a question that several pulls have at once is asked once. What is found obeys the
same rules as a delivery: the registry policy must allow the node, and nothing comes back that was deleted here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.bounded import BoundedMap
from replicator.core.delivery import ImageOutcome
from replicator.core.errors import ReplicatorError, StorageError, UpstreamError, UpstreamUnavailable
from replicator.core.reference import as_digest, as_tag
from replicator.core.revisions import merge
from replicator.registry.access import may_replicate
from replicator.registry.deliveries import open_delivery
from replicator.replication.early_images import EarlyImage, EarlySource, early_image
from replicator.telemetry.logs import get_logger
from replicator.upstream.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.peer_messages import Delivery, Lacks
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.registry.replicas import Replicas

_log = get_logger(__name__)

_MAX_MISSES = 10_000

_Key = tuple["RepositoryName", "Reference"]


@dataclass(frozen=True, slots=True)
class ReadThroughLimits:
    """Seconds: `wait` for the answer of the sources, `miss` that nobody is asked again for, `rest` of a silent source.

    `blobs_at_once` are fetched of an image besides those that somebody pulls.
    """

    wait: float = 2.0
    miss: float = 3.0
    rest: float = 5.0
    blobs_at_once: int = 2


@dataclass(frozen=True, slots=True)
class Found:
    """An image of a source that may be served here. `is_complete`: all of its blobs are here already."""

    image: EarlyImage
    is_complete: bool


class EarlyLookup:
    """Looks for images at the `sources` that one node has at the moment. Close it when done."""

    def __init__(
        self,
        node: RegistryNode,
        replicas: Replicas,
        sources: Callable[[], Sequence[EarlySource]],
        limits: ReadThroughLimits,
    ) -> None:
        self._node = node
        self._replicas = replicas
        self._sources = sources
        self._limits = limits
        self._flights: SingleFlight[_Key, Found | None] = SingleFlight()
        self._misses: BoundedMap[_Key, float] = BoundedMap(_MAX_MISSES)
        self._resting: dict[NodeId, float] = {}

    def covers(self, repository: RepositoryName) -> bool:
        """Tell whether any source may send images into a repository."""
        return any(source.covers(repository) for source in self._sources())

    def candidates(self, repository: RepositoryName) -> list[EarlySource]:
        """Return the sources to ask about a repository now."""
        now, settings = self._node.clock.monotonic(), self._node.settings
        return [
            source
            for source in self._sources()
            if source.covers(repository)
            and self._resting.get(source.node, 0.0) <= now
            and may_replicate(settings, source.node, repository)
        ]

    def is_missed(self, repository: RepositoryName, reference: Reference) -> bool:
        """Tell whether it is known that nobody has it."""
        return (self._misses.peek((repository, reference)) or 0.0) > self._node.clock.monotonic()

    def note_miss(self, repository: RepositoryName, reference: Reference) -> None:
        """Remember for a while that nobody has it."""
        self._misses.put((repository, reference), self._node.clock.monotonic() + self._limits.miss)

    def note_silent(self, source: EarlySource) -> None:
        """Leave a source that does not answer alone for a while."""
        self._resting[source.node] = self._node.clock.monotonic() + self._limits.rest
        _log.info("source does not answer", node=str(self._node.settings.node), source=str(source.node))

    async def find(self, repository: RepositoryName, reference: Reference) -> Found | None:
        """Return an image that a source will send here, or None. Raises StorageError; cancelling stops no question."""
        if self.is_missed(repository, reference) or not self.candidates(repository):
            return None
        return await self._flights.run((repository, reference), lambda: self._find(repository, reference))

    async def idle(self) -> None:
        """Return when nobody is being asked."""
        await self._flights.idle()

    async def close(self) -> None:
        """End the questions under way; whoever waits for one gets ShuttingDown."""
        await self._flights.close()

    async def _find(self, repository: RepositoryName, reference: Reference) -> Found | None:
        image = await self._ask_all(repository, reference)
        found = None if image is None else await self._accept(image)
        if found is None:
            self.note_miss(repository, reference)
        return found

    async def _ask_all(self, repository: RepositoryName, reference: Reference) -> EarlyImage | None:
        """Ask every source, and return the first image that one has."""
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask(one, repository, reference)) for one in self.candidates(repository)]
            found = None
            for answered in asyncio.as_completed(asked):
                found = await answered
                if found is not None:
                    break
            for task in asked:
                task.cancel()
        return found

    async def _ask(self, source: EarlySource, repository: RepositoryName, reference: Reference) -> EarlyImage | None:
        try:
            async with asyncio.timeout(self._limits.wait):
                delivery = await source.peer.find_image(repository, reference)
        except (TimeoutError, UpstreamUnavailable):
            self.note_silent(source)
            return None
        except UpstreamError:
            return None  # it says no
        return None if delivery is None else await self._verified(source, repository, reference, delivery)

    async def _verified(
        self, source: EarlySource, repository: RepositoryName, reference: Reference, delivery: Delivery
    ) -> EarlyImage | None:
        """Return a source's answer if it is what was asked for, by digest."""
        digest, tag = delivery.digest, None if delivery.tag is None else delivery.tag.name
        is_asked = as_digest(reference) == digest if as_digest(reference) else as_tag(reference) == tag
        try:
            await open_delivery(self._node.settings, source.node, delivery, self._node.clock.now())
            if digest is not None and is_asked and digest in {one.digest for one in delivery.manifests}:
                return early_image(source, repository, digest, delivery)
        except StorageError:
            raise
        except ReplicatorError as error:
            _log.warning("source sent an image that is none", source=str(source.node), error=str(error))
        return None

    async def _accept(self, image: EarlyImage) -> Found | None:
        """Offer the image to ourselves, which links what is here of it; None where it may not be here."""
        try:
            lacks = await self._replicas.offer(image.source.node, image.offer())
        except StorageError:
            raise
        except ReplicatorError:
            return None  # the registry policy does not let the source create the repository
        if lacks.image is ImageOutcome.DELETED or not _wins(image, lacks):
            return None
        if image.is_sparse and not lacks.accepts_sparse_index:
            return None  # nor does replication bring it
        return Found(image, not lacks.blobs)


def _wins(image: EarlyImage, lacks: Lacks) -> bool:
    """Tell whether the tag that comes with an image would point to it here: it does not where it was deleted since."""
    tag = image.delivery.tag
    return tag is None or merge(lacks.tag, tag.register).register.digest == image.digest
