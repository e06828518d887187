"""Leases replication jobs, copies and deletions alike, and has them carried out, until each is done.

    leased --confirmed by digest--> COMPLETE, job gone
       |---destination down------> back in the queue, IN_PROGRESS, tried again within a minute
       |---refused---------------> back in the queue, FAILED with its reason, tried again slowly or when asked to
       |---image deleted here----> job gone, status forgotten
       `---broken off------------> back in the queue at once; after a kill, when the lease runs out

Jobs come from the node's database and nowhere else, so nothing that was acknowledged depends on this process living on.
"""

from __future__ import annotations

import asyncio
import random
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, overload

from replicator.core.destinations import RegistryRef, parse_destination
from replicator.core.errors import InvalidInput, ManifestNotFound, ReplicatorError, ShuttingDown, StorageError
from replicator.core.jobs import JobKind
from replicator.core.replication import DeleteReplica, ReplicateImage, ReplicationRule
from replicator.registry.waiting import wait_for_event
from replicator.replication.failures import QUICK, DestinationUnknown
from replicator.replication.foreign import DeleteFromRegistry, RegistryAttempt
from replicator.replication.lane import PARALLEL_BLOBS, Lane
from replicator.replication.peer_attempt import PeerAttempt, PeerDeletion
from replicator.replication.settlement import Settlement
from replicator.storage.metadata import jobs
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replicator.core.names import NodeId
    from replicator.registry.node import RegistryNode
    from replicator.replication.attempt import Attempt
    from replicator.replication.lane import LanePass, Track
    from replicator.replication.peer_destination import PeerDestination
    from replicator.replication.settlement import ReplicationObserver, Task
    from replicator.storage.metadata.jobs import Band, LeasedJob
    from replicator.storage.metadata.statement import Steps
    from replicator.transfer.push_image import ContentSource
    from replicator.upstream.client import UpstreamClient

_log = get_logger(__name__)

_OUTAGE_PAUSE = 5.0
_HORIZON = 3600.0
"""Seconds; no job of ours is put off for so long, unless by a clock that has since been set back."""


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """How much a worker does at once, and how long a lease lasts. Durations are seconds.

    Background images have places of their own, which they never leave; blobs of both share those of the destination.
    `look_again` bounds how long a job goes unnoticed that another process queued, or that a clock step hid.
    """

    images_per_destination: int = 16
    background_per_destination: int = 4
    blobs_per_destination: int = PARALLEL_BLOBS
    blobs_per_image: int = PARALLEL_BLOBS
    lease: float = 30.0
    renew_every: float = 10.0
    look_again: float = 30.0


class Destinations(Protocol):
    """Where images go; the PeerDirectory is one."""

    @overload
    def find(self, destination: NodeId) -> PeerDestination | None: ...

    @overload
    def find(self, destination: RegistryRef) -> UpstreamClient | None: ...

    @overload
    def find(self, destination: NodeId | RegistryRef) -> PeerDestination | UpstreamClient | None: ...

    def find(self, destination: NodeId | RegistryRef) -> PeerDestination | UpstreamClient | None:
        """Return a destination, or None when nobody knows where it is."""
        ...


@dataclass(slots=True)
class _Running:
    """A job under way. While it is being settled its lease is not renewed and it is not broken off."""

    leased: LeasedJob
    task: asyncio.Task[None]
    is_settling: bool = False


class ReplicationWorker:
    """Replicates the images of one node. `run` it under a supervisor; several processes may work on one database.

    `shares` says for single lanes how much may be under way there, instead of what `limits` says for all.
    """

    def __init__(
        self,
        node: RegistryNode,
        source: ContentSource,
        destinations: Destinations,
        observer: ReplicationObserver,
        limits: WorkerLimits | None = None,
        jitter: Callable[[], float] = random.random,
        shares: Mapping[str, WorkerLimits] | None = None,
    ) -> None:
        self._node = node
        self._source = source
        self._destinations = destinations
        self._limits = limits or WorkerLimits()
        self._shares = shares or {}
        self._settlement = Settlement(node, observer, jitter)
        self._owner = secrets.token_hex(8)
        self._lanes: dict[str, Lane] = {}
        self._running: dict[int, _Running] = {}
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._look_at = float("-inf")
        self._has_looked = False
        self._is_stopping = False
        node.on_jobs(self._jobs_announced)
        node.on_settings(self._settings_changed)

    @property
    def running(self) -> int:
        """How many images are being copied."""
        return len(self._running)

    def reopen(self, lane: str | None = None) -> None:
        """Ask a destination that seemed to be down, or all of them, at once: somebody says that it is mended."""
        for name, one in self._lanes.items():
            if lane in {None, name}:
                one.reached()
                one.look_again(self._node.clock.now())
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled; copies under way are then broken off, and their jobs are free at once."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._renew_leases())
                await self._dispatch(group)
        finally:
            await self._give_up_leases()

    async def stop(self, grace: float) -> None:
        """Start nothing more; let copies end within `grace` seconds, then break them off. `run` goes on, idle."""
        self._is_stopping = True
        self._idle.clear()
        if self._running:
            await wait_for_event(self._idle, grace, self._node.clock)
        self._idle.clear()
        for running in tuple(self._running.values()):
            if not running.is_settling:
                running.task.cancel()
        if self._running:
            await self._idle.wait()
        await self._give_up_leases()

    def _jobs_announced(self, kind: JobKind) -> None:
        if kind in jobs.REPLICATION:
            for lane in self._lanes.values():
                lane.look_again(self._node.clock.now())
            self._wake.set()

    def _settings_changed(self) -> None:
        """Look for lanes at once: those of new rules get jobs with the next push."""
        self._look_at = float("-inf")
        self._wake.set()

    # Dispatch

    async def _dispatch(self, group: asyncio.TaskGroup) -> None:
        while True:
            self._wake.clear()
            try:
                pause = await self._start_due(group)
            except StorageError as error:
                _log.warning("replication jobs could not be read", node=self._name, error=str(error))
                pause = _OUTAGE_PAUSE
            await wait_for_event(self._wake, pause, self._node.clock)

    async def _start_due(self, group: asyncio.TaskGroup) -> float:
        """Start what is due and has room; return in how many seconds to look again."""
        pause = self._limits.look_again
        if self._is_stopping:
            return pause
        await self._find_lanes()
        for name, lane in self._lanes.items():
            pause = min(pause, await self._start_due_in(group, name, lane))
        return pause

    async def _find_lanes(self) -> None:
        """Look, now and then, for lanes that nobody told us of: of rules that are gone, or of other processes' jobs."""
        now = self._node.clock.monotonic()
        if now < self._look_at:
            return
        wall = self._node.clock.now()
        await self._node.database.write(lambda: _pulled_in(wall))
        queued = await self._node.database.read(_lanes())
        if not self._has_looked:
            known = [name for name in queued if self._knows(name)]
            await self._node.database.write(partial(_known_again, known, wall))
            self._has_looked = True
        planned = {str(one) for rule in self._node.settings.replication_rules for one in rule.destinations}
        for name in planned.union(queued):
            self._lane(name).look_again(wall)
        self._look_at = now + self._limits.look_again

    def _knows(self, lane: str) -> bool:
        return self._destinations.find(parse_destination(lane)) is not None

    def _lane(self, name: str) -> Lane:
        lane, limits = self._lanes.get(name), self._shares.get(name, self._limits)
        if lane is None:
            widths = (limits.images_per_destination, limits.background_per_destination, limits.blobs_per_destination)
            lane = self._lanes[name] = Lane(*widths)
        return lane

    async def _start_due_in(self, group: asyncio.TaskGroup, name: str, lane: Lane) -> float:
        return min([await self._start_due_on(group, name, lane, track) for track in lane.tracks])

    async def _start_due_on(self, group: asyncio.TaskGroup, name: str, lane: Lane, track: Track) -> float:
        clock, idle = self._node.clock, self._limits.look_again
        while room := lane.free(track):
            pause = lane.pause_left(clock.monotonic()) or await self._until_due(name, track)
            if pause:
                return pause
            if await self._start(group, name, track, room) < room:
                track.due_at = None
        return idle  # a copy that ends wakes us

    async def _until_due(self, name: str, track: Track) -> float:
        if track.due_at is None:
            due_at = await self._node.database.read(_next_due(name, track.band))
            track.due_at = float("inf") if due_at is None else due_at
        return max(0.0, track.due_at - self._node.clock.now())

    async def _start(self, group: asyncio.TaskGroup, name: str, track: Track, room: int) -> int:
        """Lease up to `room` jobs and start them; return how many there were."""
        now = self._node.clock.now()
        until = now + self._limits.lease
        leased = await self._node.database.write(
            lambda: jobs.lease_replication(self._owner, now, until, room, name, track.band)
        )
        if self._is_stopping:
            await self._give_up_leases()
            return 0
        for one in leased:
            # After a long standstill a lease of our own may have run out: then the job is under way already.
            if one.job.id not in self._running:
                track.running += 1
                task = group.create_task(self._run(self._lane(name), track, one))
                self._running[one.job.id] = _Running(one, task)
        return len(leased)

    async def _run(self, lane: Lane, track: Track, leased: LeasedJob) -> None:
        try:
            await self._carry_out(lane, leased)
        finally:
            track.running -= 1
            lane.look_again(self._node.clock.now())
            del self._running[leased.job.id]
            self._wake.set()
            if not self._running:
                self._idle.set()

    async def _carry_out(self, lane: Lane, leased: LeasedJob) -> None:
        try:
            task = _task(leased)
        except InvalidInput as error:
            await self._settlement.bury(leased, error)
            return
        attempt: Attempt | None = None
        try:
            attempt = self._attempt(lane, leased, task)
            delivered = await attempt.run()
        except ShuttingDown:
            return  # the lease is given up when `run` ends
        except ManifestNotFound:
            self._settling(leased)
            await self._settlement.drop(leased, task)
        except Exception as error:  # noqa: BLE001 - the job loop: a bug in one copy must not end the others
            if not isinstance(error, ReplicatorError):
                _log.exception("replication failed unexpectedly", node=self._name, key=leased.job.key)
            self._settling(leased)
            await self._settlement.fail(lane, leased, task, error, attempt.sent if attempt else 0)
        else:
            self._settling(leased)
            if lane.reached():
                await self._catch_up(str(task.destination))
            await self._settlement.complete(leased, task, delivered, attempt.sent)

    async def _catch_up(self, lane: str) -> None:
        """Try at once what failed because a destination was down that is up again."""
        now = self._node.clock.now()
        try:
            await self._node.database.write(partial(_pulled_forward, lane, now))
        except StorageError as error:
            # It is tried when its own pause is over.
            _log.warning("replication jobs could not be pulled forward", node=self._name, error=str(error))

    def _attempt(self, lane: Lane, leased: LeasedJob, task: Task) -> Attempt:
        """Return the attempt that carries a job out; raises DestinationUnknown."""
        node, lane_pass = self._node, lane.at(leased.job.priority)
        if isinstance(task.destination, RegistryRef):
            return self._registry_attempt(task.destination, lane_pass, task)
        peer = self._destinations.find(task.destination)
        if peer is None:
            raise DestinationUnknown
        if isinstance(task, DeleteReplica):
            return PeerDeletion(node, peer, lane_pass, task)
        rule = self._rule(task)
        return PeerAttempt(node, self._source, peer, lane_pass, task, rule, self._limits.blobs_per_image)

    def _registry_attempt(self, destination: RegistryRef, lane_pass: LanePass, task: Task) -> Attempt:
        client = self._destinations.find(destination)
        if client is None:
            raise DestinationUnknown
        if isinstance(task, DeleteReplica):
            return DeleteFromRegistry(self._node, client, lane_pass, task)
        rule, parallel = self._rule(task), self._limits.blobs_per_image
        return RegistryAttempt(self._node, self._source, client, lane_pass, task, rule, parallel)

    def _rule(self, task: Task) -> ReplicationRule:
        """Return the rule that a job was planned by; what a rule asked for that is gone is sent whole."""
        rules = self._node.settings.replication_rules
        return next((rule for rule in rules if rule.name == task.rule), ReplicationRule(task.rule, ()))

    def _settling(self, leased: LeasedJob) -> None:
        self._running[leased.job.id].is_settling = True

    # Leases

    async def _renew_leases(self) -> None:
        while True:
            await self._node.clock.sleep(self._limits.renew_every)
            held = [running.leased for running in self._running.values() if not running.is_settling]
            until = self._node.clock.now() + self._limits.lease
            try:
                lost = await self._node.database.write(partial(_renewed, held, until)) if held else []
            except StorageError as error:
                _log.warning("leases of replication jobs could not be renewed", node=self._name, error=str(error))
                continue
            self._break_off(lost)

    def _break_off(self, lost: list[int]) -> None:
        """End copies whose job another worker has by now."""
        for job_id in lost:
            running = self._running.get(job_id)
            if running is not None and not running.is_settling:
                running.task.cancel()

    async def _give_up_leases(self) -> None:
        now = self._node.clock.now()
        try:
            await self._node.database.write(lambda: jobs.give_up(self._owner, now))
        except StorageError as error:
            # They run out by themselves.
            _log.warning("leases of replication jobs could not be given up", node=self._name, error=str(error))

    @property
    def _name(self) -> str:
        return str(self._node.settings.node)


def _pulled_forward(lane: str, now: float) -> Steps[None]:
    for kind in jobs.REPLICATION:
        yield from jobs.pull_forward(kind, lane, now, now + QUICK.maximum)


def _known_again(lanes: Sequence[str], now: float) -> Steps[None]:
    """Try at once what failed because the configuration did not know a destination, which it knows by now."""
    for lane in lanes:
        for kind in jobs.REPLICATION:
            yield from jobs.make_due_after(kind, lane, now, DestinationUnknown.TEXT)


def _renewed(held: list[LeasedJob], until: float) -> Steps[list[int]]:
    """Renew leases; return the ids of jobs that are no longer ours."""
    lost = []
    for leased in held:
        still_ours = yield from jobs.renew(leased, until)
        if not still_ours:
            lost.append(leased.job.id)
    return lost


def _task(leased: LeasedJob) -> Task:
    kind = DeleteReplica if leased.job.kind is JobKind.DELETE_REPLICA else ReplicateImage
    return kind.from_payload(leased.job.payload)


def _next_due(lane: str, band: Band) -> Steps[float | None]:
    times: list[float] = []
    for kind in jobs.REPLICATION:
        due_at = yield from jobs.next_due(kind, lane, band)
        times += [] if due_at is None else [due_at]
    return min(times, default=None)


def _lanes() -> Steps[list[str]]:
    found: dict[str, None] = {}
    for kind in jobs.REPLICATION:
        found.update(dict.fromkeys((yield from jobs.lanes(kind))))
    return list(found)


def _pulled_in(now: float) -> Steps[None]:
    for kind in jobs.REPLICATION:
        yield from jobs.pull_in(kind, now, now + _HORIZON)
