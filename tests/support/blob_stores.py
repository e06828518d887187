"""Blob stores to test against: a bench makes stores on one backing, looks behind them and damages what lies there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.store import S3Store

from replicator.storage.blobs.files import PosixFiles
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.blobs.memory import MemoryBlobStore, MemoryVolume
from replicator.storage.blobs.object_store import ObjectStoreBlobStore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.storage.blobs.files import Chunk
    from replicator.storage.blobs.port import BlobStore
    from tests.support.s3_server import S3Server

BUCKET = "blobs"


class BlobStoreBench(Protocol):
    """One backing and the stores on it."""

    def new_store(self) -> BlobStore:
        """Return a store that is not open yet; several are like several processes on one backing."""
        ...

    def ingests(self) -> set[str]:
        """Return the names of the ingests that lie in the backing."""
        ...

    def put(self, location: str, content: bytes) -> None:
        """Replace the bytes at a location behind the store's back."""
        ...

    def remove(self, location: str) -> None:
        """Delete the bytes at a location behind the store's back."""
        ...

    def open_files(self) -> list[str]:
        """Return the files of the backing that this process has open, without the lock."""
        ...


class MemoryBench:
    """A volume in memory."""

    def __init__(self) -> None:
        self._volume = MemoryVolume()

    def new_store(self) -> BlobStore:
        return MemoryBlobStore(self._volume)

    def ingests(self) -> set[str]:
        return set(self._volume.ingests)

    def put(self, location: str, content: bytes) -> None:
        self._volume.blobs[location] = content

    def remove(self, location: str) -> None:
        del self._volume.blobs[location]

    def open_files(self) -> list[str]:
        return []


class FilesystemBench:
    """A directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def new_store(self) -> BlobStore:
        return FilesystemBlobStore(self._root)

    def ingests(self) -> set[str]:
        return names_in(self._root / "ingest")

    def put(self, location: str, content: bytes) -> None:
        path = self._root / "blobs" / location
        path.unlink()
        path.write_bytes(content)

    def remove(self, location: str) -> None:
        (self._root / "blobs" / location).unlink()

    def open_files(self) -> list[str]:
        return open_files_below(self._root)


class ObjectStoreBench:
    """A prefix of a bucket of a real server, and a directory for ingests."""

    def __init__(self, directory: Path, server: S3Server, prefix: str) -> None:
        self._directory = directory
        self._server = server
        self._prefix = prefix
        self._objects = S3Store(
            BUCKET,
            prefix=prefix,
            endpoint=server.endpoint,
            access_key_id=server.access_key_id,
            secret_access_key=server.secret_access_key,
            client_options={"allow_http": True},
        )
        obstore.put(self._objects, "beside-the-blobs", b"")  # which makes the bucket

    def new_store(self) -> BlobStore:
        return ObjectStoreBlobStore(
            self._directory,
            endpoint=self._server.endpoint,
            bucket=BUCKET,
            prefix=self._prefix,
            access_key_id=self._server.access_key_id,
            secret_access_key=self._server.secret_access_key,
            allow_http=True,
        )

    def ingests(self) -> set[str]:
        return names_in(self._directory / "ingest")

    def put(self, location: str, content: bytes) -> None:
        obstore.put(self._objects, f"blobs/{location}", content)

    def remove(self, location: str) -> None:
        obstore.delete(self._objects, f"blobs/{location}")

    def open_files(self) -> list[str]:
        return open_files_below(self._directory)


class ScriptedFiles(PosixFiles):
    """Real file operations that keep a record, and fail where a test says so.

    `failures` maps the name of an operation to the errors of its next calls, one each; None lets a call pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.record: list[str] = []
        self.failures: dict[str, list[OSError | None]] = {}

    def write(self, fd: int, chunks: Sequence[Chunk], offset: int) -> None:
        self._next("write", f"/proc/self/fd/{fd}")
        super().write(fd, chunks, offset)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        self._next("start_writeback", f"/proc/self/fd/{fd}")
        super().start_writeback(fd, offset, length)

    def sync(self, fd: int) -> None:
        self._next("sync", f"/proc/self/fd/{fd}")
        super().sync(fd)

    def rename(self, source: Path, target: Path) -> None:
        self._next("rename", source, target)
        super().rename(source, target)

    def sync_directory(self, directory: Path) -> None:
        self._next("sync_directory", directory)
        super().sync_directory(directory)

    def unlink(self, path: Path) -> None:
        self._next("unlink", path)
        super().unlink(path)

    def _next(self, operation: str, *paths: str | Path) -> None:
        self.record.append(" ".join([operation, *(str(Path(path).resolve()) for path in paths)]))
        pending = self.failures.get(operation)
        failure = pending.pop(0) if pending else None
        if failure is not None:
            raise failure


def names_in(directory: Path) -> set[str]:
    """Return the names in a directory."""
    return {path.name for path in directory.iterdir()}


def open_files_below(directory: Path) -> list[str]:
    """Return the files below `directory` that this process has open, deleted ones too, without its lock."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = os.readlink(entry)  # noqa: PTH115 - the target of a deleted file is no path
        except FileNotFoundError:
            continue
        if target.startswith(f"{directory}/") and target != f"{directory}/lock":
            found.append(target)
    return sorted(found)
