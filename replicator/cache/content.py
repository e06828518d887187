"""Cached and own content of a node, as what replication copies from."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.cache.pull_through import PullThrough
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.storage.metadata.images import StoredManifest


class PullThroughContent:
    """The ContentSource of a node with a cache: what its images refer to is fetched when it is not here yet."""

    def __init__(self, pull_through: PullThrough) -> None:
        self._pull_through = pull_through

    async def find_manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        """Return the manifest, or None when neither the repository nor its upstream has it; raises UpstreamError."""
        return await self._pull_through.find_manifest_for_engine(repository, reference)

    async def open_blob(self, repository: RepositoryName, digest: Digest) -> BlobContent:
        """Open a blob; raises BlobNotFound, CorruptBlob, StorageError or UpstreamError."""
        return await self._pull_through.open_blob_for_engine(repository, digest)
