"""What follows from what an upstream says of a cached tag: it is confirmed, moved, kept or removed, and noted.

A tag moves to what was verified only, and not before as much of the new image is here as of the one before: the
upstream may be gone by the time of the next pull. What is reported is said once, and not at every check.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.cache.check_outcome import CheckOutcome, TagCheck, concerns_all
from replicator.cache.imports import Imports, TagImport
from replicator.cache.observer import Finding
from replicator.cache.plans import due_after
from replicator.cache.tag_news import TagNews
from replicator.core.cache_rules import OnNotFound
from replicator.core.errors import StorageError, UpstreamContent, UpstreamNotFound
from replicator.core.freshness import TagMove, decide_move, is_rollback, is_too_old
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicator.cache.observer import CacheObserver
    from replicator.cache.tag_memory import TagMemory
    from replicator.cache.tag_news import TagQuestions
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.errors import ReplicatorError
    from replicator.core.freshness import TagObservation
    from replicator.registry.pulls import Pulls
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.storage.metadata.images import StoredManifest

    Complete = Callable[[UpstreamRepository, StoredManifest, Digest], Awaitable[object]]

_log = get_logger(__name__)

_MAX_ERROR_TEXT = 500
_LOOK_AGAIN = 600.0
"""Seconds after which the background checks look again at a tag that could not be checked by itself."""


class TagSettlement:
    """Writes down what upstreams say of tags.

    `complete` brings of an image here what is here of the one before; no tag moves before it has done so.
    """

    def __init__(
        self,
        pulls: Pulls,
        imports: Imports,
        memory: TagMemory,
        questions: TagQuestions,
        clock: Clock,
        observer: CacheObserver,
        complete: Complete,
    ) -> None:
        self._pulls = pulls
        self._imports = imports
        self._memory = memory
        self._questions = questions
        self._clock = clock
        self._observer = observer
        self._complete = complete

    async def settle(self, source: UpstreamRepository, entry: CacheEntry, news: TagNews) -> TagCheck:
        """Do with a tag what its rule says of what the upstream has; raises UpstreamError, StorageError."""
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

    def _confirmed(self, source: UpstreamRepository, entry: CacheEntry, news: TagNews) -> CacheEntry:
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

    async def _keep_immutable(self, source: UpstreamRepository, entry: CacheEntry, news: TagNews) -> TagCheck:
        await self._write(replace(self._confirmed(source, entry, news), drift_digest=news.digest))
        if entry.drift_digest != news.digest:
            self._report(source, entry, Finding.DRIFT, news.digest)
        return TagCheck(CheckOutcome.IMMUTABLE, news.source)

    async def _wait(self, source: UpstreamRepository, entry: CacheEntry, news: TagNews) -> TagCheck:
        """Keep the image that is here until the upstream's new one has been known for long enough."""
        seen_since = await self._imports.see(entry.repository, entry.tag, news.digest, self._clock.now())
        confirmed = self._confirmed(source, entry, news)
        due_at = min(confirmed.due_at, seen_since + source.rule.cool_down)
        await self._write(replace(confirmed, pending_digest=news.digest, due_at=due_at))
        if entry.pending_digest != news.digest:
            self._report(source, entry, Finding.COOL_DOWN, news.digest)
        return TagCheck(CheckOutcome.WAITING, news.source)

    async def _move(
        self, source: UpstreamRepository, entry: CacheEntry, news: TagNews, observed: TagObservation
    ) -> TagCheck:
        if news.manifest is None:
            return await self._move_to_stated(source, entry, news, observed)
        if not is_too_old(source.rule, entry.checked_at, self._clock.now()):
            await self._imports.put_ahead(entry.repository, news.manifest)
            await self._complete(source, news.manifest, entry.digest)
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
        self, source: UpstreamRepository, entry: CacheEntry, news: TagNews, observed: TagObservation
    ) -> TagCheck:
        """Have the manifest that a head named; if that cannot be had, what a GET of the tag gives."""
        manifest = await self._pulls.find_manifest(entry.repository, news.digest)
        if manifest is not None:
            return await self._move(source, entry, replace(news, manifest=manifest), observed)
        try:
            fetched = await self._questions.fetch(source, news.digest)
        except (UpstreamNotFound, UpstreamContent):
            fetched = await self._questions.fetch(source, entry.tag)
            news = TagNews(fetched.manifest.digest, fetched.source, fetched.checked_at, fetched.manifest)
            return await self.settle(source, entry, news)
        return await self._move(source, entry, replace(news, manifest=fetched.manifest), observed)

    async def note_gone(self, source: UpstreamRepository, entry: CacheEntry, error: UpstreamNotFound) -> TagCheck:
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

    async def postpone(self, source: UpstreamRepository, entry: CacheEntry) -> TagCheck:
        """Leave a tag to the pulls, which may ask by GET."""
        due_at = due_after(source.rule, entry.tag, self._clock.now())
        await self._write(replace(entry, due_at=due_at))
        error = UpstreamContent(f"{source.rule.upstream}: {source.name} {entry.tag}: the head says no digest")
        return TagCheck(CheckOutcome.FAILED, source.rule.upstream, error)

    async def note_failure(self, source: UpstreamRepository, entry: CacheEntry, error: ReplicatorError) -> None:
        """Keep a tag as it is, and say why it could not be checked. Raises nothing."""
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
            await self._imports.update(failed, error)
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
