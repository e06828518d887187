"""Reclaims abandoned uploads, at start and from time to time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.errors import StorageError
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.registry.uploads import Uploads

_log = get_logger(__name__)

PAUSE = 600.0
"""Seconds between two rounds."""


class Janitor:
    """Removes expired upload sessions and bytes that belong to none."""

    def __init__(self, uploads: Uploads, clock: Clock, node: str) -> None:
        self._uploads = uploads
        self._clock = clock
        self._node = node

    async def run(self) -> None:
        """Do a round every ten minutes until cancelled. A store that fails is tried again in the next round."""
        while True:
            await self._clock.sleep(PAUSE)
            try:
                await self.tidy()
            except StorageError as error:
                _log.warning("uploads could not be reclaimed", node=self._node, error=str(error))

    async def tidy(self) -> int:
        """Do one round; return how many abandoned ingests were removed. Raises StorageError."""
        removed = await self._uploads.reclaim()
        if removed:
            _log.info("abandoned uploads reclaimed", node=self._node, count=removed)
        return removed
