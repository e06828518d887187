"""What another node may have fetched here, as one of its earlier sources.

    region A --blob?--> region B --blob?--> upstream        one download from the upstream, however many regions ask
    region C --blob?-----^

A peer is answered like any client, with two differences. It gets nothing that this registry calls its own, although a
rule for all names covers it. And it never waits in a circle: what it sets off here is not asked of this node's own
peers, and where this node is itself asking peers for the same, only nodes that come later in the order of all nodes may
wait for that. The others are told that it is not here, which sends them to their next source.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from replicator.cache.peer_calls import for_peer
from replicator.core.errors import RepositoryNotFound

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.cache.own_repositories import OwnRepositories
    from replicator.cache.peer_calls import PeerCalls
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.names import NodeId
    from replicator.core.principal import Principal
    from replicator.core.reference import Reference


class PeerAccess:
    """Admits the pulls of a node's peers to its cache."""

    def __init__(self, node: NodeId, own: OwnRepositories, calls: PeerCalls) -> None:
        self._node = node
        self._own = own
        self._calls = calls

    @asynccontextmanager
    async def admit(
        self, principal: Principal, source: UpstreamRepository, reference: Reference
    ) -> AsyncIterator[None]:
        """Pull in this block on behalf of `principal`, a node or not.

        Raises RepositoryNotFound or ManifestNotFound where a node has to look elsewhere, StorageError.
        """
        if principal.node is None:
            yield
            return
        if await self._own.holds(source):
            raise RepositoryNotFound(f"there is no repository {source.repository} that is cached")
        with for_peer():
            if str(principal.node) > str(self._node):
                yield
                return
            async with self._calls.unless_asked(source.name, reference):
                yield
