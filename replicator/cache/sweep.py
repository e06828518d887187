"""Keeps cached tags that are in use up to date, so that pulls need not wait for an upstream, nor serve what is old.

The sweep asks for heads only, which cost no pull where pulls are counted, and fetches what they say has changed. It
works a few at a time, behind everything that somebody waits for, and within the rate limit that the upstream states:
as that runs low the checks become rarer, and cease before it is spent. An upstream that does not answer, or asks to be
left alone, is left alone for the rest of a round. Each tag is asked for at a moment of its own within the last tenth
of its freshness, so that tags cached together are not checked together.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.cache.cached_names import CachedNames
from replicator.cache.check_outcome import CheckOutcome, concerns_all
from replicator.cache.plans import is_due_early
from replicator.core.errors import ShuttingDown, StorageError
from replicator.storage.metadata import cache_entries
from replicator.storage.metadata.due_tags import due_tags
from replicator.telemetry.logs import get_logger
from replicator.upstream.urgency import background

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from replicator.cache.pull_through import PullThrough
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.cache_rules import CacheRule
    from replicator.core.clock import Clock
    from replicator.core.names import RepositoryName, Tag
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

_EARLY = 0.1
"""The share of its freshness within which a tag is checked before it is due."""


@dataclass(frozen=True, slots=True)
class SweepSettings:
    """Seconds between two rounds, and since its last pull for a tag to be kept fresh; checks at once and per rule."""

    interval: float = 60.0
    used_within: float = 3 * 24 * 3600.0
    concurrency: int = 4
    batch: int = 500


class FreshnessSweep:
    """The background checks of one node."""

    def __init__(
        self,
        cache: PullThrough,
        clock: Clock,
        settings: SweepSettings | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._settings = settings or SweepSettings()
        self._jitter = jitter

    async def run(self) -> None:
        """Do a round about once a minute until cancelled. A store that fails is tried again in the next round."""
        while True:
            await self._clock.sleep(self._settings.interval * (0.5 + self._jitter()))
            try:
                await self.sweep()
            except StorageError as error:
                _log.warning("freshness sweep could not use the store", error=str(error))

    async def sweep(self) -> int:
        """Do one round: write down which tags were used, check those that will be due; return how many were checked."""
        await self._write_uses(self._cache.memory.take_used())
        work = _Round(await self._due())
        with background():
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self._settings.concurrency, len(work))):
                    group.create_task(self._take(work))
        return work.checked

    async def _write_uses(self, used: Mapping[tuple[RepositoryName, Tag], float]) -> None:
        if used:
            await self._cache.node.database.write(lambda: _touch_all(used))

    async def _due(self) -> list[tuple[UpstreamRepository, CacheEntry]]:
        now, found = self._clock.now(), []
        for rule in self._cache.upstreams.rules:
            for entry in await self._entries(rule, now):
                source = self._cache.upstreams.find(entry.repository)
                if source is None or source.rule != rule:
                    continue
                if is_due_early(source, entry, now, _EARLY * self._jitter()):
                    found.append((source, entry))
        return found

    async def _entries(self, rule: CacheRule, now: float) -> list[CacheEntry]:
        return await self._cache.node.database.read(
            due_tags(
                CachedNames(self._cache.upstreams.rules).of(rule),
                now + _EARLY * _longest_freshness(rule),
                now - self._settings.used_within,
                self._settings.batch,
            )
        )

    async def _take(self, work: _Round) -> None:
        for source, entry in work:
            try:
                check = await self._cache.check(source, entry, heads_only=True)
            except ShuttingDown:
                return
            if check.outcome is CheckOutcome.FAILED and concerns_all(check.error):
                work.give_up(source)


class _Round:
    """The checks of one round, shared by those who do them; checks of an upstream that failed are passed over."""

    def __init__(self, due: list[tuple[UpstreamRepository, CacheEntry]]) -> None:
        self.checked = 0
        self._due = due
        self._rest = iter(due)
        self._failed: set[str] = set()

    def __len__(self) -> int:
        return len(self._due)

    def __iter__(self) -> Iterator[tuple[UpstreamRepository, CacheEntry]]:
        for source, entry in self._rest:
            if source.rule.upstream not in self._failed:
                self.checked += 1
                yield source, entry

    def give_up(self, source: UpstreamRepository) -> None:
        """Ask this upstream no more in this round."""
        self._failed.add(source.rule.upstream)


def _longest_freshness(rule: CacheRule) -> float:
    return max(rule.fresh_for, *(profile.fresh_for for profile in rule.freshness), 0.0)


def _touch_all(used: Mapping[tuple[RepositoryName, Tag], float]) -> Steps[None]:
    for (repository, tag), at in used.items():
        yield from cache_entries.touch(repository, tag, at)
