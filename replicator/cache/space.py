"""The space that the cache takes: kept within limits, made when the disk is full, and given back on demand.

    a blob came in  --+
    every minute    --+--> over a limit? --> the images that were not used for longest go, until there is slack again
    no space left   --+                      (`make_room`, which the store calls before it refuses a write)

Decisions are made on rows that are read in bounded batches (`cache.eviction_plan`), and each image is given up by a
transaction of its own that looks again (`cache.eviction`). Bytes are deleted after the commit that made them nobody's.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

from replicator.cache import eviction
from replicator.cache.cached_names import CachedNames
from replicator.cache.doomed_bytes import DoomedBytes
from replicator.cache.eviction import Terms
from replicator.cache.eviction_plan import EvictionPlan
from replicator.cache.loose_blobs import LooseBlobs
from replicator.cache.pins import CachePins
from replicator.cache.purges import Purged, Purges
from replicator.cache.usage import CacheUsage, count_usage
from replicator.core.errors import ShuttingDown, StorageError
from replicator.core.eviction import IN_NEED, JUST_USED, SLACK, excess
from replicator.storage.metadata.name_ranges import EVERYTHING
from replicator.telemetry.logs import get_logger
from replicator.upstream.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from replicator.cache.use_memory import UseMemory
    from replicator.core.cache_rules import CacheRule
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.name_ranges import NameRange

_log = get_logger(__name__)

TICK = 60.0
"""Seconds between two looks at the limits."""

_WRITE_USES_EVERY = 3600.0
_COUNT_EVERY = 3600.0
_LOOSE_EVERY = 600.0
_MANY_USES = 10_000
_ROOM = 8 * 1024 * 1024
_ROOM_PART = 0.01
"""What is freed at once when a disk is full: bytes, or this part of the disk where that is more."""

_making_room: ContextVar[bool] = ContextVar("making_room", default=False)
"""Set in whatever frees space, so that a write which finds no room does not ask for some there."""


class SpaceObserver(Protocol):
    """Sees what the cache takes up and gives up. Must be quick, and must not raise."""

    def cache_bytes(self, rule: str, size: int) -> None:
        """Show the bytes that the repositories of the rule with this prefix hold."""
        ...

    def evicted(self, reason: str, images: int, size: int) -> None:
        """Note images that were given up, and the bytes which that freed."""
        ...


class Ballast(Protocol):
    """Space kept for the rows that an eviction writes when the disk is full."""

    async def make(self) -> bool:
        """Take the space if it is there; return whether it is kept now."""
        ...

    async def release(self) -> bool:
        """Give the space back; return whether there was some."""
        ...


@dataclass(frozen=True, slots=True)
class SpaceLimits:
    """Bytes: `max_size` for what only the cache needs, `keep_free` on the disk. None: no limit."""

    max_size: int | None = None
    keep_free: int | None = None


class CacheSpace:
    """Keeps the cache of one node within its limits. Also what operators pin and purge by.

    `drop_parts` drops what failed downloads left, and returns how many bytes that was.
    """

    def __init__(
        self,
        node: RegistryNode,
        rules: Sequence[CacheRule],
        uses: UseMemory,
        observer: SpaceObserver | None = None,
        limits: SpaceLimits | None = None,
        ballast: Ballast | None = None,
        drop_parts: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._node = node
        self._names = CachedNames(rules)
        self._uses = uses
        self._observer = observer
        self._limits = limits or SpaceLimits()
        self._ballast = ballast
        self._drop_parts = drop_parts
        self._loose = LooseBlobs(node, self._names)
        self._pins = CachePins(node)
        self._doomed = DoomedBytes(node)
        self._purges = Purges(node, self._doomed)
        self._evicting = asyncio.Lock()
        self._rooms: SingleFlight[str, bool] = SingleFlight()
        self._wanted = asyncio.Event()
        self._counted: CacheUsage | None = None
        self._counted_at = 0.0
        self._grown = 0
        self._is_stuck = False
        """Whether the last look found more than could be given up: then the next fills change nothing."""
        self._uses_written_at = node.clock.monotonic()
        self._loose_looked_at: float | None = None
        node.on_blob(self._note_stored)

    async def run(self) -> None:
        """Look at the limits every minute and when blobs came in, until cancelled. A store that fails is tried later.

        Does nothing for a node without cache rules.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            group.create_task(self._work())

    async def _tick(self) -> None:
        while True:
            self._wanted.set()
            await self._node.clock.sleep(TICK)

    async def _work(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self.round()
            except StorageError as error:
                _log.warning("cache could not be kept within its limits", error=str(error))

    async def round(self) -> None:
        """Look at all limits once, and give up what is over them; raises StorageError."""
        if not self._names.rules:
            return
        if self._ballast is not None:
            await self._ballast.make()
        now = self._node.clock.monotonic()
        if len(self._uses) > _MANY_USES or now - self._uses_written_at >= _WRITE_USES_EVERY:
            await self._uses.write(self._node.database)
            self._uses_written_at = now
        await self._doomed.delete_unread()
        self._is_stuck = False
        if self._is_count_due(now):
            await self._keep_within(await self.usage())
        await self._keep_free()

    def change_rules(self, rules: Sequence[CacheRule]) -> None:
        """Work by other rules from the next look on."""
        self._names.rules = tuple(rules)

    async def close(self) -> None:
        """End the making of room that is under way; whoever waits for it is told that there is none."""
        await self._rooms.close()

    async def usage(self) -> CacheUsage:
        """Count what the cache takes up now; raises StorageError."""
        grown, self._counted_at = self._grown, self._node.clock.monotonic()
        size, by_rule = await count_usage(self._node.database, self._names)
        self._grown -= grown
        limits = {rule.prefix: rule.max_size for rule in self._names.rules if rule.max_size is not None}
        self._counted = CacheUsage(size, by_rule, self._limits.max_size, self._limits.keep_free, limits)
        if self._observer is not None:
            for prefix, held in by_rule.items():
                self._observer.cache_bytes(prefix, held)
        return self._counted

    def spare(self) -> int | None:
        """Return how many bytes could be given up at most, as far as the last count tells; None before the first."""
        return None if self._counted is None else self._counted.size + self._grown

    async def pin(self, repository: RepositoryName, reference: Reference) -> None:
        """Keep an image whatever happens; see CachePins."""
        await self._pins.pin(repository, reference)

    async def unpin(self, repository: RepositoryName, reference: Reference) -> bool:
        """Take a pin back; return whether there was one."""
        return await self._pins.unpin(repository, reference)

    async def purge(
        self, repository: RepositoryName, reference: Reference | None = None, *, force: bool = False
    ) -> Purged:
        """Give up a cached tag, an image, or all that is cached in a repository; see Purges."""
        return await self._purges.purge(repository, reference, force=force)

    # Limits

    def _note_stored(self, size: int) -> None:
        self._grown += size
        if not self._is_stuck and (self._limits.keep_free or self._is_count_due(self._node.clock.monotonic())):
            self._wanted.set()

    def _is_count_due(self, now: float) -> bool:
        """Tell whether a limit may be exceeded, as far as the last count and what came in since tell."""
        counted = self._counted
        if counted is None or now - self._counted_at >= _COUNT_EVERY:
            return True
        limits = [(self._limits.max_size, counted.size)]
        limits += [(most, counted.rules[prefix]) for prefix, most in counted.rule_limits.items()]
        return any(most is not None and size + self._grown > most for most, size in limits)

    async def _keep_within(self, usage: CacheUsage) -> None:
        freed = 0
        for rule in self._names.rules:
            over = excess(usage.rules.get(rule.prefix, 0), rule.max_size)
            if over:
                names = self._names.of(rule)
                freed += await self._evict(names, names, over, "rule")
        if freed:
            usage = await self.usage()
        over = excess(usage.size, self._limits.max_size)
        if over and await self._evict(self._names.all, EVERYTHING, over, "size"):
            await self.usage()

    async def _keep_free(self) -> None:
        wanted = self._limits.keep_free
        if wanted is None:
            return
        space = await self._node.store.usage()
        if space.total_bytes and space.free_bytes < wanted:
            to_free = round(wanted * (1 + SLACK)) - space.free_bytes
            await self._evict(self._names.all, EVERYTHING, to_free, "disk")

    # A full disk

    async def make_room(self) -> bool:
        """Give up cached content because the disk is full; return whether that freed anything.

        Whoever asks at the same time shares the answer. False where the store has no disk of its own to fill.
        """
        if not self._names.rules or _making_room.get():
            return False
        try:
            return await self._rooms.run("room", self._make_room)
        except ShuttingDown:
            return False
        except StorageError as error:
            _log.warning("no room could be made", error=str(error))
            return False

    async def _make_room(self) -> bool:
        space = await self._node.store.usage()
        if not space.total_bytes:
            return False
        if self._drop_parts is not None and await self._drop_parts():
            return True  # what failed downloads left goes before anything that is whole
        released = self._ballast is not None and await self._ballast.release()
        try:
            wanted = max(_ROOM, round(space.total_bytes * _ROOM_PART))
            return await self._evict(self._names.all, EVERYTHING, wanted, "full") > 0
        finally:
            if released and self._ballast is not None:
                await self._ballast.make()

    # Giving up

    async def _evict(self, names: NameRange, counted: NameRange, to_free: int, reason: str) -> int:
        """Give up images of the repositories in `names` until as many bytes are free; return how many were freed.

        `counted` are the repositories that a blob must be gone from to count as free.
        """
        async with self._evicting:
            token = _making_room.set(True)
            try:
                return await self._evict_alone(names, counted, to_free, reason)
            finally:
                _making_room.reset(token)

    async def _evict_alone(self, names: NameRange, counted: NameRange, to_free: int, reason: str) -> int:
        await self._uses.write(self._node.database)
        freed, count = await self._let_go_of_loose(counted), 0
        for just_used in (JUST_USED, IN_NEED):
            if freed < to_free:
                size, images = await self._give_up(names, counted, to_free - freed, just_used)
                freed, count = freed + size, count + images
        self._is_stuck = self._is_stuck or freed < to_free
        if freed or count:
            _log.info("cached images evicted", reason=reason, count=count, freed=freed, wanted=to_free)
        else:
            _log.info("cache takes too much space, and nothing of it may go now", reason=reason, wanted=to_free)
        if self._observer is not None:
            self._observer.evicted(reason, count, freed)
        return freed

    async def _give_up(self, names: NameRange, counted: NameRange, to_free: int, just_used: float) -> tuple[int, int]:
        """Give up images that were not used for `just_used` seconds; return how many bytes and images went."""
        freed, count = 0, 0
        tried: set[tuple[RepositoryName, Digest]] = set()
        terms = Terms(self._node.clock.now() - just_used, names=counted)
        while freed < to_free:
            chosen = await EvictionPlan(self._node, names, counted, tried, just_used).choose(to_free - freed)
            if not chosen:
                break
            for image in chosen:
                if freed >= to_free:
                    break  # with an image goes its index with all that it lists: more than was counted
                tried.add((image.repository, image.digest))
                await self._uses.write(self._node.database)  # by who pulled while others went
                body = partial(eviction.give_up, image.repository, image.digest, terms)
                given = await self._node.commit(image.repository, body)
                await self._doomed.delete(given.dropped)
                freed, count = freed + given.size, count + len(given.images)
        return freed, count

    async def _let_go_of_loose(self, counted: NameRange) -> int:
        now = self._node.clock.monotonic()
        if self._loose_looked_at is not None and now - self._loose_looked_at < _LOOSE_EVERY:
            return 0
        self._loose_looked_at, freed = now, 0
        async for given in self._loose.let_go(counted):
            await self._doomed.delete(given.dropped)
            freed += given.size
        return freed
