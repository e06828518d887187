"""What operators want kept: cached images that stay whatever space is needed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.storage.metadata import cache_pins

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode


class CachePins:
    """Pins of tags and digests. They are rows, so they outlast a restart."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def pin(self, repository: RepositoryName, reference: Reference) -> None:
        """Keep an image from now on; under a tag the one that it points to, also when the upstream moves it."""
        now = self._node.clock.now()
        await self._node.database.write(partial(cache_pins.put, repository, reference, now))

    async def unpin(self, repository: RepositoryName, reference: Reference) -> bool:
        """Take a pin back; return whether there was one."""
        return await self._node.database.write(partial(cache_pins.delete, repository, reference))
