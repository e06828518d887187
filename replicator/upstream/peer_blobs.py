"""Sending blobs to a peer: in one stream or in stripes over several connections, and on where it broke off.

The peer's answers alone say how far a blob has come. A connection that breaks costs what it had on its way; what is
left of its part goes over another one, while the others go on.
"""

from __future__ import annotations

import asyncio
import random
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from yarl import URL

from replicator.core.blob_parts import BlobPart, interleaved, whole_part
from replicator.core.errors import InvalidInput, UpstreamContent, UpstreamError, UpstreamUnavailable
from replicator.core.message_json import parse_message
from replicator.core.peer_messages import BlobProgress
from replicator.core.retry import Backoff
from replicator.upstream.body import OutgoingBlob, read_bounded
from replicator.upstream.calls import Call
from replicator.upstream.errors import DigestRefused, RangeRefused, translated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from replicator.core.clock import Clock
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.upstream.endpoint import UpstreamEndpoint
    from replicator.upstream.exchange import Exchange
    from replicator.upstream.limits import UpstreamLimits

T = TypeVar("T")

PEER_PATH = "/_replicator/v1/peer/"

PARALLEL_FROM = 32 * 1024 * 1024
"""Bytes from which it pays to use several connections."""

CONNECTIONS = 4
"""Connections for one large blob; where several are on their way they share them, for each connection costs."""

SLOWEST_COMMIT = 32.0 * 1024 * 1024
"""Bytes a second at which a peer may take in a blob after its last byte: verify it, move it to its place."""

_TRIES = 3
"""Attempts in a row without progress after which it is left to the next job."""
_PROGRESS = 64 * 1024
_MAX_ANSWER = 16 * 1024
_BACKOFF = Backoff(initial=0.1, maximum=2.0)
_BEGUN_ANEW = (RangeRefused, DigestRefused)


class PeerBlobs:
    """The blobs on their way to one peer."""

    def __init__(self, endpoint: UpstreamEndpoint, exchange: Exchange, limits: UpstreamLimits, clock: Clock) -> None:
        self.endpoint = endpoint
        self.exchange = exchange
        self.limits = limits
        self.clock = clock
        self.large = 0
        """Large blobs that are being sent."""

    async def put(
        self, repository: RepositoryName, digest: Digest, size: int, content: BlobContent, offset: int
    ) -> int:
        """Send a blob; see `PeerClient.put_blob`."""
        transfer = _Transfer(self, repository, digest, size, content)
        is_large = size >= PARALLEL_FROM
        self.large += is_large
        try:
            await transfer.run(offset)
        finally:
            self.large -= is_large
        return transfer.sent


class _Transfer:
    """One blob on its way."""

    def __init__(
        self, blobs: PeerBlobs, repository: RepositoryName, digest: Digest, size: int, content: BlobContent
    ) -> None:
        self.sent = 0
        self._blobs = blobs
        self._endpoint = blobs.endpoint
        self._exchange = blobs.exchange
        self._limits = blobs.limits
        self._clock = blobs.clock
        self._repository = repository
        self._digest = digest
        self._size = size
        self._content = content
        self._what = f"{blobs.endpoint.name}: blob {digest} to {repository}"

    async def run(self, offset: int) -> None:
        """Send until the peer has the whole; raises the last failure when that gets no further."""
        refused: list[UpstreamError] = []
        while True:
            try:
                if await self._send(min(offset, self._size)):
                    return
                refused.append(UpstreamContent(f"{self._what}: every byte was taken, and it is not complete"))
            except _BEGUN_ANEW as error:
                refused.append(error)
            progress = await self._standing()
            if progress.is_complete:
                return
            if len(refused) > 1 and (isinstance(refused[-1], DigestRefused) or len(refused) >= _TRIES):
                raise refused[-1]
            offset = progress.offset

    async def _send(self, offset: int) -> bool:
        """Send what is left from `offset`, and return whether the peer has the whole then."""
        connections = CONNECTIONS // max(1, self._blobs.large)
        if connections < 2 or self._size - offset < PARALLEL_FROM:
            return (await self._put_resumably(whole_part(offset, self._size))).is_complete
        try:
            async with asyncio.TaskGroup() as group:
                parts = interleaved(offset, self._size, connections)
                puts = [group.create_task(self._put_resumably(part)) for part in parts]
        except ExceptionGroup as failures:
            raise _weightiest(failures) from failures
        return any(put.result().is_complete for put in puts)

    async def _put_resumably(self, part: BlobPart) -> BlobProgress:
        """Send a part over as many connections as it takes, while that gets on."""
        failures, reached = 0, part.start
        while True:
            try:
                return await self._put(part)
            except UpstreamUnavailable as error:
                failure = error
            progress = await self._standing_again()
            rest = part.rest_from(progress.offset)
            if progress.is_complete or rest is None:
                return progress
            failures = 0 if progress.offset >= reached + _PROGRESS else failures + 1
            if failures >= _TRIES:
                raise failure
            part, reached = rest, progress.offset

    async def _standing_again(self) -> BlobProgress:
        """Ask after a connection broke: what broke it may break the next one as well, so a few times."""
        failures = 0
        while True:
            failures += 1
            await self._clock.sleep(_BACKOFF.delay(failures, random.random()))  # noqa: S311 - jitter, not a secret
            try:
                return await self._standing()
            except UpstreamUnavailable:
                if failures >= _TRIES:
                    raise

    async def _standing(self) -> BlobProgress:
        """Ask how far the blob has come."""
        return await self._put(BlobPart(0, 0, 0)) if self._size else BlobProgress(0)

    async def _put(self, part: BlobPart) -> BlobProgress:
        """Send a part and return the peer's answer; the deadline runs only while the peer has something to do."""
        answer_timeout = self._endpoint.total_timeout + self._size / SLOWEST_COMMIT
        deadline = asyncio.timeout(self._endpoint.total_timeout)
        body = OutgoingBlob(
            self._read(part), part.length, self._limits, deadline, self._endpoint.stall_timeout, answer_timeout
        )
        call = Call(
            "PUT",
            self._url(part),
            "peer blob",
            self._what,
            self._repository,
            headers={"Content-Type": "application/octet-stream", "Content-Length": str(part.length)},
            body=body if part.length else b"",
            repeatable=not part.length,
            answer_timeout=answer_timeout,
        )
        with self._exchange.watched(call.method) as watch:
            try:
                with translated(self._what):
                    async with deadline, self._exchange.open(call, watch, HTTPStatus.OK) as response:
                        content = await read_bounded(response, _MAX_ANSWER, self._what)
                        return parsed(self._what, content, BlobProgress.from_json)
            except UpstreamError as error:
                if body.failure is not None:
                    raise body.failure from error
                raise

    async def _read(self, part: BlobPart) -> AsyncIterator[bytes | memoryview]:
        for place in part.ranges():
            async for piece in self._content.read(place.start, place.length):
                self.sent += len(piece)
                yield piece

    def _url(self, part: BlobPart) -> URL:
        numbers = {"size": self._size, "offset": part.offset, "length": part.length, "start": part.start}
        if part.step:
            numbers |= {"stripe": part.stripe, "step": part.step}
        query = "&".join(f"{name}={value}" for name, value in numbers.items())
        path = f"{self._endpoint.api_url}{PEER_PATH}blobs/{self._digest}?repository={self._repository}"
        return URL(f"{path}&{query}", encoded=True)


def parsed(what: str, content: bytes, parse: Callable[[object], T]) -> T:
    """Return a peer's answer as a value; raise UpstreamContent when it is none."""
    try:
        return parse(parse_message(content))
    except InvalidInput as error:
        raise UpstreamContent(f"{what}: {error}") from error


def _weightiest(failures: ExceptionGroup) -> Exception:
    """Return the failure that says most: that the digest is wrong, or what no new beginning helps with."""
    found = sorted(
        _leaves(failures), key=lambda one: (isinstance(one, RangeRefused), not isinstance(one, DigestRefused))
    )
    return found[0]


def _leaves(failures: ExceptionGroup) -> list[Exception]:
    nested = [_leaves(one) if isinstance(one, ExceptionGroup) else [one] for one in failures.exceptions]
    return [one for group in nested for one in group]
