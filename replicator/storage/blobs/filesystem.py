"""Blobs as files, durable once `commit` returned.

    <root>/
      lock                                       held by the daemon that owns the store; its process id
      ingest/<name>                              bytes on their way in, as long as what has been received
      blobs/<algorithm>/<2 hex>/<hex>.<random>   committed blobs, read-only; the part below blobs/ is the location

A file below `blobs/` is complete and has its digest: it gets there by rename, after the check and the fsync. Whatever a
crash leaves therefore lies in `ingest/`, where `reclaim_ingests` finds it.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from replicator.core.bounded import BoundedMap
from replicator.core.digest import ALGORITHMS, algorithm_of, finished
from replicator.core.errors import CorruptBlob
from replicator.storage.blobs.directory_lock import DirectoryLock
from replicator.storage.blobs.file_blob import FileBlob, open_blob_file
from replicator.storage.blobs.files import FileOperations, PosixFiles, discard, lost_writes
from replicator.storage.blobs.ingest import FileIngest, IngestArea, ReceivedFile, hash_file
from replicator.storage.blobs.location import checked_location, is_location, new_location
from replicator.storage.blobs.open_file import FileReads, OpenFile
from replicator.storage.blobs.port import StorageUsage, StoredBlob
from replicator.storage.blobs.threads import FileThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection
    from pathlib import Path

    from replicator.storage.blobs.ingest import MakeRoom


_MAX_TRUSTED = 100_000


class FilesystemBlobStore:
    """A `BlobStore` in a directory of one file system; see `BlobStore` for what the methods promise."""

    def __init__(self, root: Path, *, threads: int = 8, files: FileOperations | None = None) -> None:
        self._root = root
        self._blobs = root / "blobs"
        self._files: FileOperations = files or PosixFiles()
        self._threads = FileThreads(threads)
        self._reads = FileReads(self._threads)
        self._lock = DirectoryLock(root)
        self._ingests = IngestArea(
            root / "ingest",
            self._publish,
            threads=self._threads,
            reads=self._reads,
            files=self._files,
        )
        self._shards = _DurableDirectories(self._files)
        self._touched = _TouchedFiles()

    async def open(self) -> None:
        """Make what is missing and take the directory's lock; raises StorageInUse, StorageUnavailable."""
        self._threads.open()
        await self._threads.run(self._ingests.prepare, self._lock)

    async def close(self) -> None:
        """Close open ingests, wait for the operations under way and give the lock up. Safe to call twice."""
        await self._ingests.close()
        await self._threads.close()
        self._lock.release()

    def on_full(self, make_room: MakeRoom) -> None:
        """Ask for room when the disk is full, and write again when some was made."""
        self._ingests.make_room = make_room

    async def create_ingest(self, name: str, algorithm: str = "sha256") -> FileIngest:
        """Start an ingest."""
        return await self._ingests.create(name, algorithm)

    async def resume_ingest(self, name: str, algorithm: str = "sha256") -> FileIngest:
        """Take a suspended ingest up again; `commit` hashes bytes again that another process received."""
        return await self._ingests.resume(name, algorithm)

    async def read_blob(self, blob: StoredBlob) -> FileBlob:
        """Open a blob; raises CorruptBlob unless its file is a regular one of its size."""
        path = self._path_of(blob.location)
        fd = await self._threads.acquire(lambda: self._open_blob(path, blob), os.close)
        return FileBlob(blob.digest, blob.size, OpenFile(fd, self._reads, self._threads))

    async def delete_blob(self, location: str) -> None:
        """Delete a blob's file."""
        await self._threads.run(self._delete, self._path_of(location))

    async def reclaim_ingests(self, keep: Collection[str]) -> int:
        """Delete every ingest that is neither open nor named in `keep`."""
        return await self._ingests.reclaim(keep)

    async def iter_locations(self) -> AsyncIterator[str]:
        """Yield every location; one directory of the tree at a time, passing over strange files."""
        for algorithm in sorted(ALGORITHMS):
            for shard in await self._threads.run(_names_in, self._blobs / algorithm):
                for name in await self._threads.run(_names_in, self._blobs / algorithm / shard):
                    location = f"{algorithm}/{shard}/{name}"
                    if is_location(location):
                        yield location

    async def usage(self) -> StorageUsage:
        """Return the space of the file system, free as an unprivileged process may use it."""
        found = await self._threads.run(os.statvfs, self._root)
        return StorageUsage(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)

    def _path_of(self, location: str) -> Path:
        return self._blobs / checked_location(location)

    async def _publish(self, received: ReceivedFile) -> str:
        location = new_location(received.digest)
        target = self._blobs / location
        await self._threads.acquire(
            lambda: self._publish_file(received, target), lambda _: discard(self._files, target)
        )
        return location

    def _publish_file(self, received: ReceivedFile, target: Path) -> None:
        """Take the staircase from a received file to a durable blob, in one hop.

        1. check size and digest; 2. fsync the file, once: after an error its pages may count as clean and a second
        fsync would succeed for nothing; 3. rename; 4. fsync the directory. Whatever fails leaves no blob. Only where
        the disk was full before 2 or before 3 are the received bytes whole, so that it may be tried again.
        """
        received.verify()
        os.fchmod(received.fd, 0o440)
        try:
            self._files.sync(received.fd)
        except OSError as error:
            raise lost_writes(error) from error
        self._shards.ensure(target.parent)
        self._files.rename(received.path, target)
        try:
            self._files.sync_directory(target.parent)
        except OSError as error:
            discard(self._files, target)
            raise lost_writes(error) from error

    def _open_blob(self, path: Path, blob: StoredBlob) -> int:
        fd = open_blob_file(path, blob.digest, blob.size)
        try:
            self._touched.check(fd, blob)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _delete(self, path: Path) -> None:
        try:
            self._files.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return


class _TouchedFiles:
    """Looks at the bytes of files that somebody touched since they were verified.

    Whatever writes to a file sets its time of change, which nobody can set back. Files that were merely moved or
    restored look touched as well: they are read once, and trusted until they are touched again.
    """

    def __init__(self) -> None:
        self._trusted: BoundedMap[str, int] = BoundedMap(_MAX_TRUSTED)
        self._changing = threading.Lock()

    def check(self, fd: int, blob: StoredBlob) -> None:
        """Raise CorruptBlob for a touched file whose bytes are not the blob's."""
        found = os.fstat(fd)
        if blob.verified_at is None or found.st_ctime <= blob.verified_at:
            return
        if self._trusted.peek(blob.location) == found.st_ctime_ns:
            return
        if finished(hash_file(fd, algorithm_of(blob.digest))) != blob.digest:
            raise CorruptBlob(f"the file of {blob.digest} was changed, and has other content")
        with self._changing:
            self._trusted.put(blob.location, found.st_ctime_ns)


class _DurableDirectories:
    """Directories of blobs whose own names are known to be durable.

    A blob acknowledged in a directory that a power loss takes back would be lost with it. So nobody puts a blob into
    one before the fsync of its parent is over, also when another thread made it a moment ago or an earlier process
    did.
    """

    def __init__(self, files: FileOperations) -> None:
        self._files = files
        self._known: set[Path] = set()
        self._changing = threading.Lock()

    def ensure(self, directory: Path) -> None:
        """Make `directory`, a grandchild of the blobs' directory, and return when its name is durable."""
        if directory in self._known and directory.is_dir():
            return
        with self._changing:
            for path in (directory.parent.parent, directory.parent, directory):
                path.mkdir(mode=0o750, exist_ok=True)
                self._files.sync_directory(path.parent)
            self._known.add(directory)


def _names_in(directory: Path) -> list[str]:
    try:
        return [entry.name for entry in directory.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []
