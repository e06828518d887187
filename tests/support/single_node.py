"""One registry node with real stores, served on loopback in the test's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from replicator.core.names import AccountId, NodeId, Region
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.registry.listings import Listings
from replicator.registry.node import RegistryNode
from replicator.registry.peer_reads import PeerReads
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.registry_api.api import RegistryApi
from replicator.registry_api.authentication import (
    Authenticator,
    OpenAuthenticator,
    PeerAuthenticator,
    UserAuthenticator,
)
from replicator.registry_api.call import Services
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.metadata.sqlite import SqliteDatabase
from replicator.telemetry.system_clock import SystemClock
from tests.support.wire_client import WireClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.core.rights import Grant
    from replicator.registry_api.users import User
    from replicator.storage.blobs.port import BlobStore
    from replicator.telemetry.requests import Outcome

NODE = NodeId(AccountId("111111111111"), Region("eu"))
OTHER_NODE = NodeId(AccountId("111111111111"), Region("us"))
PEER_SECRET = b"a secret between nodes"


@dataclass
class Users:
    """Who may use a node that asks for credentials."""

    users: Sequence[User] = ()
    anonymous: Sequence[Grant] = ()


@dataclass
class SingleNode:
    """A running node and everything in it that a test may look at."""

    directory: Path
    port: int
    node: RegistryNode
    services: Services
    tokens: PeerTokens
    outcomes: list[Outcome] = field(default_factory=list)
    _seen: asyncio.Event = field(default_factory=asyncio.Event)

    def observe(self, outcome: Outcome) -> None:
        """Note a finished request."""
        self.outcomes.append(outcome)
        self._seen.set()

    async def reached(self, predicate: Callable[[Outcome], bool]) -> Outcome:
        """Wait until a request that `predicate` tells is finished."""
        while True:
            self._seen.clear()
            for outcome in self.outcomes:
                if predicate(outcome):
                    return outcome
            await self._seen.wait()

    def client(self, headers: dict[str, str] | None = None) -> WireClient:
        """Return a client of this node; close it."""
        return WireClient(self.port, headers)

    @property
    def ingests(self) -> list[str]:
        """The names of the ingests on disk."""
        return sorted(path.name for path in (self.directory / "blobs" / "ingest").iterdir())

    @property
    def files(self) -> list[Path]:
        """The committed blobs on disk."""
        return [path for path in (self.directory / "blobs" / "blobs").rglob("*") if path.is_file()]

    @property
    def contents(self) -> dict[str, object]:
        """All rows, blobs and ingests, for comparing before and after."""
        with contextlib.closing(sqlite3.connect(f"file:{self.directory}/metadata.db?mode=ro", uri=True)) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            rows: dict[str, object] = {table: _rows(database, table) for table in tables}
        return rows | {"files": sorted(self.files), "ingests": self.ingests}


def _rows(database: sqlite3.Connection, table: str) -> list[str]:
    return sorted(map(repr, database.execute(f"SELECT * FROM {table}")))  # noqa: S608 - a name from the schema


@contextlib.asynccontextmanager
async def open_node(
    directory: Path,
    clock: Clock | None = None,
    *,
    store: BlobStore | None = None,
    settings: RegistrySettings | None = None,
) -> AsyncIterator[RegistryNode]:
    """Open a node on the stores in a directory, as a start of the daemon does; closing it is a clean stop."""
    database = SqliteDatabase(directory / "metadata.db")
    store = store or FilesystemBlobStore(directory / "blobs")
    await database.open()
    try:
        await store.open()
        try:
            yield RegistryNode(settings or RegistrySettings(NODE), database, store, clock or SystemClock())
        finally:
            await store.close()
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def serve_node(
    directory: Path,
    clock: Clock | None = None,
    *,
    users: Users | None = None,
    store: BlobStore | None = None,
    settings: RegistrySettings | None = None,
    rate_limit: RateLimit | None = None,
    public_url: str | None = None,
) -> AsyncIterator[SingleNode]:
    """Serve a node until the block ends; without `users` everybody may do everything."""
    clock = clock or SystemClock()
    async with open_node(directory, clock, store=store, settings=settings) as node:
        services = Services(node, Pulls(node), Pushes(node), Uploads(node), Listings(node), PeerReads(node))
        tokens = PeerTokens(NODE, PEER_SECRET, clock)
        listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        listening.setblocking(False)
        served = SingleNode(directory, listening.getsockname()[1], node, services, tokens)
        authenticator = _authenticator(users, tokens, clock)
        api = RegistryApi(services, authenticator, clock, served.observe, rate_limit, public_url)
        api.decide_by(node.policies)
        server = HttpServer(Listener(listening, "", None), api.handle, _nothing)
        await server.start()
        try:
            yield served
        finally:
            await server.stop(grace=1)


def _authenticator(users: Users | None, tokens: PeerTokens, clock: Clock) -> Authenticator:
    peers = PeerAuthenticator(tokens)
    if users is None:
        return OpenAuthenticator(peers)
    return UserAuthenticator(users.users, users.anonymous, peers, clock)


async def _nothing(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)
