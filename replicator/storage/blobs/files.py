"""The operating system's file operations that decide whether bytes are safe, as a port that tests can make fail.

Everything here blocks and belongs in a thread. Only what a fault can strike on the way from an ingest to a durable blob
goes through `FileOperations`; plain opening and reading does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from replicator.core.errors import StorageError, StorageFull, StorageUnavailable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Chunk: TypeAlias = bytes | bytearray | memoryview

OPEN_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW
"""How every file of a store is opened: not inherited by children, and never through a symbolic link."""

_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_SYNC_FILE_RANGE_WRITE: Final = 2


class WritesLost(StorageFull):
    """no space was left for bytes that counted as written, and they are lost."""


def storage_error(error: OSError) -> StorageError:
    """Return what an operating system's error means to a caller of the store."""
    code = errno.errorcode.get(error.errno or 0, "unknown error")
    if error.errno in _NO_SPACE:
        return StorageFull(f"no space is left for blobs ({code})")
    return StorageUnavailable(f"the blob store's file system failed ({code})")


def lost_writes(error: OSError) -> StorageError:
    """Return what the error of an fsync means: what it was to make durable cannot be written again."""
    return WritesLost("no space is left for blobs") if error.errno in _NO_SPACE else storage_error(error)


class FileOperations(Protocol):
    """Writing, publishing and deleting files. Every method blocks and raises OSError."""

    def write(self, fd: int, chunks: Sequence[Chunk], offset: int) -> None:
        """Write all of `chunks`, at most 1,024 of them, one after the other from `offset`."""
        ...

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Ask for these bytes to be on their way to the disk early, so that `sync` has little left; a hint."""
        ...

    def sync(self, fd: int) -> None:
        """Return when the file's bytes are durable. After an error they are lost: do not try again."""
        ...

    def rename(self, source: Path, target: Path) -> None:
        """Move a file to a new name."""
        ...

    def sync_directory(self, directory: Path) -> None:
        """Return when the names in `directory` are durable."""
        ...

    def unlink(self, path: Path) -> None:
        """Delete a file."""
        ...


class PosixFiles:
    """`FileOperations` of the machine we run on."""

    def __init__(self) -> None:
        self._sync_file_range = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)

    def write(self, fd: int, chunks: Sequence[Chunk], offset: int) -> None:
        """Write all of `chunks` from `offset`, however many calls the kernel takes for it."""
        left: Sequence[Chunk] = chunks
        while left:
            written = os.pwritev(fd, left, offset)
            offset += written
            left = _after(left, written)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Start writing back, where Linux offers it. A failure of the disk shows in `sync`, so none is looked for."""
        if self._sync_file_range is not None:
            self._sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)

    def sync(self, fd: int) -> None:
        """Fsync the file."""
        os.fsync(fd)

    def rename(self, source: Path, target: Path) -> None:
        """Rename a file within its file system."""
        source.rename(target)

    def sync_directory(self, directory: Path) -> None:
        """Fsync the directory."""
        fd = os.open(directory, OPEN_FLAGS | os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def unlink(self, path: Path) -> None:
        """Delete a file."""
        path.unlink()


def discard(files: FileOperations, path: Path) -> None:
    """Delete a file that nobody needs, for clean-up: one that cannot be deleted stays for `reclaim_ingests`."""
    with contextlib.suppress(OSError):
        files.unlink(path)


def make_directory(files: FileOperations, directory: Path) -> None:
    """Make a directory and those above it, durably, as far as they are missing."""
    if directory.is_dir():
        return
    make_directory(files, directory.parent)
    directory.mkdir(mode=0o750, exist_ok=True)
    files.sync_directory(directory.parent)


def _after(chunks: Sequence[Chunk], count: int) -> Sequence[Chunk]:
    """Return what is left of `chunks` after their first `count` bytes."""
    for index, chunk in enumerate(chunks):
        if count < len(chunk):
            return [memoryview(chunk)[count:], *chunks[index + 1 :]]
        count -= len(chunk)
    return ()
