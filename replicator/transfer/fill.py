"""A fill: one download of one blob into the store, and any number of readers that follow it as it grows.

    upstream --chunks--> ingest --verify, commit--> store --> row
                           |                          |
                           +--> readers, all but      +--> readers, the last bytes
                                their last bytes

The download belongs to nobody who asked for it: a reader that leaves, is slow or never comes changes nothing. No
reader gets the last bytes of what it asked for before the whole blob was verified, committed and recorded, so whoever
got a complete answer got bytes of the digest, also where it asked for a part only. A failure reaches every reader,
and leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from replicator.core.digest import algorithm_of
from replicator.core.errors import (
    DigestMismatch,
    ReplicatorError,
    ShuttingDown,
    SizeMismatch,
    UpstreamContent,
    UpstreamError,
    UpstreamTimeout,
)
from replicator.core.retry import Backoff
from replicator.storage.blobs.file_blob import check_range

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from replicator.core.clock import Clock
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.storage.blobs.port import BlobStore, Ingest, StoredBlob
    from replicator.upstream.body import BlobStream

HELD_BACK: Final = 64 * 1024
"""Bytes at the end of every read that wait for the verification. A smaller blob waits as a whole."""

_TRIES: Final = 4
_PROGRESS: Final = 1024 * 1024
"""Bytes after which a connection that breaks counts as the first to break."""
_BACKOFF: Final = Backoff(initial=0.25, maximum=4.0)
_LONGEST_PAUSE: Final = 30.0
"""Seconds. Readers wait meanwhile: an upstream that wants a longer pause gets no second try."""


@dataclass(frozen=True, slots=True)
class FillSource:
    """Where a fill gets its blob.

    `open_from` opens it at an offset and may start earlier; every wait in it, also between chunks, is bounded, and it
    raises UpstreamError. `size` is what a manifest of the upstream says, if one does; another size is refused.
    `received` is told the length of each chunk.
    """

    open_from: Callable[[int], AbstractAsyncContextManager[BlobStream]]
    size: int | None
    received: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class FillLimits:
    """`total` seconds for one fill, and the largest blob that is accepted (None: any)."""

    total: float = 6 * 3600.0
    max_blob_size: int | None = None


class UnusableBlob(UpstreamContent):
    """The upstream's blob is not the one asked for."""

    retryable = False


class Fill:
    """One download, settled once: with a stored blob or with a failure. Whoever calls `run` owns it."""

    def __init__(
        self,
        digest: Digest,
        source: FillSource,
        publish: Callable[[StoredBlob], Awaitable[StoredBlob]],
        store: BlobStore,
        clock: Clock,
        jitter: Callable[[], float],
        limits: FillLimits,
    ) -> None:
        self.digest = digest
        self._source = source
        self._publish = publish
        self._store = store
        self._clock = clock
        self._jitter = jitter
        self._limits = limits
        self._size = source.size
        self._opened = False
        self._ingest: Ingest | None = None
        """The growing bytes; None before the first and from the verification on."""
        self._stored: StoredBlob | None = None
        self._failure: ReplicatorError | None = None
        self._changed = asyncio.Event()

    @property
    def is_settled(self) -> bool:
        """Whether the blob is stored, or the fill has failed."""
        return self._stored is not None or self._failure is not None

    async def run(self) -> None:
        """Download, verify, commit, publish. Raises only a cancellation and bugs; failures are for the readers."""
        try:
            self._stored = await self._download()
        except ReplicatorError as error:
            self._failure = error
        except asyncio.CancelledError:
            self._failure = ShuttingDown("the download was given up")
            raise
        except BaseException:
            self._failure = ReplicatorError("the download failed")
            raise
        finally:
            self._notify()

    async def open(self) -> BlobContent:
        """Open the blob for one reader, as soon as there is something to say about it.

        Returns once the upstream has begun to send a blob of known size, or the blob is stored. Raises what the fill
        failed with, and CorruptBlob or StorageError when a stored blob cannot be opened. Cancelling it leaves the
        fill alone.
        """
        while not (self.is_settled or self._can_follow):
            await self._changed.wait()
        self._raise_failure()
        if self._stored is not None:
            return await self._store.read_blob(self._stored)
        assert self._size is not None  # noqa: S101 - part of _can_follow
        return _FillContent(self, self.digest, self._size)

    async def read_growing(self, start: int, stop: int) -> bytes | memoryview | None:
        """Return bytes from `start` below `stop` as soon as there are some; None once the whole blob is stored.

        Raises what the fill failed with, or StorageError.
        """
        while self._stored is None:
            self._raise_failure()
            if self._ingest is not None and start < min(stop, self._ingest.offset):
                return await self._ingest.read_at(start, min(stop, self._ingest.offset) - start)
            await self._changed.wait()
        return None

    async def open_stored(self) -> BlobContent:
        """Open the blob once `read_growing` has returned None; raises CorruptBlob or StorageError."""
        assert self._stored is not None  # noqa: S101 - the caller waited for it
        return await self._store.read_blob(self._stored)

    @property
    def _can_follow(self) -> bool:
        # A blob that is held back as a whole is answered when it is verified: then a failure still has a status.
        return self._opened and self._size is not None and self._size > HELD_BACK

    def _raise_failure(self) -> None:
        if self._failure is not None:
            # A new exception for every reader: one that is raised many times collects all their tracebacks.
            raise type(self._failure)(str(self._failure), retry_after=self._failure.retry_after) from self._failure

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _download(self) -> StoredBlob:
        # The ingest comes first: a store that cannot take the blob must cost no upstream traffic.
        ingest = await self._store.create_ingest(f"fill-{secrets.token_urlsafe(18)}", algorithm_of(self.digest))
        try:
            self._ingest = ingest
            await self._receive(ingest)
            self._ingest = None
            blob = await self._commit(ingest)
        except BaseException:
            self._ingest = None
            await ingest.abort()
            raise
        return await self._publish(blob)

    async def _receive(self, ingest: Ingest) -> None:
        """Write the whole blob into the ingest, over as many connections as it takes within the limits."""
        deadline = self._clock.monotonic() + self._limits.total
        failures = 0
        while True:
            begun = ingest.offset
            try:
                await self._receive_some(ingest, deadline)
            except UpstreamError as error:
                if self._is_whole(ingest) and error.retryable:
                    return  # it broke after the last byte
                failures = 1 if ingest.offset - begun >= _PROGRESS else failures + 1
                pause = self._pause_after(error, failures, deadline)
            else:
                return
            await self._clock.sleep(pause)

    def _is_whole(self, ingest: Ingest) -> bool:
        return self._opened and ingest.offset == self._size

    def _pause_after(self, error: UpstreamError, failures: int, deadline: float) -> float:
        """Return the seconds to wait before going on after `error`, or raise it when that would be no use."""
        pause = _BACKOFF.delay(failures, self._jitter(), error.retry_after)
        hopeless = not self._opened or not error.retryable or failures >= _TRIES
        if hopeless or pause > _LONGEST_PAUSE or self._clock.monotonic() + pause >= deadline:
            raise error
        return pause

    async def _receive_some(self, ingest: Ingest, deadline: float) -> None:
        """Receive what one connection brings; return when the blob is whole, as far as its length tells."""
        async with self._source.open_from(ingest.offset) as stream:
            self._learn_size(stream.size)
            skip = ingest.offset - stream.start
            if skip < 0:
                raise UnusableBlob(f"{self.digest} was sent from a later byte than asked for")
            async for chunk in stream.chunks:
                self._source.received(len(chunk))
                fresh, skip = chunk[skip:], max(0, skip - len(chunk))
                self._check(ingest.offset + len(fresh), deadline)
                if fresh:
                    await ingest.write(fresh)
                    self._notify()
        if self._size is not None and ingest.offset < self._size:
            raise UpstreamContent(f"{self.digest} ended after {ingest.offset} of {self._size} bytes")

    def _learn_size(self, stated: int | None) -> None:
        if stated is not None:
            if self._size not in {None, stated}:
                raise UnusableBlob(f"{self.digest} has {self._size} bytes, the upstream announces {stated}")
            self._size = stated
        limit = self._limits.max_blob_size
        if limit is not None and self._size is not None and self._size > limit:
            raise UnusableBlob(f"{self.digest} has {self._size} bytes, this registry accepts up to {limit}")
        self._opened = True
        self._notify()

    def _check(self, length: int, deadline: float) -> None:
        limit = self._limits.max_blob_size if self._size is None else self._size
        if limit is not None and length > limit:
            raise UnusableBlob(f"{self.digest} is longer than {limit} bytes")
        if self._clock.monotonic() >= deadline:
            raise UpstreamTimeout(f"{self.digest} took longer than {self._limits.total:.0f} seconds")

    async def _commit(self, ingest: Ingest) -> StoredBlob:
        try:
            return await ingest.commit(self.digest, self._size)
        except (SizeMismatch, DigestMismatch) as error:
            raise UnusableBlob(f"the upstream sent other content than {self.digest}") from error


class _FillContent:
    """`BlobContent` of a blob that is still arriving."""

    def __init__(self, fill: Fill, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self._fill = fill
        self._stored = AsyncExitStack()

    async def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        """Yield `length` bytes from `start` as they arrive; the last ones when the blob is verified and stored."""
        check_range(start, length, self.size)
        end = start + length
        held_from = end - min(length, HELD_BACK)
        while start < end:
            piece = await self._fill.read_growing(start, held_from)
            if piece is None:
                break
            start += len(piece)
            yield piece
        if start < end:
            stored = await self._stored.enter_async_context(await self._fill.open_stored())
            async for rest in stored.read(start, end - start):
                yield rest

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stored.aclose()
