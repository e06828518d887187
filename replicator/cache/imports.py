"""Taking a fetched manifest in: one transaction stores the image, moves its tag, and plans what follows from it.

A tag is moved for the upstream only while it is the upstream's: while it points to nothing, or to what the cache last
set it to. A tag that somebody pushed in the meantime is theirs, and an immutable one stays where it is. The content
of the image is not needed for this: layers are fetched when somebody asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.core.jobs import JobKind
from replicator.core.manifest import parse_manifest
from replicator.core.replication import Origin
from replicator.core.revisions import NEVER
from replicator.core.templates import CreationCause
from replicator.registry.pushes import change_of, ensure_repository, plan_follow_up
from replicator.storage.metadata import cache_entries, images, repositories, tags
from replicator.storage.metadata.cache_entries import CacheEntry
from replicator.storage.metadata.images import StoredImage, StoredManifest

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps


@dataclass(frozen=True, slots=True)
class TagImport:
    """What an upstream says a tag is, as of `checked_at`."""

    repository: RepositoryName
    tag: Tag
    upstream: str
    manifest: StoredManifest
    checked_at: float


class Imports:
    """Writes what was learnt from upstreams. Every method raises StorageError when the database fails."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def put_tag(self, imported: TagImport) -> CacheEntry | None:
        """Store an image and point the tag to it.

        Return what is known of the tag now, with the digest it really has, or None when the tag is not the upstream's.
        """
        image = _image(imported.manifest)
        entry = await self._node.commit(imported.repository, lambda: self._put_tag(imported, image))
        self._node.announce_jobs(JobKind.REPLICATE)
        return entry

    async def put_untagged(self, repository: RepositoryName, manifest: StoredManifest) -> None:
        """Store an image that was asked for by its digest."""
        image, now = _image(manifest), self._node.clock.now()
        await self._node.commit(repository, lambda: self._put_untagged(repository, image, now))
        self._node.announce_jobs(JobKind.REPLICATE)

    async def may_move(self, repository: RepositoryName, tag: Tag) -> bool:
        """Tell whether the repository's mutability lets an existing tag move."""
        found = await self._node.database.read(repositories.find(repository))
        return found is None or found.mutability.is_mutable(tag)

    async def update(self, entry: CacheEntry) -> None:
        """Replace what is known of a tag, unless it was found to be another digest meanwhile."""
        await self._node.database.write(lambda: _update(entry))

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
            return (yield from _keep_immutable(known, imported.checked_at))
        newest = NEVER
        if current != digest:
            register = yield from tags.put(repository, tag, digest, self._node.settings.node, imported.checked_at)
            newest = register.revision
        yield from images.put(repository, image, self._node.settings.node, imported.checked_at, not_before=newest)
        entry = _entry(imported, known)
        yield from cache_entries.put(entry)
        yield from plan_follow_up(self._node, change_of(repository, image, (tag,)), imported.checked_at)
        return entry

    def _put_untagged(self, repository: RepositoryName, image: StoredImage, now: float) -> Steps[None]:
        yield from ensure_repository(self._node, repository, now, CreationCause.PULL_THROUGH_CACHE)
        yield from images.put(repository, image, self._node.settings.node, now)
        # An index takes its manifests with it when it is replicated.
        listed = yield from images.is_child(repository, image.manifest.digest)
        if not listed:
            yield from plan_follow_up(self._node, change_of(repository, image, ()), now)


def _image(manifest: StoredManifest) -> StoredImage:
    return StoredImage(manifest, parse_manifest(manifest.content, manifest.media_type), Origin.CACHE)


def _entry(imported: TagImport, known: CacheEntry | None) -> CacheEntry:
    now, digest = imported.checked_at, imported.manifest.digest
    unchanged = known is not None and known.digest == digest
    return CacheEntry(
        repository=imported.repository,
        tag=imported.tag,
        upstream=imported.upstream,
        digest=digest,
        checked_at=now,
        changed_at=known.changed_at if known is not None and unchanged else now,
        used_at=now,
    )


def _keep_immutable(known: CacheEntry | None, checked_at: float) -> Steps[CacheEntry | None]:
    if known is None:
        return None
    kept = replace(known, checked_at=checked_at, failed_at=None, last_error=None)
    yield from cache_entries.put(kept)
    return kept


def _update(entry: CacheEntry) -> Steps[None]:
    known = yield from cache_entries.find(entry.repository, entry.tag)
    if known is not None and known.digest == entry.digest:
        yield from cache_entries.put(replace(entry, used_at=max(entry.used_at, known.used_at)))
