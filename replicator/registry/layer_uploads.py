"""Uploads of layers by parts, as the ECR API has them: the sessions of `/v2/`, with stricter rules (ECR §6).

A request that is refused leaves the session as it was, so that the client may send the right part, or the right digest,
instead. Only a layer that the repository holds already ends its session: nothing could come of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.actions import Action
from replicator.core.digest import CANONICAL_ALGORITHM, Digest, algorithm_of, is_digest
from replicator.core.errors import (
    EmptyUpload,
    LayerExists,
    LayerMismatch,
    LayerPartTooSmall,
    LimitExceeded,
    StorageError,
    UploadOutOfOrder,
)
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import blobs, uploads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicator.core.byte_range import ByteRange
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode
    from replicator.registry.uploads import Uploads
    from replicator.storage.blobs.port import Ingest, StoredBlob
    from replicator.storage.metadata.uploads import UploadSession


class LayerUploads:
    """Uploads through the ECR API. A session belongs to the repository and the caller that began it."""

    def __init__(self, node: RegistryNode, uploads: Uploads) -> None:
        self._node = node
        self._uploads = uploads

    async def start(self, principal: Principal, repository: RepositoryName) -> UploadSession:
        """Open a session. Raises an AccessError, RepositoryNotFound or a StorageError."""
        return await self._uploads.start(principal, repository, creates=False)

    async def add_part(
        self,
        principal: Principal,
        repository: RepositoryName,
        upload: str,
        place: ByteRange,
        length: int,
        content: AsyncIterator[bytes],
    ) -> int:
        """Add a part of `length` bytes that is said to lie at `place`, and return the number of bytes there are now.

        Raises UploadOutOfOrder for a part that does not follow the ones before, or is not as long as it should be,
        LimitExceeded for one too many, UploadNotFound, RepositoryNotFound, an AccessError or a StorageError; a full
        store drops the session.
        """
        await self._node.database.read(require_repository(self._node, repository))
        async with self._uploads.hold(principal, Action.UPLOAD_LAYER_PART, repository, upload) as session:
            ingest = await self._node.store.resume_ingest(session.id, session.algorithm)
            try:
                self._check_part(session, ingest.offset, place, length)
                await self._uploads.receive(ingest, content, None)
                await ingest.flush()  # what fails here can still be dropped; a suspended ingest cannot
            except StorageError:
                await self._uploads.drop(ingest, session)
                raise
            except BaseException:
                await ingest.suspend()
                raise
            await ingest.suspend()
            is_short, until = length < self._node.settings.quotas.min_layer_part_size, self._uploads.next_expiry()
            await self._node.database.write(lambda: uploads.add_part(session.id, is_short=is_short, until=until))
            return ingest.offset

    def _check_part(self, session: UploadSession, offset: int, place: ByteRange, length: int) -> None:
        quotas = self._node.settings.quotas
        if place.start != offset:
            raise UploadOutOfOrder(texts.layer_part_order(offset, place.start), offset=offset)
        if not 0 < length == place.length <= quotas.layer_part_size:
            text = texts.layer_part_length(place.length, length, quotas.layer_part_size)
            raise UploadOutOfOrder(text, offset=offset)
        is_public = self._node.settings.public_registry.covers(session.repository)
        most_parts, most_bytes = quotas.layer_limits(is_public=is_public)
        if session.parts >= most_parts:
            raise LimitExceeded(texts.layer_parts_exceeded(session.id, most_parts))
        limit = min(most_bytes, self._node.settings.max_blob_size or most_bytes)
        if offset + length > limit:
            raise LimitExceeded(texts.layer_size_exceeded(session.id, limit))

    async def finish(
        self, principal: Principal, repository: RepositoryName, upload: str, digests: Sequence[str]
    ) -> StoredBlob:
        """Check the bytes against every digest, and make the layer known in the repository.

        Raises EmptyUpload, LayerPartTooSmall, LayerMismatch, LayerExists, UploadNotFound, RepositoryNotFound, an
        AccessError or a StorageError.
        """
        await self._node.database.read(require_repository(self._node, repository))
        async with self._uploads.hold(principal, Action.COMPLETE_LAYER_UPLOAD, repository, upload) as session:
            ingest = await self._node.store.resume_ingest(session.id, session.algorithm)
            try:
                digest = await self._check_layer(session, ingest, digests)
                exists = await self._holds(repository, digest)
            except BaseException:
                await ingest.suspend()
                raise
            if exists:
                await self._uploads.drop(ingest, session)
                raise LayerExists(texts.LAYER_EXISTS)
            return await self._uploads.publish(ingest, principal, repository, digest, session.id)

    async def _check_layer(self, session: UploadSession, ingest: Ingest, digests: Sequence[str]) -> Digest:
        if not ingest.offset:
            raise EmptyUpload(texts.EMPTY_UPLOAD)
        if session.short_parts > 1:
            raise LayerPartTooSmall(texts.LAYER_PART_TOO_SMALL)
        for stated in digests:
            algorithm = algorithm_of(Digest(stated)) if is_digest(stated) else CANONICAL_ALGORITHM
            found = await ingest.digest(algorithm)
            if found != stated:
                raise LayerMismatch(texts.layer_mismatch(found, digests))
        return Digest(digests[0])

    async def _holds(self, repository: RepositoryName, digest: Digest) -> bool:
        found = await self._node.database.read(blobs.find_linked(repository, digest))
        # Whoever uploads what is here already may do so because it cannot be pulled any more.
        return found is not None and not await self._node.is_damaged(found)
