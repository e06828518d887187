"""A node with a pull-through cache, behind its HTTP edge: what clients and other nodes see of it.

async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB]) as edge:
    answer = await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io")
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from aiohttp import web

from replicator.cache.listings import CachedListings
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
from replicator.storage.metadata import repositories, tags
from replicator.upstream.auth import BearerAuthorizer
from replicator.upstream.client import UpstreamClient, open_client
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
    from replicator.telemetry.requests import Outcome
    from replicator.upstream.endpoint import UpstreamEndpoint
    from tests.support.images import Built, BuiltImage
    from tests.support.wire_client import Answer


@dataclass
class CachedEdge:
    """A running node with its cache; every request goes over a connection of its own."""

    directory: Path
    port: int
    node: RegistryNode
    cache: PullThrough
    tokens: PeerTokens
    outcomes: list[Outcome] = field(default_factory=list)

    def observe(self, outcome: Outcome) -> None:
        """Note a finished request."""
        self.outcomes.append(outcome)

    def client(self, headers: Mapping[str, str] | None = None) -> WireClient:
        """Return a client of this node; close it."""
        return WireClient(self.port, headers)

    async def ask(self, method: str, target: str, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        """Send a request."""
        async with self.client(headers) as client:
            return await client.send(method, target, **options)

    async def get(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET a target."""
        return await self.ask("GET", target, headers)

    async def head(self, target: str, headers: Mapping[str, str] | None = None) -> Answer:
        """HEAD a target."""
        return await self.ask("HEAD", target, headers)

    async def push_manifest(self, repository: str, reference: str, image: Built) -> Answer:
        """Push a manifest alone."""
        async with self.client() as client:
            return await client.push_manifest(repository, reference, image.manifest)

    async def push(self, repository: str, tag: str, image: BuiltImage) -> None:
        """Push an image as a user does; it must be accepted."""
        async with self.client() as client:
            for content in image.blobs.values():
                await client.push_blob(repository, content)
            pushed = await client.push_manifest(repository, tag, image.manifest)
            assert pushed.status == 201, pushed

    async def contents(self) -> Mapping[str, object]:
        """Return what lies here, for comparing before and after: repositories, tags, blobs and ingests."""
        names = await self.node.database.read(repositories.names_after("", 1000))
        held = {name: await self.node.database.read(tags.names_after(name, "", 1000)) for name in names}
        located = sorted([location async for location in self.node.store.iter_locations()])
        ingests = sorted(path.name for path in (self.directory / "blobs" / "ingest").iterdir())
        return {"repositories": held, "blobs": located, "ingests": ingests}


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
    peers: Mapping[str, Mapping[NodeId, UpstreamEndpoint]] = MappingProxyType({}),
    serve_to: tuple[NodeId, ...] = (),
) -> AsyncIterator[CachedEdge]:
    """Serve a node whose rules lead to `upstreams`; without `users` everybody may do everything.

    `peers` are the nodes that are asked first, by the prefix of the rule, in order.
    """
    clock = clock or FakeClock(auto=True)
    listening = listening or listening_socket()
    settings = RegistrySettings(identity, cache_rules=tuple(rules), serve_to=serve_to)
    tokens = PeerTokens(identity, PEER_SECRET, clock)
    async with contextlib.AsyncExitStack() as stack:
        node = await stack.enter_async_context(open_node(directory, clock, settings=settings))
        clients = {name: open_client(endpoint, clock) for name, endpoint in upstreams.items()}
        asked_first = {
            prefix: [
                UpstreamClient(endpoint, BearerAuthorizer(partial(tokens.issue, peer)), clock)
                for peer, endpoint in nodes.items()
            ]
            for prefix, nodes in peers.items()
        }
        for client in (*clients.values(), *itertools.chain(*asked_first.values())):
            stack.push_async_callback(client.close)
        cache = PullThrough(node, Pulls(node), rules, clients, CountingObserver(), limits, peers=asked_first)
        stack.push_async_callback(cache.close)
        listings = CachedListings(node, Listings(node), cache.upstreams, limits)
        stack.push_async_callback(listings.close)
        services = Services(node, cache, Pushes(node), Uploads(node), listings, PeerReads(node))
        nodes = PeerAuthenticator(tokens)
        authenticator = (
            OpenAuthenticator(nodes) if users is None else UserAuthenticator(users.users, users.anonymous, nodes, clock)
        )
        edge = CachedEdge(directory, listening.getsockname()[1], node, cache, tokens)
        api = RegistryApi(services, authenticator, clock, edge.observe, public_url=public_url, via=via)
        api.decide_by(node.policies)
        server = HttpServer(Listener(listening, "", None), api.handle, _nothing)
        await server.start()
        try:
            yield edge
        finally:
            await server.stop(grace=1)


async def _nothing(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)
