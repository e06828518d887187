"""Putting content into another registry: blobs mounted or sent in one piece, then manifests.

An upload goes where the registry's Location says, and so does our Authorization: a Location anywhere but at the
registry's own origin is refused (CVE-2026-50151). What the registry says it took in is compared with what was sent.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicator.core.digest import CANONICAL_ALGORITHM, Digest, algorithm_of, digest_of
from replicator.core.errors import (
    ReplicatorError,
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
)
from replicator.core.reference import Reference, as_digest
from replicator.upstream.body import OutgoingBlob
from replicator.upstream.endpoint import UpstreamEndpoint, origin_of
from replicator.upstream.errors import translated
from replicator.upstream.session import parse_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import aiohttp
    from yarl import URL

    from replicator.core.names import RepositoryName, Tag
    from replicator.upstream.calls import Calls
    from replicator.upstream.exchange import Exchange
    from replicator.upstream.limits import UpstreamLimits

CANCEL_TIMEOUT = 5.0
"""Seconds that a registry may take to drop an upload that failed."""

SLOWEST_COMMIT = 32.0 * 1024 * 1024
"""Bytes a second at which an upstream may take in an upload after its last byte: verify it, move it to its place."""


class Push:
    """The push side of one upstream."""

    def __init__(self, endpoint: UpstreamEndpoint, exchange: Exchange, calls: Calls, limits: UpstreamLimits) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._calls = calls
        self._limits = limits

    async def put_blob(
        self,
        repository: RepositoryName,
        digest: Digest,
        size: int,
        chunks: AsyncIterator[bytes | memoryview],
        mount_from: RepositoryName | None,
        *,
        discover: bool,
    ) -> bool:
        """Put a blob; see `UpstreamClient.put_blob`."""
        location = await self._started(repository, digest, mount_from, mount=discover or mount_from is not None)
        if location is None:
            return False
        try:
            await self._upload(repository, digest, size, chunks, location)
        except Exception:
            await self._cancel(repository, location)
            raise
        return True

    async def put_manifest(
        self,
        repository: RepositoryName,
        reference: Reference,
        content: bytes,
        headers: Mapping[str, str],
        tags: Sequence[Tag] = (),
    ) -> None:
        """Put a manifest; see `UpstreamClient.put_manifest`."""
        call = self._calls.put_manifest(repository, reference, content, headers, tags)
        wanted = as_digest(reference)
        algorithm = CANONICAL_ALGORITHM if wanted is None else algorithm_of(wanted)
        async with self._exchange.small(call, HTTPStatus.CREATED) as response:
            _check_digest(call.what, response, digest_of(content, algorithm))

    async def _started(
        self, repository: RepositoryName, digest: Digest, mount_from: RepositoryName | None, *, mount: bool
    ) -> URL | None:
        """Return where to send the blob, or None when it was mounted."""
        if mount:
            try:
                return await self._start(repository, digest, mount_from, mount=True)
            except (UpstreamDenied, UpstreamNotFound, UpstreamRefused):
                # Registries that cannot mount should open a session instead, but some refuse: then ask for just that.
                pass
        return await self._start(repository, digest, None, mount=False)

    async def _start(
        self, repository: RepositoryName, digest: Digest, mount_from: RepositoryName | None, *, mount: bool
    ) -> URL | None:
        call = self._calls.start_upload(repository, digest, mount_from, mount=mount)
        mounted = (HTTPStatus.CREATED,) if mount else ()
        async with self._exchange.small(call, HTTPStatus.ACCEPTED, *mounted) as response:
            if response.status == HTTPStatus.CREATED:
                _check_digest(call.what, response, digest)
                return None
            location = parse_url(response.headers.get("Location", ""), call.url)
        if origin_of(location) != self._endpoint.origin:
            raise UpstreamContent(f"{call.what}: refused to upload to {origin_of(location)}, another origin")
        return location.with_fragment(None)

    async def _upload(
        self,
        repository: RepositoryName,
        digest: Digest,
        size: int,
        chunks: AsyncIterator[bytes | memoryview],
        location: URL,
    ) -> None:
        """Send the blob; the deadline moves on as chunks are taken, and then leaves time to take in the whole."""
        answer_timeout = self._endpoint.total_timeout + size / SLOWEST_COMMIT
        deadline = asyncio.timeout(self._endpoint.total_timeout)
        body = OutgoingBlob(chunks, size, self._limits, deadline, self._endpoint.stall_timeout, answer_timeout)
        call = self._calls.upload(repository, digest, location, body, size, answer_timeout)
        with self._exchange.observed(call.method):
            try:
                with translated(call.what):
                    async with deadline, self._exchange.open(call, HTTPStatus.CREATED) as response:
                        _check_digest(call.what, response, digest)
            except UpstreamError as error:
                if body.failure is not None:
                    raise body.failure from error
                raise

    async def _cancel(self, repository: RepositoryName, location: URL) -> None:
        """Have the registry drop what it got of a blob, which it would keep until the session expires."""
        with suppress(ReplicatorError, TimeoutError):  # what counts is why the upload failed
            async with (
                asyncio.timeout(CANCEL_TIMEOUT),
                self._exchange.small(
                    self._calls.cancel_upload(repository, location), HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED
                ),
            ):
                pass


def _check_digest(what: str, response: aiohttp.ClientResponse, expected: Digest) -> None:
    """Raise UpstreamContent when the registry says that it took in something else than was sent."""
    stated = response.headers.get("Docker-Content-Digest")
    if stated is None or algorithm_of(Digest(stated)) != algorithm_of(expected):
        return
    if stated != expected:
        raise UpstreamContent(f"{what}: expected it under {expected}, the upstream states another digest")
