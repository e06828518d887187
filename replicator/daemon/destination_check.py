"""Asks every destination of a node's rules whether it would take images, before there are any to take.

A certificate that is not trusted, a wrong secret or password, a wrong address: each is said once, with the names of the
rules that it concerns, and once more when it is mended. Nothing depends on the answer: images are sent all the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ReplicatorError, UpstreamDenied
from replicator.core.names import NodeId
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replicator.core.clock import Clock
    from replicator.core.destinations import DestinationId
    from replicator.core.replication import ReplicationRule
    from replicator.replication.peers import PeerDirectory

_log = get_logger(__name__)

AGAIN = 60.0
"""Seconds after which a destination that could not be used is asked again."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """A destination that does not take images, and the rules that send some there."""

    destination: DestinationId
    rules: tuple[str, ...]
    error: ReplicatorError

    @property
    def reason(self) -> str:
        """What went wrong, and where it is mended if the destination does not know us."""
        if not isinstance(self.error, UpstreamDenied):
            return str(self.error)
        return f"{self.error}: {_DENIED_BY_NODE if isinstance(self.destination, NodeId) else _DENIED_BY_REGISTRY}"


_DENIED_BY_NODE = (
    "expected the same peer_secret or secret there as here, the node itself at its url, and clocks that agree"
)
_DENIED_BY_REGISTRY = "expected credentials that it accepts"


class DestinationCheck:
    """Checks the destinations of the rules that one node has at the moment."""

    def __init__(
        self,
        node: NodeId,
        rules: Callable[[], tuple[ReplicationRule, ...]],
        destinations: PeerDirectory,
        clock: Clock,
    ) -> None:
        self._node = str(node)
        self._destinations = destinations
        self._clock = clock
        self._rules = rules

    async def check(self) -> list[Unusable]:
        """Ask all destinations at once, and return those that cannot be used."""
        return await self._ask(self._named())

    def _named(self) -> dict[DestinationId, tuple[str, ...]]:
        """Return the destinations with the names of their rules."""
        found: dict[DestinationId, tuple[str, ...]] = {}
        for rule in self._rules():
            for destination in rule.destinations:
                found[destination] = (*found.get(destination, ()), rule.name)
        return found

    async def run(self) -> None:
        """Say what is wrong with destinations, and when it is not any more; until cancelled."""
        known: dict[DestinationId, str] = {}
        usable: set[DestinationId] = set()
        while True:
            named = self._named()
            asked = {one: rules for one, rules in named.items() if one not in usable}
            found = {one.destination: one for one in await self._ask(asked)}
            for destination in (known.keys() & asked.keys()) - found.keys():
                _log.info("destination can be used now", node=self._node, destination=str(destination))
            for one in found.values():
                if known.get(one.destination) != one.reason:
                    self._warn(one)
            known = {destination: one.reason for destination, one in found.items()}
            usable = named.keys() - known.keys()
            await self._clock.sleep(AGAIN)

    def _warn(self, one: Unusable) -> None:
        _log.warning(
            "destination cannot be used",
            node=self._node,
            destination=str(one.destination),
            rules=list(one.rules),
            error=one.reason,
        )

    async def _ask(self, destinations: Mapping[DestinationId, tuple[str, ...]]) -> list[Unusable]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._ask_one(one, rules)) for one, rules in destinations.items()]
        return [found for task in tasks if (found := task.result()) is not None]

    async def _ask_one(self, destination: DestinationId, rules: tuple[str, ...]) -> Unusable | None:
        client = self._destinations.find(destination)
        if client is None:
            return None  # not for us to ask: a node of the checked file, or one that the file has lost since
        try:
            await client.ping()
        except ReplicatorError as error:
            return Unusable(destination, rules, error)
        return None
