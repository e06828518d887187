"""The registries that one repository is filled from, asked in order until one has what is wanted.

The last one is the authority: that it does not have something counts, and its failure is the failure of all. Those
before it, peers and mirrors, save it work; what goes wrong at one of them is passed over, and one that is slow to
begin is left for the next.
Peers are passed over for what a peer asked for, and `PeerCalls` is told while one is asked.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from replicator.cache.peer_calls import PeerCalls, is_for_peer
from replicator.core.errors import UpstreamContent, UpstreamError, UpstreamNotFound, UpstreamRefused, UpstreamTimeout
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.upstream.body import BlobStream
    from replicator.upstream.client import FetchedManifest, ManifestHead, UpstreamClient
    from replicator.upstream.listings import ReferrerList, TagList

    Opener = Callable[[int], AbstractAsyncContextManager[BlobStream]]

_log = get_logger(__name__)

T = TypeVar("T")

MIRROR_WAIT: Final = 5.0
"""Seconds that a registry before the authority has for an answer, or for the first byte of a blob."""


MAX_DESCRIPTORS: Final = 10_000
"""Blobs and manifests that a manifest may name; each is a row here. Real images have a hundred layers."""


@dataclass(frozen=True, slots=True)
class Said(Generic[T]):
    """What a registry said, and which one: its name, and whether it is the authority."""

    value: T
    source: str
    is_authority: bool


class Sources:
    """`clients` in the order in which they are asked for `repository`, the authority last.

    The first `peers` of them are nodes; `calls` is told when they are asked. All but the authority have `wait` seconds
    for an answer.
    """

    def __init__(
        self,
        clients: Sequence[UpstreamClient],
        repository: RepositoryName,
        *,
        peers: int = 0,
        calls: PeerCalls | None = None,
        wait: float = MIRROR_WAIT,
    ) -> None:
        if not 0 <= peers < len(clients):
            raise ValueError("expected at least one registry that is no peer")
        self.clients = tuple(clients)
        self.repository = repository
        self._peers = peers
        self._calls = calls or PeerCalls()
        self._wait = wait

    @property
    def authority(self) -> Sources:
        """The authority alone, for what no other registry can tell."""
        return Sources(self.clients[-1:], self.repository)

    @property
    def registries(self) -> tuple[UpstreamClient, ...]:
        """The mirrors and the authority, which may be asked on behalf of anybody."""
        return self.clients[self._peers :]

    async def head_manifest(self, reference: Reference) -> Said[ManifestHead]:
        """Return what the first registry that has it says of a manifest; raises the authority's UpstreamError."""
        return await self._first(reference, lambda client: client.head_manifest(self.repository, reference))

    async def get_manifest(self, reference: Reference) -> Said[FetchedManifest]:
        """Fetch a verified manifest from the first registry that has it; raises the authority's UpstreamError.

        UpstreamContent is raised also for one that names more than MAX_DESCRIPTORS.
        """
        return await self._first(reference, lambda client: self._fetched(client, reference))

    async def _fetched(self, client: UpstreamClient, reference: Reference) -> FetchedManifest:
        fetched = await client.get_manifest(self.repository, reference)
        if fetched.descriptors > MAX_DESCRIPTORS:
            raise UpstreamContent(
                f"{client.endpoint.name}: manifest {reference} of {self.repository} names {fetched.descriptors} blobs"
                f" and manifests; the cache accepts up to {MAX_DESCRIPTORS}"
            )
        return fetched

    async def blob_exists(self, digest: Digest) -> bool:
        """Tell whether the authority has a blob, or a mirror when the authority fails; raises its UpstreamError."""
        said = await self._authority_first(
            lambda client: client.blob_exists(self.repository, digest), lambda found: (digest,) if found else ()
        )
        return said.value

    @asynccontextmanager
    async def open_blob(self, digest: Digest, start: int = 0) -> AsyncIterator[BlobStream]:
        """Open a blob at the first registry that sends it; raises the authority's UpstreamError."""
        async with AsyncExitStack() as stack:
            opened = await self._first(
                digest, lambda client: stack.enter_async_context(client.open_blob(self.repository, digest, start))
            )
            yield opened.value

    def openers(self, digest: Digest, opened: Callable[[str], None] | None = None) -> tuple[Opener, ...]:
        """Return for each registry, in order, what opens a blob there at an offset, for one transfer.

        So a transfer that breaks goes on elsewhere. A peer is asked once only: later on it may be following this very
        transfer. `opened` is told the name of each registry that begins to send.
        """
        return tuple(self._opener(client, digest, opened) for client in self._asked)

    def _opener(self, client: UpstreamClient, digest: Digest, opened: Callable[[str], None] | None) -> Opener:
        tried = False

        @asynccontextmanager
        async def open_from(start: int) -> AsyncIterator[BlobStream]:
            nonlocal tried
            if tried and self._is_peer(client):
                raise UpstreamRefused(f"{client.endpoint.name}: not asked for the same blob twice")
            tried = True
            async with AsyncExitStack() as stack:
                stream = await self._ask(
                    client,
                    digest,
                    lambda client: stack.enter_async_context(client.open_blob(self.repository, digest, start)),
                )
                if opened is not None:
                    opened(client.endpoint.name)
                yield stream

        return open_from

    async def list_tags(self) -> Said[TagList]:
        """Return the tags of the repository, as the authority lists them; raises its UpstreamError."""
        return await self._authority_first(lambda client: client.list_tags(self.repository), lambda found: found.tags)

    async def list_referrers(self, subject: Digest) -> Said[ReferrerList]:
        """Return the referrers of an image, as the authority lists them; raises its UpstreamError."""
        return await self._authority_first(
            lambda client: client.list_referrers(self.repository, subject), lambda found: found.descriptors
        )

    async def _authority_first(
        self, ask: Callable[[UpstreamClient], Awaitable[T]], entries: Callable[[T], Sequence[object]]
    ) -> Said[T]:
        """Ask the authority, and mirrors when it fails or is slow: they may list no more than they happen to have.

        That a mirror has nothing to list means nothing.
        """
        *mirrors, authority = self.registries
        try:
            async with asyncio.timeout(2 * self._wait if mirrors else None):
                return Said(await ask(authority), authority.endpoint.name, True)
        except UpstreamNotFound:
            raise
        except TimeoutError as error:
            failure: UpstreamError = UpstreamTimeout(f"{authority.endpoint.name}: no answer in time")
            failure.__cause__ = error
        except UpstreamError as error:
            failure = error
        for mirror in mirrors:
            try:
                async with asyncio.timeout(self._wait):
                    found = await ask(mirror)
                if entries(found):
                    return Said(found, mirror.endpoint.name, False)
            except (TimeoutError, UpstreamError) as error:
                _log.info("registry passed over", upstream=mirror.endpoint.name, error=str(error))
        raise failure

    @property
    def _asked(self) -> tuple[UpstreamClient, ...]:
        return self.registries if is_for_peer() else self.clients

    async def _first(self, reference: Reference, ask: Callable[[UpstreamClient], Awaitable[T]]) -> Said[T]:
        authority = self.clients[-1]
        failure: UpstreamError | None = None
        for client in self._asked:
            try:
                value = await self._ask(client, reference, ask)
            except UpstreamError as error:
                failure = error
                if client is not authority:
                    _log.info("registry passed over", upstream=client.endpoint.name, error=str(error))
            else:
                return Said(value, client.endpoint.name, client is authority)
        assert failure is not None  # noqa: S101 - the authority is always asked, and last
        raise failure

    async def _ask(
        self, client: UpstreamClient, reference: Reference, ask: Callable[[UpstreamClient], Awaitable[T]]
    ) -> T:
        """Ask one registry; any but the authority, whose client is patient by itself, has little time."""
        if client is self.clients[-1]:
            return await ask(client)
        try:
            async with asyncio.timeout(self._wait):
                if not self._is_peer(client):
                    return await ask(client)
                with self._calls.asking(self.repository, reference):
                    return await ask(client)
        except TimeoutError as error:
            raise UpstreamTimeout(f"{client.endpoint.name}: no answer in time") from error

    def _is_peer(self, client: UpstreamClient) -> bool:
        return client in self.clients[: self._peers]
