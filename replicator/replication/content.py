"""A node's own content, as what replication copies from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.errors import BlobNotFound

if TYPE_CHECKING:
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.pulls import Pulls
    from replicator.storage.metadata.images import StoredManifest


class NodeContent:
    """The ContentSource of a node without a cache: what its repositories hold, asking nobody's permission."""

    def __init__(self, pulls: Pulls) -> None:
        self._pulls = pulls

    async def find_manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        """Return the manifest, or None when the repository does not hold it."""
        return await self._pulls.find_manifest(repository, reference)

    async def open_blob(self, repository: RepositoryName, digest: Digest) -> BlobContent:
        """Open a blob; raises BlobNotFound when the repository does not hold it, or CorruptBlob."""
        blob = await self._pulls.find_blob(repository, digest)
        if blob is None:
            raise BlobNotFound(f"repository {repository} has no blob {digest}")
        return await self._pulls.read(blob)
