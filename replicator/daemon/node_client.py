"""A command's way to the nodes of its configuration: one login, one trust, and failures that name the node."""

from __future__ import annotations

import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from replicator.config.loader import load_settings
from replicator.core.errors import ConfigurationError, ReplicatorError, UpstreamDenied
from replicator.daemon.node_logins import NodeLogins
from replicator.upstream.errors import connection_failure

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from replicator.config.nodes import NodeSettings
    from replicator.daemon.asking import Asking

TIMEOUT = 30.0
REPLICATION = "/_replicator/v1/replication/"
CACHE = "/_replicator/v1/cache/"
SILENCE = 60.0
"""Seconds without a line after which a node that sends lines is taken for gone."""
_MAX_REASON = 500


class NodeFailed(ReplicatorError):
    """a node did not do what was asked."""

    def __init__(self, node: str, reason: str, status: int | None = None) -> None:
        super().__init__(f"{node}: {reason}")
        self.reason = reason
        self.status = status
        """The answer's status; None when there was no answer."""


class NodeClient:
    """Speaks to one API of a node, below `prefix`, as an operator. Every method raises NodeFailed."""

    def __init__(
        self, session: aiohttp.ClientSession, settings: NodeSettings, logins: NodeLogins, prefix: str = REPLICATION
    ) -> None:
        self._session = session
        self._logins = logins
        self._headers: Mapping[str, str] = {}
        self._prefix = prefix
        self.name = str(settings.id)
        self.region = settings.region
        self.url = reachable(settings)

    async def get(self, path: str, **query: str | None) -> Mapping[str, Any]:
        """Ask something."""
        given = {name: value for name, value in query.items() if value is not None}
        return await self._ask("GET", self._prefix + path, params=given)

    async def post(self, path: str, fields: Mapping[str, object], patience: float = TIMEOUT) -> Mapping[str, Any]:
        """Have something done, within `patience` seconds; fields that are None are left out."""
        given = {name: value for name, value in fields.items() if value is not None}
        return await self._ask("POST", self._prefix + path, json=given, timeout=aiohttp.ClientTimeout(total=patience))

    async def delete(self, path: str) -> Mapping[str, Any]:
        """Have something stopped."""
        return await self._ask("DELETE", self._prefix + path)

    async def lines(self, path: str, fields: Mapping[str, object]) -> AsyncIterator[Mapping[str, Any]]:
        """Have something done that takes long, and yield what the node says of it, an object a line."""
        given = {name: value for name, value in fields.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=SILENCE)
        async with self._answer("POST", self._prefix + path, json=given, timeout=timeout) as response:
            if response.status >= 400:
                document = await self._document(response)
                raise NodeFailed(self.name, self._refusal(response.status, document), response.status)
            while line := await self._line(response):
                yield self._object(line)

    async def _line(self, response: aiohttp.ClientResponse) -> bytes:
        try:
            return await response.content.readline()
        except (ValueError, HttpProcessingError) as error:  # a line beyond aiohttp's buffer, by its version
            raise NodeFailed(self.name, "answered with a line that is too long") from error

    def _object(self, line: bytes) -> Mapping[str, Any]:
        try:
            found = json.loads(line)
        except ValueError as error:
            raise NodeFailed(self.name, "answered with a line that is no JSON") from error
        if not isinstance(found, dict):
            raise NodeFailed(self.name, "answered with a line that is no JSON object")
        return found

    async def head_manifest(self, repository: str, reference: str) -> int:
        """Ask for a manifest as a client that pulls would, and return the status of the answer."""
        async with self._answer("HEAD", f"/v2/{repository}/manifests/{reference}") as response:
            return response.status

    async def _ask(self, method: str, path: str, **arguments: Any) -> Mapping[str, Any]:  # noqa: ANN401 - aiohttp's own
        async with self._answer(method, path, **arguments) as response:
            document = await self._document(response)
            if response.status >= 400:
                raise NodeFailed(self.name, self._refusal(response.status, document), response.status)
            return document

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        **arguments: Any,  # noqa: ANN401 - aiohttp's own
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        try:
            self._headers = await self._logins.headers(self.region, self.url)
        except (UpstreamDenied, ConfigurationError) as error:
            raise NodeFailed(self.name, str(error)) from error
        try:
            async with self._session.request(
                method, self.url + path, allow_redirects=False, headers=self._headers, **arguments
            ) as response:
                yield response
        except TimeoutError as error:
            raise NodeFailed(self.name, "no answer in time") from error
        except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
            raise NodeFailed(self.name, f"cannot be reached: {unreachable(error)}") from error

    async def _document(self, response: aiohttp.ClientResponse) -> Mapping[str, Any]:
        try:
            document = await response.json(content_type=None)
        except ValueError as error:
            raise NodeFailed(self.name, f"answered {response.status} without JSON", response.status) from error
        if not isinstance(document, dict):
            raise NodeFailed(self.name, f"answered {response.status} without a JSON object", response.status)
        return document

    def _refusal(self, status: int, document: Mapping[str, Any]) -> str:
        if status == 401:
            return self._logins.refused(self._headers)
        errors = document.get("errors")
        if isinstance(errors, list) and errors and isinstance(errors[0], dict):
            return str(errors[0].get("message") or f"answered {status}")[:_MAX_REASON]
        return f"answered {status}"


@asynccontextmanager
async def open_clients(asking: Asking, prefix: str = REPLICATION) -> AsyncIterator[list[NodeClient]]:
    """Return a client of every node of a configuration, in its order; raises ConfigurationError.

    `prefix` is the API that they speak to.
    """
    settings = load_settings(asking.config, asking.environ)
    logins = NodeLogins(settings, asking.user, asking.environ, asking.ca_file)
    connector = aiohttp.TCPConnector(ssl=trust(asking.ca_file))
    timeout = aiohttp.ClientTimeout(total=TIMEOUT)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False) as session:
        yield [NodeClient(session, node, logins, prefix) for node in settings.nodes]


def choose(clients: list[NodeClient], wanted: str | None) -> NodeClient:
    """Return the node called `wanted` (account/region, or a region that only one has); the first without a name.

    Raises ConfigurationError.
    """
    if wanted is None:
        return clients[0]
    found = [client for client in clients if wanted in {client.name, client.region}]
    if len(found) != 1:
        names = ", ".join(client.name for client in clients)
        raise ConfigurationError(f"expected --from to name one of {names}, got {wanted!r}")
    return found[0]


async def find_source(clients: list[NodeClient], wanted: str | None, repository: str, reference: str) -> NodeClient:
    """Return the node that an image is replicated from: `wanted`, or the first that replicates it, or that has it.

    Raises NodeFailed when no node has it or none can be asked, ConfigurationError.
    """
    if wanted is not None:
        return choose(clients, wanted)
    holder: NodeClient | None = None
    failure: NodeFailed | None = None
    for client in clients:
        try:
            found = await client.get("images", repository=repository, reference=reference)
        except NodeFailed as error:
            if failure is None or error.status != 404:
                failure = error
            continue
        if found["statuses"]:
            return client
        holder = holder or client
    if holder is not None:
        return holder
    assert failure is not None  # noqa: S101 - a configuration has a node, and it failed
    raise failure


def reachable(node: NodeSettings) -> str:
    """Return the URL under which this machine reaches a node."""
    return node.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:").rstrip("/")


def unreachable(error: Exception) -> str:
    """Return why a node cannot be reached, in the words that replication has for it."""
    return connection_failure(error) if isinstance(error, aiohttp.ClientConnectorError) else str(error)


def trust(ca_file: Path | None) -> ssl.SSLContext | bool:
    """Return whom to trust: the system's authorities, and those of a file. Raises ConfigurationError."""
    if ca_file is None:
        return True
    try:
        context = ssl.create_default_context()
        context.load_verify_locations(cafile=ca_file)
    except OSError as error:  # a missing file, or one that holds no certificate
        raise ConfigurationError(f"cannot load --ca-file {ca_file}: {error.strerror or error}") from error
    return context
