"""When cached images were pulled, gathered here so that a pull costs no write.

`CacheSpace` writes it down once an hour and before it decides what to give up. A crash loses an hour of it at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.storage.metadata import cached_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps

_Use = tuple["RepositoryName", "Digest", float]

_BATCH = 200


class UseMemory:
    """The last uses of cached images that are not written down yet."""

    def __init__(self) -> None:
        self._used: dict[tuple[RepositoryName, Digest], float] = {}

    def __len__(self) -> int:
        return len(self._used)

    def use(self, repository: RepositoryName, digest: Digest, now: float) -> None:
        """Note that an image was pulled."""
        self._used[repository, digest] = now

    async def write(self, database: Database) -> None:
        """Write down what was gathered, a bounded number in a transaction; raises StorageError, and keeps the rest."""
        while self._used:
            batch = [(*key, self._used[key]) for key in list(self._used)[:_BATCH]]
            await database.write(lambda batch=batch: _touch_all(batch))  # type: ignore[misc]
            for repository, digest, at in batch:
                if self._used.get((repository, digest)) == at:
                    del self._used[repository, digest]


def _touch_all(batch: Sequence[_Use]) -> Steps[None]:
    for repository, digest, at in batch:
        yield from cached_images.touch(repository, digest, at)
