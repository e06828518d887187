"""The port of a metadata database: run steps, reading or writing."""

from __future__ import annotations

from typing import Protocol, TypeVar

from replicator.storage.metadata.statement import Body, Steps

T = TypeVar("T")


class Database(Protocol):
    """Runs steps in transactions. Every error but those the steps raise themselves is a StorageError."""

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises StorageVersion when the schema is newer than this code, StorageUnavailable when there is no connection.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        ...

    async def read(self, steps: Steps[T]) -> T:
        """Run steps that only select, on a consistent view of what is committed, and return their result."""
        ...

    async def write(self, body: Body[T]) -> T:
        """Run steps in one serialisable transaction and return their result once it is durable.

        An exception that the steps raise undoes them and reaches the caller. `body` may be called more than once.
        A cancelled caller does not undo a transaction that has begun. Raises StorageFull or StorageUnavailable.
        """
        ...
