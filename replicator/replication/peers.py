"""Where images go, as clients: by which URL each destination is reached, and how we prove there who we are.

Nodes speak HTTP to each other even inside one process: what works here works between regions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, overload

from replicator.core.destinations import RegistryRef
from replicator.upstream.auth import BearerAuthorizer
from replicator.upstream.client import UpstreamClient, open_client
from replicator.upstream.peer_client import PeerClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.registry.peer_tokens import PeerTokens
    from replicator.upstream.endpoint import CredentialSource, UpstreamEndpoint


class PeerDirectory:
    """Makes the client of each destination at first use, and keeps it. Close it when done.

    `registries` are those of somebody else, by their names in the configuration; `credentials` say who we are there
    where that may change.
    """

    def __init__(
        self,
        endpoints: Mapping[NodeId, UpstreamEndpoint],
        tokens: PeerTokens,
        clock: Clock,
        registries: Mapping[RegistryRef, UpstreamEndpoint] | None = None,
        credentials: Mapping[RegistryRef, CredentialSource] | None = None,
    ) -> None:
        self._endpoints = endpoints
        self._registries = registries or {}
        self._credentials = credentials or {}
        self._tokens = tokens
        self._clock = clock
        self._peers: dict[NodeId, PeerClient] = {}
        self._clients: dict[RegistryRef, UpstreamClient] = {}

    @overload
    def find(self, destination: NodeId) -> PeerClient | None: ...

    @overload
    def find(self, destination: RegistryRef) -> UpstreamClient | None: ...

    @overload
    def find(self, destination: NodeId | RegistryRef) -> PeerClient | UpstreamClient | None: ...

    def find(self, destination: NodeId | RegistryRef) -> PeerClient | UpstreamClient | None:
        """Return the client of a destination, or None when the configuration does not say where it is."""
        return self._registry(destination) if isinstance(destination, RegistryRef) else self._peer(destination)

    def _peer(self, node: NodeId) -> PeerClient | None:
        client = self._peers.get(node)
        if client is None and node in self._endpoints:
            # A token names its destination, so that what one peer sees of us is worth nothing at another.
            authorizer = BearerAuthorizer(lambda: self._tokens.issue(node))
            client = self._peers[node] = PeerClient(self._endpoints[node], authorizer, self._clock)
        return client

    def _registry(self, registry: RegistryRef) -> UpstreamClient | None:
        client = self._clients.get(registry)
        if client is None and registry in self._registries:
            endpoint, credentials = self._registries[registry], self._credentials.get(registry)
            client = self._clients[registry] = open_client(endpoint, self._clock, credentials=credentials)
        return client

    async def close(self) -> None:
        """Close every client; requests under way fail with ShuttingDown or as if the connection had broken."""
        peers, clients = list(self._peers.values()), list(self._clients.values())
        self._peers.clear()
        self._clients.clear()
        for peer in peers:
            await peer.close()
        for client in clients:
            await client.close()
