"""One node's HTTP server: the sockets, the protocol settings, and the way from a path to an edge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from replicator.daemon.listener import Listener

Edge = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

KEEPALIVE = 75.0
MAX_LINE = 16 * 1024
MIN_GRACE = 0.1
READ_BUFFER = 256 * 1024


class HttpServer:
    """Serves one listener until stopped."""

    def __init__(self, listener: Listener, registry: Edge, operations: Edge) -> None:
        self._listener = listener
        self._registry = registry
        self._operations = operations
        self._runner: web.ServerRunner | None = None

    async def start(self, grace: float) -> None:
        """Accept connections. `grace` is how many seconds requests may go on after `stop`."""
        server = web.Server(
            self._route,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=KEEPALIVE,
            max_line_size=MAX_LINE,
            read_bufsize=READ_BUFFER,
        )
        # To aiohttp a timeout of zero is none at all.
        self._runner = web.ServerRunner(server, shutdown_timeout=max(grace, MIN_GRACE), handle_signals=False)
        await self._runner.setup()
        site = web.SockSite(self._runner, self._listener.socket, ssl_context=self._listener.ssl_context)
        await site.start()

    async def stop(self) -> None:
        """Take no more connections, let requests end within the grace, then close what is left."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._listener.socket.close()

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.raw_path
        if path.startswith("/v2") and (len(path) == 3 or path[3] in "/?"):
            return await self._registry(request)
        return await self._operations(request)
