"""Serves what replication is still to bring: a pull of it fetches it from the source at once, and keeps it.

    pull --not here--> sources' rules --image--> served
                           |
    pull of its blobs --> one fill each, read as it arrives --> linked here
                                        all of them here --> delivered to ourselves, as if the source had sent it

The image gets the source's revision, so that the delivery that comes later changes nothing, and what was deleted here
stays deleted. Only names for which a source is configured are asked for, after the caller's own access was checked; a
source shows only what its rules send here. A source that is down costs a short wait, and then the honest 404 of here.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.delivery import ImageOutcome
from replicator.core.errors import (
    BlobArchived,
    BlobNotFound,
    CorruptBlob,
    ImageInaccessible,
    ManifestNotFound,
    ReplicatorError,
    RepositoryNotFound,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamUnavailable,
)
from replicator.core.peer_messages import Delivery
from replicator.core.principal import Principal, PrincipalKind
from replicator.core.reference import as_digest
from replicator.core.templates import CreationCause
from replicator.registry.access import authorize, authorize_head
from replicator.registry.repository_creation import ensure_repository
from replicator.replication.early_images import EarlyImage, EarlyImages, EarlySource, early_image
from replicator.replication.early_lookup import EarlyLookup, ReadThroughLimits
from replicator.storage.metadata import blobs, images
from replicator.telemetry.logs import get_logger
from replicator.transfer.fill_registry import FillRegistry
from replicator.transfer.fill_source import FillLimits, FillSource
from replicator.transfer.push_image import for_each

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.core.cache_status import PullTrace
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import PullSource
    from replicator.registry.replicas import Replicas
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Steps
    from replicator.transfer.fill import Fill

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A blob of a source's repository `there`, to be linked in the repository `here`."""

    source: EarlySource
    there: RepositoryName
    here: RepositoryName
    digest: Digest
    size: int | None = None

    @property
    def lane(self) -> str:
        """What the fills call the source: by repository, since what one may have must be proven for every other."""
        return f"{self.source.node} {self.here}"


class ReadThrough:
    """A `PullSource` in front of another one. Close it before its clients and stores, and before what is behind it."""

    def __init__(
        self,
        node: RegistryNode,
        behind: PullSource,
        replicas: Replicas,
        sources: Callable[[], Sequence[EarlySource]],
        limits: ReadThroughLimits | None = None,
        fill_limits: FillLimits | None = None,
    ) -> None:
        self._node = node
        self._behind = behind
        self._replicas = replicas
        self._limits = limits or ReadThroughLimits()
        self._lookup = EarlyLookup(node, replicas, sources, self._limits)
        self._images = EarlyImages(node.clock)
        fill_limits = fill_limits or FillLimits(max_blob_size=node.settings.max_blob_size)
        self._fills = FillRegistry(node.store, node.clock, fill_limits)
        node.keep_ingests(self._fills.kept_ingests)
        self._keeping: dict[tuple[RepositoryName, Digest], asyncio.Task[None]] = {}
        self._closed = False

    async def get_manifest(
        self,
        principal: Principal,
        repository: RepositoryName,
        reference: Reference,
        trace: PullTrace | None = None,
    ) -> StoredManifest:
        """Return a manifest that is here, or that a source will bring; see PullSource."""
        authorize(principal, Action.BATCH_GET_IMAGE, repository)
        try:
            return await self._behind.get_manifest(principal, repository, reference, trace)
        except ImageInaccessible:
            raise  # it is here: nobody else is asked for it
        except (ManifestNotFound, RepositoryNotFound):
            if not self._may_ask(principal, repository):
                raise
            manifest = await self._find_manifest(repository, reference)
            if manifest is None:
                raise
            return manifest

    async def get_blob_size(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> int:
        """Return the size of a blob that is here; one of an early image is fetched first; see PullSource.

        Whoever hears that a blob is here does not push it, so it must be.
        """
        authorize_head(principal, repository)
        try:
            return await self._behind.get_blob_size(principal, repository, digest, trace)
        except BlobArchived:
            raise  # it is here: nobody else is asked for it
        except (BlobNotFound, RepositoryNotFound):
            image = self._images.find_blob(repository, digest) if self._may_ask(principal, repository) else None
            if image is None or await self._is_deleted(image):
                raise
            await self._fetch(image, digest)
            return await self._behind.get_blob_size(principal, repository, digest, trace)

    async def open_blob(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> BlobContent:
        """Open a blob that is here, or that a source has, as it arrives; see PullSource."""
        authorize(principal, Action.GET_DOWNLOAD_URL_FOR_LAYER, repository)
        try:
            return await self._behind.open_blob(principal, repository, digest, trace)
        except BlobArchived:
            raise
        except (BlobNotFound, RepositoryNotFound):
            if not self._may_ask(principal, repository):
                raise
            content = await self._find_blob(repository, digest)
            if content is None:
                raise
            return content

    async def idle(self) -> None:
        """Return when nothing is being asked for, fetched or kept."""
        while self._keeping or len(self._fills):
            if self._keeping:
                await asyncio.wait(tuple(self._keeping.values()))
            await self._fills.idle()
        await self._lookup.idle()

    async def close(self) -> None:
        """Give up what is under way. Nothing of a blob that was arriving is left in the store."""
        self._closed = True
        await self._lookup.close()
        for task in self._keeping.values():
            task.cancel()
        if self._keeping:
            await asyncio.wait(tuple(self._keeping.values()))
        await self._fills.close()

    def _may_ask(self, principal: Principal, repository: RepositoryName) -> bool:
        """Tell whether a pull may be passed on: not a node's, which asks what is here, lest two ask each other."""
        return principal.kind is not PrincipalKind.NODE and self._lookup.covers(repository)

    # Manifests

    async def _find_manifest(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        digest = as_digest(reference)
        known = None if digest is None else self._images.find_manifest(repository, digest)
        if known is not None and digest is not None and not await self._is_deleted(known, digest):
            return known.manifests[digest]
        found = await self._lookup.find(repository, reference)
        if found is None:
            return None
        self._images.put(found.image)
        if found.is_complete:
            self._keep(found.image)
        return found.image.root

    async def _is_deleted(self, image: EarlyImage, digest: Digest | None = None) -> bool:
        """Tell whether an early image, or a manifest of it, was deleted here since the source had it."""
        wanted = {image.digest, digest or image.digest}
        for one in wanted:
            register = await self._node.database.read(images.find_register(image.repository, one))
            if register is not None and not register.is_present and register.revision >= image.delivery.revision:
                self._images.forget(image)
                return True
        return False

    # Blobs

    async def _find_blob(self, repository: RepositoryName, digest: Digest) -> BlobContent | None:
        image = self._images.find_blob(repository, digest)
        if image is None:
            return await self._find_stray(repository, digest)
        if await self._is_deleted(image):
            return None
        self._keep(image)
        try:
            return await self._open(_wanted(image, digest))
        except (UpstreamNotFound, UpstreamDenied):
            return None

    async def _find_stray(self, repository: RepositoryName, digest: Digest) -> BlobContent | None:
        """Open a blob of which no early image is known: its manifest is here, or was served before a restart.

        Only a source that calls the repository as we do can be asked.
        """
        if self._lookup.is_missed(repository, digest):
            return None
        for source in self._lookup.candidates(repository):
            try:
                async with asyncio.timeout(self._limits.wait):
                    return await self._open(_Wanted(source, repository, repository, digest))
            except (TimeoutError, UpstreamUnavailable):
                self._lookup.note_silent(source)
            except UpstreamError:
                continue  # it says no
        self._lookup.note_miss(repository, digest)
        return None

    async def _fetch(self, image: EarlyImage, digest: Digest) -> None:
        """Have a blob of an early image here. Raises BlobNotFound, UpstreamError or StorageError."""
        try:
            async with await self._open(_wanted(image, digest)) as content:
                # Its last byte comes when the whole is verified, stored and linked.
                async for _ in content.read(max(0, content.size - 1), min(1, content.size)):
                    pass
        except (UpstreamNotFound, UpstreamDenied) as error:
            raise BlobNotFound(f"the source of {image.repository} has no blob {digest}") from error

    async def _open(self, wanted: _Wanted) -> BlobContent:
        """Open a blob that is here, or follow the fill that brings it, or start one."""
        while True:
            fill = self._fills.find(wanted.lane, wanted.digest)
            if fill is not None:
                return self._node.readings.count(await fill.open())
            ended = self._fills.ended
            blob = await self._node.database.read(blobs.find_linked(wanted.here, wanted.digest))
            if blob is not None:
                with contextlib.suppress(CorruptBlob):
                    return await self._node.read_blob(blob)
            if self._fills.ended == ended:
                # Nothing came in while the database was asked, so it is really not here.
                return await self._start(wanted).open()

    def _start(self, wanted: _Wanted) -> Fill:
        open_from = partial(wanted.source.peer.open_blob, wanted.there, wanted.digest)
        fetched = FillSource((open_from,), wanted.size, _nothing)
        return self._fills.start(wanted.lane, wanted.digest, fetched, partial(self._publish, wanted.here))

    async def _publish(self, repository: RepositoryName, blob: StoredBlob) -> StoredBlob:
        """Make a blob readable here."""
        now = self._node.clock.now()
        return await self._node.make_known(
            blob, lambda: self._node.commit(repository, lambda: self._record(repository, blob, now))
        )

    def _record(self, repository: RepositoryName, blob: StoredBlob, now: float) -> Steps[StoredBlob]:
        yield from blobs.record(blob, now)
        yield from ensure_repository(self._node, repository, now, CreationCause.REPLICATION)
        yield from blobs.link(repository, blob.digest, now)
        return (yield from blobs.find(blob.digest)) or blob

    # Keeping

    def _keep(self, image: EarlyImage) -> None:
        """See to it that an image stays here, unless somebody sees to it."""
        key = (image.repository, image.digest)
        if key in self._keeping or self._closed:
            return
        # Owned here and not in a TaskGroup: it must outlive the pull that happened to come first.
        task = asyncio.create_task(self._keep_all(image), name=f"keep {image.digest}")  # noqa: TID251 - see above
        self._keeping[key] = task
        task.add_done_callback(lambda done: self._kept(key, done))

    async def _keep_all(self, image: EarlyImage) -> None:
        """Fetch what the image still lacks, then take it in as if its source had sent it."""
        node = image.source.node
        try:
            await self._fetch_lacking(image)
            await self._take_parts(image)
            receipt = await self._replicas.deliver(node, image.arrival())
        except ReplicatorError as error:
            # Replication brings it anyway.
            _log.info(
                "early image could not be kept", repository=image.repository, digest=image.digest, error=str(error)
            )
            return
        if receipt.image is not ImageOutcome.INCOMPLETE:
            self._images.forget(image)
        _log.info("early image delivered", repository=image.repository, digest=image.digest, outcome=receipt.image)

    async def _fetch_lacking(self, image: EarlyImage) -> None:
        lacks = await self._replicas.offer(image.source.node, image.offer())
        await for_each(lacks.blobs, self._limits.blobs_at_once, lambda blob: self._fetch(image, blob.digest))

    async def _take_parts(self, image: EarlyImage) -> None:
        """Take in what lies below an image that is too large for one message, each manifest with its blobs."""
        for digest in image.delivery.expected_manifests:
            if digest in image.manifests:
                continue
            delivery = await image.source.peer.find_image(image.repository, digest)
            if delivery is not None:
                part = early_image(image.source, image.repository, digest, delivery)
                await self._fetch_lacking(part)
                manifests = Delivery(image.repository, delivery.manifests, image.delivery.revision)
                await self._replicas.deliver(image.source.node, manifests)

    def _kept(self, key: tuple[RepositoryName, Digest], task: asyncio.Task[None]) -> None:
        del self._keeping[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("early image could not be kept by a fault of ours", digest=key[1], exc_info=error)


def _wanted(image: EarlyImage, digest: Digest) -> _Wanted:
    return _Wanted(image.source, image.delivery.repository, image.repository, digest, image.blobs[digest])


def _nothing(_: int) -> None:
    """Take no note of bytes received: the source counts what it sends."""
