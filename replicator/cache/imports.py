"""Taking a fetched manifest in: one transaction stores the image, moves its tag, and plans what follows from it.

A tag is moved for the upstream only while it is the upstream's: while it points to nothing, or to what the cache last
set it to. A tag that somebody pushed in the meantime is theirs, and an immutable one stays where it is. The content
of the image is not needed for this: layers are fetched when somebody asks for them, or by a job that the same
transaction stores where the rule names platforms.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.cache.prefetch import PrefetchImage
from replicator.core.bounded import BoundedMap
from replicator.core.errors import StorageError
from replicator.core.freshness import TagObservation
from replicator.core.jobs import JobKind
from replicator.core.reference import as_digest, as_tag
from replicator.core.replication import Origin
from replicator.core.revisions import NEVER
from replicator.core.templates import CreationCause
from replicator.registry.events import record_failed_import, record_import
from replicator.registry.follow_ups import change_of, plan_follow_up
from replicator.registry.repository_creation import ensure_repository
from replicator.storage.metadata import (
    cache_entries,
    cache_history,
    cache_pins,
    cached_images,
    images,
    jobs,
    repositories,
    tags,
)
from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.storage.metadata.images import StoredImage, StoredManifest
from replicator.telemetry.logs import get_logger
from replicator.upstream.large_manifests import parse_beside

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.errors import ReplicatorError
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.platforms import Platform
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps


_log = get_logger(__name__)

_TOLD = 10_000
_TELL_AGAIN = 60.0
"""Seconds after which the failure of one image is told again, if somebody still asks for it."""


@dataclass(frozen=True, slots=True)
class TagImport:
    """What an upstream says a tag is, as of `checked_at`, and when it should be asked again.

    `platforms` are those whose content is to be fetched behind everybody's back. `used_at` is set when a pull caused
    the import.
    """

    repository: RepositoryName
    tag: Tag
    upstream: str
    manifest: StoredManifest
    checked_at: float
    due_at: float = 0.0
    platforms: tuple[Platform, ...] = ()
    used_at: float | None = None


class Imports:
    """Writes what was learnt from upstreams. Every method raises StorageError when the database fails."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node
        self._told: BoundedMap[tuple[RepositoryName, Reference], float] = BoundedMap(_TOLD)

    async def put_tag(self, imported: TagImport) -> CacheEntry | None:
        """Store an image and point the tag to it.

        Return what is known of the tag now, with the digest it really has, or None when the tag is not the upstream's.
        """
        image = await _image(imported.manifest)
        entry = await self._node.commit(imported.repository, lambda: self._put_tag(imported, image))
        self._announce(imported.manifest)
        return entry

    async def put_untagged(
        self, repository: RepositoryName, manifest: StoredManifest, platforms: tuple[Platform, ...] = ()
    ) -> None:
        """Store an image that was asked for by its digest; of an index, content for `platforms` is to follow."""
        image, now = await _image(manifest), self._node.clock.now()
        await self._node.commit(repository, lambda: self._put_untagged(repository, image, platforms, now))
        self._announce(manifest)

    async def put_ahead(self, repository: RepositoryName, manifest: StoredManifest) -> None:
        """Store an image whose tag will move to it once its content is here; nothing follows from it before."""
        image, now = await _image(manifest), self._node.clock.now()
        await self._node.commit(repository, lambda: self._put_image(repository, image, now))
        self._node.announce_stored(len(manifest.content))

    async def observe(self, entry: CacheEntry, upstream: Digest) -> TagObservation:
        """Return what is known here about a digest that the upstream has under a cached tag."""
        return await self._node.database.read(_observe(entry, upstream))

    async def see(self, repository: RepositoryName, tag: Tag, digest: Digest, now: float) -> float:
        """Note that the upstream's tag has a digest; return since when that is known."""
        seen = await self._node.database.write(lambda: cache_history.see(repository, tag, digest, now))
        return seen.first_seen_at

    async def update(self, entry: CacheEntry, failure: ReplicatorError | None = None) -> None:
        """Replace what is known of a tag, unless it was found to be another digest meanwhile.

        The first `failure` after a check that succeeded is told to whoever wants to know.
        """
        await self._node.database.write(lambda: _update(self._node, entry, failure))
        if failure is not None:
            self._node.announce_events()

    async def tell_failure(self, repository: RepositoryName, reference: Reference, error: ReplicatorError) -> None:
        """Tell whoever wants to know that an image could not be fetched, for each once in a while; best effort."""
        node, now = self._node, self._node.clock.now()
        told = self._told.find((repository, reference))
        if not node.settings.event_sinks or (told is not None and abs(now - told) < _TELL_AGAIN):
            return
        self._told.put((repository, reference), now)
        tag, digest = as_tag(reference), as_digest(reference)
        try:
            await node.database.write(lambda: record_failed_import(node, repository, tag, digest, error, now))
        except StorageError as failure:
            _log.warning("failed import could not be told", repository=repository, error=str(failure))
            return
        node.announce_events()

    async def remove_tag(self, entry: CacheEntry) -> bool:
        """Remove a cached tag that its upstream has no more; return False when it is not the upstream's, or pinned.

        Nothing of the image goes, and no other node is told: it is as if the tag had never been fetched.
        """
        return await self._node.commit(entry.repository, lambda: _remove_tag(entry))

    def _announce(self, manifest: StoredManifest) -> None:
        self._node.announce_stored(len(manifest.content))
        self._node.announce_jobs(JobKind.REPLICATE)
        self._node.announce_jobs(JobKind.PREFETCH)

    def _put_tag(self, imported: TagImport, image: StoredImage) -> Steps[CacheEntry | None]:
        repository, tag, digest = imported.repository, imported.tag, imported.manifest.digest
        settings = yield from ensure_repository(
            self._node, repository, imported.checked_at, CreationCause.PULL_THROUGH_CACHE
        )
        state = yield from tags.find(repository, tag)
        known = yield from cache_entries.find(repository, tag)
        current = state.digest if state else None
        if current is not None and (known is None or known.digest != current):
            return None
        if not settings.mutability.permits(tag, current, digest):
            return (yield from _keep_immutable(known, imported))
        newest = NEVER
        if current != digest:
            register = yield from tags.put(repository, tag, digest, self._node.settings.node, imported.checked_at)
            newest = register.revision
            yield from record_import(self._node, repository, digest, tag, imported.checked_at)
        yield from images.put(repository, image, self._node.settings.node, imported.checked_at, not_before=newest)
        yield from cached_images.put(repository, digest, imported.checked_at)
        entry = yield from _record(imported, known, current)
        yield from plan_follow_up(self._node, change_of(repository, image, (tag,)), imported.checked_at)
        yield from _plan_prefetch(repository, digest, imported.platforms, imported.checked_at)
        return entry

    def _put_untagged(
        self, repository: RepositoryName, image: StoredImage, platforms: tuple[Platform, ...], now: float
    ) -> Steps[None]:
        known = yield from images.find_origin(repository, image.manifest.digest)
        yield from self._put_image(repository, image, now)
        # An index takes its manifests with it when it is replicated.
        listed = yield from images.is_child(repository, image.manifest.digest)
        if not listed:
            if known is None:
                yield from record_import(self._node, repository, image.manifest.digest, None, now)
            yield from plan_follow_up(self._node, change_of(repository, image, ()), now)
            if image.parsed.children:
                yield from _plan_prefetch(repository, image.manifest.digest, platforms, now)

    def _put_image(self, repository: RepositoryName, image: StoredImage, now: float) -> Steps[None]:
        yield from ensure_repository(self._node, repository, now, CreationCause.PULL_THROUGH_CACHE)
        yield from images.put(repository, image, self._node.settings.node, now)
        yield from cached_images.put(repository, image.manifest.digest, now)


async def _image(manifest: StoredManifest) -> StoredImage:
    return StoredImage(manifest, await parse_beside(manifest.content, manifest.media_type), Origin.CACHE)


def _plan_prefetch(
    repository: RepositoryName, digest: Digest, platforms: tuple[Platform, ...], now: float
) -> Steps[None]:
    if platforms:
        yield from jobs.enqueue(PrefetchImage(repository, digest, platforms).to_job(), now)


def _record(imported: TagImport, known: CacheEntry | None, current: Digest | None) -> Steps[CacheEntry]:
    """Write down that a tag is what the upstream has; `current` is what it pointed to until now."""
    repository, tag, digest = imported.repository, imported.tag, imported.manifest.digest
    entry = _entry(imported, known)
    if current is not None and current != digest:
        served = yield from cache_history.find(repository, tag, digest)
        if served is not None and served.served_at is not None:
            entry = replace(entry, rolled_back_at=imported.checked_at)
        yield from cache_history.serve(repository, tag, current, known.changed_at if known else imported.checked_at)
    if current != digest:
        yield from cache_history.serve(repository, tag, digest, imported.checked_at)
    yield from cache_entries.put(entry)
    return entry


def _entry(imported: TagImport, known: CacheEntry | None) -> CacheEntry:
    now, digest = imported.checked_at, imported.manifest.digest
    used_at = imported.used_at if imported.used_at is not None else now
    if known is not None:
        used_at = max(known.used_at, imported.used_at or 0.0)
    return CacheEntry(
        repository=imported.repository,
        tag=imported.tag,
        upstream=imported.upstream,
        digest=digest,
        checked_at=now,
        changed_at=known.changed_at if known is not None and known.digest == digest else now,
        used_at=used_at,
        rolled_back_at=None if known is None else known.rolled_back_at,
        due_at=imported.due_at,
    )


def _keep_immutable(known: CacheEntry | None, imported: TagImport) -> Steps[CacheEntry | None]:
    if known is None:
        return None
    kept = replace(
        known,
        checked_at=imported.checked_at,
        failed_at=None,
        last_error=None,
        gone_at=None,
        pending_digest=None,
        drift_digest=imported.manifest.digest,
        due_at=imported.due_at,
    )
    yield from cache_entries.put(kept)
    return kept


def _observe(entry: CacheEntry, upstream: Digest) -> Steps[TagObservation]:
    repository = yield from repositories.find(entry.repository)
    seen = yield from cache_history.find(entry.repository, entry.tag, upstream)
    return TagObservation(
        cached=entry.digest,
        upstream=upstream,
        seen_since=None if seen is None else seen.first_seen_at,
        was_served=seen is not None and seen.served_at is not None,
        is_mutable=repository is None or repository.mutability.is_mutable(entry.tag),
    )


def _update(node: RegistryNode, entry: CacheEntry, failure: ReplicatorError | None) -> Steps[None]:
    known = yield from cache_entries.find(entry.repository, entry.tag)
    if known is not None and known.digest == entry.digest:
        if failure is not None and known.failed_at is None:
            at = entry.checked_at if entry.failed_at is None else entry.failed_at
            yield from record_failed_import(node, entry.repository, entry.tag, entry.digest, failure, at)
        yield from cache_entries.put(replace(entry, used_at=max(entry.used_at, known.used_at)))


def _remove_tag(entry: CacheEntry) -> Steps[bool]:
    known = yield from cache_entries.find(entry.repository, entry.tag)
    if known is None or known.digest != entry.digest:
        return False
    is_pinned = yield from cache_pins.holds(entry.repository, entry.digest)
    if is_pinned:
        return False
    yield from cache_entries.delete(entry.repository, entry.tag)
    return (yield from tags.remove(entry.repository, entry.tag, entry.digest))
