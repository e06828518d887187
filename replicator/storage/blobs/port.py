"""The port of a blob store: a write is a transaction, a read is of something verified.

Bytes come in through an *ingest*, a growing private file that nobody reaches by digest. `commit` is the only way out
of it into the store, and it checks size and digest first; every other exit leaves nothing readable behind. A committed
blob lies at a *location*, an opaque key that is new for every physical write, so that deleting one key can never take
the bytes of a later write of the same digest with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Collection

    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest


@dataclass(frozen=True, slots=True)
class StoredBlob:
    """A blob as it lies in the store. `location` means something only to the store that made it.

    `verified_at` is when the bytes were last known to have the digest, in Unix seconds; None: nobody says.
    """

    digest: Digest
    size: int
    location: str
    verified_at: float | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class StorageUsage:
    """Bytes of the volume behind the store; zero where the store has no such limit (an object store)."""

    total_bytes: int
    free_bytes: int


class Ingest(Protocol):
    """Bytes on their way into the store, owned by one writer at a time.

    `offset` counts the bytes accepted so far. After `commit`, `abort` or `suspend`, successful or not, the object is
    spent: `abort` does nothing then, and everything else raises UploadNotFound. Readers may follow it meanwhile with
    `read_at`.
    """

    name: str
    offset: int

    async def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Append `chunk`, hashing it on the way.

        Writing runs behind: chunks are gathered, and the call returns once at most one earlier batch is still under
        way. An error of that one is raised by this and every later call, and takes `offset` back to the bytes that are
        stored. The chunk must not be changed afterwards. Raises StorageFull or StorageUnavailable.
        """
        ...

    async def read_at(self, offset: int, length: int) -> bytes | memoryview:
        """Return up to `length` of the bytes accepted so far from `offset`, for readers that follow a growing ingest.

        At least one byte comes while `offset` is below the ingest's own, with or without `flush`. What is
        returned is not changed afterwards.
        """
        ...

    async def flush(self) -> None:
        """Return when every accepted byte is stored; raises StorageFull or StorageUnavailable."""
        ...

    async def digest(self, algorithm: str = "sha256") -> Digest:
        """Return the digest of every byte accepted so far, once they are stored; the ingest goes on.

        Raises StorageFull or StorageUnavailable.
        """
        ...

    async def commit(self, digest: Digest, size: int | None = None) -> StoredBlob:
        """Check size (if given), then digest; make the bytes durable; publish them at a new location.

        Staircase: flush, size, digest, fsync file, rename, fsync directory. Raises SizeMismatch, DigestMismatch,
        StorageFull or StorageUnavailable, and in every such case, and after a cancellation, the ingest is gone.
        """
        ...

    async def suspend(self) -> None:
        """Flush and close, keeping the bytes for `resume_ingest`.

        Raises StorageFull or StorageUnavailable when the last bytes cannot be stored; those before them are kept.
        """
        ...

    async def abort(self) -> None:
        """Drop the bytes. Safe to call twice, and after `commit` or `suspend`."""
        ...


class BlobStore(Protocol):
    """Where blobs lie. One process owns a store at a time."""

    async def open(self) -> None:
        """Take the store into use, making what is missing; raises StorageInUse when another process has it."""
        ...

    async def close(self) -> None:
        """Give the store up. Ingests that are open are left as a crash would leave them."""
        ...

    def on_full(self, make_room: Callable[[], Awaitable[bool]]) -> None:
        """Have `make_room` called when a write finds no space, once for each shortage.

        Where it returns True, the write is tried again; where it returns False, StorageFull is raised. It does not
        raise.
        """
        ...

    async def create_ingest(self, name: str, algorithm: str = "sha256") -> Ingest:
        """Start an ingest. `name` is unique, at most 128 letters, digits, `-` and `_`.

        Raises Conflict when the name is taken, StorageFull or StorageUnavailable.
        """
        ...

    async def resume_ingest(self, name: str, algorithm: str = "sha256") -> Ingest:
        """Take a suspended ingest up again, also after a restart.

        Raises UploadNotFound when there is none, Conflict while somebody else has it open.
        """
        ...

    async def read_blob(self, blob: StoredBlob) -> BlobContent:
        """Open a committed blob; raises CorruptBlob when it is missing or of another size, else StorageUnavailable.

        A store that can tell that the bytes were touched after `verified_at` looks at them first, and raises
        CorruptBlob when they are others.
        The content stays readable when the blob is deleted meanwhile, as far as the store can do that (an object store
        raises CorruptBlob).
        """
        ...

    async def delete_blob(self, location: str) -> None:
        """Delete the bytes at a location; nothing happens when they are gone already."""
        ...

    async def reclaim_ingests(self, keep: Collection[str]) -> int:
        """Delete every ingest that is neither open nor named in `keep`; return how many. For after a crash."""
        ...

    def iter_locations(self) -> AsyncIterator[str]:
        """Yield the location of every committed blob, in no particular order."""
        ...

    async def usage(self) -> StorageUsage:
        """Return the space of the volume behind the store."""
        ...
