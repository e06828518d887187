"""Blobs of cached repositories: from the store, or from a fill that the first one to ask starts and everybody follows.

Access is by repository, so a blob that lies in the store for another repository is not simply served. It is linked
without a download only when a manifest that was fetched for this repository names it, it is here for another
repository of the same upstream, and the authority says that it has it in this repository: a mirror could name
anything. In every other case the blob has to be sent, which proves that it may be had there. While an upstream that
has neither mirrors nor peers cannot be asked, its manifest is proof enough.

Who asks waits no longer than `cold_wait` for an answer to begin. The download goes on all the same, for whoever comes
next.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from replicator.cache.negative import NegativeMemory
from replicator.cache.pull_note import PullNote
from replicator.cache.shared_blobs import SharedBlobs
from replicator.cache.takers import Takers, party_of
from replicator.core.cache_status import CacheResult, PullTrace
from replicator.core.errors import (
    BlobNotFound,
    CorruptBlob,
    ManifestNotFound,
    UpstreamContent,
    UpstreamError,
    UpstreamNotFound,
    UpstreamTimeout,
)
from replicator.core.templates import CreationCause
from replicator.registry.repository_creation import ensure_repository
from replicator.storage.metadata import blobs
from replicator.telemetry.logs import get_logger
from replicator.transfer.fill_source import FillSource
from replicator.upstream.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Hashable

    from replicator.cache.limits import CacheLimits
    from replicator.cache.observer import CacheObserver
    from replicator.cache.own_repositories import OwnRepositories
    from replicator.cache.upstreams import UpstreamRepositories, UpstreamRepository
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.manifest import Descriptor
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import Pulls
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.statement import Steps
    from replicator.transfer.fill import Fill
    from replicator.transfer.fill_registry import FillRegistry

_log = get_logger(__name__)


class CachedBlobs:
    """Opens blobs of repositories that a cache rule covers. The caller has checked access."""

    def __init__(
        self,
        node: RegistryNode,
        pulls: Pulls,
        fills: FillRegistry,
        upstreams: UpstreamRepositories,
        own: OwnRepositories,
        observer: CacheObserver,
        limits: CacheLimits,
    ) -> None:
        self._node = node
        self._pulls = pulls
        self._fills = fills
        self._own = own
        self._observer = observer
        self._limits = limits
        self._takers: WeakKeyDictionary[Fill, Takers] = WeakKeyDictionary()
        self._absent = NegativeMemory(node.clock)
        self._asking: SingleFlight[tuple[Digest, Hashable], int] = SingleFlight()
        self._shared = SharedBlobs(node, pulls, upstreams, limits)

    async def open(self, source: UpstreamRepository, digest: Digest, trace: PullTrace | None = None) -> BlobContent:
        """Open a blob, from the store or while it arrives. A damaged one is fetched again.

        Raises BlobNotFound when neither this node nor the upstream has it, UpstreamError when only the upstream could
        tell, StorageError when the store cannot. Cancelling it stops no fill.
        """
        noted = PullNote(source, trace or PullTrace(), self._observer)
        with noted.failures(), self._node.readings.expected(digest):
            return await self._open(source, digest, noted)

    async def get_size(self, source: UpstreamRepository, digest: Digest, trace: PullTrace | None = None) -> int:
        """Return a blob's size; the upstream is asked for one that is not here. Raises like `open`.

        A manifest tells the size, but only the upstream that the blob can still be had.
        """
        noted = PullNote(source, trace or PullTrace(), self._observer)
        with noted.failures():
            async with self._in_time(source, digest):
                return await self._get_size(source, digest, noted)

    async def _open(self, source: UpstreamRepository, digest: Digest, noted: PullNote) -> BlobContent:
        blob = await self._pulls.find_blob(source.repository, digest)
        if blob is not None:
            try:
                content = await self._pulls.read(blob)
            except CorruptBlob:
                _log.warning("damaged blob is fetched again", repository=source.repository, digest=digest)
            else:
                noted.result(CacheResult.HIT)
                return content
        return await self._open_missing(source, digest, noted)

    async def _get_size(self, source: UpstreamRepository, digest: Digest, noted: PullNote) -> int:
        blob = await self._pulls.find_blob(source.repository, digest)
        if blob is not None and not await self._node.is_damaged(blob):
            noted.result(CacheResult.HIT)
            return blob.size
        await self._check_not_own(source, digest)
        descriptor = await self._shared.find_descriptor(source.repository, digest)
        if descriptor is None:
            self._check_not_absent(source, digest, noted)
            return await self._ask_size(source, digest, noted)
        if await self._shared.is_shared(source, descriptor):
            noted.result(CacheResult.HIT)
        elif not self._arrives(source, digest) and not await source.sources.blob_exists(digest):
            # There are registries that know of a blob only once it was asked for.
            return await self._ask_size(source, digest, noted)
        else:
            noted.exists()
        return descriptor.size

    async def _open_missing(self, source: UpstreamRepository, digest: Digest, noted: PullNote) -> BlobContent:
        await self._check_not_own(source, digest)
        descriptor = await self._shared.find_descriptor(source.repository, digest)
        if descriptor is not None:
            shared = await self._shared.open(source, descriptor)
            if shared is not None:
                noted.result(CacheResult.HIT)
                return shared
        else:
            self._check_not_absent(source, digest, noted)
        content = await self._fetch(source, digest, descriptor, noted)
        noted.fetched()
        return content

    async def _check_not_own(self, source: UpstreamRepository, digest: Digest) -> None:
        if await self._own.holds(source):
            raise BlobNotFound(f"repository {source.repository} has no blob {digest}")

    def _check_not_absent(self, source: UpstreamRepository, digest: Digest, noted: PullNote) -> None:
        """Raise BlobNotFound for what no manifest names and the upstream did not have a moment ago.

        Who pulls an image asks the upstream whatever somebody else made it say before.
        """
        refusal = self._absent.find(source.repository, digest)
        if refusal is not None:
            noted.result(CacheResult.NEGATIVE)
            raise BlobNotFound(str(refusal))

    def _absence(self, source: UpstreamRepository, digest: Digest) -> BlobNotFound:
        """Return the error for a blob that the upstream does not have, and remember that."""
        error = BlobNotFound(f"the upstream of {source.repository} has no blob {digest}")
        self._absent.keep(source, digest, ManifestNotFound(str(error)))
        return error

    def clear_negative(self) -> None:
        """Ask upstreams again for everything that they did not have a moment ago."""
        self._absent.clear()

    def forget_negative(self, repository: RepositoryName, digest: Digest | None = None) -> None:
        """Ask the upstream again for what it did not have a moment ago: for one blob, or all of a repository."""
        self._absent.forget(repository, digest)

    async def idle(self) -> None:
        """Return when no upstream is being asked about a blob."""
        await self._asking.idle()
        await self._shared.idle()

    async def close(self) -> None:
        """End what upstreams are being asked; whoever waits for it gets ShuttingDown."""
        await self._asking.close()
        await self._shared.close()

    # What is fetched

    async def _fetch(
        self, source: UpstreamRepository, digest: Digest, descriptor: Descriptor | None, noted: PullNote
    ) -> BlobContent:
        try:
            try:
                return await self._follow(source, digest, descriptor, noted)
            except _NotOurs:
                return await self._follow(source, digest, descriptor, noted, party_of(source))
        except UpstreamNotFound as error:
            raise self._absence(source, digest) from error

    async def _follow(
        self,
        source: UpstreamRepository,
        digest: Digest,
        descriptor: Descriptor | None,
        noted: PullNote,
        party: Hashable = None,
    ) -> BlobContent:
        """Open a blob that is on its way, or that is sent for now.

        Raises _NotOurs when the fill of another party failed for good: that a repository which somebody named does not
        have the blob, or that somebody's request went in a circle, must not be anybody else's answer.
        """
        fill = await self._join(source, digest, descriptor, party)
        noted.collapsed(fill is not None)
        while fill is None:
            ended = self._fills.ended
            blob = await self._pulls.find_blob(source.repository, digest)
            if blob is not None:
                return await self._pulls.read(blob)
            fill = await self._join(source, digest, descriptor, party)
            noted.collapsed(fill is not None)
            if fill is None and self._fills.ended == ended:
                # Nothing came in while the database was asked, so it is really not here.
                fill = self._start(source, digest, descriptor, party)
        try:
            return self._node.readings.count(await self._opened(source, digest, fill))
        except UpstreamError as error:
            if error.retryable or self._takers[fill].party == party_of(source):
                raise
            raise _NotOurs from error

    async def _opened(self, source: UpstreamRepository, digest: Digest, fill: Fill) -> BlobContent:
        """Open a fill; a blob whose size nobody states may take as long as it arrives, being answered when whole."""
        while True:
            try:
                async with asyncio.timeout(self._limits.cold_wait):
                    return await fill.open()
            except TimeoutError as error:
                if fill.is_answering:
                    raise _late(source, digest) from error

    @asynccontextmanager
    async def _in_time(self, source: UpstreamRepository, digest: Digest) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._limits.cold_wait):
                yield
        except TimeoutError as error:
            raise _late(source, digest) from error

    async def _join(
        self, source: UpstreamRepository, digest: Digest, descriptor: Descriptor | None, party: Hashable
    ) -> Fill | None:
        """Return the fill under way, once it is known that this repository may have the blob; None if there is none."""
        while (fill := self._fills.find(source.rule.upstream, digest, party)) is not None:
            takers = self._takers[fill]
            if source.repository in takers.repositories:
                return fill
            if descriptor is None:
                await self._prove(source, digest)
            elif not await self._shared.is_vouched(source, digest):
                raise _NotOurs
            takers.repositories.add(source.repository)
        return None

    def _arrives(self, source: UpstreamRepository, digest: Digest) -> bool:
        """Tell whether the upstream has begun to send a blob for this repository."""
        fill = self._fills.find(source.rule.upstream, digest)
        if fill is None or fill.known_size is None:
            return False
        return source.repository in self._takers[fill].repositories

    async def _prove(self, source: UpstreamRepository, digest: Digest) -> None:
        if not await source.sources.blob_exists(digest):
            raise BlobNotFound(f"the upstream of {source.repository} has no blob {digest}")

    def _start(
        self, source: UpstreamRepository, digest: Digest, descriptor: Descriptor | None, party: Hashable
    ) -> Fill:
        takers = Takers(source)
        upstream = source.rule.upstream
        fetched = FillSource(
            registries=source.sources.openers(digest, takers.sent_by),
            size=None if descriptor is None else descriptor.size,
            received=lambda size: self._observer.upstream_bytes(takers.sender, size),
            max_size=source.rule.max_size,
        )
        fill = self._fills.start(upstream, digest, fetched, lambda blob: self._publish(blob, takers), party)
        self._takers[fill] = takers
        return fill

    async def _publish(self, blob: StoredBlob, takers: Takers) -> StoredBlob:
        """Make a filled blob readable for everybody who joined."""
        now = self._node.clock.now()
        repositories = tuple(takers.repositories)
        return await self._node.make_known(
            blob, lambda: self._node.commit(takers.first, lambda: self._record(blob, repositories, now))
        )

    def _record(self, blob: StoredBlob, repositories: Collection[RepositoryName], now: float) -> Steps[StoredBlob]:
        yield from blobs.record(blob, now)
        for repository in repositories:
            yield from ensure_repository(self._node, repository, now, CreationCause.PULL_THROUGH_CACHE)
            yield from blobs.link(repository, blob.digest, now)
        return (yield from blobs.find(blob.digest)) or blob

    async def _ask_size(self, source: UpstreamRepository, digest: Digest, noted: PullNote) -> int:
        """Ask the upstream how large a blob is: once, however many want to know."""
        key = (digest, party_of(source))
        try:
            size = await self._asking.run(key, lambda: self._asked_size(source, digest))
        except UpstreamNotFound as error:
            raise self._absence(source, digest) from error
        noted.exists()
        return size

    async def _asked_size(self, source: UpstreamRepository, digest: Digest) -> int:
        async with self._in_time(source, digest), source.sources.open_blob(digest) as stream:
            if stream.size is None:
                raise UpstreamContent(f"{source.rule.upstream}: it does not say how large {digest} is")
            return stream.size


class _NotOurs(Exception):
    """What is under way, or failed, was asked for by another party."""


def _late(source: UpstreamRepository, digest: Digest) -> UpstreamTimeout:
    return UpstreamTimeout(f"{source.rule.upstream}: blob {digest} of {source.name}: no answer in time")
