"""Blobs as objects of an S3 bucket; ingests are local files.

    <directory>/lock             held by the daemon whose ingests these are
    <directory>/ingest/<name>    bytes on their way in
    <prefix>/blobs/<location>    committed blobs; every write makes a key of its own, so none is ever overwritten

The blob is checked before it is uploaded and its size is compared afterwards; on the way each part is signed together
with its SHA-256. What a crash or a cancellation leaves in the bucket is an object that no row refers to, which
`iter_locations` finds, or an incomplete multipart upload, which a lifecycle rule of the bucket has to expire
(AbortIncompleteMultipartUpload). Nothing here asks for a lock on the bucket: keys never collide.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from replicator.core.errors import CorruptBlob, StorageUnavailable
from replicator.storage.blobs.directory_lock import DirectoryLock
from replicator.storage.blobs.file_blob import check_range
from replicator.storage.blobs.files import FileOperations, PosixFiles, discard
from replicator.storage.blobs.ingest import FileIngest, IngestArea, ReceivedFile
from replicator.storage.blobs.location import checked_location, is_location, new_location
from replicator.storage.blobs.open_file import PIECE, FileReads
from replicator.storage.blobs.port import StorageUsage, StoredBlob
from replicator.storage.blobs.threads import FileThreads

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection
    from pathlib import Path
    from typing import Self

    from replicator.core.digest import Digest
    from replicator.storage.blobs.bucket import Bucket
    from replicator.storage.blobs.ingest import MakeRoom

_BLOBS: Final = "blobs/"


class ObjectStoreBlobStore:
    """A `BlobStore` in a bucket; see `BlobStore` for what the methods promise. Needs the extra `object-store`.

    Two uploads at a time bound the memory of parts under way; opening the store does not touch the network.
    """

    def __init__(
        self,
        directory: Path,
        *,
        bucket: str,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        endpoint: str | None = None,
        region: str = "us-east-1",
        prefix: str = "",
        allow_http: bool = False,
        virtual_hosted: bool = False,
        timeout: float = 30.0,
        threads: int = 8,
        uploads: int = 2,
    ) -> None:
        def connect() -> Bucket:
            # Here and not above: obstore is an extra, and large; only a node that uses it loads it.
            from replicator.storage.blobs.bucket import Bucket  # noqa: PLC0415 - see above

            return Bucket(
                endpoint=endpoint,
                bucket=bucket,
                prefix=prefix,
                region=region,
                access_key_id=access_key_id,
                secret_access_key=secret_access_key,
                allow_http=allow_http,
                virtual_hosted=virtual_hosted,
                timeout=timeout,
            )

        self._connect: Callable[[], Bucket] = connect
        self._connected: Bucket | None = None
        self._directory = directory
        self._files: FileOperations = PosixFiles()
        self._threads = FileThreads(threads)
        self._lock = DirectoryLock(directory)
        self._uploads = asyncio.Semaphore(uploads)
        self._ingests = IngestArea(
            directory / "ingest",
            self._publish,
            threads=self._threads,
            reads=FileReads(self._threads),
            files=self._files,
        )

    async def open(self) -> None:
        """Make and lock the directory of ingests; raises StorageInUse, StorageUnavailable."""
        self._threads.open()
        await self._threads.run(self._ingests.prepare, self._lock)
        self._connected = self._connect()

    async def close(self) -> None:
        """Close open ingests, wait for file operations under way and give the lock up. Safe to call twice."""
        self._connected = None
        await self._ingests.close()
        await self._threads.close()
        self._lock.release()

    def on_full(self, make_room: MakeRoom) -> None:
        """Ask for room when the disk of the ingests is full, and write again when some was made."""
        self._ingests.make_room = make_room

    async def create_ingest(self, name: str, algorithm: str = "sha256") -> FileIngest:
        """Start an ingest."""
        return await self._ingests.create(name, algorithm)

    async def resume_ingest(self, name: str, algorithm: str = "sha256") -> FileIngest:
        """Take a suspended ingest up again."""
        return await self._ingests.resume(name, algorithm)

    async def read_blob(self, blob: StoredBlob) -> ObjectBlob:
        """Look an object up; raises CorruptBlob unless it is there and of its size."""
        key = _key(blob.location)
        size = await self._bucket.size_of(key)
        if size != blob.size:
            raise CorruptBlob(f"the object of {blob.digest} has {size} bytes, expected {blob.size}")
        return ObjectBlob(blob.digest, blob.size, key, self._bucket)

    async def delete_blob(self, location: str) -> None:
        """Delete an object."""
        await self._bucket.delete(_key(location))

    async def reclaim_ingests(self, keep: Collection[str]) -> int:
        """Delete every ingest that is neither open nor named in `keep`."""
        return await self._ingests.reclaim(keep)

    async def iter_locations(self) -> AsyncIterator[str]:
        """Yield every location, passing over strange objects."""
        async for key in self._bucket.iter_keys(_BLOBS):
            location = key.removeprefix(_BLOBS)
            if is_location(location):
                yield location

    async def usage(self) -> StorageUsage:
        """Return zeros: a bucket has no size."""
        return StorageUsage(0, 0)

    @property
    def _bucket(self) -> Bucket:
        if self._connected is None:
            raise StorageUnavailable("the blob store is closed")
        return self._connected

    async def _publish(self, received: ReceivedFile) -> str:
        location = new_location(received.digest)
        await self._threads.run(received.verify)
        async with self._uploads:
            await self._bucket.put_file(_key(location), received.path, received.size)
        size = await self._bucket.size_of(_key(location))
        if size != received.size:
            raise StorageUnavailable(f"the object store kept {size} of {received.size} bytes")
        await self._threads.run(discard, self._files, received.path)
        return location


class ObjectBlob:
    """`BlobContent` of an object, read by range."""

    def __init__(self, digest: Digest, size: int, key: str, bucket: Bucket) -> None:
        self.digest = digest
        self.size = size
        self._key = key
        self._bucket = bucket

    async def read(self, start: int, length: int) -> AsyncIterator[memoryview]:
        """Yield `length` bytes from `start`; raises CorruptBlob when the object is gone or ends before that."""
        check_range(start, length, self.size)
        left = length
        if left:
            async for piece in self._bucket.read(self._key, start, length, PIECE):
                left -= len(piece)
                yield piece
        if left:
            raise CorruptBlob(f"the object of {self.digest} ends {left} bytes early")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        return None


def _key(location: str) -> str:
    return _BLOBS + checked_location(location)
