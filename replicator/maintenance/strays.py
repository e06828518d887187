"""Bytes in the store that no row refers to: what a crash leaves between a commit of rows and one of bytes.

A blob's bytes are stored before their row, and deleted after it, so a crash can leave bytes without a row, never a row
without its bytes. Nobody can reach them; here they are found and deleted. What is found without a row is looked at
again a while later, because a blob may have come in just then.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.core.errors import StorageError
from replicator.storage.blobs.location import digest_of_location
from replicator.storage.metadata import blobs
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

GRACE = 600.0
"""Seconds between the two looks at a location."""

_PAUSE = 24 * 3600.0
_BATCH = 200
_MOST = 100_000
"""Locations that one round deletes at most; the next round finds the rest."""


class StrayBytes:
    """Deletes what no row of a node refers to, at start and once a day."""

    def __init__(self, node: RegistryNode, name: str) -> None:
        self._node = node
        self._name = name

    async def run(self) -> None:
        """Do a round at once and then every day, until cancelled. A store that fails is tried in the next round."""
        while True:
            try:
                suspects = await self.find()
                await self._node.clock.sleep(GRACE)
                removed = await self.remove(suspects)
            except StorageError as error:
                _log.warning("bytes that no row refers to could not be reclaimed", node=self._name, error=str(error))
            else:
                if removed:
                    _log.info("bytes that no row refers to reclaimed", node=self._name, count=removed)
            await self._node.clock.sleep(_PAUSE)

    async def find(self) -> list[str]:
        """Return locations that no row refers to now; raises StorageError."""
        found: list[str] = []
        batch: list[str] = []
        async for location in self._node.store.iter_locations():
            batch.append(location)
            if len(batch) == _BATCH:
                found += await self._unknown(batch)
                batch = []
            if len(found) >= _MOST:
                return found
        return found + await self._unknown(batch)

    async def remove(self, suspects: Sequence[str]) -> int:
        """Delete the bytes at those of `suspects` that still no row refers to; return how many. Raises StorageError."""
        removed = 0
        for start in range(0, len(suspects), _BATCH):
            for location in await self._unknown(suspects[start : start + _BATCH]):
                await self._node.store.delete_blob(location)
                removed += 1
        return removed

    async def _unknown(self, locations: Sequence[str]) -> list[str]:
        return await self._node.database.write(partial(_without_row, tuple(locations)))


def _without_row(locations: Sequence[str]) -> Steps[list[str]]:
    unknown = []
    for location in locations:
        known = yield from blobs.find_location(digest_of_location(location))
        if known != location:
            unknown.append(location)
    return unknown
