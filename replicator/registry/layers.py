"""Layers of a repository: whether they are there, and from where they can be had (ECR §6)."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import BlobNotFound, LayerInaccessible, LayerNotFound
from replicator.core.image_status import ImageStatus
from replicator.core.manifest import parse_manifest
from replicator.core.principal import UNRESTRICTED
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import blobs, layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.cache_status import PullTrace
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.layer_urls import LayerUrls
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import PullSource
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.layers import LayerReference
    from replicator.storage.metadata.statement import Steps

_UNSAID = "application/octet-stream"
"""The media type of a layer of which no image says more."""


class Availability(enum.StrEnum):
    """ECR's words."""

    AVAILABLE = "AVAILABLE"
    UNAVAILABLE = "UNAVAILABLE"
    ARCHIVED = "ARCHIVED"


@dataclass(frozen=True, slots=True)
class LayerState:
    """A layer as the repository knows it. The media type is what an image says of it, and bytes while none does."""

    digest: Digest
    availability: Availability
    size: int | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    digest: Digest
    blob: StoredBlob | None
    reference: LayerReference | None


class Layers:
    """Questions about the layers of one node's repositories."""

    def __init__(self, node: RegistryNode, pulls: PullSource, urls: LayerUrls) -> None:
        self._node = node
        self._pulls = pulls
        self._urls = urls

    async def check(self, repository: RepositoryName, digests: Sequence[Digest]) -> list[LayerState]:
        """Return the state of each layer; one that is damaged counts as missing. Raises RepositoryNotFound."""
        known = await self._node.database.read(self._look(repository, digests))
        return [await self._state(one) for one in known]

    def _look(self, repository: RepositoryName, digests: Sequence[Digest]) -> Steps[list[_Known]]:
        yield from require_repository(self._node, repository)
        found: list[_Known] = []
        for digest in digests:
            blob = yield from blobs.find_linked(repository, digest)
            reference = yield from layers.find_reference(repository, digest)
            found.append(_Known(digest, blob, reference))
        return found

    async def _state(self, known: _Known) -> LayerState:
        blob, reference = known.blob, known.reference
        if blob is None or await self._node.is_damaged(blob):
            return LayerState(known.digest, Availability.UNAVAILABLE)
        is_archived = reference is not None and reference.status is ImageStatus.ARCHIVED
        availability = Availability.ARCHIVED if is_archived else Availability.AVAILABLE
        return LayerState(known.digest, availability, blob.size, _media_type(reference, known.digest))

    async def get_url(
        self, principal: Principal, repository: RepositoryName, digest: Digest, origin: str | None = None
    ) -> str:
        """Return where a layer of an image can be had without credentials; fetched first, where the cache has to.

        `origin` is the address by which the caller reached this node.

        Raises LayerNotFound, LayerInaccessible where no image that can be pulled has it, RepositoryNotFound, an
        AccessError, an UpstreamError or a StorageError.
        """
        await self._check_accessible(repository, digest)
        try:
            await self._pulls.get_blob_size(principal, repository, digest)
        except BlobNotFound as error:
            raise LayerNotFound(texts.LAYER_NOT_FOUND) from error
        return await self._urls.sign(repository, digest, origin)

    async def open(self, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None) -> BlobContent:
        """Open a layer for whoever has its URL. Raises like `get_url`, but for an AccessError, and BlobNotFound."""
        await self._check_accessible(repository, digest)
        return await self._pulls.open_blob(UNRESTRICTED, repository, digest, trace)

    async def _check_accessible(self, repository: RepositoryName, digest: Digest) -> None:
        [known] = await self._node.database.read(self._look(repository, (digest,)))
        if known.reference is None and known.blob is None:
            raise LayerNotFound(texts.LAYER_NOT_FOUND)
        if known.reference is None or known.reference.status is not ImageStatus.ACTIVE:
            raise LayerInaccessible(texts.LAYER_INACCESSIBLE)


def _media_type(reference: LayerReference | None, digest: Digest) -> str:
    if reference is None:
        return _UNSAID
    manifest = parse_manifest(reference.content, reference.media_type)
    return next((blob.media_type for blob in manifest.blobs if blob.digest == digest), _UNSAID)
