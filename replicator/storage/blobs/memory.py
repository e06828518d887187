"""Blobs in memory: a complete store for tests, which passes the same suite as the others.

What lasts lies in a `MemoryVolume`; stores opened on it one after the other see the same blobs and suspended ingests,
as processes would that use one disk.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from replicator.core.digest import Digest, algorithm_of, digest_of, parse_algorithm
from replicator.core.errors import (
    Conflict,
    CorruptBlob,
    DigestMismatch,
    SizeMismatch,
    StorageFull,
    StorageInUse,
    StorageUnavailable,
    UploadNotFound,
)
from replicator.storage.blobs.file_blob import check_range
from replicator.storage.blobs.ingest import check_name
from replicator.storage.blobs.location import checked_location, new_location
from replicator.storage.blobs.open_file import PIECE
from replicator.storage.blobs.port import StorageUsage, StoredBlob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection

    from replicator.storage.blobs.ingest import MakeRoom


@dataclass(slots=True)
class MemoryVolume:
    """The bytes that outlive a store. Tests may damage `blobs`, and set `capacity` to make the volume full."""

    capacity: int = 2**40
    ingests: dict[str, bytearray] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    in_use: bool = False

    @property
    def free(self) -> int:
        """Bytes that still fit."""
        return max(
            0,
            self.capacity - sum(map(len, self.ingests.values())) - sum(map(len, self.blobs.values())),
        )


class MemoryBlobStore:
    """A `BlobStore` on a `MemoryVolume`."""

    def __init__(self, volume: MemoryVolume | None = None) -> None:
        self.volume = volume or MemoryVolume()
        self.open_ingests: dict[str, MemoryIngest] = {}
        self._opened = False

    async def open(self) -> None:
        """Take the volume; raises StorageInUse when a store has it."""
        if self.volume.in_use:
            raise StorageInUse("the memory volume is in use")
        self.volume.in_use = self._opened = True

    async def close(self) -> None:
        """Give the volume up. Safe to call twice."""
        if self._opened:
            self.volume.in_use = self._opened = False
            for ingest in self.open_ingests.values():
                ingest.spent = True
            self.open_ingests.clear()

    def on_full(self, make_room: MakeRoom) -> None:
        """Change nothing: a full volume stays full here."""

    async def create_ingest(self, name: str, algorithm: str = "sha256") -> MemoryIngest:
        """Start an ingest."""
        self._check_open()
        check_name(name)
        parse_algorithm(algorithm)
        if name in self.volume.ingests:
            raise Conflict("the ingest exists")
        self.volume.ingests[name] = bytearray()
        return self._ingest(name)

    async def resume_ingest(self, name: str, algorithm: str = "sha256") -> MemoryIngest:
        """Take a suspended ingest up again."""
        self._check_open()
        parse_algorithm(algorithm)
        if name in self.open_ingests:
            raise Conflict("the ingest is in use")
        if name not in self.volume.ingests:
            raise UploadNotFound
        return self._ingest(name)

    async def read_blob(self, blob: StoredBlob) -> MemoryBlob:
        """Open a blob."""
        self._check_open()
        content = self.volume.blobs.get(checked_location(blob.location))
        if content is None or len(content) != blob.size:
            raise CorruptBlob(f"{blob.digest} is missing or has another size")
        return MemoryBlob(blob.digest, content)

    async def delete_blob(self, location: str) -> None:
        """Delete a blob."""
        self._check_open()
        self.volume.blobs.pop(checked_location(location), None)

    async def reclaim_ingests(self, keep: Collection[str]) -> int:
        """Delete every ingest that is neither open nor named in `keep`."""
        self._check_open()
        victims = [name for name in self.volume.ingests if name not in self.open_ingests and name not in keep]
        for name in victims:
            del self.volume.ingests[name]
        return len(victims)

    async def iter_locations(self) -> AsyncIterator[str]:
        """Yield the locations there are at the first step."""
        self._check_open()
        for location in tuple(self.volume.blobs):
            yield location

    async def usage(self) -> StorageUsage:
        """Return the volume's capacity and what is free of it."""
        self._check_open()
        return StorageUsage(self.volume.capacity, self.volume.free)

    def _check_open(self) -> None:
        if not self._opened:
            raise StorageUnavailable("the blob store is closed")

    def _ingest(self, name: str) -> MemoryIngest:
        ingest = self.open_ingests[name] = MemoryIngest(self, name)
        return ingest


class MemoryIngest:
    """An `Ingest` in a bytearray of the volume."""

    def __init__(self, store: MemoryBlobStore, name: str) -> None:
        self.name = name
        self.spent = False
        self._store = store
        self._content = store.volume.ingests[name]
        self.offset = len(self._content)

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append `chunk`; raises StorageFull when the volume's capacity does not hold it."""
        self._check_usable()
        chunk = memoryview(chunk).cast("B")
        if len(chunk) > self._store.volume.free:
            raise StorageFull("the memory volume is full")
        self._content += chunk
        self.offset = len(self._content)

    async def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """Return up to `length` bytes from `offset`."""
        self._check_usable()
        return bytes(self._content[offset : offset + min(length, PIECE)])

    async def flush(self) -> None:
        """Return at once: nothing runs behind."""
        self._check_usable()

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """Hash what there is."""
        self._check_usable()
        return digest_of(bytes(self._content), algorithm)

    async def commit(self, digest: Digest, size: int | None = None) -> StoredBlob:
        """Check size and digest and publish."""
        self._check_usable()
        await self.abort()
        content = bytes(self._content)
        if size is not None and size != len(content):
            raise SizeMismatch(f"expected {size} bytes, got {len(content)}")
        found = digest_of(content, algorithm_of(digest))
        if found != digest:
            raise DigestMismatch(f"expected {digest}, got {found}")
        location = new_location(digest)
        self._store.volume.blobs[location] = content
        return StoredBlob(digest, len(content), location)

    async def suspend(self) -> None:
        """Keep the bytes for `resume_ingest`."""
        self._check_usable()
        self.spent = True
        del self._store.open_ingests[self.name]

    async def abort(self) -> None:
        """Drop the bytes."""
        if not self.spent:
            self.spent = True
            del self._store.open_ingests[self.name]
            del self._store.volume.ingests[self.name]

    def _check_usable(self) -> None:
        if self.spent:
            raise UploadNotFound("the ingest was committed, suspended or aborted")


class MemoryBlob:
    """`BlobContent` of bytes."""

    def __init__(self, digest: Digest, content: bytes) -> None:
        self.digest = digest
        self.size = len(content)
        self._content = content

    async def read(self, start: int, length: int) -> AsyncIterator[memoryview]:
        """Yield `length` bytes from `start`."""
        check_range(start, length, self.size)
        view = memoryview(self._content)[start : start + length]
        for offset in range(0, length, PIECE):
            yield view[offset : offset + PIECE]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None
