"""Keeps the rows of events bounded: delivered ones go soon, given-up ones after a while, nobody's after a day."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.errors import StorageError
from replicator.notifications.worker import LONGEST_PAUSE
from replicator.storage.metadata import event_deliveries, events
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Body, Steps

_log = get_logger(__name__)

_EVERY = 60.0
_AT_ONCE = 1000
"""Rows deleted in one transaction: others write, too."""
_NOBODYS = 24 * 3600.0
"""Seconds for which deliveries are kept to a sink that this configuration does not have: others may have it still."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How long delivered and given-up events are kept (seconds), and how many delivered ones at most."""

    delivered: float = 3600.0
    dead: float = 14 * 24 * 3600.0
    most_delivered: int = 10_000


class EventUpkeep:
    """Looks after the rows of one node. `run` it under a supervisor."""

    def __init__(self, node: RegistryNode, retention: Retention) -> None:
        self._node = node
        self._retention = retention

    async def run(self) -> None:
        """Tidy every minute until cancelled."""
        while True:
            try:
                await self.tidy()
            except StorageError as error:
                _log.warning("events could not be tidied", node=str(self._node.settings.node), error=str(error))
            await self._node.clock.sleep(_EVERY)

    async def tidy(self) -> None:
        """Delete what is no longer kept; raises StorageError."""
        now = self._node.clock.now()
        await self._node.database.write(lambda: event_deliveries.pull_in(now, now + 2 * LONGEST_PAUSE))
        known = {sink.name for sink in self._node.settings.event_sinks}
        nobodys = await self._node.database.write(partial(_drop_nobodys, known, now - _NOBODYS))
        dead = await self._all(lambda: event_deliveries.forget_dead(now - self._retention.dead, _AT_ONCE))
        await self._all(
            lambda: events.forget(now - self._retention.delivered, self._retention.most_delivered, _AT_ONCE)
        )
        if nobodys or dead:
            _log.warning(
                "undelivered events were dropped", node=str(self._node.settings.node), without_sink=nobodys, dead=dead
            )

    async def _all(self, batch: Body[int]) -> int:
        total = 0
        while True:
            found = await self._node.database.write(batch)
            total += found
            if found < _AT_ONCE:
                return total


def _drop_nobodys(known: set[str], older_than: float) -> Steps[int]:
    total = 0
    for sink in (yield from event_deliveries.sinks()):
        if sink not in known:
            total += yield from event_deliveries.drop_sink(sink, older_than)
    return total
