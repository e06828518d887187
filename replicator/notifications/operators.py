"""What operators do with events: see what is kept, see what was given up and why, have it tried again, or drop it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.errors import EventNotFound, SinkNotFound
from replicator.core.event_sinks import DeliveryState
from replicator.storage.metadata import event_deliveries, events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replicator.notifications.worker import SinkWorker
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.event_deliveries import Delivery, DeliveryCount
    from replicator.storage.metadata.events import StoredEvent
    from replicator.storage.metadata.statement import Steps

_MANY = 1000
"""Deliveries retried or discarded in one transaction."""


@dataclass(frozen=True, slots=True)
class SinkState:
    """A sink with the number of its deliveries by state, and since when the oldest of each waits (Unix seconds)."""

    name: str
    kind: str
    counts: Mapping[DeliveryState, int]
    oldest: Mapping[DeliveryState, float]


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event with the deliveries that are not made."""

    event: StoredEvent
    deliveries: Sequence[Delivery]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A delivery that was given up, with its event."""

    event: StoredEvent
    delivery: Delivery


class EventOperators:
    """The operators' use cases of one node. Every method raises a StorageError when the store fails."""

    def __init__(self, node: RegistryNode, workers: Sequence[SinkWorker], kinds: Mapping[str, str]) -> None:
        self._node = node
        self._workers = {worker.name: worker for worker in workers}
        self._kinds = kinds

    async def sinks(self) -> list[SinkState]:
        """Return the sinks, also those that only old deliveries are for."""
        counts = await self._node.database.read(event_deliveries.counts())
        names = dict.fromkeys([*self._kinds, *(one.sink for one in counts)])
        return [_state(name, self._kinds.get(name, "unknown"), counts) for name in names]

    async def latest(self, limit: int, before: int | None) -> list[KeptEvent]:
        """Return up to `limit` events that are kept, the last first."""
        return await self._node.database.read(_latest(limit, before))

    async def dead(self, sink: str | None, after: int, limit: int) -> list[DeadLetter]:
        """Return deliveries that were given up; raises SinkNotFound."""
        self._check(sink)
        return await self._node.database.read(_dead(sink, after, limit))

    async def retry(self, sink: str | None, event_id: str | None) -> int:
        """Have given-up deliveries tried again, and what waits tried at once; return how many of the former there were.

        Of one sink or all, of one event or all. Raises SinkNotFound, or EventNotFound for an event that is not kept.
        """
        self._check(sink)
        now = self._node.clock.now()
        if event_id is not None:
            found = await self._node.database.write(partial(_revive_event, event_id, sink, now))
        else:
            found = await self._each(partial(_revive, sink, now))
            for name in [sink] if sink is not None else list(self._workers):
                await self._node.database.write(partial(event_deliveries.make_due, name, now))
        for name, worker in self._workers.items():
            if sink in {None, name}:
                worker.reopen()
        return found

    async def discard(self, sink: str | None, event_id: str | None) -> int:
        """Drop given-up deliveries, of one sink or all, of one event or all; return how many there were.

        Also of a sink that is configured no more, as long as deliveries are left for it. Raises SinkNotFound, or
        EventNotFound for an event that is not kept.
        """
        if sink is not None and sink not in {one.name for one in await self.sinks()}:
            self._check(sink)
        if event_id is not None:
            return await self._node.database.write(partial(_discard_event, event_id, sink))
        return await self._each(partial(_discard, sink))

    async def _each(self, batch: Callable[[int], Steps[tuple[int, int]]]) -> int:
        total, after = 0, 0
        while True:
            count, last = await self._node.database.write(partial(batch, after))
            total += count
            if not last:
                return total
            after = last

    def _check(self, sink: str | None) -> None:
        if sink is not None and sink not in self._kinds:
            raise SinkNotFound(f"there is no sink {sink}")


def _state(name: str, kind: str, counts: Sequence[DeliveryCount]) -> SinkState:
    own = [one for one in counts if one.sink == name]
    return SinkState(name, kind, {one.state: one.count for one in own}, {one.state: one.oldest for one in own})


def _latest(limit: int, before: int | None) -> Steps[list[KeptEvent]]:
    found = []
    for event in (yield from events.latest(limit, before)):
        found.append(KeptEvent(event, (yield from event_deliveries.of_event(event.id))))  # noqa: PERF401 - steps
    return found


def _dead(sink: str | None, after: int, limit: int) -> Steps[list[DeadLetter]]:
    found = []
    for one in (yield from event_deliveries.dead(sink, after, limit)):
        found.append(DeadLetter((yield from events.get(one.event)), one))  # noqa: PERF401 - steps
    return found


def _revive(sink: str | None, now: float, after: int) -> Steps[tuple[int, int]]:
    """Revive some of those after a place; return how many, and the place to go on after, 0 at the end."""
    found = yield from event_deliveries.dead(sink, after, _MANY)
    for one in found:
        yield from event_deliveries.revive(one.event, one.sink, now)
    return len(found), _go_on_after(found)


def _discard(sink: str | None, after: int) -> Steps[tuple[int, int]]:
    found = yield from event_deliveries.dead(sink, after, _MANY)
    for one in found:
        yield from event_deliveries.discard(one.event, one.sink)
    return len(found), _go_on_after(found)


def _go_on_after(found: Sequence[Delivery]) -> int:
    # The last event may have more deliveries than were returned; those that are dealt with are not found again.
    return max(found[-1].event - 1, 1) if len(found) == _MANY else 0


def _revive_event(event_id: str, sink: str | None, now: float) -> Steps[int]:
    count = 0
    for one in (yield from _dead_of(event_id, sink)):
        count += yield from event_deliveries.revive(one.event, one.sink, now)
    return count


def _discard_event(event_id: str, sink: str | None) -> Steps[int]:
    count = 0
    for one in (yield from _dead_of(event_id, sink)):
        count += yield from event_deliveries.discard(one.event, one.sink)
    return count


def _dead_of(event_id: str, sink: str | None) -> Steps[list[Delivery]]:
    event = yield from events.find(event_id)
    if event is None:
        raise EventNotFound(f"there is no event {event_id[:80]}")
    known = yield from event_deliveries.of_event(event.id)
    return [one for one in known if one.state is DeliveryState.DEAD and sink in {None, one.sink}]
