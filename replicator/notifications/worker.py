"""Delivers the events of one sink: at least once, in the order it is promised, and never in anybody's way.

    leased --accepted--> gone, and the next of its row goes on
       |---refused-----> back, tried again later; those behind it in its row wait
       |---too often, too old, or 410--> dead, and the next of its row goes on
       `---broken off--> back at once; after a kill, when the lease runs out

Sinks do not know each other. Deliveries come from the node's database and nowhere else, so a daemon that is killed
loses none, and repeats at most those that were under way. A sink that is down is asked by one delivery at a time, after
pauses that grow.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from replicator.core.errors import ReplicatorError, ShuttingDown, StorageError
from replicator.core.retry import Backoff
from replicator.registry.waiting import wait_for_event
from replicator.storage.metadata import event_deliveries, events
from replicator.telemetry.logs import get_logger
from replicator.upstream.webhooks import MessageRefused, ReceiverGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.notifications.sinks import Sink
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.event_deliveries import LeasedDelivery
    from replicator.storage.metadata.events import StoredEvent
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

BACKOFF = Backoff(initial=1.0, maximum=300.0)
LONGEST_PAUSE = 3600.0
"""Seconds; nobody who says `Retry-After` puts us off for longer."""
_OUTAGE_PAUSE = 5.0
_MAX_ERROR = 500


@dataclass(frozen=True, slots=True)
class DeliveryPolicy:
    """How hard a sink is tried. Durations are seconds; the attempts and the age are EventBridge's.

    `look_again` bounds how long an event goes unnoticed that another process recorded. A lease must outlast an attempt.
    """

    concurrency: int = 8
    max_attempts: int = 185
    max_age: float = 24 * 3600.0
    lease: float = 60.0
    look_again: float = 5.0


class DeliveryObserver(Protocol):
    """Sees what becomes of deliveries. Must be quick, and must not raise."""

    def delivered(self, seconds: float, count: int = 1) -> None:
        """Note that events were accepted, the first of them so long after it happened."""
        ...

    def failed(self) -> None:
        """Note an attempt that failed."""
        ...

    def buried(self) -> None:
        """Note a delivery that was given up."""
        ...


class SinkWorker:
    """Delivers to one sink of a node. `run` it under a supervisor; several processes may work on one database."""

    def __init__(
        self,
        node: RegistryNode,
        name: str,
        sink: Sink,
        observer: DeliveryObserver,
        policy: DeliveryPolicy | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._node = node
        self._sink = sink
        self._observer = observer
        self._policy = policy or DeliveryPolicy()
        self._jitter = jitter
        self._owner = secrets.token_hex(8)
        self._wake = asyncio.Event()
        self._running = 0
        self._failures = 0
        self._paused_until = float("-inf")
        node.on_events(self._wake.set)

    def reopen(self) -> None:
        """Ask the sink at once, whatever it did last: somebody says that it is mended."""
        self._reached()
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled; attempts under way are then broken off, and free at once."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    self._wake.clear()
                    pause = await self._start_due(group)
                    await wait_for_event(self._wake, pause, self._node.clock)
        finally:
            await self._give_up_leases()

    async def close(self) -> None:
        """Let go of the sink."""
        await self._sink.close()

    async def _start_due(self, group: asyncio.TaskGroup) -> float:
        """Start what is due and has room; return in how many seconds to look again."""
        try:
            while room := self._room():
                pause = await self._pause_left()
                if pause:
                    return pause
                leased = await self._lease(room)
                if not leased:
                    break
                self._running += len(leased)
                for one in leased:
                    group.create_task(self._run(one))
        except StorageError as error:
            _log.warning("events could not be read", node=self._node_name, sink=self.name, error=str(error))
            return _OUTAGE_PAUSE
        return self._policy.look_again  # a delivery that ends wakes us

    def _room(self) -> int:
        """How many more deliveries may be started: one at a time to a sink that is down."""
        most = 1 if self._failures else self._policy.concurrency
        return max(0, most - self._running)

    async def _pause_left(self) -> float:
        """Return for how many seconds there is nothing to start."""
        clock = self._node.clock
        left = self._paused_until - clock.monotonic()
        if left > 0:
            return left
        due_at = await self._node.database.read(event_deliveries.next_due(self.name))
        if due_at is None:
            return self._policy.look_again
        return min(self._policy.look_again, max(0.0, due_at - clock.now()))

    async def _lease(self, room: int) -> list[LeasedDelivery]:
        now = self._node.clock.now()
        until = now + self._policy.lease
        return await self._node.database.write(lambda: event_deliveries.lease(self.name, self._owner, now, until, room))

    async def _run(self, leased: LeasedDelivery) -> None:
        try:
            await self._attempt(leased)
        except StorageError as error:
            # The lease runs out, and it is tried once more.
            _log.warning(
                "outcome of a delivery could not be stored", node=self._node_name, sink=self.name, error=str(error)
            )
        finally:
            self._running -= 1
            self._wake.set()

    async def _attempt(self, leased: LeasedDelivery) -> None:
        told, followers = await self._node.database.read(_batch(leased, self._sink.batch - 1))
        try:
            await self._sink.deliver(told)
        except ShuttingDown:
            return  # the lease is given up when `run` ends
        except Exception as error:  # noqa: BLE001 - the delivery loop: a bug in one must not end the others
            if not isinstance(error, ReplicatorError):
                _log.exception("delivery failed unexpectedly", node=self._node_name, sink=self.name)
            await self._settle_failure(leased, error)
        else:
            self._reached()
            now = self._node.clock.now()
            await self._node.database.write(partial(event_deliveries.complete, leased, now, followers))
            self._observer.delivered(max(0.0, now - leased.enqueued_at), len(told))

    async def _settle_failure(self, leased: LeasedDelivery, error: Exception) -> None:
        now, policy = self._node.clock.now(), self._policy
        text = str(error)[:_MAX_ERROR] if isinstance(error, ReplicatorError) else f"unexpected {type(error).__name__}"
        delay = self._delay(leased, error)
        age = now - leased.enqueued_at
        is_over = isinstance(error, ReceiverGone) or leased.attempts >= policy.max_attempts or age >= policy.max_age
        fields = {"node": self._node_name, "sink": self.name, "attempt": leased.attempts, "error": text}
        if is_over:
            if await self._node.database.write(lambda: event_deliveries.bury(leased, now, text)):
                self._observer.buried()
            self._observer.failed()
            _log.error("event could not be delivered and was given up", **fields)
            return
        await self._node.database.write(lambda: event_deliveries.release(leased, now + delay, text))
        self._observer.failed()
        _log.warning("event could not be delivered", **fields, retry_in_seconds=round(delay, 3))

    def _delay(self, leased: LeasedDelivery, error: Exception) -> float:
        """Return in how many seconds to try again; a sink that is down is left alone for as long, whatever is due."""
        retry_after = min(getattr(error, "retry_after", None) or 0.0, LONGEST_PAUSE)
        delay = BACKOFF.delay(leased.attempts, self._jitter(), retry_after)
        if isinstance(error, MessageRefused | ReceiverGone) or not isinstance(error, ReplicatorError):
            self._reached()  # it is about this event, not about the sink
            return delay
        now = self._node.clock.monotonic()
        if self._paused_until <= now:
            self._failures += 1  # those that were under way together count as one failure
        pause = BACKOFF.delay(self._failures, self._jitter(), retry_after)
        self._paused_until = max(self._paused_until, now + pause)
        return self._paused_until - now

    def _reached(self) -> None:
        self._failures = 0
        self._paused_until = float("-inf")

    async def _give_up_leases(self) -> None:
        try:
            await self._node.database.write(lambda: event_deliveries.give_up(self.name, self._owner))
        except StorageError as error:
            _log.warning("leases of events could not be given up", node=self._node_name, error=str(error))

    @property
    def _node_name(self) -> str:
        return str(self._node.settings.node)


def _batch(leased: LeasedDelivery, more: int) -> Steps[tuple[list[StoredEvent], list[int]]]:
    """Return the leased event with up to `more` that stand behind it in its row, and the places of those."""
    followers = (yield from event_deliveries.following(leased, more)) if more else []
    told = []
    for event in (leased.event, *followers):
        told.append((yield from events.get(event)))  # noqa: PERF401 - steps are no comprehension's
    return told, followers
