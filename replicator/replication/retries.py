"""An operator's word that a fault is mended: what waits for its next attempt is tried at once."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.core.jobs import JobKind
from replicator.storage.metadata import jobs

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.core.destinations import DestinationId
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

_KINDS = (JobKind.REPLICATE, JobKind.DELETE_REPLICA)


class Retries:
    """Makes waiting replication jobs of one node due.

    `reopen` is told which lane is to be tried without its pause, or None for all: jobs that are due wait for that, too.
    """

    def __init__(self, node: RegistryNode, reopen: Callable[[str | None], None]) -> None:
        self._node = node
        self._reopen = reopen

    async def retry(self, destination: DestinationId | None = None, repository: RepositoryName | None = None) -> int:
        """Try again at once what waits, for one destination or repository or all; return how many jobs those are.

        Raises StorageError.
        """
        lane = None if destination is None else str(destination)
        found = await self._node.database.write(partial(_make_due, lane, repository, self._node.clock.now()))
        self._reopen(lane)
        for kind in _KINDS:
            self._node.announce_jobs(kind)
        return found


def _make_due(lane: str | None, repository: RepositoryName | None, now: float) -> Steps[int]:
    found = 0
    for kind in _KINDS:
        lanes = [lane] if lane is not None else (yield from jobs.lanes(kind))
        for name in lanes:
            found += yield from jobs.make_due(kind, name, now, repository)
    return found
