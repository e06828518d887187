"""The registries that one repository is filled from, asked in order until one has what is wanted.

The last one is the authority: that it does not have something counts, and its failure is the failure of all. Those
before it, peers and mirrors, save it work; what goes wrong at one of them is passed over, and one that is slow to
begin is left for the next.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from replicator.core.errors import UpstreamError, UpstreamTimeout
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.upstream.body import BlobStream
    from replicator.upstream.client import FetchedManifest, ManifestHead, UpstreamClient

_log = get_logger(__name__)

T = TypeVar("T")

MIRROR_WAIT: Final = 5.0
"""Seconds that a registry before the authority has for an answer, or for the first byte of a blob."""


@dataclass(frozen=True, slots=True)
class Said(Generic[T]):
    """What a registry said, and which one: its name, and whether it is the authority."""

    value: T
    source: str
    is_authority: bool


class Sources:
    """`clients` in the order in which they are asked for `repository`, the authority last."""

    def __init__(self, clients: Sequence[UpstreamClient], repository: RepositoryName) -> None:
        if not clients:
            raise ValueError("expected at least one registry")
        self.clients = tuple(clients)
        self.repository = repository

    async def head_manifest(self, reference: Reference) -> Said[ManifestHead]:
        """Return what the first registry that has it says of a manifest; raises the authority's UpstreamError."""
        return await self._first(lambda client: client.head_manifest(self.repository, reference))

    async def get_manifest(self, reference: Reference) -> Said[FetchedManifest]:
        """Fetch a verified manifest from the first registry that has it; raises the authority's UpstreamError."""
        return await self._first(lambda client: client.get_manifest(self.repository, reference))

    async def blob_exists(self, digest: Digest) -> bool:
        """Tell whether the authority has a blob; raises UpstreamError."""
        return await self.clients[-1].blob_exists(self.repository, digest)

    @asynccontextmanager
    async def open_blob(self, digest: Digest, start: int = 0, attempt: int = 0) -> AsyncIterator[BlobStream]:
        """Open a blob at the first registry that sends it; attempt number n begins with the n-th registry.

        So a transfer that breaks goes on elsewhere. Raises the authority's UpstreamError when nobody sends it.
        """
        begin = attempt % len(self.clients)
        async with AsyncExitStack() as stack:
            opened = await self._first(
                lambda client: stack.enter_async_context(client.open_blob(self.repository, digest, start)), begin
            )
            yield opened.value

    async def _first(self, ask: Callable[[UpstreamClient], Awaitable[T]], begin: int = 0) -> Said[T]:
        """Ask one registry after the other, those before number `begin` last."""
        authority = self.clients[-1]
        failure: UpstreamError | None = None
        order = (*self.clients[begin:], *self.clients[:begin])
        for client in order:
            wait = None if client is order[-1] else MIRROR_WAIT
            try:
                async with asyncio.timeout(wait):
                    value = await ask(client)
            except TimeoutError as error:
                failed: UpstreamError = UpstreamTimeout(f"{client.endpoint.name}: no answer in time")
                failed.__cause__ = error
            except UpstreamError as error:
                failed = error
            else:
                return Said(value, client.endpoint.name, client is authority)
            _log.info("asking the next registry", passed_over=client.endpoint.name, error=str(failed))
            failure = failed if failure is None or client is authority else failure
        assert failure is not None  # noqa: S101 - there is at least one registry
        raise failure
