"""An open file that many coroutines read at once: from memory on the event loop, from the disk in a thread.

Bytes that lie in the page cache cost less to read than a hop to a thread does, and `RWF_NOWAIT` makes the kernel
promise that such a read does not wait for the disk. A file descriptor is closed only when no thread uses it: its
number would be given to another file, and a late read would return that one's bytes.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from replicator.storage.blobs.read_buffers import ReadBuffers

if TYPE_CHECKING:
    from replicator.storage.blobs.threads import FileThreads

PIECE: Final = 512 * 1024
"""Bytes of one read: what a reader whose client stalls holds. Smaller pieces cost a fast client throughput."""

_NOWAIT: Final[int | None] = getattr(os, "RWF_NOWAIT", None)


FIRST_PIECE: Final = 64 * 1024
"""Bytes that every reader gets at a time, however many there are."""

_HELD: Final = 32 * 1024 * 1024
"""Bytes that the readers of all open files hold together while their clients take them, as long as that is possible."""


class FileReads:
    """How the files of one file system are read; remembers when it cannot tell what is in memory (tmpfs, for one)."""

    def __init__(self, threads: FileThreads) -> None:
        self.open_files = 0
        self._threads = threads
        self._nowait = _NOWAIT
        self._buffers = ReadBuffers(PIECE)

    async def read(self, fd: int, offset: int, length: int) -> memoryview:
        """Return up to `length` bytes from `offset`, at most PIECE and less of many files; none at the end of the file.

        What is returned is not changed afterwards.
        """
        piece = max(FIRST_PIECE, min(PIECE, _HELD // max(1, self.open_files)))
        buffer = self._buffers.take(min(length, piece))
        count = self._read_cached(fd, buffer, offset)
        if count is None:
            count = await self._threads.run(os.preadv, fd, [buffer], offset)
        return buffer[:count]

    def _read_cached(self, fd: int, buffer: memoryview, offset: int) -> int | None:
        if self._nowait is None:
            return None
        try:
            return os.preadv(fd, [buffer], offset, self._nowait)
        except BlockingIOError:
            return None
        except OSError:
            # Not a verdict on the file: a file system that cannot do this says so here, a bad disk in the thread.
            self._nowait = None
            return None


class OpenFile:
    """A file descriptor with its readers; `fd` itself is for whoever owns the file."""

    def __init__(self, fd: int, reads: FileReads, threads: FileThreads) -> None:
        self.fd = fd
        self._reads = reads
        self._threads = threads
        self._readers = 0
        self._closed = False
        reads.open_files += 1

    async def read(self, offset: int, length: int) -> memoryview:
        """Return up to `length` bytes from `offset`; raises StorageUnavailable."""
        self._readers += 1
        try:
            return await self._reads.read(self.fd, offset, length)
        finally:
            self._readers -= 1
            if self._closed and not self._readers:
                await self._close()

    async def close(self) -> None:
        """Close the file, now or when the last read of it is over. Safe to call twice."""
        if self._closed:
            return
        self._closed = True
        self._reads.open_files -= 1
        if not self._readers:
            await self._close()

    async def _close(self) -> None:
        # The last close of a deleted file gives its blocks back, which takes long for a large one.
        if os.fstat(self.fd).st_nlink == 0 and self._threads.is_open:
            await self._threads.run(os.close, self.fd)
        else:
            os.close(self.fd)
