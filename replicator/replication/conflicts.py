"""Tags that two nodes had written without knowing of each other: what an operator should look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.storage.metadata import tag_conflicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.core.names import RepositoryName
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.tag_conflicts import TagConflict

RECENT = 20
MAX_LISTED = 1000
"""Conflicts that are looked through for those that a caller may know of."""


class ConflictReader:
    """Reads the conflicts that one node has found."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def latest(self, may_see: Callable[[RepositoryName], bool], limit: int = RECENT) -> list[TagConflict]:
        """Return up to `limit` conflicts of repositories that `may_see` allows, latest first; raises StorageError."""
        found = await self._database.read(tag_conflicts.recent(MAX_LISTED))
        return [one for one in found if may_see(one.repository)][:limit]
