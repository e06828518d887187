"""A sync as an operator asks for it: every destination for itself, so that one that is down hides no other."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import UpstreamError
from replicator.replication.failures import DestinationUnknown

if TYPE_CHECKING:
    from replicator.core.destinations import DestinationId
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.replication.sync import Sync, SyncItem

_AT_ONCE = 2
"""Comparisons that operators may have under way; more of them wait."""


@dataclass(frozen=True, slots=True)
class SyncScope:
    """What to compare: everything, a repository, or one image of it; at one destination, or at all."""

    repository: RepositoryName | None = None
    reference: Reference | None = None
    destination: DestinationId | None = None


@dataclass(frozen=True, slots=True)
class Unreachable:
    """A destination that could not be asked, and why."""

    destination: str
    reason: str


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What differs at the destinations that could be asked."""

    items: tuple[SyncItem, ...]
    unreachable: tuple[Unreachable, ...] = ()

    @property
    def bytes(self) -> int:
        """Bytes that would have to be sent, as far as destinations say."""
        return sum(item.bytes or 0 for item in self.items)

    @property
    def not_allowed(self) -> int:
        """Items for which a permission is missing."""
        return sum(item.missing_permission is not None for item in self.items)


class SyncRequests:
    """Plans and starts syncs of one node."""

    def __init__(self, node: RegistryNode, sync: Sync) -> None:
        self._node = node
        self._sync = sync
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def plan(self, scope: SyncScope) -> SyncPlan:
        """Return what differs; raises RepositoryNotFound, ManifestNotFound, InvalidInput or StorageError."""
        items: list[SyncItem] = []
        unreachable = []
        async with self._room:
            for destination in self._destinations(scope):
                try:
                    items += await self._sync.plan(scope.repository, scope.reference, destination)
                except (UpstreamError, DestinationUnknown) as error:
                    unreachable.append(Unreachable(str(destination), str(error)))
        return SyncPlan(tuple(items), tuple(unreachable))

    async def start(self, scope: SyncScope) -> tuple[str, SyncPlan]:
        """Have what differs mended; return the id of the backfill that does it, and the plan. Raises like `plan`.

        Raises BackfillLimit, too.
        """
        plan = await self.plan(scope)
        return await self._sync.execute(plan.items), plan

    def _destinations(self, scope: SyncScope) -> list[DestinationId]:
        if scope.destination is not None:
            return [scope.destination]
        settings = self._node.settings
        found = dict.fromkeys(one for rule in settings.replication_rules for one in rule.destinations)
        return [one for one in found if one != settings.node]
