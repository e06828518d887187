"""Bringing whole images here before anybody pulls them.

An image that is asked for twice is fetched once, and everybody who asked sees how far it is. The work goes on when all
of them have left, as a pull does; a stop of the daemon ends it, and asking again fetches only what is missing then.
Pulls go first: everything here is background work, and few images are on their way at a time.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.cache.completion import Progress
from replicator.core.errors import (
    InvalidInput,
    ManifestNotFound,
    ReplicatorError,
    ShuttingDown,
    Throttled,
    UpstreamTimeout,
)
from replicator.core.manifest import parse_manifest
from replicator.core.principal import UNRESTRICTED
from replicator.core.reference import image_text
from replicator.telemetry.logs import get_logger
from replicator.upstream.urgency import background

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.cache.completion import Completion
    from replicator.cache.upstreams import UpstreamRepositories
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.platforms import Platform
    from replicator.core.reference import Reference
    from replicator.registry.pulls import PullSource

AT_ONCE = 4
"""Images that are fetched at the same time."""
MAX_IMAGES = 1000
"""Images that are fetched or wait for it."""
TIME_LIMIT = 4 * 3600.0
"""Seconds after which an image that is still on its way is given up."""

_log = get_logger(__name__)


class WarmState(enum.StrEnum):
    """How far an image is."""

    WAITING = "waiting"
    FETCHING = "fetching"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(slots=True)
class Warming:
    """An image on its way. `error` is why it failed; `wait` returns when it is over, however it ended."""

    repository: RepositoryName
    reference: Reference
    platforms: tuple[Platform, ...]
    state: WarmState = WarmState.WAITING
    digest: Digest | None = None
    progress: Progress = field(default_factory=Progress)
    error: str | None = None
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_over(self) -> bool:
        """Whether nothing will change any more."""
        return self._over.is_set()

    async def wait(self, seconds: float) -> bool:
        """Return whether it is over, after `seconds` at the latest."""
        try:
            async with asyncio.timeout(seconds):
                await self._over.wait()
        except TimeoutError:
            return False
        return True

    def note(self, progress: Progress) -> None:
        """Note how far it is."""
        self.progress = progress

    def end(self, state: WarmState, error: str | None = None) -> None:
        """Note how it ended; only the first end counts."""
        if not self.is_over:
            self.state, self.error = state, error
            self._over.set()


_Key = tuple["RepositoryName", "Reference", "tuple[Platform, ...]"]


class Warmer:
    """Fetches whole images for operators. Close it before what it pulls from."""

    def __init__(self, pulls: PullSource, upstreams: UpstreamRepositories, completion: Completion) -> None:
        self._pulls = pulls
        self._upstreams = upstreams
        self._completion = completion
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks: dict[_Key, tuple[Warming, asyncio.Task[None]]] = {}

    def start(
        self, repository: RepositoryName, reference: Reference, platforms: Sequence[Platform] | None = None
    ) -> Warming:
        """Have an image fetched, or join whoever does already; `platforms` None: those of the rule, or all.

        Raises InvalidInput when no cache rule covers the repository, Throttled when too many images wait.
        """
        source = self._upstreams.find(repository)
        if source is None:
            raise InvalidInput(f"no cache rule covers {repository}: there is nothing to fetch it from")
        wanted = source.rule.platforms if platforms is None else tuple(dict.fromkeys(platforms))
        key = (repository, reference, wanted)
        known = self._tasks.get(key)
        if known is not None and not known[0].is_over:
            return known[0]
        if len(self._tasks) >= MAX_IMAGES:
            raise Throttled(f"{MAX_IMAGES} images are being fetched already")
        warming = Warming(repository, reference, wanted)
        task = asyncio.create_task(self._run(warming))  # noqa: TID251 - owned by this object: it outlives its caller
        self._tasks[key] = (warming, task)
        task.add_done_callback(lambda done: self._done(key, warming, done))
        return warming

    async def idle(self) -> None:
        """Return when nothing is being fetched."""
        while self._tasks:
            await asyncio.wait([task for _, task in self._tasks.values()])

    async def close(self) -> None:
        """Give up what is being fetched, and wait until it has ended."""
        for _, task in self._tasks.values():
            task.cancel()
        await self.idle()

    async def _run(self, warming: Warming) -> None:
        async with self._places:
            warming.state = WarmState.FETCHING
            try:
                with background():
                    async with asyncio.timeout(TIME_LIMIT):
                        await self._fetch(warming)
            except TimeoutError:
                warming.end(WarmState.FAILED, str(UpstreamTimeout("not complete in time")))
            except ReplicatorError as error:
                warming.end(WarmState.FAILED, str(error))
            else:
                warming.end(WarmState.COMPLETE)
        _log.info(
            "image warmed",
            repository=warming.repository,
            reference=warming.reference,
            state=warming.state.value,
            bytes=warming.progress.bytes_done,
            error=warming.error,
        )

    async def _fetch(self, warming: Warming) -> None:
        repository = warming.repository
        manifest = await self._pulls.get_manifest(UNRESTRICTED, repository, warming.reference)
        warming.digest = manifest.digest
        done = await self._completion.complete(repository, manifest, warming.platforms, warming.note)
        if done.manifests == 1 and parse_manifest(manifest.content, manifest.media_type).manifests:
            wanted = " or ".join(map(str, warming.platforms))
            raise ManifestNotFound(f"{image_text(repository, warming.reference)} has no image for {wanted}")

    def _done(self, key: _Key, warming: Warming, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) == (warming, task):  # else somebody asked again in the meantime
            del self._tasks[key]
        if task.cancelled():
            warming.end(WarmState.FAILED, str(ShuttingDown()))
        elif (bug := task.exception()) is not None:
            _log.error("image could not be warmed", repository=warming.repository, exc_info=bug)
            warming.end(WarmState.FAILED, "an unexpected error; the log says more")
