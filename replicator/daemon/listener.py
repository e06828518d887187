"""Listening sockets, taken before anything else is done.

A port that is in use is reported before a store is touched, and with port 0 the true address is known while the peers
are still being wired.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from replicator.config.nodes import NodeSettings

BACKLOG = 1024
"""Connections that may wait to be accepted: a crowd that finds no room here tries again seconds later."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A bound socket, and the URL under which this process itself reaches it."""

    socket: socket.socket
    url: str
    ssl_context: ssl.SSLContext | None


def bind(settings: NodeSettings) -> Listener:
    """Bind a node's address; raises ConfigurationError when that is not possible or its certificate is unusable."""
    host, port = settings.listen.host, settings.listen.port
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen(BACKLOG)
        bound.setblocking(False)
        context = _ssl_context(settings)
    except OSError as error:
        bound.close()
        raise ConfigurationError(f"node {settings.id} cannot listen on {settings.listen}: {error.strerror}") from error
    return Listener(bound, _local_url(settings, bound.getsockname()[1]), context)


def _ssl_context(settings: NodeSettings) -> ssl.SSLContext | None:
    if settings.tls is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls.certificate, settings.tls.key)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError(f"node {settings.id} cannot use its certificate: {error}") from error
    return context


def _local_url(settings: NodeSettings, port: int) -> str:
    if settings.tls is not None and settings.public_url is not None:
        # The certificate names the public address, so that is the one a peer can verify.
        return settings.public_url.rstrip("/")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.listen.host, settings.listen.host)  # noqa: S104 - mapped away
    scheme = "https" if settings.tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
