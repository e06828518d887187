"""Checking a cached tag against its upstream, whatever the upstream does.

A check asks for the manifest's head first, which costs no pull where pulls are counted, and fetches only what
changed. It ends in an outcome, never in an error: a failure is noted with the tag and the cached image is what there
is. The digest a head states is a reason to fetch; what is stored was verified. That a tag is gone is believed only of
a GET, as caches of the simpler kind know nothing of HEAD.

    upstream has            cached digest -> confirmed
                            another one   -> fetched, and for rules with platforms completed; only then the tag moves
                                             (too new: waits; immutable here: stays, and the drift is reported)
                            no such tag   -> kept, or removed here, as the rule says
                            no answer     -> kept
"""

from __future__ import annotations

import asyncio
import enum
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.cache.imports import Imports, TagImport
from replicator.cache.observer import Finding
from replicator.cache.plans import due_after
from replicator.core.cache_rules import OnNotFound
from replicator.core.errors import (
    ReplicatorError,
    ShuttingDown,
    StorageError,
    UpstreamContent,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.freshness import TagMove, decide_move, is_rollback
from replicator.core.reference import as_tag
from replicator.storage.metadata.images import StoredManifest
from replicator.telemetry.logs import get_logger
from replicator.upstream.errors import UpstreamLoop
from replicator.upstream.via import incoming_via

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from replicator.cache.limits import CacheLimits
    from replicator.cache.observer import CacheObserver
    from replicator.cache.sources import Said, Sources
    from replicator.cache.tag_memory import TagMemory
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.freshness import TagObservation
    from replicator.core.names import Tag
    from replicator.core.reference import Reference
    from replicator.registry.pulls import Pulls
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.upstream.client import FetchedManifest, ManifestHead

    Complete = Callable[[UpstreamRepository, StoredManifest], Awaitable[object]]

_log = get_logger(__name__)

_MAX_ERROR_TEXT = 500
_AGE_ROUNDING = 1.0
"""Seconds: an Age is a whole number."""
_LOOK_AGAIN = 600.0
"""Seconds after which the background checks look again at a tag that could not be checked by itself."""


class CheckOutcome(enum.Enum):
    """What a check found: the same digest, another one, none any more, or nothing."""

    CONFIRMED = "confirmed"
    CHANGED = "changed"
    WAITING = "waiting"
    """The upstream has another image, which is too new to be served."""
    IMMUTABLE = "immutable"
    """The upstream has another image, and the tag does not move here."""
    GONE = "gone"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class TagCheck:
    """How a check ended, which registry had the last word, and what went wrong, if something did."""

    outcome: CheckOutcome
    source: str
    error: ReplicatorError | None = None


@dataclass(frozen=True, slots=True)
class FetchedTag:
    """A verified manifest with the registry it came from, and the time as of which it is true."""

    manifest: StoredManifest
    source: str
    checked_at: float


@dataclass(frozen=True, slots=True)
class _News:
    """What a tag is upstream; `manifest` is there when it had to be fetched to know."""

    digest: Digest
    source: str
    checked_at: float
    manifest: StoredManifest | None = None


class TagChecks:
    """Asks upstreams about tags, and writes down what they say.

    `complete` brings the rest of an image here; where a rule names platforms, no tag moves before it has done so.
    """

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
        self.complete: Complete | None = None

    async def check(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool = False) -> TagCheck:
        """Bring a tag up to date: confirm it, or have what it is now. Raises nothing but a cancellation.

        With `heads_only` an upstream whose heads say nothing is left alone; what changed is fetched all the same.
        """
        try:
            return await self._check(source, entry, heads_only=heads_only)
        except ShuttingDown as error:
            return TagCheck(CheckOutcome.FAILED, source.rule.upstream, error)
        except ReplicatorError as error:
            if not (isinstance(error, UpstreamLoop) and incoming_via()):
                # A circle that was closed by whom a client says its request has passed is that client's alone.
                await self._note_failure(source, entry, error)
            return TagCheck(CheckOutcome.FAILED, source.rule.upstream, error)

    async def fetch(self, source: UpstreamRepository, reference: Reference) -> FetchedTag:
        """Fetch and verify a manifest; raises UpstreamError, UpstreamTimeout when it takes too long altogether."""
        async with self._in_time(source, reference):
            return await self._fetch(source, reference, source.sources)

    async def _check(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool) -> TagCheck:
        try:
            async with self._in_time(source, entry.tag):
                news = await self._ask(source, entry, heads_only=heads_only)
        except UpstreamNotFound as error:
            return await self._note_gone(source, entry, error)
        if news is None:
            return await self._postpone(source, entry)
        return await self._settle(source, entry, news)

    # What the upstream says

    async def _ask(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool) -> _News | None:
        """Return what the upstream has under a tag; None when only a GET could tell and none is wanted.

        Raises UpstreamNotFound when a GET says that there is no such tag.
        """
        try:
            head = await self._head(source, entry)
        except UpstreamNotFound:
            # The authority says so; that another registry still has it would prove nothing.
            return await self._get(source, entry.tag, source.sources.authority)
        except (UpstreamContent, UpstreamRefused):
            return None if heads_only else await self._get(source, entry.tag, source.sources)
        if head.value.digest is None:
            return None if heads_only else await self._get(source, entry.tag, source.sources)
        return _News(head.value.digest, head.source, self._as_of(head))

    async def _get(self, source: UpstreamRepository, tag: Tag, sources: Sources) -> _News:
        fetched = await self._fetch(source, tag, sources)
        return _News(fetched.manifest.digest, fetched.source, fetched.checked_at, fetched.manifest)

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

    # What follows from it

    async def _settle(self, source: UpstreamRepository, entry: CacheEntry, news: _News) -> TagCheck:
        observed = await self._imports.observe(entry, news.digest)
        move = decide_move(source.rule, observed, self._clock.now())
        if move is TagMove.CONFIRM:
            await self._write(self._confirmed(source, entry, news))
            return TagCheck(CheckOutcome.CONFIRMED, news.source)
        if move is TagMove.KEEP_IMMUTABLE:
            return await self._keep_immutable(source, entry, news)
        if move is TagMove.WAIT:
            return await self._wait(source, entry, news)
        return await self._move(source, entry, news, observed)

    def _confirmed(self, source: UpstreamRepository, entry: CacheEntry, news: _News) -> CacheEntry:
        """Return what is known of a tag that is here what it should be."""
        now, rule = self._clock.now(), source.rule
        before = entry.checked_at if entry.upstream == rule.upstream and entry.checked_at <= now else news.checked_at
        checked_at = max(before, news.checked_at)
        return replace(
            entry,
            upstream=rule.upstream,
            checked_at=checked_at,
            failed_at=None,
            last_error=None,
            gone_at=None,
            pending_digest=None,
            drift_digest=None,
            due_at=due_after(rule, entry.tag, checked_at),
        )

    async def _keep_immutable(self, source: UpstreamRepository, entry: CacheEntry, news: _News) -> TagCheck:
        await self._write(replace(self._confirmed(source, entry, news), drift_digest=news.digest))
        if entry.drift_digest != news.digest:
            self._report(source, entry, Finding.DRIFT, news.digest)
        return TagCheck(CheckOutcome.IMMUTABLE, news.source)

    async def _wait(self, source: UpstreamRepository, entry: CacheEntry, news: _News) -> TagCheck:
        """Keep the image that is here until the upstream's new one has been known for long enough."""
        seen_since = await self._imports.see(entry.repository, entry.tag, news.digest, self._clock.now())
        confirmed = self._confirmed(source, entry, news)
        due_at = min(confirmed.due_at, seen_since + source.rule.cool_down)
        await self._write(replace(confirmed, pending_digest=news.digest, due_at=due_at))
        if entry.pending_digest != news.digest:
            self._report(source, entry, Finding.COOL_DOWN, news.digest)
        return TagCheck(CheckOutcome.WAITING, news.source)

    async def _move(
        self, source: UpstreamRepository, entry: CacheEntry, news: _News, observed: TagObservation
    ) -> TagCheck:
        if news.manifest is None:
            return await self._move_to_stated(source, entry, news, observed)
        if self.complete is not None and source.rule.platforms:
            await self._imports.put_ahead(entry.repository, news.manifest)
            await self.complete(source, news.manifest)
        found = TagImport(
            entry.repository,
            entry.tag,
            source.rule.upstream,
            news.manifest,
            news.checked_at,
            due_after(source.rule, entry.tag, news.checked_at),
        )
        known = await self._imports.put_tag(found)
        if known is None:
            return TagCheck(CheckOutcome.CONFIRMED, news.source)
        self._memory.keep(known)
        if known.digest == entry.digest:
            return TagCheck(CheckOutcome.IMMUTABLE, news.source)
        if is_rollback(observed):
            self._report(source, entry, Finding.ROLLBACK, news.digest)
        return TagCheck(CheckOutcome.CHANGED, news.source)

    async def _move_to_stated(
        self, source: UpstreamRepository, entry: CacheEntry, news: _News, observed: TagObservation
    ) -> TagCheck:
        """Have the manifest that a head named; if that cannot be had, what a GET of the tag gives."""
        manifest = await self._pulls.find_manifest(entry.repository, news.digest)
        if manifest is not None:
            return await self._move(source, entry, replace(news, manifest=manifest), observed)
        try:
            fetched = await self.fetch(source, news.digest)
        except (UpstreamNotFound, UpstreamContent):
            fetched = await self.fetch(source, entry.tag)
            news = _News(fetched.manifest.digest, fetched.source, fetched.checked_at, fetched.manifest)
            return await self._settle(source, entry, news)
        return await self._move(source, entry, replace(news, manifest=fetched.manifest), observed)

    async def _note_gone(self, source: UpstreamRepository, entry: CacheEntry, error: UpstreamNotFound) -> TagCheck:
        """Do with a tag that the upstream has no more what the rule says."""
        now = self._clock.now()
        if entry.gone_at is None:
            self._report(source, entry, Finding.GONE, None)
        if source.rule.on_not_found is OnNotFound.FOLLOW and await self._imports.remove_tag(entry):
            self._memory.drop(entry.repository, entry.tag)
        else:
            kept = replace(
                entry,
                failed_at=now,
                last_error=str(error)[:_MAX_ERROR_TEXT],
                gone_at=now if entry.gone_at is None else entry.gone_at,
                due_at=due_after(source.rule, entry.tag, now),
            )
            await self._write(kept)
        return TagCheck(CheckOutcome.GONE, source.rule.upstream, error)

    async def _postpone(self, source: UpstreamRepository, entry: CacheEntry) -> TagCheck:
        """Leave a tag to the pulls, which may ask by GET."""
        due_at = due_after(source.rule, entry.tag, self._clock.now())
        await self._write(replace(entry, due_at=due_at))
        error = UpstreamContent(f"{source.rule.upstream}: {source.name} {entry.tag}: the head says no digest")
        return TagCheck(CheckOutcome.FAILED, source.rule.upstream, error)

    async def _note_failure(self, source: UpstreamRepository, entry: CacheEntry, error: ReplicatorError) -> None:
        _log.warning(
            "cached tag could not be checked",
            repository=entry.repository,
            tag=entry.tag,
            upstream=source.rule.upstream,
            error=str(error),
        )
        now = self._clock.now()
        failed = replace(entry, failed_at=now, last_error=str(error)[:_MAX_ERROR_TEXT])
        if not concerns_all(error):
            failed = replace(failed, due_at=now + min(_LOOK_AGAIN, source.rule.freshness_of(entry.tag)))
        self._memory.keep(failed)
        try:
            await self._imports.update(failed)
        except StorageError as failure:
            _log.warning("failed check could not be noted", repository=entry.repository, error=str(failure))

    async def _write(self, entry: CacheEntry) -> None:
        await self._imports.update(entry)
        self._memory.keep(entry)

    def _report(self, source: UpstreamRepository, entry: CacheEntry, finding: Finding, upstream: Digest | None) -> None:
        _log.warning(
            "upstream changed a cached tag in a way worth a look",
            finding=finding.value,
            rule=source.rule.prefix,
            repository=entry.repository,
            tag=entry.tag,
            digest=entry.digest,
            upstream_digest=upstream,
        )
        self._observer.found(source.rule.prefix, finding.value)


def concerns_all(error: ReplicatorError | None) -> bool:
    """Tell whether a failure is one of the whole upstream, and not of one repository or tag there."""
    return isinstance(error, UpstreamUnavailable | UpstreamThrottled)
