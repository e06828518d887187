"""Reading what a repository holds: manifests by tag or digest, blobs by digest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from replicator.core import texts
from replicator.core.actions import Action
from replicator.core.digest import algorithm_of, digest_of
from replicator.core.errors import (
    BlobArchived,
    BlobNotFound,
    CorruptBlob,
    ImageInaccessible,
    ManifestNotFound,
    RepositoryNotFound,
)
from replicator.core.names import Tag
from replicator.core.reference import Reference, as_digest
from replicator.registry.access import authorize, authorize_head
from replicator.storage.metadata import blobs, images, layers, repositories
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.core.cache_status import PullTrace
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Steps


_log = get_logger(__name__)


def check_pullable(manifest: StoredManifest) -> None:
    """Return if an image may be pulled; raise ImageInaccessible for an archived one."""
    if not manifest.is_active:
        raise ImageInaccessible(texts.IMAGE_NOT_FOUND)


class PullSource(Protocol):
    """Where an edge pulls from: a node's own content, or the cache in front of an upstream.

    A cache says in `trace` how it answered, also when it raises.
    """

    async def get_manifest(
        self,
        principal: Principal,
        repository: RepositoryName,
        reference: Reference,
        trace: PullTrace | None = None,
    ) -> StoredManifest:
        """Return the manifest; raises ManifestNotFound, RepositoryNotFound, an AccessError or an UpstreamError."""
        ...

    async def get_blob_size(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> int:
        """Return a blob's size in bytes; raises like `open_blob`."""
        ...

    async def open_blob(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> BlobContent:
        """Open a blob; raises BlobNotFound (a damaged one, too), RepositoryNotFound, AccessError, UpstreamError."""
        ...


class Pulls:
    """Pulls from the node's own content."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def get_manifest(
        self,
        principal: Principal,
        repository: RepositoryName,
        reference: Reference,
        trace: PullTrace | None = None,
    ) -> StoredManifest:
        """Return the exact bytes pushed under a tag or digest; see PullSource."""
        authorize(principal, Action.BATCH_GET_IMAGE, repository)
        manifest = await self.find_manifest(repository, reference)
        if manifest is None:
            await self._require_repository(repository)
            raise ManifestNotFound(texts.IMAGE_NOT_FOUND)
        check_pullable(manifest)
        return manifest

    async def find_manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        """Return the manifest if this node has it, asking nobody's permission; for the engines.

        An archived one is returned like every other. A damaged one counts as missing, until a push or a fetch puts it
        again.
        """
        index = self._node.manifest_index
        manifest = index.find(repository, reference)
        if manifest is not None:
            return manifest
        mark = index.mark
        manifest = await self._node.database.read(_resolve(repository, reference))
        if manifest is not None and digest_of(manifest.content, algorithm_of(manifest.digest)) != manifest.digest:
            _log.error("manifest is damaged", repository=repository, digest=manifest.digest)
            return None
        if manifest is not None:
            index.keep(repository, reference, manifest, len(manifest.content) + 512, mark)
        return manifest

    async def get_blob_size(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> int:
        """Return the size of a blob that the repository holds; see PullSource."""
        authorize_head(principal, repository)
        async with await self._open(repository, digest) as blob:
            # Opened, because a client that hears of a damaged blob does not push it, and nothing would repair it.
            return blob.size

    async def open_blob(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> BlobContent:
        """Open a blob that the repository holds; see PullSource."""
        authorize(principal, Action.GET_DOWNLOAD_URL_FOR_LAYER, repository)
        return await self._open(repository, digest)

    async def _open(self, repository: RepositoryName, digest: Digest) -> BlobContent:
        blob = await self._get_blob(repository, digest)
        try:
            return await self.read(blob)
        except CorruptBlob as error:
            raise BlobNotFound(f"repository {repository} has no blob {digest} that is whole") from error

    async def find_blob(self, repository: RepositoryName, digest: Digest) -> StoredBlob | None:
        """Return the blob if the repository holds it, asking nobody's permission; for the engines.

        One that only archived images have is returned like every other.
        """
        blob, _ = await self._look(repository, digest)
        return blob

    async def check_blob_pullable(self, repository: RepositoryName, digest: Digest) -> None:
        """Return if a blob may be pulled, be it here or not; raise BlobArchived where only archived images have it."""
        _, is_archived = await self._look(repository, digest)
        if is_archived:
            raise BlobArchived(f"repository {repository} has no blob {digest}")

    async def _look(self, repository: RepositoryName, digest: Digest) -> tuple[StoredBlob | None, bool]:
        """Return a blob, and whether only archived images have it. Only what can be pulled is remembered."""
        index = self._node.blob_index
        blob = index.find(repository, digest)
        if blob is not None:
            return blob, False
        mark = index.mark
        blob, is_archived = await self._node.database.read(_find_blob(repository, digest))
        if blob is not None and not is_archived:
            index.keep(repository, digest, blob, 1, mark)
        return blob, is_archived

    async def read(self, blob: StoredBlob) -> BlobContent:
        """Open stored bytes. Damaged ones are quarantined: not served again, and replaced by the next push or fill."""
        return await self._node.read_blob(blob)

    async def _get_blob(self, repository: RepositoryName, digest: Digest) -> StoredBlob:
        blob, is_archived = await self._look(repository, digest)
        if is_archived:
            raise BlobArchived(f"repository {repository} has no blob {digest}")
        if blob is None:
            await self._require_repository(repository)
            raise BlobNotFound(f"repository {repository} has no blob {digest}")
        return blob

    async def _require_repository(self, repository: RepositoryName) -> None:
        if await self._node.database.read(repositories.find(repository)) is None:
            raise RepositoryNotFound(texts.repository_not_found(repository, self._node.settings.node.account))


def _find_blob(repository: RepositoryName, digest: Digest) -> Steps[tuple[StoredBlob | None, bool]]:
    blob = yield from blobs.find_linked(repository, digest)
    return blob, (yield from layers.is_archived(repository, digest))


def _resolve(repository: RepositoryName, reference: Reference) -> Steps[StoredManifest | None]:
    digest = as_digest(reference)
    if digest is not None:
        return images.find(repository, digest)
    return images.find_by_tag(repository, Tag(reference))
