"""Manifests of cached repositories: what is here is served, what is due is checked first, what is missing is fetched.

By tag::

    not here           -> fetch -> serve             (one fetch, however many wait; its failure reaches them all)
    pushed by somebody -> serve                      (the upstream has no say in it)
    fresh              -> serve
    due                -> check -> serve what is true now; or what is here, when the upstream fails or takes too long

A digest is never checked again. A check outlives the pull that caused it: nobody waits for it longer than
`stale_wait`, and once somebody waited in vain nobody else waits for that check at all.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicator.cache.imports import TagImport
from replicator.cache.tag_checks import CheckOutcome
from replicator.core.cache_status import CacheResult
from replicator.core.errors import ManifestNotFound, ShuttingDown, UpstreamNotFound
from replicator.core.freshness import PullPlan, plan_pull
from replicator.core.reference import as_tag
from replicator.storage.metadata import cache_entries
from replicator.upstream.single_flight import SingleFlight

if TYPE_CHECKING:
    from replicator.cache.imports import Imports
    from replicator.cache.limits import CacheLimits
    from replicator.cache.observer import CacheObserver
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
    CheckOutcome.CHANGED: CacheResult.MISS,
    CheckOutcome.FAILED: CacheResult.STALE,
}

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
        observer: CacheObserver,
        limits: CacheLimits,
    ) -> None:
        self._node = node
        self._pulls = pulls
        self._imports = imports
        self._checks = checks
        self._memory = memory
        self._own = own
        self._observer = observer
        self._limits = limits
        self._fetching: SingleFlight[tuple[RepositoryName, Reference], StoredManifest] = SingleFlight()
        self._checking: SingleFlight[_Key, CheckOutcome] = SingleFlight()
        self._under_check: dict[_Key, bool] = {}
        """The checks under way; true once somebody waited for one in vain."""

    async def get(self, source: UpstreamRepository, reference: Reference) -> StoredManifest:
        """Return a manifest by tag or digest.

        Raises ManifestNotFound when neither this node nor the upstream has it, UpstreamError when only the upstream
        could tell, StorageError when the store cannot. Cancelling it stops no fetch and no check.
        """
        manifest = await self._pulls.find_manifest(source.repository, reference)
        if manifest is None:
            return await self._fetch_once(source, reference)
        tag = as_tag(reference)
        entry = None if tag is None else await self._entry(source.repository, tag, manifest)
        if entry is None:
            self._note(source, CacheResult.HIT)
            return manifest
        now = self._node.clock.now()
        self._memory.use(entry, now)
        if not is_due(source, entry, now):
            self._note(source, CacheResult.HIT if now - entry.checked_at < source.rule.fresh_for else CacheResult.STALE)
            return manifest
        outcome = await self._check_once(source, entry)
        self._note(source, _RESULTS[outcome])
        return await self._pulls.find_manifest(source.repository, reference) or manifest

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

    async def _fetch_once(self, source: UpstreamRepository, reference: Reference) -> StoredManifest:
        if await self._own.holds(source):
            raise ManifestNotFound(f"repository {source.repository} has no manifest {reference}")
        self._note(source, CacheResult.MISS)
        key = (source.repository, reference)
        return await self._fetching.run(key, lambda: self._fetch(source, reference))

    async def _fetch(self, source: UpstreamRepository, reference: Reference) -> StoredManifest:
        # An earlier fetch may have ended between the caller's look and this one's start.
        known = await self._pulls.find_manifest(source.repository, reference)
        if known is not None:
            return known
        checked_at = self._node.clock.now()
        try:
            manifest = await self._checks.fetch(source, reference)
        except UpstreamNotFound as error:
            raise ManifestNotFound(f"the upstream of {source.repository} has no manifest {reference}") from error
        tag = as_tag(reference)
        if tag is None:
            await self._imports.put_untagged(source.repository, manifest)
            return manifest
        found = TagImport(source.repository, tag, source.rule.upstream, manifest, checked_at)
        entry = await self._imports.put_tag(found)
        if entry is not None:
            self._memory.keep(entry)
        # Somebody may have pushed the tag meanwhile; then it is theirs.
        return await self._pulls.find_manifest(source.repository, tag) or manifest

    async def _check_once(self, source: UpstreamRepository, entry: CacheEntry) -> CheckOutcome:
        """Check a tag and return the outcome, or that there is none in time."""
        key = (entry.repository, entry.tag)
        if self._under_check.get(key):
            return CheckOutcome.FAILED
        try:
            async with asyncio.timeout(self._limits.stale_wait):
                return await self._checking.run(key, lambda: self._check(source, entry))
        except TimeoutError:
            if key in self._under_check:
                self._under_check[key] = True
        except ShuttingDown:
            pass
        return CheckOutcome.FAILED

    async def _check(self, source: UpstreamRepository, entry: CacheEntry) -> CheckOutcome:
        key = (entry.repository, entry.tag)
        self._under_check[key] = False
        try:
            return await self._checks.check(source, entry)
        finally:
            del self._under_check[key]

    def _note(self, source: UpstreamRepository, result: CacheResult) -> None:
        self._observer.result(source.rule.prefix, result.value)


def is_due(source: UpstreamRepository, entry: CacheEntry, now: float) -> bool:
    """Tell whether a cached tag must be checked before it is served."""
    if entry.upstream != source.rule.upstream and entry.failed_at is None:
        return True
    plan = plan_pull(source.rule, entry.tag, entry.checked_at, entry.failed_at, now)
    return plan not in {PullPlan.FRESH, PullPlan.SERVE}
