"""When images were pulled last (ECR §13.3), gathered in memory so that a pull costs no write.

Written down every so often and when the node is closed: a crash loses `WRITE_EVERY` seconds of it at most, far less
than the day for which ECR vouches. What this process answers is exact: it adds what is not written yet. Pulls by nodes
and by principals that the registry excludes leave no trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.errors import StorageError
from replicator.core.principal import PrincipalKind
from replicator.core.pull_time_exclusions import is_excluded
from replicator.storage.metadata import image_states
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

_Pull = tuple["RepositoryName", "Digest", float]

WRITE_EVERY = 300.0
"""Seconds between two times that pulls are written down."""

_BATCH = 200
_MANY = 50_000
"""Images whose pulls are written down sooner, lest they fill memory."""


class PullTimes:
    """The last pulls of a node's images that are not written down yet. `run` under a supervisor; `close` at the end."""

    def __init__(self, database: Database, clock: Clock, settings: Callable[[], RegistrySettings]) -> None:
        self._database = database
        self._clock = clock
        self._settings = settings
        self._pulled: dict[tuple[RepositoryName, Digest], float] = {}

    def note(self, principal: Principal, repository: RepositoryName, digest: Digest) -> None:
        """Note that somebody pulls an image now."""
        if principal.kind is PrincipalKind.NODE:
            return
        exclusions = self._settings().pull_time_exclusions
        if exclusions and (arn := principal.caller_arn) is not None and is_excluded(arn, exclusions):
            return
        if len(self._pulled) < _MANY or (repository, digest) in self._pulled:
            self._pulled[repository, digest] = self._clock.now()

    def last(self, repository: RepositoryName, digest: Digest, written: float | None) -> float | None:
        """Return when an image was pulled last, given what is written of it."""
        noted = self._pulled.get((repository, digest))
        return max((one for one in (noted, written) if one is not None), default=None)

    async def run(self) -> None:
        """Write pulls down every so often, until cancelled."""
        while True:
            await self._clock.sleep(WRITE_EVERY)
            await self._try_to_write()

    async def close(self) -> None:
        """Write down what is left, or say in the log that it is lost."""
        await self._try_to_write()

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except StorageError as error:
            node = str(self._settings().node)
            _log.warning("times of pulls could not be written", node=node, error=str(error))

    async def write(self) -> None:
        """Write down what was gathered, a bounded number in a transaction; raises StorageError, and keeps the rest."""
        while self._pulled:
            batch = [(*key, self._pulled[key]) for key in list(self._pulled)[:_BATCH]]
            await self._database.write(lambda batch=batch: _touch_all(batch))  # type: ignore[misc]
            for repository, digest, at in batch:
                if self._pulled.get((repository, digest)) == at:
                    del self._pulled[repository, digest]


def _touch_all(batch: Sequence[_Pull]) -> Steps[None]:
    for repository, digest, at in batch:
        yield from image_states.touch(repository, digest, at)
