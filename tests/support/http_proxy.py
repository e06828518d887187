"""An HTTP proxy on loopback that connects wherever it is told to, unless a test says where to instead.

async with HttpProxy(routes={"registry.test:443": ("127.0.0.1", 5000)}) as proxy:
    ...
    assert proxy.lines == ["CONNECT registry.test:443 HTTP/1.1"]
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType

_MOST = 64 * 1024


class HttpProxy:
    """Tunnels CONNECT and forwards requests for absolute http URLs, one to a connection.

    `authorization` is the Proxy-Authorization that it wants, `refusal` the status with which it refuses everything.
    """

    def __init__(
        self,
        *,
        routes: Mapping[str, tuple[str, int]] | None = None,
        authorization: str | None = None,
        refusal: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.lines: list[str] = []
        """The request lines, as they came."""
        self.heads: list[str] = []
        """The requests with their headers, as they came."""
        self._routes = dict(routes or {})
        self._authorization = authorization
        self._refusal = refusal
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()

    @property
    def url(self) -> str:
        """The URL to configure."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            await self._answer(head, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, head: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, _, rest = head.partition("\r\n")
        self.lines.append(line)
        self.heads.append(head)
        status = self._refusal or (None if self._is_admitted(rest) else 407)
        if status is not None:
            writer.write(f"HTTP/1.1 {status} Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            return
        method, target, _ = line.split(" ")
        if method == "CONNECT":
            authority, opening = target, b""
        else:
            parts = urlsplit(target)
            authority = parts.netloc
            path = parts.path + (f"?{parts.query}" if parts.query else "")
            headers = [one for one in rest.split("\r\n") if one and not one.lower().startswith("proxy-")]
            opening = "\r\n".join([f"{method} {path} HTTP/1.1", *headers, "Connection: close", "\r\n"]).encode()
        host, port = self._routes.get(authority) or (authority.rpartition(":")[0], int(authority.rpartition(":")[2]))
        there, back = await asyncio.open_connection(host, port)
        if method == "CONNECT":
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back.write(opening)
        async with asyncio.TaskGroup() as group:
            group.create_task(_copy(reader, back))
            group.create_task(_copy(there, writer))

    def _is_admitted(self, headers: str) -> bool:
        wanted = self._authorization
        return wanted is None or f"proxy-authorization: {wanted}".lower() in headers.lower()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await source.read(_MOST):
            target.write(piece)
            await target.drain()
    target.close()
