"""Space on the disk of the metadata that is kept for a bad day: what frees space on a full disk writes rows itself.

A file of a few MiB beside the database. It is deleted before the first of those rows is written, and made again when
there is space. That it is missing harms nothing until the disk is full.
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

SIZE: Final = 4 * 1024 * 1024
_TIMES_FREE: Final = 2
"""The ballast is taken only where this many times its size is free."""


class BallastFile:
    """The ballast of one node."""

    def __init__(self, path: Path, size: int = SIZE) -> None:
        self._path = path
        self._size = size

    async def make(self) -> bool:
        """Take the space if there is plenty; return whether it is kept now. A disk that fails keeps none."""
        return await asyncio.to_thread(self._make)

    async def release(self) -> bool:
        """Give the space back if the disk is full; return whether that was done."""
        return await asyncio.to_thread(self._release)

    def _make(self) -> bool:
        try:
            if self._path.exists():
                return True
            if self._free() < _TIMES_FREE * self._size:
                return False
            fd = os.open(self._path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.posix_fallocate(fd, 0, self._size)
            finally:
                os.close(fd)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        return True

    def _release(self) -> bool:
        try:
            if self._free() >= self._size:
                return False
            self._path.unlink()
        except OSError:
            return False
        return True

    def _free(self) -> int:
        found = os.statvfs(self._path.parent)
        return found.f_bavail * found.f_frsize
