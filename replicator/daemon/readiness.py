"""Whether a node can read and write now, found out by trying."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Protocol

from replicator.core.errors import ReplicatorError
from replicator.registry_api.operations import Readiness
from replicator.storage.metadata import node as node_row
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.registry.node import RegistryNode

_REMEMBER = 1.0
MIN_FREE_BYTES = 16 * 1024 * 1024


class Draining(Protocol):
    """Tells whether the daemon is shutting down."""

    def is_set(self) -> bool:
        """Return True once the daemon is shutting down."""
        ...


class ReadinessProbe:
    """Checks a node. Answers are remembered for a second, so that probes cannot load the store."""

    def __init__(self, node: RegistryNode, clock: Clock, draining: Draining) -> None:
        self._node = node
        self._clock = clock
        self._draining = draining
        self._known: dict[str, tuple[float, Readiness]] = {}

    async def check(self, mode: str) -> Readiness:
        """Return whether the node is ready for `read` or `write`."""
        if self._draining.is_set():
            return Readiness(ready=False, reason="shutting down")
        now = self._clock.monotonic()
        checked_at, known = self._known.get(mode, (float("-inf"), Readiness(ready=False)))
        if now - checked_at < _REMEMBER:
            return known
        readiness = await self._try(mode)
        self._known[mode] = (now, readiness)
        return readiness

    async def _try(self, mode: str) -> Readiness:
        try:
            await self._node.database.read(repositories.count())
            if mode == "write":
                return await self._try_writing()
        except ReplicatorError as error:
            return Readiness(ready=False, reason=str(error))
        return Readiness(ready=True)

    async def _try_writing(self) -> Readiness:
        usage = await self._node.store.usage()
        if usage.total_bytes and usage.free_bytes < MIN_FREE_BYTES:
            return Readiness(ready=False, reason=f"{usage.free_bytes} bytes free, expected at least {MIN_FREE_BYTES}")
        ingest = await self._node.store.create_ingest(f"probe-{secrets.token_hex(8)}")
        try:
            await ingest.write(b"probe")
            await ingest.flush()
        finally:
            await ingest.abort()
        await self._node.database.write(lambda: node_row.claim(self._node.settings.node))
        return Readiness(ready=True)
