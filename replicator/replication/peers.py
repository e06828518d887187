"""The other nodes, as clients: by which URL each is reached, and how we prove there who we are.

Nodes speak HTTP to each other even inside one process: what works here works between regions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.names import NodeId
from replicator.upstream.auth import BearerAuthorizer
from replicator.upstream.client import UpstreamClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock
    from replicator.core.destinations import DestinationId
    from replicator.registry.peer_tokens import PeerTokens
    from replicator.upstream.endpoint import UpstreamEndpoint


class PeerDirectory:
    """Makes the client of each peer at first use, and keeps it. Close it when done."""

    def __init__(self, endpoints: Mapping[NodeId, UpstreamEndpoint], tokens: PeerTokens, clock: Clock) -> None:
        self._endpoints = endpoints
        self._tokens = tokens
        self._clock = clock
        self._clients: dict[NodeId, UpstreamClient] = {}

    def find(self, node: DestinationId) -> UpstreamClient | None:
        """Return the client of a peer, or None when the configuration does not say where that node is."""
        if not isinstance(node, NodeId):
            return None
        client = self._clients.get(node)
        if client is None and node in self._endpoints:
            client = self._clients[node] = self._open(node)
        return client

    async def close(self) -> None:
        """Close every client; requests under way fail with ShuttingDown or as if the connection had broken."""
        clients = list(self._clients.values())
        self._clients.clear()
        for client in clients:
            await client.close()

    def _open(self, node: NodeId) -> UpstreamClient:
        # A token names its destination, so that what one peer sees of us is worth nothing at another.
        authorizer = BearerAuthorizer(lambda: self._tokens.issue(node))
        return UpstreamClient(self._endpoints[node], authorizer, self._clock)
