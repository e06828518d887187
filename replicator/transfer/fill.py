"""A fill: one download of one blob into the store, and any number of readers that follow it as it grows.

    upstream --chunks--> ingest --verify, commit--> store --> row
                           |                          |
                           +--> readers, all but      +--> readers, the last bytes
                                their last bytes

The download belongs to nobody who asked for it: a reader that leaves, is slow or never comes changes nothing. No
reader gets the last bytes of what it asked for before the whole blob was verified, committed and recorded, so whoever
got a complete answer got bytes of the digest, also where it asked for a part only. A failure reaches every reader.

Bytes that were put together (of several connections, of several registries, of an earlier fill that failed for a
passing reason) and turn out not to have the digest are dropped, and the blob is fetched once more from its beginning,
from the authority alone. Readers that got some of them fail: what they have is worth nothing.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from replicator.core.digest import algorithm_of
from replicator.core.errors import (
    DigestMismatch,
    ReplicatorError,
    ShuttingDown,
    SizeMismatch,
    UpstreamError,
    UpstreamTimeout,
)
from replicator.storage.blobs.open_file import FIRST_PIECE, PIECE
from replicator.telemetry.logs import get_logger
from replicator.transfer.download import Download
from replicator.transfer.fill_content import HELD_BACK, FillContent
from replicator.transfer.fill_source import UnusableBlob
from replicator.transfer.shared_content import SharedContent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicator.core.clock import Clock
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.storage.blobs.port import BlobStore, Ingest, StoredBlob
    from replicator.transfer.fill_source import FillLimits, FillSource
    from replicator.transfer.kept_parts import KeptParts
    from replicator.transfer.turns import Turn, Turns

_log = get_logger(__name__)

_HELD_BY_READERS: Final = 32 * 1024 * 1024
"""Bytes that the readers of one fill hold together while their clients take them."""

_FEW: Final = 8
"""Readers that are all told of every chunk."""
_NEWS: Final = 256 * 1024
"""Bytes after which more readers than that are told of new ones."""
_NEWS_DELAY: Final = 0.05
"""Seconds after which they are told in any case."""


_MUCH: Final = 64 * 1024 * 1024
"""Bytes from which it is worth asking whether there is any chance to store them."""


@dataclass(frozen=True, slots=True)
class FillServices:
    """What the fills of one node share. `spare` tells how much of what is stored could go to make room, if it knows."""

    store: BlobStore
    clock: Clock
    jitter: Callable[[], float]
    limits: FillLimits
    turns: Turns
    kept: KeptParts
    spare: Callable[[], int | None]


class Fill:
    """One download, settled once: with a stored blob or with a failure. Whoever calls `run` owns it."""

    def __init__(
        self,
        digest: Digest,
        source: FillSource,
        publish: Callable[[StoredBlob], Awaitable[StoredBlob]],
        turn: Turn,
        services: FillServices,
    ) -> None:
        self.digest = digest
        self.turn = turn
        self.version = 0
        """Grows when the bytes received so far were dropped and others are on their way."""
        self.readers = 0
        self._source = source
        self._publish = publish
        self._services = services
        self._store = services.store
        self._download: Download | None = None
        self._ingest: Ingest | None = None
        """The growing bytes; None before the first and from the verification on."""
        self._stored: StoredBlob | None = None
        self._shared: SharedContent | None = None
        self._failure: ReplicatorError | None = None
        self._changed = asyncio.Event()
        self._told = 0
        self._telling: asyncio.TimerHandle | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the blob is stored, or the fill has failed."""
        return self._stored is not None or self._failure is not None

    @property
    def known_size(self) -> int | None:
        """The blob's size, once a registry has begun to send it; None before, and when it did not say."""
        if self._stored is not None:
            return self._stored.size
        return self._download.size if self._download is not None and self._download.is_opened else None

    @property
    def is_answering(self) -> bool:
        """Whether a registry is being asked for what readers get at once; not while the fill waits for its turn.

        Nor while a blob arrives of a size that nobody states: readers get that when it is whole.
        """
        if self._download is None or self.is_settled:
            return False
        return not self._download.is_opened or self._download.size is not None

    @property
    def piece(self) -> int:
        """The most bytes that one of the readers holds at a time, so that all of them hold a bounded amount."""
        return max(FIRST_PIECE, min(PIECE, _HELD_BY_READERS // max(1, self.readers)))

    async def run(self) -> None:
        """Download, verify, commit, publish. Raises only a cancellation and bugs; failures are for the readers."""
        try:
            stored = await self._fill()
            self._shared = SharedContent(self._store, stored)
            self._stored = stored
        except ReplicatorError as error:
            self._failure = error
        except asyncio.CancelledError:
            self._failure = ShuttingDown("the download was given up")
            raise
        except BaseException:
            self._failure = ReplicatorError("the download failed")
            raise
        finally:
            self._tell()

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
        assert self.known_size is not None  # noqa: S101 - part of _can_follow
        return FillContent(self, self.digest, self.known_size)

    async def read_growing(self, start: int, stop: int, version: int | None) -> tuple[bytes | memoryview, int] | None:
        """Return bytes from `start` below `stop` as soon as there are some; None once the whole blob is stored.

        With them comes the version that they belong to. A reader that names the one it has bytes of gets no others:
        UnusableBlob is raised then. Raises what the fill failed with, too, or StorageError.
        """
        while True:
            self._raise_failure()
            if version not in {None, self.version}:
                raise UnusableBlob(f"{self._what}: other content was sent at first")
            if self._stored is not None:
                return None
            ingest, current = self._ingest, self.version
            if ingest is not None and start < min(stop, ingest.offset):
                length = min(stop, ingest.offset, start + self.piece) - start
                return await ingest.read_at(start, length), current
            await self._changed.wait()

    def share_stored(self) -> SharedContent:
        """Return the stored blob, open at most once for all readers; to be called when it is stored."""
        assert self._shared is not None  # noqa: S101 - the caller waited for it
        return self._shared

    @property
    def _what(self) -> str:
        """The blob and its upstream, for errors."""
        return f"{self.turn.lane}: {self.digest}"

    @property
    def _can_follow(self) -> bool:
        # A blob that is held back as a whole is answered when it is verified: then a failure still has a status.
        return (self.known_size or 0) > HELD_BACK

    def _raise_failure(self) -> None:
        if self._failure is not None:
            # A new exception for every reader: one that is raised many times collects all their tracebacks.
            raise type(self._failure)(str(self._failure), retry_after=self._failure.retry_after) from self._failure

    # Telling the readers

    def _progressed(self) -> None:
        """Wake the readers: a few of them at once, many only when there is much, or after a moment."""
        if self.readers <= _FEW or self._ingest is None or self._ingest.offset - self._told >= _NEWS:
            self._tell()
        elif self._telling is None:
            self._telling = asyncio.get_running_loop().call_later(_NEWS_DELAY, self._tell)

    def _tell(self) -> None:
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        self._told = 0 if self._ingest is None else self._ingest.offset
        self._changed.set()
        self._changed = asyncio.Event()

    # The work

    async def _fill(self) -> StoredBlob:
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._services.limits.turn_wait):
                    await stack.enter_async_context(self._services.turns.held(self.turn))
            except TimeoutError as error:
                raise UpstreamTimeout(f"{self._what} waited in vain for other downloads to end") from error
            return await self._publish(await self._receive(self.turn.lane))

    async def _receive(self, lane: str) -> StoredBlob:
        # The ingest comes first: a store that cannot take the blob must cost no upstream traffic.
        kept = await self._services.kept.take(lane, self.digest)
        download = self._downloaded_from(self._source)
        try:
            return await self._receive_into(kept or await self._new_ingest(), download, lane)
        except UnusableBlob as error:
            if kept is None and not download.is_patched:
                raise
            _log.warning("blob that was put together is fetched anew", digest=self.digest, error=str(error))
        self.version += 1
        self._tell()
        alone = replace(self._source, registries=self._source.registries[-1:])
        return await self._receive_into(await self._new_ingest(), self._downloaded_from(alone), lane)

    def _downloaded_from(self, source: FillSource) -> Download:
        shared = self._services
        self._download = Download(
            self._what, source, shared.limits, shared.clock, shared.jitter, self._progressed, self._check_room
        )
        return self._download

    async def _check_room(self, wanted: int) -> None:
        """Raise UnusableBlob for what would only drive out everything else before the disk is full all the same."""
        if wanted < _MUCH:
            return
        usage = await self._store.usage()
        spare = self._services.spare()
        most = usage.total_bytes
        if spare is not None:
            most = min(most, usage.free_bytes + spare + self._services.limits.kept_bytes)
        if usage.total_bytes and wanted > most:
            raise UnusableBlob(f"{self._what} needs {wanted} bytes of disk, no more than {most} can be made free")

    async def _new_ingest(self) -> Ingest:
        return await self._store.create_ingest(f"fill-{secrets.token_urlsafe(18)}", algorithm_of(self.digest))

    async def _receive_into(self, ingest: Ingest, download: Download, lane: str) -> StoredBlob:
        """Receive, verify and commit. What has come is kept for the next fill when the failure is a passing one."""
        try:
            self._ingest = ingest
            await download.receive(ingest)
            self._ingest = None
            return await self._commit(ingest, download.size)
        except UpstreamError as error:
            self._ingest = None
            if error.retryable:
                await self._services.kept.keep(lane, self.digest, ingest)
            else:
                await ingest.abort()
            raise
        except BaseException:
            self._ingest = None
            await ingest.abort()
            raise

    async def _commit(self, ingest: Ingest, size: int | None) -> StoredBlob:
        try:
            return await ingest.commit(self.digest, size)
        except (SizeMismatch, DigestMismatch) as error:
            raise UnusableBlob(f"{self._what}: other content was sent") from error
