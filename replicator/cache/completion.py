"""Having the whole of an image here: the manifests of its platforms, and all their blobs.

Everything comes by the ways that pulls take, so that a blob which somebody pulls at the same time is fetched once. A
blob is here when its last byte may be read, which is when all of it was verified, stored and linked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from replicator.core.errors import InvalidManifest, ManifestNotFound
from replicator.core.manifest import parse_manifest
from replicator.core.succession import needed_successors
from replicator.storage.metadata import blobs, images
from replicator.transfer.push_image import for_each
from replicator.upstream.large_manifests import parse_beside

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.manifest import Descriptor, Manifest
    from replicator.core.names import RepositoryName
    from replicator.core.platforms import Platform
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Steps

    Report = Callable[["Progress"], None]

_MAX_DEPTH = 4
"""Levels of indexes within indexes that are followed."""

_MAX_MANIFESTS = 1000
"""Manifests of one image; an index that lists more is no image that anybody wants whole."""

_MAX_BLOBS = 20_000
"""Blobs of one image, which are held in memory: a thousand manifests could name millions."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of an image is here: manifests, blobs and bytes of blobs, done and in all."""

    manifests: int = 0
    blobs_done: int = 0
    blobs: int = 0
    bytes_done: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Lack:
    """What of an image is not here. What lies below a missing manifest is not known, and not counted."""

    manifests: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether the image is complete."""
        return not self.manifests and not self.blobs


class Engine(Protocol):
    """The ways that pulls take, without anybody's permission; PullThrough is one."""

    async def find_manifest_for_engine(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        """Return a manifest that is here, or fetch it; None when there is none. Raises UpstreamError."""
        ...

    async def open_blob_for_engine(self, repository: RepositoryName, digest: Digest) -> BlobContent:
        """Open a blob that is here or on its way; raises BlobNotFound or UpstreamError."""
        ...


@dataclass(slots=True)
class _Work:
    """One image on its way."""

    repository: RepositoryName
    platforms: Sequence[Platform]
    report: Report | None
    only: Collection[Digest] | None = None
    """The manifests of the outermost index that are wanted; None: those of the platforms."""
    progress: Progress = field(default_factory=Progress)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    seen: set[Digest] = field(default_factory=set)

    def note(self, **changed: int) -> None:
        self.progress = replace(self.progress, **changed)
        if self.report is not None:
            self.report(self.progress)


class Completion:
    """Completes images of one node."""

    def __init__(self, node: RegistryNode, engine: Engine, blobs_at_once: int = 3) -> None:
        self._node = node
        self._engine = engine
        self._blobs_at_once = blobs_at_once

    async def complete(
        self,
        repository: RepositoryName,
        manifest: StoredManifest,
        platforms: Sequence[Platform] = (),
        report: Report | None = None,
    ) -> Progress:
        """Have an image here, of an index the manifests of `platforms` (none: all of them); return what that is.

        `report` is told of every step, and must be quick. Raises ManifestNotFound or BlobNotFound when the upstream
        lacks a part, UpstreamError and StorageError when it fails, InvalidManifest for an index without end. What was
        fetched until then stays; cancelling it stops no transfer that is under way.
        """
        return await self._do(_Work(repository, platforms, report), manifest)

    async def complete_successor(self, repository: RepositoryName, manifest: StoredManifest, before: Digest) -> None:
        """Have of an image here what is here of the image `before`, whose place it takes; raises like `complete`."""
        predecessor = await self._node.database.read(images.find(repository, before))
        if predecessor is None:
            return
        old = parse_manifest(predecessor.content, predecessor.media_type)
        whole = [one for one in _parts(before, old) if (await self.find_lack(repository, one)).is_nothing]
        if not whole:
            return
        new = parse_manifest(manifest.content, manifest.media_type)
        only = needed_successors(old, new, whole) if new.manifests else None
        await self._do(_Work(repository, (), None, only), manifest)

    async def _do(self, work: _Work, manifest: StoredManifest) -> Progress:
        await self._walk(work, manifest, 0)
        work.note(blobs=len(work.blobs), bytes=sum(blob.size for blob in work.blobs.values()))
        await for_each(work.blobs.values(), self._blobs_at_once, lambda blob: self._fetch(work, blob))
        return work.progress

    async def find_lack(self, repository: RepositoryName, digest: Digest, platforms: Sequence[Platform] = ()) -> Lack:
        """Return what of an image is not here, of an index for `platforms` (none: all of it); asks no upstream."""
        manifests: list[Digest] = []
        lacking: dict[Digest, None] = {}
        waiting, seen = [digest], {digest}
        while waiting:
            one = waiting.pop()
            found = await self._node.database.read(_look(repository, one))
            if found is None:
                manifests.append(one)
                continue
            lacking.update(dict.fromkeys(found.blobs[: _MAX_BLOBS - len(lacking)]))
            wanted = [child for child in _children(found.manifest, platforms) if child not in seen]
            if len(seen) + len(wanted) <= _MAX_MANIFESTS:
                seen.update(wanted)
                waiting.extend(wanted)
            await asyncio.sleep(0)  # reads of SQLite hold up the loop
        return Lack(tuple(sorted(manifests)), tuple(lacking))

    async def _walk(self, work: _Work, manifest: StoredManifest, depth: int) -> None:
        """Have the manifests here, and gather the blobs that they name."""
        if depth > _MAX_DEPTH or len(work.seen) >= _MAX_MANIFESTS:
            raise InvalidManifest(f"{manifest.digest} is nested too deeply, or lists too many manifests")
        work.seen.add(manifest.digest)
        parsed = await parse_beside(manifest.content, manifest.media_type)
        work.blobs.update((blob.digest, blob) for blob in parsed.blobs if not blob.is_foreign)
        if len(work.blobs) > _MAX_BLOBS:
            raise InvalidManifest(f"{manifest.digest} belongs to an image of more than {_MAX_BLOBS} blobs")
        work.note(manifests=len(work.seen))
        for digest in _children(parsed, work.platforms):
            is_wanted = depth > 0 or work.only is None or digest in work.only
            if is_wanted and digest not in work.seen:
                await self._walk(work, await self._child(work, digest), depth + 1)

    async def _child(self, work: _Work, digest: Digest) -> StoredManifest:
        found = await self._engine.find_manifest_for_engine(work.repository, digest)
        if found is None:
            raise ManifestNotFound(f"the upstream of {work.repository} has no manifest {digest}, which its index lists")
        return found

    async def _fetch(self, work: _Work, blob: Descriptor) -> None:
        if not await self._is_here(work.repository, blob):
            async with await self._engine.open_blob_for_engine(work.repository, blob.digest) as content:
                await self._drain(work, content)
        elif blob.size:
            work.note(bytes_done=work.progress.bytes_done + blob.size)
        work.note(blobs_done=work.progress.blobs_done + 1)

    async def _is_here(self, repository: RepositoryName, blob: Descriptor) -> bool:
        found = await self._node.database.read(blobs.find_linked(repository, blob.digest))
        return found is not None and not await self._node.is_damaged(found)

    async def _drain(self, work: _Work, content: BlobContent) -> None:
        """Wait for the last byte; somebody who wants to see progress reads them all."""
        start = 0 if work.report is not None else max(0, content.size - 1)
        async for piece in content.read(start, content.size - start):
            work.note(bytes_done=work.progress.bytes_done + len(piece))
        if start:
            work.note(bytes_done=work.progress.bytes_done + start)


@dataclass(frozen=True, slots=True)
class _Found:
    """A manifest that is here, with the blobs that it names and that are not."""

    manifest: Manifest
    blobs: tuple[Digest, ...]


def _look(repository: RepositoryName, digest: Digest) -> Steps[_Found | None]:
    stored = yield from images.find(repository, digest)
    if stored is None:
        return None
    parsed = parse_manifest(stored.content, stored.media_type)
    return _Found(parsed, (yield from blobs.missing(repository, parsed.required_blobs)))


def _parts(digest: Digest, manifest: Manifest) -> Sequence[Digest]:
    """Return what of an image can be whole by itself: the manifests of an index, or else the image."""
    return list(_children(manifest, ()))[:_MAX_MANIFESTS] or [digest]


def _children(manifest: Manifest, platforms: Sequence[Platform]) -> Iterator[Digest]:
    """Yield the manifests of an index that belong to one of `platforms`, each once."""
    wanted = (
        child.digest
        for child in manifest.manifests
        if not platforms or any(platform.matches(child.platform) for platform in platforms)
    )
    return iter(dict.fromkeys(wanted))
