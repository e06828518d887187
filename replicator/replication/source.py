"""What replication reads from: a node's own content, or the cache that is still fetching it.

Failures of an upstream that the source reads through become StorageUnavailable here: an UpstreamError always means the
destination.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from replicator.transfer.push_image import source_failures

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.storage.metadata.images import StoredManifest
    from replicator.transfer.push_image import ContentSource


class OwnContent:
    """The content of this node, as a copy reads it."""

    def __init__(self, source: ContentSource) -> None:
        self._source = source

    async def find_manifest(self, repository: RepositoryName, digest: Digest) -> StoredManifest | None:
        """Return a manifest, or None when the source does not have it. Raises StorageError."""
        with source_failures(f"manifest {digest}"):
            return await self._source.find_manifest(repository, digest)

    async def open_blob(self, repository: RepositoryName, digest: Digest) -> BlobContent:
        """Open a blob. Raises BlobNotFound, CorruptBlob or StorageError; reading it raises the latter two."""
        with source_failures(f"blob {digest}"):
            return _OwnBlob(await self._source.open_blob(repository, digest))


class _OwnBlob:
    """A blob whose reading fails with errors of the source."""

    def __init__(self, content: BlobContent) -> None:
        self.digest = content.digest
        self.size = content.size
        self._content = content

    async def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        with source_failures(f"blob {self.digest}"):
            async for piece in self._content.read(start, length):
                yield piece

    async def __aenter__(self) -> Self:
        await self._content.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._content.__aexit__(*exc_info)
