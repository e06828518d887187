"""A metadata database that suspends on every use, as one behind a network does and SQLite does not.

What was read travels longer than the word that something was written, so that readers act on what is no longer true.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Body, Steps

T = TypeVar("T")

_SHORT, _LONG = 1, 30


class DistantDatabase:
    """Passes everything on, some turns of the event loop later."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(self) -> None:
        """Open the database."""
        await self._database.open()

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    async def read(self, steps: Steps[T]) -> T:
        """Read; what was read is some turns old when it arrives."""
        await _travel(_SHORT)
        found = await self._database.read(steps)
        await _travel(_LONG)
        return found

    async def write(self, body: Body[T]) -> T:
        """Write; the result arrives soon after the commit."""
        await _travel(_SHORT)
        result = await self._database.write(body)
        await _travel(_SHORT)
        return result


async def _travel(turns: int) -> None:
    for _ in range(turns):
        await asyncio.sleep(0)
