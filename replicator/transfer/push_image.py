"""Copies one image, with everything it refers to, into a registry of somebody else, and proves that it is there.

    blobs --each read back--> manifests, innermost first, each read back --> the image --> its tag, read back

A manifest is put only after its content, and a tag only after the image. Whoever reads the destination meanwhile
therefore never finds a manifest without its content, however the copy ends. Nothing is taken on a registry's word: a
blob is there when its last byte can be fetched, a manifest and a tag when what is fetched has the digest. What is
there already is not sent again, and a copy that broke off is simply begun anew. Blobs are streamed: an image of any
size takes a few pieces of memory, besides its manifests.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Protocol, TypeVar
from weakref import WeakValueDictionary

from replicator.core.digest import CANONICAL_ALGORITHM, Digest, algorithm_of
from replicator.core.errors import (
    BlobNotFound,
    ManifestNotFound,
    StorageUnavailable,
    UpstreamContent,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
)
from replicator.core.manifest import Descriptor, Manifest, parse_manifest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence

    from replicator.core.content import BlobContent
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.reference import Reference
    from replicator.storage.metadata.images import StoredManifest

T = TypeVar("T")

PARALLEL_BLOBS = 4
_PARALLEL_MANIFESTS = 8


class IncompleteIndexRefused(UpstreamRefused):
    """the destination wants every manifest of an index, and some are left out."""


class ContentSource(Protocol):
    """Where an image is copied from: a node's own content, or the cache that is still fetching it."""

    async def find_manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        """Return the manifest, or None when the source does not have it."""
        ...

    async def open_blob(self, repository: RepositoryName, digest: Digest) -> BlobContent:
        """Open a blob; raises BlobNotFound when the source does not have it, CorruptBlob, or an UpstreamError."""
        ...


class Destination(Protocol):
    """Where an image is copied to: the part of an upstream client that a copy needs."""

    async def holds_blob(self, repository: RepositoryName, digest: Digest, size: int) -> bool:
        """Tell whether the repository can give the blob; raises UpstreamContent when it gives another."""
        ...

    async def holds_manifest(self, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether the repository can give the manifest; raises UpstreamContent when it gives another."""
        ...

    async def find_tag(self, repository: RepositoryName, tag: Tag) -> Digest | None:
        """Return the digest of what the repository gives under a tag, or None when it gives nothing."""
        ...

    async def put_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        size: int,
        read_from: Callable[[int], AsyncIterator[bytes | memoryview]],
        mount_from: RepositoryName | None = None,
        *,
        discover: bool = False,
    ) -> bool:
        """Put a blob; return False when it could be mounted, with `discover` from anywhere, and nothing was sent."""
        ...

    async def put_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        content: bytes,
        media_type: str,
        *,
        tags: Sequence[Tag] = (),
    ) -> None:
        """Put a manifest, under tags as well where the destination knows how to (distribution-spec end-7b)."""
        ...


class BlobTurns:
    """One copy of a blob to a destination at a time, so that images which share a blob send it once.

    Whoever comes second waits, and then finds the blob there or mounts it.
    """

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[Digest, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, digest: Digest) -> AsyncIterator[None]:
        """Hold the turn of a blob."""
        lock = self._locks.setdefault(digest, asyncio.Lock())
        async with lock:
            yield


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """How an image is copied.

    `target` is the repository at the destination (None: the same name). Manifests of an index that `wants` says no to
    are left out, and the index is not changed for it. `find_mount` names a repository of the destination that may have
    a blob already.
    """

    target: RepositoryName | None = None
    wants: Callable[[Descriptor], bool] = lambda _: True
    find_mount: Callable[[Digest], Awaitable[RepositoryName | None]] | None = None
    parallel: int = PARALLEL_BLOBS


@dataclass(frozen=True, slots=True)
class CopiedImage:
    """An image whose content is at the destination, while the image itself is not published there yet.

    `manifests` are the digests of all that were copied, the image's own last.
    """

    target: RepositoryName
    manifest: StoredManifest
    manifests: tuple[Digest, ...]
    is_sparse: bool


@dataclass(slots=True)
class _Visit:
    """A manifest on the way through the graph; its `height` is above those of all manifests below it."""

    manifest: StoredManifest
    parsed: Manifest
    children: Iterator[Descriptor]
    is_sparse: bool = field(default=False)
    height: int = 0


class ImagePush:
    """One copy of one image. `sent` counts the blob bytes that went out, also those of a copy that fails.

    Every method may be cancelled or fail at any point and be begun again by another ImagePush; what had arrived is
    kept. They raise UpstreamContent when the destination does not have what it accepted.
    """

    def __init__(
        self,
        source: ContentSource,
        destination: Destination,
        turns: BlobTurns | None = None,
        options: CopyOptions | None = None,
    ) -> None:
        self.sent = 0
        self._source = source
        self._destination = destination
        self._turns = turns or BlobTurns()
        self._options = options or CopyOptions()
        self._settled: set[Digest] = set()

    async def copy(self, repository: RepositoryName, digest: Digest) -> CopiedImage:
        """Bring everything that the image refers to, so that it can be published.

        Manifests of an index that the source does not have, or that are not wanted, are passed over: whether an index
        may lack some is for the destination to say (IncompleteIndexRefused). Raises ManifestNotFound when the source
        does not have the image, BlobNotFound, CorruptBlob or a StorageError when it cannot give a part of it, and an
        UpstreamError when the destination fails.
        """
        root = await self._find(repository, digest)
        if root is None:
            raise ManifestNotFound(f"repository {repository} has no manifest {digest}")
        target = self._options.target or repository
        visits = [visit async for visit in self._walk(repository, root)]
        await self._copy_blobs(repository, target, visits)
        below = sorted(visits[:-1], key=lambda visit: visit.height)
        for _, level in groupby(below, key=lambda visit: visit.height):
            await for_each(level, _PARALLEL_MANIFESTS, lambda visit: self._settle(target, visit))
        manifests = tuple(visit.manifest.digest for visit in visits)
        return CopiedImage(target, root, manifests, visits[-1].is_sparse)

    async def publish(self, image: CopiedImage) -> None:
        """Put the image, without a tag, and read it back. Raises UpstreamError."""
        if not await self._is_there(image.target, image.manifest.digest):
            await self._put_and_confirm(image.target, image.manifest, is_sparse=image.is_sparse)

    async def set_tag(self, image: CopiedImage, tag: Tag) -> None:
        """Point a tag to a published image, and read it back.

        Raises UpstreamRefused when the destination does not let the tag move, UpstreamContent when it says that it did
        and the tag gives something else.
        """
        target, manifest = image.target, image.manifest
        if await self._destination.find_tag(target, tag) == manifest.digest:
            return
        if algorithm_of(manifest.digest) == CANONICAL_ALGORITHM:
            await self._put(target, tag, manifest, is_sparse=image.is_sparse)
        else:
            # By its tag it would get another digest.
            await self._put(target, manifest.digest, manifest, is_sparse=image.is_sparse, tags=(tag,))
        found = await self._destination.find_tag(target, tag)
        if found != manifest.digest:
            raise UpstreamContent(f"the destination accepted tag {tag} for {manifest.digest} but gives {found}")

    # The graph

    async def _walk(self, repository: RepositoryName, root: StoredManifest) -> AsyncIterator[_Visit]:
        """Yield `root` and the manifests below it, each once, an index after its children."""
        heights: dict[Digest, int] = {}
        absent = set[Digest]()
        path = [_visit(root)]
        while path:
            top = path[-1]
            child = next(top.children, None)
            if child is None:
                heights[top.manifest.digest] = top.height
                yield path.pop()
            elif not self._options.wants(child):
                top.is_sparse = True
                continue
            elif child.digest not in heights and child.digest not in absent:
                found = await self._find(repository, child.digest)
                if found is None:
                    absent.add(child.digest)
                else:
                    top.children = _again(child, top.children)
                    path.append(_visit(found))
                    continue
            if child is not None:
                top.is_sparse = top.is_sparse or child.digest in absent
                top.height = max(top.height, heights.get(child.digest, -1) + 1)

    async def _find(self, repository: RepositoryName, digest: Digest) -> StoredManifest | None:
        with source_failures(f"manifest {digest}"):
            return await self._source.find_manifest(repository, digest)

    # Blobs

    async def _copy_blobs(self, repository: RepositoryName, target: RepositoryName, visits: Sequence[_Visit]) -> None:
        """Bring the blobs that the destination lacks."""
        blobs = (blob for visit in visits for blob in visit.parsed.blobs)
        wanted = {blob.digest: blob for blob in blobs if blob.digest not in self._settled}
        await for_each(wanted.values(), self._options.parallel, lambda blob: self._copy_blob(repository, target, blob))
        self._settled.update(wanted)

    async def _copy_blob(self, repository: RepositoryName, target: RepositoryName, blob: Descriptor) -> None:
        async with self._turns.of(blob.digest):
            if await self._has_blob(target, blob):
                return
            content = await self._open(repository, blob)
            if content is None:
                return
            async with content:
                await self._send_blob(target, content)

    async def _has_blob(self, target: RepositoryName, blob: Descriptor) -> bool:
        try:
            return await self._destination.holds_blob(target, blob.digest, blob.size)
        except UpstreamContent:
            return False  # what it has is no use: it is sent again, and looked at again

    async def _send_blob(self, target: RepositoryName, content: BlobContent) -> None:
        digest, find_mount = content.digest, self._options.find_mount
        mount_from = None if find_mount is None else await find_mount(digest)
        is_sent = await self._destination.put_blob(
            target,
            digest,
            content.size,
            lambda start: _read(content, start),
            mount_from,
            discover=mount_from is None,
        )
        if is_sent:
            self.sent += content.size
        if not await self._destination.holds_blob(target, digest, content.size):
            raise UpstreamContent(f"the destination accepted blob {digest} but does not have it")

    async def _open(self, repository: RepositoryName, blob: Descriptor) -> BlobContent | None:
        """Open a blob; None for a non-distributable layer that is not here, as it need not be."""
        with source_failures(f"blob {blob.digest}"):
            try:
                return await self._source.open_blob(repository, blob.digest)
            except BlobNotFound:
                if blob.is_foreign:
                    return None
                raise

    # Manifests

    async def _settle(self, target: RepositoryName, visit: _Visit) -> None:
        if not await self._is_there(target, visit.manifest.digest):
            await self._put_and_confirm(target, visit.manifest, is_sparse=visit.is_sparse)

    async def _is_there(self, target: RepositoryName, digest: Digest) -> bool:
        try:
            return await self._destination.holds_manifest(target, digest)
        except UpstreamContent:
            return False  # as with a blob

    async def _put_and_confirm(self, target: RepositoryName, manifest: StoredManifest, *, is_sparse: bool) -> None:
        await self._put(target, manifest.digest, manifest, is_sparse=is_sparse)
        if not await self._destination.holds_manifest(target, manifest.digest):
            raise UpstreamContent(f"the destination accepted {manifest.digest} but does not have it")

    async def _put(
        self,
        target: RepositoryName,
        reference: Reference,
        manifest: StoredManifest,
        *,
        is_sparse: bool,
        tags: Sequence[Tag] = (),
    ) -> None:
        content, media_type = manifest.content, manifest.media_type
        try:
            await self._destination.put_manifest(target, reference, content, media_type, tags=tags)
        except (UpstreamNotFound, UpstreamRefused) as error:
            if is_sparse:
                raise IncompleteIndexRefused(
                    f"the destination refuses index {manifest.digest} without all of its manifests: {error}"
                ) from error
            if isinstance(error, UpstreamRefused):
                raise
            raise UpstreamContent(f"the destination lost content of {manifest.digest} during the copy") from error


def _visit(manifest: StoredManifest) -> _Visit:
    parsed = parse_manifest(manifest.content, manifest.media_type)
    return _Visit(manifest, parsed, iter(parsed.manifests))


def _again(first: Descriptor, rest: Iterator[Descriptor]) -> Iterator[Descriptor]:
    """Yield a child once more before the rest, so that its index hears of it when it was visited."""
    yield first
    yield from rest


async def _read(content: BlobContent, start: int) -> AsyncIterator[bytes | memoryview]:
    with source_failures(f"blob {content.digest}"):
        async for piece in content.read(start, content.size - start):
            yield piece


@contextmanager
def source_failures(what: str) -> Iterator[None]:
    """Keep an upstream that the source reads through apart from the destination, whose failures are UpstreamErrors."""
    try:
        yield
    except UpstreamError as error:
        raise StorageUnavailable(f"the source cannot give {what}: {error}") from error


async def for_each(items: Iterable[T], limit: int, work: Callable[[T], Awaitable[None]]) -> None:
    """Do `work` for every item, at most `limit` at a time, in about the order given.

    After a failure no more is begun; what is under way is let end, since a blob half-sent is one sent for nothing. The
    first failure is raised then.
    """
    pending = list(items)
    pending.reverse()
    failures: list[Exception] = []

    async def take() -> None:
        while pending:
            try:
                await work(pending.pop())
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                pending.clear()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(limit, len(pending))):
            group.create_task(take())
    if failures:
        raise failures[0]
