"""One owner for a directory: two daemons on one store would reclaim each other's ingests.

The lock is the kernel's (`flock`), so it ends with the process that holds it, however that ends, and needs no clean-up.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from replicator.core.errors import StorageInUse
from replicator.storage.blobs.files import OPEN_FLAGS

if TYPE_CHECKING:
    from pathlib import Path


class DirectoryLock:
    """An exclusive lock on a directory, by its file `lock` with the owner's process id in it. Blocks: use a thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock of an existing directory; raises StorageInUse when somebody has it, this process included."""
        fd = os.open(self._directory / "lock", OPEN_FLAGS | os.O_RDWR | os.O_CREAT, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except BlockingIOError as error:
            owner = os.pread(fd, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StorageInUse(f"{self._directory} is in use by process {owner}") from error
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def release(self) -> None:
        """Give the lock up. Safe to call when it is not held."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)
