"""Manifests of cached repositories: what is here is served, what is due is checked, what is missing is fetched.

By tag::

    not here           -> fetch -> serve             (one fetch, however many wait; its failure reaches them all)
    pushed by somebody -> serve                      (the upstream has no say in it)
    fresh              -> serve
    due                -> serve, and check behind the puller's back
    due for long       -> check -> serve what is true now; or what is here, when the upstream fails or takes too long
    too old (max_stale)-> check -> serve what is true now; or refuse

A digest is never checked again. A check outlives the pull that caused it: nobody waits for it longer than
`stale_wait`, and once somebody waited in vain nobody else waits for that check at all. Only where the rule forbids to
serve what is here, pulls wait for an answer as long as cold ones do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from replicator.cache.check_outcome import CheckOutcome, TagCheck
from replicator.cache.imports import TagImport
from replicator.cache.plans import due_after, has_failed_lately, plan_of
from replicator.cache.tag_news import FetchedTag
from replicator.core.cache_status import NOT_FOUND, OK, TOO_MANY, CacheResult, PullTrace
from replicator.core.errors import (
    ManifestNotFound,
    ReplicatorError,
    ShuttingDown,
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamThrottled,
    UpstreamUnavailable,
)
from replicator.core.freshness import FAILED_CHECK_PAUSE, PullPlan
from replicator.core.reference import as_tag
from replicator.storage.metadata import cache_entries
from replicator.upstream.errors import UpstreamLoop
from replicator.upstream.single_flight import SingleFlight
from replicator.upstream.urgency import background
from replicator.upstream.via import incoming_via

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from replicator.cache.imports import Imports
    from replicator.cache.limits import CacheLimits
    from replicator.cache.negative import NegativeMemory
    from replicator.cache.own_repositories import OwnRepositories
    from replicator.cache.tag_checks import TagChecks
    from replicator.cache.tag_memory import TagMemory
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import Pulls
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.storage.metadata.images import StoredManifest

_RESULTS = {
    CheckOutcome.CONFIRMED: CacheResult.REVALIDATED,
    CheckOutcome.WAITING: CacheResult.REVALIDATED,
    CheckOutcome.IMMUTABLE: CacheResult.REVALIDATED,
    CheckOutcome.CHANGED: CacheResult.MISS,
    CheckOutcome.GONE: CacheResult.STALE,
    CheckOutcome.FAILED: CacheResult.STALE,
}
_AGAIN = "again"

_Key = tuple["RepositoryName", "Tag"]


class CachedManifests:
    """Gets manifests of repositories that a cache rule covers. The caller has checked access."""

    def __init__(
        self,
        node: RegistryNode,
        pulls: Pulls,
        imports: Imports,
        checks: TagChecks,
        memory: TagMemory,
        own: OwnRepositories,
        negative: NegativeMemory,
        limits: CacheLimits,
    ) -> None:
        self._node = node
        self._pulls = pulls
        self._imports = imports
        self._checks = checks
        self._memory = memory
        self._own = own
        self._negative = negative
        self._limits = limits
        self._fetching: SingleFlight[tuple[RepositoryName, Reference, tuple[str, ...]], FetchedTag] = SingleFlight()
        self._checking: SingleFlight[_Key, TagCheck] = SingleFlight()
        self._under_check: dict[_Key, bool] = {}
        """The checks under way; true once somebody waited for one in vain."""

    async def get(
        self, source: UpstreamRepository, reference: Reference, trace: PullTrace | None = None
    ) -> StoredManifest:
        """Return a manifest by tag or digest.

        Raises ManifestNotFound when neither this node nor the upstream has it, UpstreamError when only the upstream
        could tell, StorageError when the store cannot. Cancelling it stops no fetch and no check.
        """
        trace = trace or PullTrace()
        manifest = await self._pulls.find_manifest(source.repository, reference)
        if manifest is None:
            return await self._fetch_once(source, reference, trace)
        tag = as_tag(reference)
        entry = None if tag is None else await self._entry(source.repository, tag, manifest)
        if entry is None:
            trace.note(CacheResult.HIT, source.rule.prefix, source.rule.upstream)
            return manifest
        return await self._serve_tag(source, entry, manifest, trace)

    async def check(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool = False) -> TagCheck:
        """Check a tag whatever its age, or join the check under way; raises ShuttingDown."""
        key = (entry.repository, entry.tag)
        return await self._checking.run(key, lambda: self._check(source, entry, heads_only=heads_only))

    async def find_entry(self, repository: RepositoryName, tag: Tag) -> CacheEntry | None:
        """Return what is known of the upstream of a tag that is here, or None when it is not the upstream's."""
        manifest = await self._pulls.find_manifest(repository, tag)
        return None if manifest is None else await self._entry(repository, tag, manifest)

    async def idle(self) -> None:
        """Return when nothing is being fetched or checked."""
        await self._fetching.idle()
        await self._checking.idle()

    async def close(self) -> None:
        """End the fetches and checks under way; whoever waits for one gets ShuttingDown."""
        await self._fetching.close()
        await self._checking.close()

    async def _entry(self, repository: RepositoryName, tag: Tag, manifest: StoredManifest) -> CacheEntry | None:
        """Return what is known of a tag's upstream, or None when the tag is not the upstream's."""
        entry = self._memory.find(repository, tag)
        if entry is None or entry.digest != manifest.digest:
            entry = await self._node.database.read(cache_entries.find(repository, tag))
            if entry is None or entry.digest != manifest.digest:
                return None
            self._memory.keep(entry)
        return entry

    # What is here

    async def _serve_tag(
        self, source: UpstreamRepository, entry: CacheEntry, manifest: StoredManifest, trace: PullTrace
    ) -> StoredManifest:
        now = self._node.clock.now()
        self._memory.use(entry, now)
        trace.note(CacheResult.HIT, source.rule.prefix, source.rule.upstream)
        _note_age(source, entry, now, trace)
        plan = plan_of(source, entry, now)
        if plan is PullPlan.FRESH:
            return manifest
        if plan is PullPlan.CHECK_FIRST:
            return await self._serve_checked(source, entry, manifest, trace)
        if plan is PullPlan.REFUSE_STALE:
            return await self._serve_confirmed(source, entry, manifest, trace)
        trace.result, trace.error = CacheResult.STALE, entry.last_error
        if plan is PullPlan.SERVE_AND_CHECK:
            self._start_check(source, entry)
        return manifest

    def _start_check(self, source: UpstreamRepository, entry: CacheEntry) -> None:
        with background():
            self._checking.start((entry.repository, entry.tag), lambda: self._check(source, entry))

    async def _serve_checked(
        self, source: UpstreamRepository, entry: CacheEntry, manifest: StoredManifest, trace: PullTrace
    ) -> StoredManifest:
        """Serve what a check finds, or what is here when there is no answer in time."""
        if self._under_check.get((entry.repository, entry.tag)):
            trace.result, trace.error = CacheResult.STALE, entry.last_error or _no_answer(source)
            return manifest
        check = await self._check_within(source, entry, self._limits.stale_wait, trace)
        if check is None:
            trace.result, trace.error = CacheResult.STALE, _no_answer(source)
            return manifest
        return await self._after_check(source, entry, manifest, check, trace)

    async def _serve_confirmed(
        self, source: UpstreamRepository, entry: CacheEntry, manifest: StoredManifest, trace: PullTrace
    ) -> StoredManifest:
        """Serve what a check finds; raise what is wrong with the upstream when it finds nothing."""
        now = self._node.clock.now()
        if entry.failed_at is not None and has_failed_lately(entry, now):
            left = FAILED_CHECK_PAUSE - (now - entry.failed_at)
            failed: ReplicatorError | None = UpstreamUnavailable(entry.last_error, retry_after=left)
        else:
            check = await self._check_within(source, entry, self._limits.cold_wait, trace)
            if check is not None and check.outcome not in {CheckOutcome.FAILED, CheckOutcome.GONE}:
                return await self._after_check(source, entry, manifest, check, trace)
            failed = None if check is None else check.error
        error = _too_old(source, entry, failed, now)
        trace.was_cached = True
        trace.result, trace.error, trace.status = CacheResult.ERROR, str(error), _status_of(error)
        raise error

    async def _after_check(
        self,
        source: UpstreamRepository,
        entry: CacheEntry,
        manifest: StoredManifest,
        check: TagCheck,
        trace: PullTrace,
    ) -> StoredManifest:
        trace.note(_RESULTS[check.outcome], source.rule.prefix, check.source)
        trace.was_cached = True
        trace.status = OK if check.error is None else _status_of(check.error)
        trace.error = None if check.error is None else str(check.error)
        found = await self._pulls.find_manifest(entry.repository, entry.tag)
        if found is None and check.outcome is CheckOutcome.GONE:
            trace.result, trace.age, trace.ttl = CacheResult.MISS, None, None
            raise ManifestNotFound(f"the upstream of {source.repository} has no manifest {entry.tag} any more")
        known = self._memory.find(entry.repository, entry.tag) or entry
        _note_age(source, known, self._node.clock.now(), trace)
        return found or manifest

    async def _check_within(
        self, source: UpstreamRepository, entry: CacheEntry, wait: float, trace: PullTrace
    ) -> TagCheck | None:
        """Check a tag and return how it ended, or None when it has not in time. The check goes on."""
        key = (entry.repository, entry.tag)
        trace.collapsed = key in self._under_check
        try:
            async with asyncio.timeout(wait):
                return await self.check(source, entry)
        except TimeoutError:
            if key in self._under_check:
                self._under_check[key] = True
        except ShuttingDown:
            pass
        trace.collapsed = False
        return None

    async def _check(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool = False) -> TagCheck:
        key = (entry.repository, entry.tag)
        self._under_check[key] = False
        try:
            return await self._checks.check(source, entry, heads_only=heads_only)
        finally:
            del self._under_check[key]

    # What is not here

    async def _fetch_once(self, source: UpstreamRepository, reference: Reference, trace: PullTrace) -> StoredManifest:
        if await self._own.holds(source):
            raise ManifestNotFound(f"repository {source.repository} has no manifest {reference}")
        refusal = self._negative.find(source.repository, reference)
        if refusal is not None:
            trace.note(CacheResult.NEGATIVE, source.rule.prefix, source.rule.upstream)
            trace.error = str(refusal)
            raise refusal
        trace.note(CacheResult.MISS, source.rule.prefix, source.rule.upstream)
        trace.collapsed = True

        async def fetch() -> FetchedTag:
            trace.collapsed = False
            return await self._fetch(source, reference)

        try:
            fetched = await self._fetched(source, reference, fetch, trace)
        except ReplicatorError as error:
            trace.error, trace.status = str(error), _status_of(error)
            if not isinstance(error, ManifestNotFound):
                trace.result = CacheResult.ERROR
            raise
        trace.upstream, trace.status = fetched.source, OK
        tag = as_tag(reference)
        if tag is not None:
            trace.age = max(0.0, self._node.clock.now() - fetched.checked_at)
            trace.ttl = source.rule.freshness_of(tag) - trace.age
        return fetched.manifest

    async def _fetched(
        self,
        source: UpstreamRepository,
        reference: Reference,
        fetch: Callable[[], Coroutine[Any, Any, FetchedTag]],
        trace: PullTrace,
    ) -> FetchedTag:
        """Join the fetch under way, or begin it.

        A request that went in a circle did so because of whom it had passed, as its client said: others, who passed
        nobody of these, ask once more, among themselves.
        """
        key = (source.repository, reference)
        try:
            return await self._fetching.run((*key, ()), fetch)
        except UpstreamLoop:
            if not trace.collapsed:
                raise
        return await self._fetching.run((*key, (_AGAIN, *incoming_via())), fetch)

    async def _fetch(self, source: UpstreamRepository, reference: Reference) -> FetchedTag:
        # An earlier fetch may have ended between the caller's look and this one's start.
        known = await self._pulls.find_manifest(source.repository, reference)
        if known is not None:
            return FetchedTag(known, source.rule.upstream, self._node.clock.now())
        try:
            fetched = await self._checks.fetch(source, reference)
        except UpstreamNotFound as error:
            absent = ManifestNotFound(f"the upstream of {source.repository} has no manifest {reference}")
            self._negative.keep(source, reference, absent)
            raise absent from error
        except UpstreamContent as error:
            if type(error) is UpstreamContent:  # a connection that broke is no answer
                self._negative.keep(source, reference, error)
            await self._imports.tell_failure(source.repository, reference, error)
            raise
        except UpstreamDenied as error:
            if type(error) is UpstreamDenied:  # that none of our credentials are accepted concerns all
                self._negative.keep(source, reference, error)
            await self._imports.tell_failure(source.repository, reference, error)
            raise
        except UpstreamError as error:
            await self._imports.tell_failure(source.repository, reference, error)
            raise
        return await self._import(source, reference, fetched)

    async def _import(self, source: UpstreamRepository, reference: Reference, fetched: FetchedTag) -> FetchedTag:
        tag, rule = as_tag(reference), source.rule
        if tag is None:
            await self._imports.put_untagged(source.repository, fetched.manifest, rule.platforms)
            return fetched
        due_at = due_after(rule, tag, fetched.checked_at)
        found = TagImport(
            source.repository,
            tag,
            rule.upstream,
            fetched.manifest,
            fetched.checked_at,
            due_at,
            rule.platforms,
            used_at=self._node.clock.now(),
        )
        entry = await self._imports.put_tag(found)
        if entry is not None:
            self._memory.keep(entry)
        # Somebody may have pushed the tag meanwhile; then it is theirs.
        served = await self._pulls.find_manifest(source.repository, tag) or fetched.manifest
        return FetchedTag(served, fetched.source, fetched.checked_at)


def _note_age(source: UpstreamRepository, entry: CacheEntry, now: float, trace: PullTrace) -> None:
    trace.age = max(0.0, now - entry.checked_at)
    trace.ttl = source.rule.freshness_of(entry.tag) - trace.age


def _no_answer(source: UpstreamRepository) -> str:
    return f"{source.rule.upstream}: no answer in time"


def _status_of(error: ReplicatorError) -> int | None:
    """Return what the upstream answered, as far as an error tells it."""
    if isinstance(error, ManifestNotFound | UpstreamNotFound):
        return NOT_FOUND
    return TOO_MANY if isinstance(error, UpstreamThrottled) else None


def _too_old(
    source: UpstreamRepository, entry: CacheEntry, failed: ReplicatorError | None, now: float
) -> ReplicatorError:
    """Return why a cached tag is not served, in the class of what went wrong with its upstream."""
    text = (
        f"{source.rule.upstream}: {source.name}:{entry.tag} was last confirmed {now - entry.checked_at:.0f} s ago,"
        f" more than max_stale of cache rule {source.rule.prefix} allows ({source.rule.max_stale:.0f} s);"
        f" {failed or _no_answer(source)}"
    )
    if isinstance(failed, UpstreamNotFound):
        return ManifestNotFound(text)
    if isinstance(failed, UpstreamError):
        return type(failed)(text, retry_after=failed.retry_after)
    return UpstreamUnavailable(text)
