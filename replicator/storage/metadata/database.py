"""The port of a metadata database: run steps, reading or writing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from replicator.storage.metadata.statement import Body, Steps

T = TypeVar("T")


class Database(Protocol):
    """Runs steps in transactions.

    Every error but those the steps raise themselves is a StorageError, or InvalidInput for a value that cannot be
    stored, such as text with a NUL; the steps cannot catch it. What the steps raise themselves, a committed state of
    the database led them to.
    """

    async def open(self) -> None:
        """Connect and bring the schema up to date.

        Raises StorageVersion when the schema is newer than this code, StorageFull or StorageUnavailable when it
        cannot be used, ConfigurationError when it cannot be addressed.
        """
        ...

    async def close(self) -> None:
        """Finish what is under way, refuse what comes, and disconnect. Safe to call twice."""
        ...

    async def read(self, steps: Steps[T]) -> T:
        """Run steps that only select, on a consistent view of what is committed, and return their result.

        Raises StorageUnavailable, also when the steps try to change something.
        """
        ...

    async def write(self, body: Body[T]) -> T:
        """Run steps in one serialisable transaction and return their result once it is durable.

        An exception that the steps raise undoes them and reaches the caller. `body` may be called more than once.
        A cancelled caller does not stop the transaction. Raises StorageFull or StorageUnavailable; after the latter the
        change may have happened all the same, when the connection broke while it was being committed.
        """
        ...
