"""What upstreams say of a tag: asked by head first, which costs no pull where pulls are counted.

The digest a head states is only a reason to fetch. Another cache's word counts for as long as the rule would trust our
own; beyond that, and for whether a tag is gone, the authority is asked.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import (
    UpstreamContent,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamTimeout,
)
from replicator.core.reference import as_tag
from replicator.storage.metadata.images import StoredManifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.cache.limits import CacheLimits
    from replicator.cache.observer import CacheObserver
    from replicator.cache.sources import Said, Sources
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.names import Tag
    from replicator.core.reference import Reference
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.upstream.client import FetchedManifest, ManifestHead

_AGE_ROUNDING = 1.0
"""Seconds: an Age is a whole number."""


@dataclass(frozen=True, slots=True)
class FetchedTag:
    """A verified manifest with the registry it came from, and the time as of which it is true."""

    manifest: StoredManifest
    source: str
    checked_at: float


@dataclass(frozen=True, slots=True)
class TagNews:
    """What a tag is upstream; `manifest` is there when it had to be fetched to know."""

    digest: Digest
    source: str
    checked_at: float
    manifest: StoredManifest | None = None


class TagQuestions:
    """Asks upstreams about tags, none for longer than a cold pull waits."""

    def __init__(self, clock: Clock, observer: CacheObserver, limits: CacheLimits) -> None:
        self._clock = clock
        self._observer = observer
        self._limits = limits

    async def ask(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool) -> TagNews | None:
        """Return what the upstream has under a tag; None when only a GET could tell and none is wanted.

        Raises UpstreamNotFound when a GET says that there is no such tag, UpstreamTimeout when it takes too long
        altogether, UpstreamError.
        """
        async with self._in_time(source, entry.tag):
            return await self._ask(source, entry, heads_only=heads_only)

    async def fetch(self, source: UpstreamRepository, reference: Reference) -> FetchedTag:
        """Fetch and verify a manifest; raises UpstreamError, UpstreamTimeout when it takes too long altogether."""
        async with self._in_time(source, reference):
            return await self._fetch(source, reference, source.sources)

    async def _ask(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool) -> TagNews | None:
        try:
            head = await self._head(source, entry)
        except UpstreamNotFound:
            # The authority says so; that another registry still has it would prove nothing.
            return await self._get(source, entry.tag, source.sources.authority)
        except (UpstreamContent, UpstreamRefused):
            return None if heads_only else await self._get(source, entry.tag, source.sources)
        if head.value.digest is None:
            return None if heads_only else await self._get(source, entry.tag, source.sources)
        return TagNews(head.value.digest, head.source, self._as_of(head))

    async def _get(self, source: UpstreamRepository, tag: Tag, sources: Sources) -> TagNews:
        fetched = await self._fetch(source, tag, sources)
        return TagNews(fetched.manifest.digest, fetched.source, fetched.checked_at, fetched.manifest)

    async def _head(self, source: UpstreamRepository, entry: CacheEntry) -> Said[ManifestHead]:
        """Ask for a head.

        What another cache kept for longer than we would is checked with the authority; what it knows from before we
        asked last is no news at all: it could even take a tag back.
        """
        said = await source.sources.head_manifest(entry.tag)
        is_news = said.is_authority or self._as_of(said) > entry.checked_at + _AGE_ROUNDING
        if said.is_authority or (is_news and said.value.age < source.rule.freshness_of(entry.tag)):
            return said
        try:
            return await source.sources.authority.head_manifest(entry.tag)
        except UpstreamError:
            if is_news:
                return said
            raise

    async def _fetch(self, source: UpstreamRepository, reference: Reference, sources: Sources) -> FetchedTag:
        said = await self._said(source, reference, sources)
        fetched = said.value
        self._observer.upstream_bytes(said.source, len(fetched.content))
        manifest = StoredManifest(fetched.digest, fetched.media_type, fetched.content)
        return FetchedTag(manifest, said.source, self._as_of(said))

    async def _said(self, source: UpstreamRepository, reference: Reference, sources: Sources) -> Said[FetchedManifest]:
        """Fetch a manifest; a tag that another cache kept for longer than we would comes from the authority."""
        said = await sources.get_manifest(reference)
        tag = as_tag(reference)
        if said.is_authority or tag is None or said.value.age < source.rule.freshness_of(tag):
            return said
        try:
            return await source.sources.authority.get_manifest(reference)
        except UpstreamNotFound:
            raise
        except UpstreamError:
            return said

    def _as_of(self, said: Said[ManifestHead] | Said[FetchedManifest]) -> float:
        now = self._clock.now()
        return now if said.is_authority else now - said.value.age

    @asynccontextmanager
    async def _in_time(self, source: UpstreamRepository, reference: Reference) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.cold_wait):
                yield
        except TimeoutError as error:
            raise UpstreamTimeout(f"{source.rule.upstream}: {source.name} {reference}: no answer in time") from error
