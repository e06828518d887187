"""Bodies on their way, in both directions: bounded, measured, and never waited for without end."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import SizeMismatch, UpstreamContent, UpstreamTimeout
from replicator.upstream.errors import CutShort, translated

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    import aiohttp

    from replicator.core.clock import Clock
    from replicator.upstream.limits import UpstreamLimits

SLOWEST_RATE = 1024.0
"""Bytes a second. An upstream that stays below it for the length of its stall timeout has stalled, if politely."""


async def read_bounded(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    """Return the whole body; raise UpstreamContent, without reading on, when it is longer than `limit` bytes.

    A stated length is a reason to refuse, never a reason to allocate.
    """
    if (response.content_length or 0) > limit and response.method != "HEAD":
        raise UpstreamContent(f"{what}: the answer is longer than {limit} bytes")
    received = bytearray()
    while chunk := await response.content.readany():
        received += chunk
        if len(received) > limit:
            raise UpstreamContent(f"{what}: the answer is longer than {limit} bytes")
    return bytes(received)


async def read_some(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return at most `limit` bytes of an error's body; what follows is not read."""
    received = bytearray()
    while len(received) < limit and (chunk := await response.content.readany()):
        received += chunk
    return bytes(received[:limit])


@dataclass(frozen=True, slots=True)
class BlobStream:
    """A blob arriving. `size` is the whole blob's, if the upstream says; `start` is where `chunks` begin.

    The bytes are not verified here: who stores them compares the digest. A chunk of `chunks` is at most a megabyte.
    Iterating raises UpstreamContent when the blob ends short, UpstreamTimeout when it stalls, UpstreamUnavailable when
    the connection breaks.
    """

    size: int | None
    start: int
    chunks: AsyncIterator[bytes]


class Patience:
    """How long an upstream may take over its bytes: silence and dripping both use it up, progress restores it."""

    def __init__(self, seconds: float, what: str) -> None:
        self._seconds = seconds
        self._what = what
        self._waited = 0.0

    def received(self, count: int, after: float) -> None:
        """Note `count` bytes that came after `after` seconds of waiting; raise UpstreamTimeout when it was too slow."""
        self._waited = max(0.0, self._waited + after - count / SLOWEST_RATE)
        if self._waited > self._seconds:
            raise UpstreamTimeout(f"{self._what}: arrives at less than {SLOWEST_RATE:.0f} bytes a second")


async def stream_chunks(
    response: aiohttp.ClientResponse,
    expected: int | None,
    limits: UpstreamLimits,
    clock: Clock,
    patience: Patience,
    what: str,
) -> AsyncGenerator[bytes, None]:
    """Yield the body of an answer that should hold `expected` bytes."""
    received = 0
    while True:
        asked_at = clock.monotonic()
        with translated(what):
            chunk = await response.content.readany()
        if not chunk:
            break
        received += len(chunk)
        if expected is not None and received > expected:
            raise UpstreamContent(f"{what}: longer than the {expected} bytes announced")
        patience.received(len(chunk), clock.monotonic() - asked_at)
        await limits.bytes(len(chunk))
        yield chunk
    if expected is not None and received < expected:
        raise CutShort(f"{what}: short, {received} of {expected} bytes")


class OutgoingBlob:
    """A blob leaving: the body of an upload, as long as announced or not at all.

    `failure` is what its source raised, if it did: the transport reports that as a broken connection. The time the
    source takes is not the upstream's, so `deadline` runs only while the upstream has a chunk to take.
    """

    def __init__(
        self,
        chunks: AsyncIterator[bytes | memoryview],
        size: int,
        limits: UpstreamLimits,
        deadline: asyncio.Timeout,
        stall_timeout: float,
        answer_timeout: float,
    ) -> None:
        self.failure: Exception | None = None
        self._chunks = chunks
        self._size = size
        self._limits = limits
        self._deadline = deadline
        self._stall_timeout = stall_timeout
        self._answer_timeout = answer_timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._measured():
                self._allow(self._stall_timeout)
                yield chunk
                self._allow(None)
        except Exception as error:
            self.failure = error
            raise
        finally:
            self._allow(self._answer_timeout)

    async def _measured(self) -> AsyncIterator[bytes]:
        self._allow(None)
        sent = 0
        async for chunk in self._chunks:
            sent += len(chunk)
            if sent > self._size:
                break
            await self._limits.bytes(len(chunk))
            # A copy: the piece is valid until the next one is asked for, and the transport may keep it longer.
            yield bytes(chunk)
        if sent != self._size:
            raise SizeMismatch(f"expected {self._size} bytes to send, got {'more' if sent > self._size else sent}")

    def _allow(self, seconds: float | None) -> None:
        with suppress(RuntimeError):  # the call is over already
            self._deadline.reschedule(None if seconds is None else asyncio.get_running_loop().time() + seconds)
