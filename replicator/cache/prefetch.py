"""Completes images behind everybody's back: those of which a rule wants named platforms.

    job (repository, digest, platforms) --lease--> complete --> done
                                             |---upstream fails---> again later, more and more seldom
                                             `---cannot be had---> kept as dead, with its error

Jobs are stored with what caused them, so that a kill loses none. What a job asks of an upstream makes way for what
somebody waits for.
"""

from __future__ import annotations

import asyncio
import enum
import random
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from replicator.core.digest import parse_digest
from replicator.core.errors import (
    AccessError,
    InvalidInput,
    NotFound,
    ReplicatorError,
    StorageError,
)
from replicator.core.jobs import JobKind, NewJob, Priority
from replicator.core.names import parse_repository
from replicator.core.platforms import parse_platform
from replicator.core.retry import Backoff
from replicator.storage.metadata import images, jobs
from replicator.telemetry.logs import get_logger
from replicator.upstream.urgency import background

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replicator.cache.completion import Completion
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.platforms import Platform
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.jobs import LeasedJob
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

_RETRY: Final = Backoff(initial=15.0, maximum=3600.0)
_MAX_ATTEMPTS: Final = 20
_MAX_MISSING: Final = 3
"""Attempts at what the upstream says it does not have."""

_OUTAGE_PAUSE: Final = 5.0
_LOOK_AGAIN: Final = 30.0


@dataclass(frozen=True, slots=True)
class PrefetchImage:
    """An image to be made complete, of an index the manifests of `platforms` (none: all)."""

    repository: RepositoryName
    digest: Digest
    platforms: tuple[Platform, ...] = ()

    def to_job(self) -> NewJob:
        """Return the job that does it; one for the same image takes its place."""
        payload = {
            "repository": self.repository,
            "digest": self.digest,
            "platforms": [str(platform) for platform in self.platforms],
        }
        return NewJob(JobKind.PREFETCH, f"{self.repository}@{self.digest}", payload, Priority.BACKGROUND)

    @staticmethod
    def from_payload(payload: Mapping[str, object]) -> PrefetchImage:
        """Return what a job asks for; raise InvalidInput for one that another version wrote in another way."""
        repository, digest, platforms = (payload.get(key) for key in ("repository", "digest", "platforms"))
        if not isinstance(repository, str) or not isinstance(digest, str) or not isinstance(platforms, list):
            raise InvalidInput("expected a repository, a digest and platforms")
        parsed = tuple(parse_platform(str(platform)) for platform in platforms)
        return PrefetchImage(parse_repository(repository), parse_digest(digest), parsed)


@dataclass(frozen=True, slots=True)
class PrefetchLimits:
    """How many images are completed at once, and for how many seconds a job is leased without a sign of life."""

    images_at_once: int = 2
    lease: float = 60.0
    renew_every: float = 15.0


class PrefetchOutcome(enum.StrEnum):
    """What became of an attempt."""

    DONE = "done"
    LATER = "later"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class _Settled:
    """How an attempt ended, and the steps that write it down."""

    outcome: PrefetchOutcome
    write: Callable[[], Steps[object]]


class Prefetch:
    """Carries out the prefetch jobs of one node. `run` it under a supervisor.

    `observe` is told what became of each attempt once that is written down (of no image, where the job cannot be read);
    it must be quick, and must not raise.
    """

    def __init__(
        self,
        node: RegistryNode,
        completion: Completion,
        limits: PrefetchLimits | None = None,
        jitter: Callable[[], float] = random.random,
        observe: Callable[[PrefetchImage | None, PrefetchOutcome], None] | None = None,
    ) -> None:
        self._node = node
        self._observe = observe
        self._completion = completion
        self._limits = limits or PrefetchLimits()
        self._jitter = jitter
        self._owner = secrets.token_hex(8)
        self._work = asyncio.Event()
        node.on_jobs(self._announced)

    async def run(self) -> None:
        """Work until cancelled; jobs under way are then free at once. What they fetched so far stays."""
        try:
            with background():
                async with asyncio.TaskGroup() as group:
                    for _ in range(self._limits.images_at_once):
                        group.create_task(self._work_on())
        finally:
            await self._give_up()

    def _announced(self, kind: JobKind) -> None:
        if kind is JobKind.PREFETCH:
            self._work.set()

    async def _work_on(self) -> None:
        while True:
            self._work.clear()
            try:
                leased = await self._lease()
                if leased is not None:
                    await self._carry_out(leased)
                    continue
                pause = await self._pause()
            except StorageError as error:
                _log.warning("prefetch jobs could not be used", error=str(error))
                pause = _OUTAGE_PAUSE
            await self._rest(pause)

    async def _rest(self, seconds: float) -> None:
        """Wait for work, or for so long."""
        async with asyncio.TaskGroup() as group:
            alarm = group.create_task(self._ring(seconds))
            await self._work.wait()
            alarm.cancel()

    async def _ring(self, seconds: float) -> None:
        await self._node.clock.sleep(seconds)
        self._work.set()

    async def _lease(self) -> LeasedJob | None:
        now = self._node.clock.now()
        until = now + self._limits.lease
        found = await self._node.database.write(lambda: jobs.lease(JobKind.PREFETCH, self._owner, now, until, 1))
        return found[0] if found else None

    async def _pause(self) -> float:
        due = await self._node.database.read(jobs.next_due(JobKind.PREFETCH))
        return _LOOK_AGAIN if due is None else min(_LOOK_AGAIN, max(0.0, due - self._node.clock.now()))

    async def _carry_out(self, leased: LeasedJob) -> None:
        """Do one job and settle it; raises StorageError when it cannot be settled, and its lease runs out."""
        try:
            image = PrefetchImage.from_payload(leased.job.payload)
        except InvalidInput as error:
            await self._settle(None, self._bury(leased, error))
            return
        settled: _Settled | None = None
        try:
            async with asyncio.TaskGroup() as group:
                renewing = group.create_task(self._renew(leased))
                settled = await self._attempt(leased, image)
                renewing.cancel()
        except* _LeaseLost:
            _log.info("prefetch job was taken over", key=leased.job.key)
        if settled is not None:
            await self._settle(image, settled)

    async def _settle(self, image: PrefetchImage | None, settled: _Settled) -> None:
        await self._node.database.write(settled.write)
        if self._observe is not None:
            self._observe(image, settled.outcome)

    async def _attempt(self, leased: LeasedJob, image: PrefetchImage) -> _Settled:
        """Do one job and return how to settle it."""
        try:
            await self._complete(image)
        except (InvalidInput, AccessError) as error:
            return self._bury(leased, error)
        except ReplicatorError as error:
            tries = _MAX_MISSING if isinstance(error, NotFound) else _MAX_ATTEMPTS
            return self._bury(leased, error) if leased.job.attempts >= tries else self._release(leased, error)
        except Exception as error:  # noqa: BLE001 - the job loop: a bug with one image must not end the others
            _log.exception("prefetch failed unexpectedly", key=leased.job.key)
            return self._bury(leased, error)
        return _Settled(PrefetchOutcome.DONE, partial(jobs.complete, leased, self._node.clock.now()))

    async def _complete(self, image: PrefetchImage) -> None:
        manifest = await self._node.database.read(images.find(image.repository, image.digest))
        if manifest is None:
            return  # it was deleted or given up meanwhile
        done = await self._completion.complete(image.repository, manifest, image.platforms)
        _log.info("image completed", repository=image.repository, digest=image.digest, bytes=done.bytes)

    def _release(self, leased: LeasedJob, error: ReplicatorError) -> _Settled:
        delay = _RETRY.delay(leased.job.attempts, self._jitter(), error.retry_after)
        _log.warning("image could not be completed", key=leased.job.key, error=str(error), retry_in=round(delay))
        steps = partial(jobs.release, leased, self._node.clock.now() + delay, str(error))
        return _Settled(PrefetchOutcome.LATER, steps)

    def _bury(self, leased: LeasedJob, error: Exception) -> _Settled:
        _log.warning("image cannot be completed", key=leased.job.key, error=str(error))
        return _Settled(PrefetchOutcome.DEAD, partial(jobs.bury, leased, self._node.clock.now(), str(error)))

    async def _renew(self, leased: LeasedJob) -> None:
        while True:
            await self._node.clock.sleep(self._limits.renew_every)
            until = self._node.clock.now() + self._limits.lease
            try:
                held = await self._node.database.write(partial(jobs.renew, leased, until))
            except StorageError as error:
                _log.warning("lease of a prefetch job could not be renewed", key=leased.job.key, error=str(error))
                continue
            if not held:
                raise _LeaseLost

    async def _give_up(self) -> None:
        now = self._node.clock.now()
        try:
            await self._node.database.write(lambda: jobs.give_up(self._owner, now))
        except StorageError as error:
            # They run out by themselves.
            _log.warning("leases of prefetch jobs could not be given up", error=str(error))


class _LeaseLost(Exception):
    """Somebody else has the job by now."""
