"""The requests of one upload session: opened, sent to in one piece or in several, asked where it stands, ended.

An upload goes where the registry's Location says, and so does our Authorization: a Location anywhere but at the
registry's own origin is refused (CVE-2026-50151), whichever request of the session brings it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, algorithm_of
from replicator.core.errors import ReplicatorError, UpstreamContent, UpstreamError
from replicator.upstream.body import OutgoingBlob
from replicator.upstream.endpoint import UpstreamEndpoint, origin_of
from replicator.upstream.errors import translated
from replicator.upstream.urls import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from yarl import URL

    from replicator.core.names import RepositoryName
    from replicator.upstream.calls import Call, Calls
    from replicator.upstream.exchange import Exchange
    from replicator.upstream.limits import UpstreamLimits

CANCEL_TIMEOUT = 5.0
"""Seconds that a registry may take to drop an upload that failed."""

SLOWEST_COMMIT = 32.0 * 1024 * 1024
"""Bytes a second at which an upstream may take in an upload after its last byte: verify it, move it to its place."""

_TAKEN = re.compile(r"(?:bytes=)?0-(\d{1,18})", re.ASCII)

ReadFrom = Callable[[int], AsyncIterator[bytes | memoryview]]
"""Yields a blob's bytes from an offset to its end; a piece is valid until the next one is asked for."""


@dataclass(frozen=True, slots=True)
class BlobToSend:
    """A blob on its way into a repository."""

    repository: RepositoryName
    digest: Digest
    size: int
    read_from: ReadFrom


@dataclass(frozen=True, slots=True)
class Position:
    """Where an upload session goes on, and how many bytes it holds."""

    location: URL
    offset: int = 0


class UploadRequests:
    """Makes the requests of upload sessions at one upstream. Raises UpstreamError, or what a blob's source raises."""

    def __init__(self, endpoint: UpstreamEndpoint, exchange: Exchange, calls: Calls, limits: UpstreamLimits) -> None:
        self._endpoint = endpoint
        self._exchange = exchange
        self._calls = calls
        self._limits = limits

    async def start(self, blob: BlobToSend, mount_from: RepositoryName | None, *, mount: bool) -> Position | None:
        """Open a session; None when the blob was mounted instead, as `mount` allows."""
        call = self._calls.start_upload(blob.repository, blob.digest, mount_from, mount=mount)
        mounted = (HTTPStatus.CREATED,) if mount else ()
        async with self._exchange.small(call, HTTPStatus.ACCEPTED, *mounted) as response:
            if response.status == HTTPStatus.CREATED:
                check_digest(call.what, response.headers, blob.digest)
                return None
            return Position(self._location(call, response.headers))

    async def put(self, blob: BlobToSend, location: URL) -> None:
        """Send the whole blob and end the session with it (end-6)."""
        call = self._calls.upload(blob.repository, blob.digest, location, blob.size)
        headers = await self._send(call, blob.read_from(0), blob.size, blob.size, HTTPStatus.CREATED)
        check_digest(call.what, headers, blob.digest)

    async def patch(self, blob: BlobToSend, position: Position) -> Position:
        """Send the rest of the blob, and return where the session stands then (end-5).

        Raises UpstreamContent when the registry says that it took in nothing, or more than it was sent.
        """
        call = self._calls.patch_upload(blob.repository, blob.digest, position.location, position.offset, blob.size)
        chunks, left = blob.read_from(position.offset), blob.size - position.offset
        headers = await self._send(call, chunks, left, blob.size, HTTPStatus.ACCEPTED, HTTPStatus.NO_CONTENT)
        taken = _taken(headers)
        reached = Position(self._location(call, headers, position.location), blob.size if taken is None else taken)
        if not position.offset < reached.offset <= blob.size:
            raise UpstreamContent(f"{call.what}: sent bytes from {position.offset}, it took in {reached.offset}")
        return reached

    async def commit(self, blob: BlobToSend, location: URL) -> None:
        """End a session that holds the whole blob; the registry verifies the digest (end-6)."""
        call = self._calls.upload(blob.repository, blob.digest, location, 0)
        headers = await self._send(call, _nothing(), 0, blob.size, HTTPStatus.CREATED)
        check_digest(call.what, headers, blob.digest)

    async def find(self, blob: BlobToSend, location: URL) -> Position | None:
        """Return where a session stands, or None when the registry does not say (end-13)."""
        call = self._calls.upload_status(blob.repository, location)
        async with self._exchange.small(call, HTTPStatus.NO_CONTENT) as response:
            taken = _taken(response.headers)
            if taken is None or taken > blob.size:
                return None
            return Position(self._location(call, response.headers, location), taken)

    async def cancel(self, blob: BlobToSend, location: URL) -> None:
        """Have the registry drop what it got of a blob, which it would keep until the session expires."""
        call = self._calls.cancel_upload(blob.repository, location)
        with suppress(ReplicatorError, TimeoutError):  # what counts is why the upload failed
            async with (
                asyncio.timeout(CANCEL_TIMEOUT),
                self._exchange.small(call, HTTPStatus.NO_CONTENT, HTTPStatus.ACCEPTED),
            ):
                pass

    def _location(self, call: Call, headers: Mapping[str, str], default: URL | None = None) -> URL:
        """Return where the session goes on; where it was until now, if the registry does not say."""
        stated = headers.get("Location", "")
        if not stated and default is not None:
            return default
        location = parse_url(stated, call.url)
        if origin_of(location) != self._endpoint.origin:
            raise UpstreamContent(f"{call.what}: refused to upload to {origin_of(location)}, another origin")
        return location.with_fragment(None)

    async def _send(
        self, call: Call, chunks: AsyncIterator[bytes | memoryview], size: int, whole: int, *expected: int
    ) -> Mapping[str, str]:
        """Send `size` bytes of a blob; the deadline moves on as they are taken, and then leaves time to take in all."""
        answer_timeout = self._endpoint.total_timeout + whole / SLOWEST_COMMIT
        deadline = asyncio.timeout(self._endpoint.total_timeout)
        body = OutgoingBlob(chunks, size, self._limits, deadline, self._endpoint.stall_timeout, answer_timeout)
        sending = self._calls.with_body(call, body, answer_timeout)
        with self._exchange.watched(call.method) as watch:
            try:
                with translated(call.what):
                    async with deadline, self._exchange.open(sending, watch, *expected) as response:
                        return response.headers
            except UpstreamError as error:
                if body.failure is not None:
                    raise body.failure from error
                raise


def check_digest(what: str, headers: Mapping[str, str], expected: Digest) -> None:
    """Raise UpstreamContent when the registry says that it took in something else than was sent."""
    stated = headers.get("Docker-Content-Digest")
    if stated is None or algorithm_of(Digest(stated)) != algorithm_of(expected):
        return
    if stated != expected:
        raise UpstreamContent(f"{what}: expected it under {expected}, the upstream states another digest")


async def _nothing() -> AsyncIterator[bytes | memoryview]:
    for piece in tuple[bytes, ...]():
        yield piece


def _taken(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes a session holds by its Range header; registries write an empty one as 0-0."""
    match = _TAKEN.fullmatch(headers.get("Range", ""))
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0
