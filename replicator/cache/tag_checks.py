"""Checking a cached tag against its upstream, whatever the upstream does.

A check asks for the manifest's head first, which costs no pull where pulls are counted, and fetches only what
changed. It ends in an outcome, never in an error: a failure is noted with the tag and the cached image is what there
is. The digest a head states is a reason to fetch; what is stored was verified.
"""

from __future__ import annotations

import asyncio
import enum
from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.cache.imports import Imports, TagImport
from replicator.core.errors import (
    ReplicatorError,
    ShuttingDown,
    StorageError,
    UpstreamContent,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamTimeout,
)
from replicator.storage.metadata.images import StoredManifest
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.cache.limits import CacheLimits
    from replicator.cache.observer import CacheObserver
    from replicator.cache.tag_memory import TagMemory
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.names import Tag
    from replicator.core.reference import Reference
    from replicator.registry.pulls import Pulls
    from replicator.storage.metadata.cache_entries import CacheEntry

_log = get_logger(__name__)

_MAX_ERROR_TEXT = 500


class CheckOutcome(enum.Enum):
    """What a check found: the same digest, another one, or nothing."""

    CONFIRMED = "confirmed"
    CHANGED = "changed"
    FAILED = "failed"


class TagChecks:
    """Asks upstreams about tags, and writes down what they say."""

    def __init__(
        self,
        pulls: Pulls,
        imports: Imports,
        memory: TagMemory,
        clock: Clock,
        observer: CacheObserver,
        limits: CacheLimits,
    ) -> None:
        self._pulls = pulls
        self._imports = imports
        self._memory = memory
        self._clock = clock
        self._observer = observer
        self._limits = limits

    async def check(self, source: UpstreamRepository, entry: CacheEntry) -> CheckOutcome:
        """Bring a tag up to date: confirm it, or fetch what it is now. Raises nothing but a cancellation."""
        return await self._guarded(source, entry, fetch=True)

    async def confirm(self, source: UpstreamRepository, entry: CacheEntry) -> CheckOutcome:
        """Confirm a tag by its head; one that changed is left for the next pull. Raises nothing but a cancellation."""
        return await self._guarded(source, entry, fetch=False)

    async def fetch(self, source: UpstreamRepository, reference: Reference) -> StoredManifest:
        """Fetch and verify a manifest; raises UpstreamError, UpstreamTimeout when it takes too long altogether."""
        try:
            async with asyncio.timeout(self._limits.cold_wait):
                fetched = (await source.sources.get_manifest(reference)).value
        except TimeoutError as error:
            raise UpstreamTimeout(f"{source.rule.upstream}: {source.name} {reference}: no answer in time") from error
        self._observer.upstream_bytes(source.rule.upstream, len(fetched.content))
        return StoredManifest(fetched.digest, fetched.media_type, fetched.content)

    async def _guarded(self, source: UpstreamRepository, entry: CacheEntry, *, fetch: bool) -> CheckOutcome:
        try:
            async with asyncio.timeout(self._limits.cold_wait):
                return await self._check(source, entry, fetch=fetch)
        except TimeoutError:
            await self._note_failure(source, entry, UpstreamTimeout(f"{source.rule.upstream}: no answer in time"))
        except ShuttingDown:
            pass
        except ReplicatorError as error:
            await self._note_failure(source, entry, error)
        return CheckOutcome.FAILED

    async def _check(self, source: UpstreamRepository, entry: CacheEntry, *, fetch: bool) -> CheckOutcome:
        checked_at = self._clock.now()
        stated = await self._stated_digest(source, entry.tag, fall_back=fetch)
        unmoved = stated == entry.digest or not await self._imports.may_move(entry.repository, entry.tag)
        if unmoved:
            upstream = source.rule.upstream
            confirmed = replace(entry, upstream=upstream, checked_at=checked_at, failed_at=None, last_error=None)
            await self._imports.update(confirmed)
            self._memory.keep(confirmed)
            return CheckOutcome.CONFIRMED
        if fetch:
            return await self._import(source, entry, stated, checked_at)
        return CheckOutcome.CHANGED

    async def _stated_digest(self, source: UpstreamRepository, tag: Tag, *, fall_back: bool) -> Digest | None:
        """Return the digest that the upstream states, or None when only fetching the manifest can tell."""
        try:
            head = (await source.sources.head_manifest(tag)).value
        except (UpstreamNotFound, UpstreamContent, UpstreamRefused):
            # Caches and registries of the simpler kind know nothing of HEAD until there was a GET.
            if fall_back:
                return None
            raise
        return head.digest

    async def _import(
        self, source: UpstreamRepository, entry: CacheEntry, stated: Digest | None, checked_at: float
    ) -> CheckOutcome:
        manifest = None if stated is None else await self._pulls.find_manifest(entry.repository, stated)
        if manifest is None:
            manifest = await self.fetch(source, entry.tag if stated is None else stated)
        found = TagImport(entry.repository, entry.tag, source.rule.upstream, manifest, checked_at)
        known = await self._imports.put_tag(found)
        if known is None:
            return CheckOutcome.CONFIRMED
        self._memory.keep(known)
        return CheckOutcome.CONFIRMED if known.digest == entry.digest else CheckOutcome.CHANGED

    async def _note_failure(self, source: UpstreamRepository, entry: CacheEntry, error: ReplicatorError) -> None:
        _log.warning(
            "cached tag could not be checked",
            repository=entry.repository,
            tag=entry.tag,
            upstream=source.rule.upstream,
            error=str(error),
        )
        failed = replace(entry, failed_at=self._clock.now(), last_error=str(error)[:_MAX_ERROR_TEXT])
        self._memory.keep(failed)
        try:
            await self._imports.update(failed)
        except StorageError as failure:
            _log.warning("failed check could not be noted", repository=entry.repository, error=str(failure))
