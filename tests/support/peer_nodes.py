"""One node that serves its peers on loopback, and the client of a peer over a wire that a test can cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from replicator.core.names import AccountId, NodeId, Region
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.registry.listings import Listings
from replicator.registry.peer_reads import PeerReads
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.peer_uploads import PeerUploads
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.replicas import Replicas
from replicator.registry.uploads import Uploads
from replicator.registry_api.api import RegistryApi
from replicator.registry_api.authentication import OpenAuthenticator, PeerAuthenticator, UserAuthenticator
from replicator.registry_api.call import Services
from replicator.registry_api.peer_api import PeerApi
from replicator.telemetry.system_clock import SystemClock
from replicator.upstream.auth import BearerAuthorizer
from replicator.upstream.endpoint import UpstreamEndpoint
from replicator.upstream.peer_client import PeerClient
from tests.support.single_node import NODE, OTHER_NODE, PEER_SECRET, open_node
from tests.support.wire_client import WireClient
from tests.support.wires import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
    from replicator.registry_api.users import User
    from replicator.storage.blobs.port import BlobStore
    from replicator.telemetry.requests import Outcome

FOREIGN_NODE = NodeId(AccountId("222222222222"), Region("us"))


@dataclass
class PeerNode:
    """A running destination and everything in it that a test may look at."""

    node: RegistryNode
    port: int
    uploads: PeerUploads
    pulls: Pulls
    sessions: Uploads
    outcomes: list[Outcome] = field(default_factory=list)
    _seen: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, outcome: Outcome) -> None:
        """Note a finished request."""
        self.outcomes.append(outcome)
        self._seen.set()

    async def finished(self, count: int, route: str = "peer_blob") -> None:
        """Wait until so many requests of a route are over."""
        while len(self.statuses(route)) < count:
            self._seen.clear()
            await self._seen.wait()

    def wire_client(self, headers: dict[str, str] | None = None) -> WireClient:
        """Return a client that sends raw requests; close it."""
        return WireClient(self.port, headers)

    @property
    def received(self) -> int:
        """Bytes of blobs that came in, over all requests that are over."""
        return sum(one.received for one in self.outcomes if one.route == "peer_blob")

    def statuses(self, route: str = "peer_blob") -> list[int]:
        """The statuses of the requests of a route that are over."""
        return [one.status for one in self.outcomes if one.route == route]


@contextlib.asynccontextmanager
async def serve_peer(
    directory: Path,
    *,
    settings: RegistrySettings | None = None,
    store: BlobStore | None = None,
    users: Sequence[User] | None = None,
    **limits: Any,
) -> AsyncIterator[PeerNode]:
    """Serve NODE until the block ends; `limits` are those of PeerUploads."""
    clock = SystemClock()
    async with open_node(directory, clock, store=store, settings=settings) as node:
        uploads, pulls, sessions = PeerUploads(node, **limits), Pulls(node), Uploads(node)
        await sessions.reclaim()
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        listening.setblocking(False)
        served = PeerNode(node, listening.getsockname()[1], uploads, pulls, sessions)
        peers = PeerAuthenticator(PeerTokens(NODE, PEER_SECRET, clock))
        authenticator = OpenAuthenticator(peers) if users is None else UserAuthenticator(users, (), peers, clock)
        services = Services(node, pulls, Pushes(node), sessions, Listings(node), PeerReads(node))
        api = RegistryApi(services, authenticator, clock, served.observe)
        api.decide_by(node.policies)
        peer_api = PeerApi(Replicas(node, uploads), uploads, authenticator, clock, served.observe)
        server = HttpServer(Listener(listening, "", None), api.handle, _nothing, peer_api.handle)
        await server.start()
        try:
            yield served
        finally:
            await server.stop(grace=1)


@contextlib.asynccontextmanager
async def peer_client(
    port: int, source: NodeId = OTHER_NODE, destination: NodeId = NODE, secret: bytes = PEER_SECRET, **options: Any
) -> AsyncIterator[PeerClient]:
    """Open a client of a peer that speaks for `source`; options are the endpoint's."""
    tokens = PeerTokens(source, secret, SystemClock())
    settings = {"stall_timeout": 5.0, "total_timeout": 10.0, **options}
    endpoint = UpstreamEndpoint(str(destination), f"http://127.0.0.1:{port}", **settings)
    client = PeerClient(endpoint, BearerAuthorizer(lambda: tokens.issue(destination)), SystemClock())
    try:
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def wired(node: PeerNode, **options: Any) -> AsyncIterator[tuple[Wire, PeerClient]]:
    """Lay a wire to a node and open a client at its near end."""
    async with Wire(node.port) as wire, peer_client(wire.port, **options) as client:
        yield wire, client


async def _nothing(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)
