"""A committed blob read from its file."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, Final, Self

from replicator.core.errors import CorruptBlob, RangeNotSatisfiable
from replicator.storage.blobs.files import OPEN_FLAGS
from replicator.storage.blobs.open_file import FIRST_PIECE, PIECE, OpenFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.core.digest import Digest

_NO_BLOB_FILE: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO})


class FileBlob:
    """`BlobContent` of a file. It stays readable when its blob is deleted meanwhile.

    A piece never changes once it was yielded: transports keep a reference to what they could not send yet.
    """

    def __init__(self, digest: Digest, size: int, file: OpenFile) -> None:
        self.digest = digest
        self.size = size
        self._file = file

    async def read(self, start: int, length: int) -> AsyncIterator[memoryview]:
        """Yield `length` bytes from `start`; raises CorruptBlob when the file ends before that."""
        check_range(start, length, self.size)
        end = start + length
        step = FIRST_PIECE
        while start < end:
            piece = await self._file.read(start, min(step, end - start))
            if not piece:
                raise CorruptBlob(f"{self.digest} ends at byte {start}, expected {self.size} bytes")
            start += len(piece)
            # Of many clients that come at once, only those that take what they get hold much.
            step = min(2 * step, PIECE)
            yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._file.close()


def open_blob_file(path: Path, digest: Digest, size: int) -> int:
    """Open the file of a blob for reading, in a thread; raises CorruptBlob unless it is a regular file of that size."""
    try:
        # Non-blocking matters when a pipe was put in the blob's place: opening one would wait for a writer.
        fd = os.open(path, OPEN_FLAGS | os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _NO_BLOB_FILE:
            raise CorruptBlob(f"there is no file of {digest} at its location") from error
        raise
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        os.close(fd)
        raise CorruptBlob(f"the file of {digest} has {found.st_size} bytes, expected {size}")
    return fd


def check_range(start: int, length: int, size: int) -> None:
    """Raise RangeNotSatisfiable unless `length` bytes from `start` lie within `size` bytes."""
    if start < 0 or length < 0 or start + length > size:
        raise RangeNotSatisfiable(f"expected a range within {size} bytes, got {length} from {start}", size=size)
