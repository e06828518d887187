"""Resolving names, and remembering which network a registry is at: what it may send us to follows from that."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from aiohttp.abc import AbstractResolver, ResolveResult

from replicator.upstream.addresses import Network, home_network, is_address, is_local_name

if TYPE_CHECKING:
    from replicator.upstream.endpoint import UpstreamEndpoint


class HomeResolver(AbstractResolver):
    """Resolves names, and remembers the network that the registry itself was first found in.

    The first finding stays: a name that moves into our network later opens nothing to redirects. One that the
    configuration does not permit is none: the registry is never talked to there, so it must not open that network by
    one false answer.
    """

    def __init__(self, resolver: AbstractResolver, endpoint: UpstreamEndpoint) -> None:
        self._resolver = resolver
        self._host = host = endpoint.origin.host
        self._permitted = None if is_local_name(host) else endpoint.networks
        self._home = home_network([host]) if is_address(host) else None

    @property
    def home(self) -> Network:
        """The registry's network; public until it is known."""
        return Network.PUBLIC if self._home is None else self._home

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve as the resolver behind it does."""
        found = await self._resolver.resolve(host, port, family)
        if self._home is None and found and host.lower().rstrip(".") == self._host:
            home = home_network([result["host"] for result in found])
            if self._permitted is None or home is Network.PUBLIC or home in self._permitted:
                self._home = home
        return found

    async def close(self) -> None:
        """Close the resolver behind it."""
        await self._resolver.close()
