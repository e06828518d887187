"""Finds and repairs what destinations lack in spite of everything: rows or blobs that were lost, jobs that were.

Every so often each destination is compared with what the rules say. What is on its way already is no drift. Repairs
are queued behind every push, a bounded number in a round, and rounds begin where the last one ended, so that one bad
repository does not keep the others waiting. A difference that a repair does not change is the destination's own, such
as an immutable tag: the pair of fingerprints is remembered for a day and costs one line until then.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Protocol

from replicator.core.errors import ReplicatorError
from replicator.core.names import NodeId
from replicator.replication.comparison import Comparison
from replicator.replication.drift_round import AntiEntropySettings, DriftRound, RoundMemory
from replicator.replication.failures import DestinationUnknown
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replicator.core.destinations import DestinationId
    from replicator.core.drift import DriftKind
    from replicator.registry.node import RegistryNode
    from replicator.replication.peers import PeerDirectory
    from replicator.transfer.push_image import ContentSource

_log = get_logger(__name__)


class DriftObserver(Protocol):
    """Hears of drift. Must be quick, and must not raise."""

    def drift_found(self, destination: str, kind: str, count: int = 1) -> None:
        """Count differences of a kind."""
        ...

    def drift_repaired(self, destination: str, kind: str, count: int = 1) -> None:
        """Count differences for which a repair was queued."""
        ...


class AntiEntropy:
    """The comparisons of one node. `run` it under a supervisor."""

    def __init__(
        self,
        node: RegistryNode,
        source: ContentSource,
        destinations: PeerDirectory,
        observer: DriftObserver,
        settings: AntiEntropySettings | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._node = node
        self._source = source
        self._destinations = destinations
        self._observer = observer
        self._settings = settings or AntiEntropySettings()
        self._jitter = jitter
        self._memory: dict[DestinationId, RoundMemory] = {}
        self._changed = asyncio.Event()
        node.on_settings(self._changed.set)

    @property
    def destinations(self) -> tuple[DestinationId, ...]:
        """The destinations of all rules that hold now."""
        rules = self._node.settings.replication_rules
        found = dict.fromkeys(one for rule in rules for one in rule.destinations)
        return tuple(one for one in found if one != self._node.settings.node)

    async def run(self) -> None:
        """Compare with each destination every so often until cancelled, each at moments of its own."""
        running: dict[DestinationId, asyncio.Task[None]] = {}
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wanted = self.destinations
                for destination in running.keys() - set(wanted):
                    running.pop(destination).cancel()
                for destination in wanted:
                    if destination not in running:
                        running[destination] = group.create_task(self._run(destination))
                await self._changed.wait()

    async def _run(self, destination: DestinationId) -> None:
        while True:
            await self._node.clock.sleep(self._settings.interval * (0.5 + self._jitter()))
            try:
                await self.check(destination)
            except ReplicatorError as error:
                _log.warning("destination could not be compared", **self._fields(destination), error=str(error))

    async def check(self, destination: DestinationId) -> Mapping[DriftKind, int]:
        """Do one round; return the differences that were found, by kind.

        Raises DestinationUnknown, an UpstreamError when the destination fails, a StorageError when our store does:
        what was found until then is repaired, and the next round looks at the rest.
        """
        check = DriftRound(
            self._node,
            Comparison(self._node, self._source, destination),
            self._memory.setdefault(destination, RoundMemory()),
            self._settings,
        )
        try:
            await self._compare(destination, check)
        finally:
            self._report(destination, check)
        return check.found

    async def _compare(self, destination: DestinationId, check: DriftRound) -> None:
        if isinstance(destination, NodeId):
            peer = self._destinations.find(destination)
            if peer is not None:
                await check.compare_peer(peer)
                return
        else:
            registry = self._destinations.find(destination)
            if registry is not None:
                await check.compare_registry(registry)
                return
        raise DestinationUnknown

    def _report(self, destination: DestinationId, check: DriftRound) -> None:
        for kind, count in check.found.items():
            self._observer.drift_found(str(destination), kind.value, count)
        for kind, count in check.repaired.items():
            self._observer.drift_repaired(str(destination), kind.value, count)
        if check.found:
            counts = {kind.value: count for kind, count in check.found.items()}
            repaired = sum(check.repaired.values())
            _log.warning("destination differs", **self._fields(destination), found=counts, repaired=repaired)
        if check.refused:
            repository, error = next(iter(check.refused.items()))
            count = len(check.refused)
            _log.warning(
                "destination refuses to be compared",
                **self._fields(destination),
                repositories=count,
                repository=repository,
                error=error,
            )

    def _fields(self, destination: DestinationId) -> dict[str, object]:
        return {"node": str(self._node.settings.node), "destination": str(destination)}
