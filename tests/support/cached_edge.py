"""A node with a pull-through cache, behind its HTTP edge: what clients and other nodes see of it.

async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB]) as edge:
    answer = await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io")
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from replicator.cache.pull_through import PullThrough
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.registry.listings import Listings
from replicator.registry.peer_reads import PeerReads
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.registry_api.api import RegistryApi
from replicator.registry_api.authentication import OpenAuthenticator, PeerAuthenticator, UserAuthenticator
from replicator.registry_api.call import Services
from replicator.upstream.client import open_client
from tests.support.clock import FakeClock
from tests.support.pull_through_node import CountingObserver
from tests.support.single_node import NODE, PEER_SECRET, Users, open_node
from tests.support.wire_client import WireClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from replicator.cache.limits import CacheLimits
    from replicator.core.cache_rules import CacheRule
    from replicator.core.names import NodeId
    from replicator.registry.node import RegistryNode
    from replicator.registry_api.edge import Outcome
    from replicator.upstream.endpoint import UpstreamEndpoint
    from tests.support.wire_client import Answer


@dataclass
class CachedEdge:
    """A running node with its cache; every request goes over a connection of its own."""

    port: int
    node: RegistryNode
    cache: PullThrough
    tokens: PeerTokens
    outcomes: list[Outcome] = field(default_factory=list)

    def observe(self, outcome: Outcome) -> None:
        """Note a finished request."""
        self.outcomes.append(outcome)

    async def ask(self, method: str, target: str, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        """Send a request."""
        async with WireClient(self.port, headers) as client:
            return await client.send(method, target, **options)

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET a target."""
        return await self.ask("GET", target, headers)

    async def head(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """HEAD a target."""
        return await self.ask("HEAD", target, headers)


def listening_socket() -> socket.socket:
    """Return a socket that listens on a port of loopback, for a node whose address must be known before it runs."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=128)
    listening.setblocking(False)
    return listening


@contextlib.asynccontextmanager
async def cached_edge(
    directory: Path,
    upstreams: Mapping[str, UpstreamEndpoint],
    rules: Sequence[CacheRule],
    *,
    clock: FakeClock | None = None,
    identity: NodeId = NODE,
    users: Users | None = None,
    limits: CacheLimits | None = None,
    listening: socket.socket | None = None,
    public_url: str | None = None,
    via: str | None = None,
) -> AsyncIterator[CachedEdge]:
    """Serve a node whose rules lead to `upstreams`; without `users` everybody may do everything."""
    clock = clock or FakeClock(auto=True)
    listening = listening or listening_socket()
    settings = RegistrySettings(identity, cache_rules=tuple(rules))
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(directory, clock, settings=settings))
        clients = {name: open_client(endpoint, clock) for name, endpoint in upstreams.items()}
        for client in clients.values():
            stack.push_async_callback(client.close)
        cache = PullThrough(node, Pulls(node), rules, clients, CountingObserver(), limits)
        stack.push_async_callback(cache.close)
        services = Services(settings, cache, Pushes(node), Uploads(node), Listings(node), PeerReads(node))
        tokens = PeerTokens(identity, PEER_SECRET, clock)
        peers = PeerAuthenticator(tokens)
        authenticator = (
            OpenAuthenticator(peers) if users is None else UserAuthenticator(users.users, users.anonymous, peers, clock)
        )
        edge = CachedEdge(listening.getsockname()[1], node, cache, tokens)
        api = RegistryApi(services, authenticator, clock, edge.observe, public_url=public_url, via=via)
        server = HttpServer(Listener(listening, "", None), api.handle, _nothing)
        await server.start()
        try:
            yield edge
        finally:
            await server.stop(grace=1)


async def _nothing(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)
