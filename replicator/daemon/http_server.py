"""One node's HTTP server: the sockets, the protocol settings, and the way from a path to an edge."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from replicator.core.public_catalog import LOGO_PATH
from replicator.daemon.listener import BACKLOG
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from replicator.daemon.listener import Listener

Edge = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

KEEPALIVE = 75.0
MAX_LINE = 16 * 1024
LAST_GRACE = 1.0
"""Seconds for the last bytes of answers, and for requests that are cut."""
READ_BUFFER = 256 * 1024
_DOORS = 16
"""Connections that are accepted in one turn of the event loop. libuv takes one for each server that it knows, so that
with a single one a crowd would wait at the door while the loop is busy with those who came first."""
PEER_PREFIX = "/_replicator/v1/peer/"
LAYER_PREFIX = "/_ecr/layers/"
PUBLIC_TOKEN_PATHS = frozenset({"/token", "/token/"})

_log = get_logger(__name__)


class HttpServer:
    """Serves one listener until stopped."""

    def __init__(
        self,
        listener: Listener,
        registry: Edge,
        operations: Edge,
        peers: Edge | None = None,
        control: Edge | None = None,
        layers: Edge | None = None,
        logos: Edge | None = None,
    ) -> None:
        self._layers = layers or operations
        self._logos = logos or operations
        self._listener = listener
        self._registry = registry
        self._operations = operations
        self._peers = peers or operations
        self._control = control or operations
        self._runner: web.ServerRunner | None = None
        self._under_way = 0
        self._idle = asyncio.Event()
        self._is_draining = False

    async def start(self) -> None:
        """Accept connections."""
        server = web.Server(
            self._serve,
            access_log=None,
            logger=cast("logging.Logger", _ProtocolLog(logging.getLogger("aiohttp.server"), {})),
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            max_line_size=MAX_LINE,
            read_bufsize=READ_BUFFER,
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=LAST_GRACE, handle_signals=False)
        await self._runner.setup()
        listener = self._listener
        for _ in range(_DOORS):
            # Each has a descriptor of its own of the one socket, and closes it.
            door = web.SockSite(self._runner, listener.socket.dup(), ssl_context=listener.ssl_context, backlog=BACKLOG)
            await door.start()

    async def stop(self, grace: float) -> None:
        """Take no more connections, let requests end within `grace` seconds, then close what is left."""
        if self._runner is not None:
            for site in tuple(self._runner.sites):
                await site.stop()
            self._listener.socket.close()
            await self._drain(grace)
            await self._runner.cleanup()
            self._runner = None
        self._listener.socket.close()

    async def _drain(self, grace: float) -> None:
        # Not left to aiohttp: while it shuts down it drops what arrives, and so the rest of every upload under way.
        self._is_draining = True
        if self._under_way:
            self._idle.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self._idle.wait()

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        self._under_way += 1
        try:
            response = await self._edge_of(request.method, request.raw_path)(request)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
        if self._is_draining:
            response.force_close()
        return response

    def _edge_of(self, method: str, path: str) -> Edge:
        if path.startswith("/v2") and (len(path) == len("/v2") or path[len("/v2")] in "/?"):
            return self._registry
        if path.partition("?")[0] in PUBLIC_TOKEN_PATHS:
            return self._registry
        if method == "POST" and path.partition("?")[0] in {"/", ""}:
            return self._control
        if path.startswith(LAYER_PREFIX):
            return self._layers
        if path.startswith(LOGO_PATH):
            return self._logos
        return self._peers if path.startswith(PEER_PREFIX) else self._operations


class _ProtocolLog(logging.LoggerAdapter[logging.Logger]):
    """aiohttp's events about connections.

    It quotes what it could not parse, with a traceback. But a request that is no HTTP is its sender's fault, comes in
    any number, and may hold a password: it gets one line, and is not quoted.
    """

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:  # noqa: ANN401 - as logging has it
        error = kwargs.get("exc_info")
        if isinstance(error, HttpProcessingError):
            # Clients that may speak plain HTTP try TLS first.
            reason = "TLS on a port without it" if "HTTPS traffic" in error.message else type(error).__name__
            _log.info("request is malformed", remote=str(args[0]), reason=reason)
            return
        super().log(level, msg, *args, **kwargs)
