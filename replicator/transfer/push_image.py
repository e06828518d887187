"""Copies one image, with everything it refers to, into another registry.

A manifest is put only after its content: blobs first, then the manifests of an index from the innermost out, then the
image itself together with its tag. Whoever reads the destination meanwhile therefore never finds a manifest without its
content, however the copy ends. What is there already is not sent again, and a copy that broke off is simply begun anew.
Bytes are streamed: an image of any size takes a few pieces of memory.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
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
    from replicator.upstream.client import ManifestHead

T = TypeVar("T")

PARALLEL_BLOBS = 4


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

    async def blob_exists(self, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether the repository has the blob."""
        ...

    async def manifest_exists(self, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether the repository has the manifest."""
        ...

    async def head_manifest(self, repository: RepositoryName, reference: Reference) -> ManifestHead:
        """Return what the repository has under a reference; raises UpstreamNotFound."""
        ...

    async def put_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        size: int,
        chunks: AsyncIterator[bytes | memoryview],
        *,
        discover: bool,
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
class CopiedImage:
    """An image whose content is at the destination, while the image itself is not published there yet."""

    repository: RepositoryName
    manifest: StoredManifest
    is_sparse: bool


@dataclass(slots=True)
class _Visit:
    """A manifest on the way through the graph."""

    manifest: StoredManifest
    parsed: Manifest
    children: Iterator[Digest]
    is_sparse: bool = field(default=False)


class ImagePush:
    """One copy of one image. `sent` counts the blob bytes that went out, also those of a copy that fails.

    `copy` may be cancelled or fail at any point and be begun again by another ImagePush; what had arrived is kept.
    """

    def __init__(
        self,
        source: ContentSource,
        destination: Destination,
        turns: BlobTurns | None = None,
        parallel: int = PARALLEL_BLOBS,
    ) -> None:
        self.sent = 0
        self._source = source
        self._destination = destination
        self._turns = turns or BlobTurns()
        self._parallel = parallel
        self._settled: set[Digest] = set()

    async def copy(self, repository: RepositoryName, digest: Digest) -> CopiedImage:
        """Bring everything that the image refers to, so that it can be published.

        Manifests of an index that the source does not have are passed over: whether an index may lack some is for the
        destination to say. Raises ManifestNotFound when the source does not have the image, BlobNotFound, CorruptBlob
        or a StorageError when it cannot give a part of it, and an UpstreamError when the destination fails.
        """
        root = await self._find(repository, digest)
        if root is None:
            raise ManifestNotFound(f"repository {repository} has no manifest {digest}")
        is_sparse = False
        async for visit in self._walk(repository, root):
            new = await self._copy_blobs(repository, visit.parsed)
            is_sparse = visit.is_sparse
            if visit.manifest.digest != digest:
                await self._put_child(repository, visit, is_new=new)
        return CopiedImage(repository, root, is_sparse)

    async def publish(self, image: CopiedImage, tag: Tag | None) -> bool:
        """Put the image, under a tag if one is given, and read back that it is there.

        Return whether the tag points to it; it does not where the destination accepts the image but leaves the tag with
        its owner. Raises UpstreamContent when the destination does not have what it accepted.
        """
        manifest, repository = image.manifest, image.repository
        tags = () if tag is None else (tag,)
        await self._put(repository, manifest.digest, manifest, is_sparse=image.is_sparse, tags=tags)
        if tag is None:
            await self._verify(image)
            return False
        if await self._tagged(repository, tag) == manifest.digest:
            return True
        if algorithm_of(manifest.digest) == CANONICAL_ALGORITHM:
            # The destination may not know tags beside a digest. An image of another algorithm cannot be put by its tag:
            # it would get another digest.
            await self._put(repository, tag, manifest, is_sparse=image.is_sparse)
        return await self._verify_tag(image, tag)

    # The graph

    async def _walk(self, repository: RepositoryName, root: StoredManifest) -> AsyncIterator[_Visit]:
        """Yield `root` and the manifests below it, each once, an index after its children."""
        seen, absent = {root.digest}, set[Digest]()
        path = [_visit(root)]
        while path:
            top = path[-1]
            digest = next(top.children, None)
            if digest is None:
                yield path.pop()
                continue
            if digest not in seen:
                seen.add(digest)
                child = await self._find(repository, digest)
                if child is None:
                    absent.add(digest)
                else:
                    path.append(_visit(child))
            top.is_sparse = top.is_sparse or digest in absent

    async def _find(self, repository: RepositoryName, digest: Digest) -> StoredManifest | None:
        with _source_failures(f"manifest {digest}"):
            return await self._source.find_manifest(repository, digest)

    # Blobs

    async def _copy_blobs(self, repository: RepositoryName, manifest: Manifest) -> bool:
        """Bring the blobs that the destination lacks; return whether it lacked one."""
        wanted = {blob.digest: blob for blob in manifest.blobs if blob.digest not in self._settled}
        sent = await for_each(wanted.values(), self._parallel, lambda blob: self._copy_blob(repository, blob))
        self._settled.update(wanted)
        return any(sent)

    async def _copy_blob(self, repository: RepositoryName, blob: Descriptor) -> bool:
        digest = blob.digest
        async with self._turns.of(digest):
            if await self._destination.blob_exists(repository, digest):
                return False
            content = await self._open(repository, blob)
            if content is None:
                return False
            async with content:
                if await self._destination.put_blob(repository, digest, content.size, _read(content), discover=True):
                    self.sent += content.size
            return True

    async def _open(self, repository: RepositoryName, blob: Descriptor) -> BlobContent | None:
        """Open a blob; None for a non-distributable layer that is not here, as it need not be."""
        with _source_failures(f"blob {blob.digest}"):
            try:
                return await self._source.open_blob(repository, blob.digest)
            except BlobNotFound:
                if blob.is_foreign:
                    return None
                raise

    # Manifests

    async def _put_child(self, repository: RepositoryName, visit: _Visit, *, is_new: bool) -> None:
        digest = visit.manifest.digest
        if is_new or not await self._destination.manifest_exists(repository, digest):
            await self._put(repository, digest, visit.manifest, is_sparse=visit.is_sparse)

    async def _put(
        self,
        repository: RepositoryName,
        reference: Reference,
        manifest: StoredManifest,
        *,
        is_sparse: bool,
        tags: Sequence[Tag] = (),
    ) -> None:
        content, media_type = manifest.content, manifest.media_type
        try:
            await self._destination.put_manifest(repository, reference, content, media_type, tags=tags)
        except UpstreamNotFound as error:
            if is_sparse:
                raise UpstreamRefused(
                    f"the destination refuses index {manifest.digest}, of which the source does not have every manifest"
                ) from error
            raise UpstreamContent(f"the destination lost content of {manifest.digest} during the copy") from error

    async def _verify(self, image: CopiedImage) -> None:
        if not await self._destination.manifest_exists(image.repository, image.manifest.digest):
            raise UpstreamContent(f"the destination accepted {image.manifest.digest} but does not have it")

    async def _verify_tag(self, image: CopiedImage, tag: Tag) -> bool:
        found = await self._tagged(image.repository, tag)
        if found is None:
            raise UpstreamContent(f"the destination accepted tag {tag} but does not have it")
        if found == image.manifest.digest:
            return True
        await self._verify(image)
        return False

    async def _tagged(self, repository: RepositoryName, tag: Tag) -> Digest | None:
        """Return what a tag points to at the destination."""
        try:
            return (await self._destination.head_manifest(repository, tag)).digest
        except UpstreamNotFound:
            return None


def _visit(manifest: StoredManifest) -> _Visit:
    parsed = parse_manifest(manifest.content, manifest.media_type)
    return _Visit(manifest, parsed, iter(parsed.children))


async def _read(content: BlobContent) -> AsyncIterator[bytes | memoryview]:
    with _source_failures(f"blob {content.digest}"):
        async for piece in content.read(0, content.size):
            yield piece


@contextmanager
def _source_failures(what: str) -> Iterator[None]:
    """Keep an upstream that the source reads through apart from the destination, whose failures are UpstreamErrors."""
    try:
        yield
    except UpstreamError as error:
        raise StorageUnavailable(f"the source cannot give {what}: {error}") from error


async def for_each(items: Iterable[T], limit: int, work: Callable[[T], Awaitable[bool]]) -> list[bool]:
    """Do `work` for every item, at most `limit` at a time; return the results in no particular order.

    After a failure no more is begun; what is under way is let end, since a blob half-sent is one sent for nothing. The
    first failure is raised then.
    """
    pending = list(items)
    pending.reverse()
    results: list[bool] = []
    failures: list[Exception] = []

    async def take() -> None:
        while pending:
            try:
                results.append(await work(pending.pop()))
            except Exception as error:  # noqa: BLE001 - raised below
                failures.append(error)
                pending.clear()

    async with asyncio.TaskGroup() as group:
        for _ in range(min(limit, len(pending))):
            group.create_task(take())
    if failures:
        raise failures[0]
    return results
