"""Blobs that are here for another repository of the same upstream, and whether this one may have them as well.

That a manifest names a blob does not suffice where a mirror or a peer can have sent the manifest: it could name
anything. So the authority is asked whether it has the blob in this repository.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicator.cache.takers import party_of
from replicator.core.bounded import BoundedMap
from replicator.core.errors import (
    CorruptBlob,
    UpstreamError,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.manifest import parse_manifest
from replicator.core.templates import CreationCause
from replicator.registry.repository_creation import ensure_repository
from replicator.storage.metadata import blobs, cached_content
from replicator.upstream.large_manifests import LARGE
from replicator.upstream.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from replicator.cache.limits import CacheLimits
    from replicator.cache.upstreams import UpstreamRepositories, UpstreamRepository
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.manifest import Descriptor
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import Pulls
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Steps

_KEPT = 4
"""Large manifests whose blobs are remembered."""


class SharedBlobs:
    """Knows which blobs of one node a repository may have without their being sent for it."""

    def __init__(self, node: RegistryNode, pulls: Pulls, upstreams: UpstreamRepositories, limits: CacheLimits) -> None:
        self._node = node
        self._pulls = pulls
        self._upstreams = upstreams
        self._limits = limits
        self._proving: SingleFlight[tuple[Digest, Hashable], bool] = SingleFlight()
        self._described: BoundedMap[Digest, Mapping[Digest, Descriptor]] = BoundedMap(_KEPT)
        """What the latest of the large manifests name."""

    async def idle(self) -> None:
        """Return when no authority is being asked."""
        await self._proving.idle()

    async def close(self) -> None:
        """End what authorities are being asked; whoever waits for it gets ShuttingDown."""
        await self._proving.close()

    async def find_descriptor(self, repository: RepositoryName, digest: Digest) -> Descriptor | None:
        """Return how a manifest that came from the repository's upstream describes a blob."""
        manifest = await self._node.database.read(cached_content.find_referring_manifest(repository, digest))
        if manifest is None:
            return None
        if len(manifest.content) <= LARGE:
            return _descriptors(manifest).get(digest)
        described = self._described.find(manifest.digest)
        if described is None:
            # Whoever has a repository upstream can have one with tens of thousands of blobs, and ask for each of them.
            described = await asyncio.to_thread(_descriptors, manifest)
            self._described.put(manifest.digest, described)
        return described.get(digest)

    async def open(self, source: UpstreamRepository, descriptor: Descriptor) -> BlobContent | None:
        """Link and open a blob that another repository of the same upstream holds; None when there is none."""
        if not await self.is_shared(source, descriptor):
            return None
        now = self._node.clock.now()
        blob = await self._node.commit(source.repository, lambda: self._link_stored(source.repository, descriptor, now))
        if blob is None:
            return None
        try:
            return await self._pulls.read(blob)
        except CorruptBlob:
            return None

    async def is_shared(self, source: UpstreamRepository, descriptor: Descriptor) -> bool:
        """Tell whether another repository of the same upstream holds a blob that this one may have as well."""
        holders = await self._node.database.read(cached_content.cached_holders(descriptor.digest))
        if source.repository in holders:
            return True  # it came while somebody looked
        if not any(self._is_sibling(source, holder) for holder in holders):
            return False
        return await self.is_vouched(source, descriptor.digest)

    async def is_vouched(self, source: UpstreamRepository, digest: Digest) -> bool:
        """Tell whether a blob that a manifest of a repository names may be had there without being sent for it.

        The authority is asked, once for all who want to know. When it cannot be asked in time, the manifest counts
        where nobody else can have sent it.
        """
        try:
            async with asyncio.timeout(self._limits.stale_wait):
                key = (digest, party_of(source))
                return await self._proving.run(key, lambda: source.sources.authority.blob_exists(digest))
        except (TimeoutError, UpstreamUnavailable, UpstreamThrottled, UpstreamTimeout):
            return len(source.sources.clients) == 1
        except UpstreamError:
            return False

    def _is_sibling(self, source: UpstreamRepository, holder: RepositoryName) -> bool:
        other = self._upstreams.find(holder)
        return other is not None and other.rule.upstream == source.rule.upstream

    def _link_stored(self, repository: RepositoryName, descriptor: Descriptor, now: float) -> Steps[StoredBlob | None]:
        found = yield from blobs.find(descriptor.digest)
        if found is None or found.size != descriptor.size:
            return None
        yield from ensure_repository(self._node, repository, now, CreationCause.PULL_THROUGH_CACHE)
        yield from blobs.link(repository, found.digest, now)
        return found


def _descriptors(manifest: StoredManifest) -> Mapping[Digest, Descriptor]:
    """Return the blobs that a manifest names, but for those that nobody checked to be at the upstream."""
    parsed = parse_manifest(manifest.content, manifest.media_type)
    return {blob.digest: blob for blob in reversed(parsed.blobs) if not blob.is_foreign}
