"""The ingest area: bytes on their way into a store, in private files that nobody reaches by digest.

    <directory>/<name>        one file per ingest, as long as the bytes received so far

The filesystem store and the object store share it and differ in one step only, the *publication* of a verified file.
An ingest writes behind: chunks are gathered into batches, and each batch is written by one thread and hashed by another
while the next one is received. So memory holds at most two batches of an ingest, and the event loop neither hashes nor
waits for the disk. When the disk is full, whoever can make room is asked to, and the same bytes are written again at
the same place; only when there is no room to be made does the ingest fail.

Whoever is cancelled anywhere here finds the ingest whole or gone: no file is closed, unlinked or published under a
thread that still works on it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable, Collection, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final

from replicator.core.bounded import BoundedMap
from replicator.core.digest import Digest, algorithm_of, finished, new_hasher, parse_algorithm
from replicator.core.errors import (
    Conflict,
    DigestMismatch,
    InvalidUpload,
    SizeMismatch,
    StorageFull,
    StorageUnavailable,
    UploadNotFound,
)
from replicator.storage.blobs.files import OPEN_FLAGS, Chunk, FileOperations, WritesLost, discard, make_directory
from replicator.storage.blobs.open_file import PIECE, FileReads, OpenFile
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.blobs.threads import FileThreads, settle

if TYPE_CHECKING:
    from hashlib import _Hash
    from pathlib import Path

    from replicator.storage.blobs.directory_lock import DirectoryLock

BATCH: Final = 1024 * 1024
"""Bytes of one batch: a hop to a thread for each network read would cost more than writing it."""

_MAX_CHUNKS: Final = 512
"""Chunks of one batch, whatever their size: a sender of single bytes must not make us keep a million objects."""

_SCRAP: Final = 32 * 1024
"""Bytes in one chunk that a reader gets as they are; smaller chunks are put together for it."""

_WRITEBACK: Final = 8 * 1024 * 1024
"""Bytes after which the kernel is told to begin writing back, so that `commit` does not wait for the whole blob."""

_MAX_SUSPENDED_HASHES: Final = 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")


def check_name(name: str) -> None:
    """Raise InvalidUpload unless `name` can name an ingest."""
    if _NAME.fullmatch(name) is None:
        raise InvalidUpload("expected an ingest name of at most 128 letters, digits, '-' and '_'")


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """The file of a complete ingest, on the threshold of the store."""

    path: Path
    fd: int
    digest: Digest
    size: int
    verify: Callable[[], None]
    """Finishes the file and checks it. Blocks; raises SizeMismatch, DigestMismatch or OSError. Call it first."""


Publication = Callable[[ReceivedFile], Awaitable[str]]
"""Verifies a received file, makes it durable, takes it out of the area and returns its location.

When it raises, cancellation included, the blob is not in the store; the area drops the file if it is still there.
"""


MakeRoom = Callable[[], Awaitable[bool]]
"""Frees space on the disk and tells whether that succeeded; never raises but for a cancellation."""


class IngestArea:
    """The ingests of one store. Its directory belongs to one process at a time; the store sees to that."""

    def __init__(
        self,
        directory: Path,
        publish: Publication,
        *,
        threads: FileThreads,
        reads: FileReads,
        files: FileOperations,
    ) -> None:
        self._directory = directory
        self.make_room: MakeRoom | None = None
        """Asked when the disk is full, before an ingest fails for it."""
        self.publish = publish
        self.threads = threads
        self.files = files
        self._reads = reads
        self._open: dict[str, FileIngest | None] = {}
        """Names in use. None while one is being opened or reclaimed."""
        self._reclaims: list[set[str]] = []
        """For each reclaim that is looking around, the names it must spare."""
        self._suspended: BoundedMap[str, tuple[_Hash, int]] = BoundedMap(_MAX_SUSPENDED_HASHES)
        """Hash objects of suspended ingests with the size they stand for, so that no byte is hashed twice."""

    def prepare(self, lock: DirectoryLock) -> None:
        """Make the directories that are missing and take the lock of the one above, in a thread."""
        make_directory(self.files, self._directory.parent)
        lock.acquire()
        try:
            make_directory(self.files, self._directory)
        except OSError:
            lock.release()
            raise

    async def create(self, name: str, algorithm: str) -> FileIngest:
        """Start an ingest; raises Conflict when the name is taken, StorageFull or StorageUnavailable."""
        check_name(name)
        hasher = new_hasher(parse_algorithm(algorithm))
        return await self._opened(name, os.O_CREAT | os.O_EXCL, lambda _: hasher)

    async def resume(self, name: str, algorithm: str) -> FileIngest:
        """Take a suspended ingest up again; raises UploadNotFound when there is none, Conflict while it is open."""
        parse_algorithm(algorithm)
        if _NAME.fullmatch(name) is None:
            raise UploadNotFound
        return await self._opened(name, 0, lambda size: self._hasher_of(name, algorithm, size))

    async def reclaim(self, keep: Collection[str]) -> int:
        """Delete every ingest that is neither open nor named in `keep`, nor was opened meanwhile."""
        spared = set(keep)
        self._reclaims.append(spared)
        try:
            found = await self.threads.run(os.listdir, self._directory)
        finally:
            self._reclaims.remove(spared)
        victims = [name for name in found if name not in self._open and name not in spared]
        self._open.update(dict.fromkeys(victims))
        try:
            await self.threads.run(self._discard, victims)
        finally:
            for name in victims:
                self.forget(name)
        return len(victims)

    async def close(self) -> None:
        """Close the files of open ingests and leave them where they are."""
        for ingest in [ingest for ingest in self._open.values() if ingest is not None]:
            await ingest.forsake()

    def path_of(self, name: str) -> Path:
        """Return where an ingest's file lies."""
        return self._directory / name

    async def has_room_again(self) -> bool:
        """Have room made on a full disk; return whether there is some."""
        return self.make_room is not None and await self.make_room()

    def remember(self, name: str, hasher: _Hash, size: int) -> None:
        """Keep the hash object of an ingest that is being suspended."""
        self._suspended.put(name, (hasher, size))

    def release(self, name: str) -> None:
        """Make a name available for `resume`."""
        self._open.pop(name, None)

    def forget(self, name: str) -> None:
        """Let go of everything known of a name whose file is gone."""
        self._suspended.pop(name)
        self.release(name)

    async def _opened(self, name: str, flags: int, hasher_of: Callable[[int], _Hash | None]) -> FileIngest:
        if name in self._open:
            raise Conflict("the ingest is in use")
        self._open[name] = None
        for spared in self._reclaims:
            spared.add(name)
        try:
            fd = await self._acquired(name, flags)
        except BaseException:
            self.release(name)
            raise
        size = os.fstat(fd).st_size
        ingest = FileIngest(self, name, OpenFile(fd, self._reads, self.threads), hasher_of(size), size)
        self._open[name] = ingest
        return ingest

    async def _acquired(self, name: str, flags: int) -> int:
        while True:
            try:
                return await self.threads.acquire(
                    lambda: self._open_file(name, flags), lambda fd: self._undo(fd, name, flags)
                )
            except StorageFull:
                if not await self.has_room_again():
                    raise

    def _open_file(self, name: str, flags: int) -> int:
        try:
            return os.open(self.path_of(name), OPEN_FLAGS | os.O_RDWR | flags, 0o640)
        except FileExistsError as error:
            raise Conflict("the ingest exists") from error
        except FileNotFoundError as error:
            if flags:
                raise
            raise UploadNotFound from error

    def _undo(self, fd: int, name: str, flags: int) -> None:
        os.close(fd)
        if flags:
            discard(self.files, self.path_of(name))

    def _discard(self, names: list[str]) -> None:
        for name in names:
            discard(self.files, self.path_of(name))

    def _hasher_of(self, name: str, algorithm: str, size: int) -> _Hash | None:
        hasher, hashed = self._suspended.pop(name) or (None, 0)
        if hasher is not None and hasher.name == algorithm and hashed == size:
            return hasher
        return None if size else new_hasher(algorithm)


class FileIngest:
    """An `Ingest` in a file. `hasher` is None when nobody hashed its first bytes: `commit` reads them again then."""

    def __init__(self, area: IngestArea, name: str, file: OpenFile, hasher: _Hash | None, size: int) -> None:
        self.name = name
        self.offset = size
        self._area = area
        self._path = area.path_of(name)
        self._file = file
        self._hasher = hasher
        self._spent = False
        self._failure: BaseException | None = None
        # Accepted bytes lie, in this order, in the file, in the batch under way and in the chunks gathered since.
        self._written = size
        self._under_way: list[Chunk] = []
        self._gathered: list[Chunk] = []
        self._gathered_size = 0
        self._hops: tuple[asyncio.Future[None], ...] = ()
        self._is_rescue = False
        self._writeback = size

    async def write(self, chunk: Chunk) -> None:
        """Append `chunk`; see `Ingest.write`. A cancellation may leave it accepted: `offset` tells."""
        self._check_usable()
        if isinstance(chunk, memoryview) and chunk.nbytes != len(chunk):
            chunk = chunk.cast("B")
        self._gathered.append(chunk)
        self._gathered_size += len(chunk)
        self.offset += len(chunk)
        if self._gathered_size >= BATCH or len(self._gathered) >= _MAX_CHUNKS:
            await self._batch_over()
            self._start_batch()

    async def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """Return up to `length` accepted bytes from `offset`, from memory when they are not written yet."""
        self._check_open()
        length = min(length, PIECE)
        if offset < self._written:
            return await self._file.read(offset, min(length, self._written - offset))
        pieces = _cut(chain(self._under_way, self._gathered), offset - self._written, length)
        first = next(pieces, b"")
        # All who follow a fill send the same memory; only scraps are worth a copy, to be sent together.
        return first if len(first) >= _SCRAP else b"".join((first, *pieces))

    async def flush(self) -> None:
        """Return when every byte accepted so far is in the file; raises what went wrong with them."""
        self._check_usable()
        await self._batch_over()
        self._start_batch()
        await self._batch_over()

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """Return the digest of what is in the file, which is read again when nobody hashed all of it this way."""
        await self.flush()
        if self._hasher is not None and self._hasher.name == algorithm:
            return finished(self._hasher)
        hasher = await self._area.threads.run(hash_file, self._file.fd, parse_algorithm(algorithm))
        if self._hasher is None and not self._gathered:
            self._hasher = hasher
        return finished(hasher)

    async def commit(self, digest: Digest, size: int | None = None) -> StoredBlob:
        """Verify and publish; see `Ingest.commit`. A cancelled commit leaves nothing behind."""
        self._spend()
        try:
            await self._batch_over()
            received = ReceivedFile(self._path, self._file.fd, digest, self.offset, lambda: self._verify(digest, size))
            location = await self._publish(received)
        except BaseException:
            await settle(self._drop())
            raise
        self._area.forget(self.name)
        await settle(self._file.close())
        return StoredBlob(digest, received.size, location)

    async def _publish(self, received: ReceivedFile) -> str:
        while True:
            try:
                return await self._area.publish(received)
            except WritesLost:
                raise
            except StorageFull:
                if not await self._area.has_room_again():
                    raise

    async def suspend(self) -> None:
        """Flush and close, keeping the bytes. What was written stays also when the rest cannot be."""
        self._spend()
        await settle(self._suspend())

    async def abort(self) -> None:
        """Drop the bytes; nothing happens when the ingest is spent."""
        if not self._spent:
            self._spent = True
            await settle(self._drop())

    async def forsake(self) -> None:
        """Close the file as a crash would: what is not written yet is lost, what is written stays."""
        self._spent = True
        await settle(self._close())

    def _check_open(self) -> None:
        if self._spent:
            raise UploadNotFound("the ingest was committed, suspended or aborted")

    def _check_usable(self) -> None:
        self._check_open()
        if self._failure is not None:
            raise self._failure

    def _spend(self) -> None:
        self._check_open()
        self._spent = True

    async def _batch_over(self) -> None:
        """Wait for the batch under way; raise the failure of this one or an earlier one."""
        while self._hops:
            await asyncio.wait(self._hops)
        if self._failure is not None:
            raise self._failure

    def _start_batch(self) -> None:
        if not self._gathered or self._hops:
            return
        self._under_way, self._gathered, self._gathered_size = self._gathered, [], 0
        hops = [self._area.threads.start(self._append, self._under_way, self._written)]
        if self._hasher is not None:
            hops.append(self._area.threads.start(_hash, self._hasher, self._under_way))
        self._hops = tuple(hops)
        for hop in hops:
            hop.add_done_callback(self._batch_done)

    def _batch_done(self, _: asyncio.Future[None]) -> None:
        if not self._hops or not all(hop.done() for hop in self._hops):
            return
        failures = [failure for hop in self._hops if (failure := _failure_of(hop)) is not None]
        self._hops = ()
        if not failures:
            self._is_rescue = False
            self._written += sum(map(len, self._under_way))
            self._under_way = []
            return
        if len(failures) == 1 and isinstance(failures[0], StorageFull) and self._is_rescuable:
            self._rescue()
            return
        # Part of the batch may be in the file, but not in the hash: what counts now is what the file holds.
        self._failure = failures[0]
        self._hasher = None
        self._under_way, self._gathered = [], []
        self._written = self.offset = os.fstat(self._file.fd).st_size

    @property
    def _is_rescuable(self) -> bool:
        return self._area.make_room is not None and not self._is_rescue

    def _rescue(self) -> None:
        """Go on with the batch under way, which is hashed already, once there is room for it."""
        self._is_rescue = True
        again = asyncio.ensure_future(self._append_again())  # noqa: TID251 - awaited like every hop of this ingest
        self._hops = (again,)
        again.add_done_callback(self._batch_done)

    async def _append_again(self) -> None:
        while await self._area.has_room_again():
            try:
                return await self._area.threads.run(self._append, self._under_way, self._written)
            except StorageFull:
                continue
        raise StorageFull("no space is left for blobs")

    def _append(self, chunks: list[Chunk], offset: int) -> None:
        self._area.files.write(self._file.fd, chunks, offset)
        offset += sum(map(len, chunks))
        if offset - self._writeback >= _WRITEBACK:
            self._area.files.start_writeback(self._file.fd, self._writeback, offset - self._writeback)
            self._writeback = offset

    def _verify(self, digest: Digest, size: int | None) -> None:
        """Write the last chunks, once, and check the whole, in a thread."""
        if self._gathered:
            self._append(self._gathered, self._written)
            if self._hasher is not None:
                _hash(self._hasher, self._gathered)
            self._written, self._gathered = self.offset, []
        if size is not None and size != self.offset:
            raise SizeMismatch(f"expected {size} bytes, got {self.offset}")
        hasher = self._hasher
        if hasher is None or hasher.name != algorithm_of(digest):
            hasher = hash_file(self._file.fd, algorithm_of(digest))
        if finished(hasher) != digest:
            raise DigestMismatch(f"expected {digest}, got {finished(hasher)}")

    async def _suspend(self) -> None:
        reported = self._failure
        try:
            if reported is None:
                await self._batch_over()
                self._start_batch()
                await self._batch_over()
        finally:
            if self._hasher is not None:
                self._area.remember(self.name, self._hasher, self._written)
            await self._close()

    async def _drop(self) -> None:
        while self._hops:
            await asyncio.wait(self._hops)
        self._gathered = []
        try:
            await self._area.threads.run(discard, self._area.files, self._path)
        finally:
            self._area.forget(self.name)
            await self._file.close()

    async def _close(self) -> None:
        while self._hops:
            await asyncio.wait(self._hops)
        self._gathered = []
        self._area.release(self.name)
        await self._file.close()


def _cut(chunks: Iterator[Chunk], start: int, length: int) -> Iterator[bytes | memoryview]:
    """Yield the `length` bytes from `start` of `chunks` laid end to end, or as many as there are."""
    for chunk in chunks:
        if length <= 0:
            return
        if start < len(chunk):
            part = memoryview(chunk).toreadonly()[start : start + length]
            length -= len(part)
            yield part
        start = max(0, start - len(chunk))


def _failure_of(hop: asyncio.Future[None]) -> BaseException | None:
    return StorageUnavailable("the blob store is closed") if hop.cancelled() else hop.exception()


def _hash(hasher: _Hash, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        hasher.update(chunk)


def hash_file(fd: int, algorithm: str) -> _Hash:
    """Hash a whole file, in a thread."""
    hasher = new_hasher(algorithm)
    buffer = bytearray(BATCH)
    offset = 0
    while count := os.preadv(fd, [buffer], offset):
        hasher.update(memoryview(buffer)[:count])
        offset += count
    return hasher
