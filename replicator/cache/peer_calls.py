"""Nodes that name each other as peers do not wait for each other in a circle.

What is fetched because a peer asked is fetched past our own peers (`for_peer`), and while peers are being asked for
something, `PeerCalls` knows it: whoever asks us for the same is let wait only in one direction of an order of all
nodes. So of any number of nodes that want one image at once, one goes to the upstream, and the others wait for it.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

from replicator.core.errors import ManifestNotFound
from replicator.core.reference import as_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference

_FOR_PEER: ContextVar[bool] = ContextVar("for_peer", default=False)


@contextmanager
def for_peer() -> Iterator[None]:
    """Have what is fetched in this block, and in the tasks it starts, fetched without asking peers."""
    token = _FOR_PEER.set(True)
    try:
        yield
    finally:
        _FOR_PEER.reset(token)


def is_for_peer() -> bool:
    """Tell whether a peer asked for what is fetched here."""
    return _FOR_PEER.get()


class PeerCalls:
    """What the peers of this node are being asked for at this moment."""

    def __init__(self) -> None:
        self._asked: Counter[str] = Counter()
        self._waiting: dict[str, set[asyncio.Timeout]] = {}

    def is_asked(self, repository: RepositoryName, reference: Reference) -> bool:
        """Tell whether a peer is being asked for a manifest or blob, `repository` being the upstream's name."""
        return _key(repository, reference) in self._asked

    @contextmanager
    def asking(self, repository: RepositoryName, reference: Reference) -> Iterator[None]:
        """Note that a peer is asked, until the block ends; whoever may not wait for that is sent away."""
        key = _key(repository, reference)
        self._asked[key] += 1
        for waiting in self._waiting.pop(key, ()):
            waiting.reschedule(0.0)
        try:
            yield
        finally:
            self._asked[key] -= 1
            if not self._asked[key]:
                del self._asked[key]

    @asynccontextmanager
    async def unless_asked(self, repository: RepositoryName, reference: Reference) -> AsyncIterator[None]:
        """Run a block until peers are asked for this; raise ManifestNotFound when they are, or are already."""
        if self.is_asked(repository, reference):
            raise _elsewhere(reference)
        key = _key(repository, reference)
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._waiting.setdefault(key, set()).add(patience)
                try:
                    yield
                finally:
                    self._leave(key, patience)
        except TimeoutError:
            if not patience.expired():
                raise
            raise _elsewhere(reference) from None

    def _leave(self, key: str, patience: asyncio.Timeout) -> None:
        waiting = self._waiting.get(key, set())
        waiting.discard(patience)
        if not waiting:
            self._waiting.pop(key, None)


def _elsewhere(reference: Reference) -> ManifestNotFound:
    return ManifestNotFound(f"{reference} is not here yet, and is being asked for at other nodes")


def _key(repository: RepositoryName, reference: Reference) -> str:
    # What has a digest is fetched once for all repositories.
    return reference if as_digest(reference) is not None else f"{repository}:{reference}"
