"""Which addresses the connections to one upstream may lead to.

Hosts that the upstream names reach no network that is closer to us than the registry itself (see `addresses`), and the
registry's own name leads into no network that its configuration does not permit. The check is made on the address that
is being connected to, so that a name cannot resolve twice in two ways.
"""

from __future__ import annotations

import enum
import socket
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from replicator.core.errors import UpstreamContent
from replicator.upstream.addresses import Network, is_address, is_local_name, may_reach, network_of
from replicator.upstream.errors import ForbiddenAddress
from replicator.upstream.home_resolver import HomeResolver

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp.abc import AbstractResolver
    from yarl import URL

    from replicator.upstream.endpoint import UpstreamEndpoint

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]


class Lane(enum.Enum):
    """Who named the host of a request, and so where it may lead."""

    REGISTRY = "the registry itself"
    CONFIGURED = "named by the configuration"
    NAMED = "named by the upstream: no address closer to us than the registry"


class NetworkGuard:
    """Decides for one upstream, by who named the host of a request. Close it when done."""

    def __init__(self, endpoint: UpstreamEndpoint, resolver: AbstractResolver | None = None) -> None:
        self._endpoint = endpoint
        self._given_resolver = resolver
        self._resolver: HomeResolver | None = None

    def resolver(self) -> HomeResolver:
        """Return what resolves names; it is made at first use, since it needs a running loop."""
        if self._resolver is None:
            self._resolver = HomeResolver(self._given_resolver or aiohttp.ThreadedResolver(), self._endpoint)
        return self._resolver

    async def close(self) -> None:
        """Close the resolver."""
        if self._resolver is not None:
            await self._resolver.close()

    def socket_factory(self, lane: Lane) -> Callable[[AddressInfo], socket.socket] | None:
        """Return what makes the lane's sockets, which looks at the address first; None where any will do."""
        if lane is Lane.NAMED:
            return self._named_socket
        if self._endpoint.networks is None:
            return None
        if lane is Lane.CONFIGURED:
            return self._realm_socket
        host = self._endpoint.origin.host
        return None if is_address(host) or is_local_name(host) else self._registry_socket

    def _registry_socket(self, info: AddressInfo) -> socket.socket:
        """Return a socket for an address that the registry's name may lead to; raise ForbiddenAddress for any other."""
        network = network_of(str(info[4][0]))
        if network is not Network.PUBLIC and network not in (self._endpoint.networks or ()):
            # The address itself stays out of it: whoever pulls may read this.
            raise ForbiddenAddress(
                f"its name leads to a {network} address, which is refused; `networks: [{network}]` of the upstream "
                "permits it"
            )
        return _socket(info)

    def _realm_socket(self, info: AddressInfo) -> socket.socket:
        """Return a socket for a token service that the configuration names: by its address, or near the registry."""
        address = str(info[4][0])
        if any(_names(host, address) for host in self._endpoint.realm_hosts) or may_reach(self._home, address):
            return _socket(info)
        return self._registry_socket(info)

    def _named_socket(self, info: AddressInfo) -> socket.socket:
        """Return a socket for an address that the upstream may send us to; raise ForbiddenAddress for any other."""
        self._check_address(str(info[4][0]))
        return _socket(info)

    @property
    def _home(self) -> Network:
        return self._resolver.home if self._resolver is not None else Network.PUBLIC

    def _check_address(self, address: str) -> None:
        network = network_of(address)
        if not may_reach(self._home, address) and network not in (self._endpoint.networks or ()):
            raise ForbiddenAddress(
                f"refused to follow the upstream into an internal network, to a {network} address; "
                f"`networks: [{network}]` of the upstream permits it"
            )

    def check_named(self, url: URL) -> None:
        """Raise UpstreamContent for an address that the upstream may not have our proxy connect to."""
        host = (url.raw_host or "").rstrip(".")
        try:
            if is_address(host):
                self._check_address(host)
            elif is_local_name(host):
                self._check_address("127.0.0.1")
        except ForbiddenAddress as error:
            raise UpstreamContent(f"{self._endpoint.name}: {error}") from error


def _names(authority: str, address: str) -> bool:
    """Tell whether a host, with its port or without, is written as this address, or as this machine if it is that."""
    host = urlsplit(f"//{authority}").hostname or ""
    if is_local_name(host):
        return network_of(address) is Network.LOOPBACK
    return host == address


def _socket(info: AddressInfo) -> socket.socket:
    family, kind, protocol, *_ = info
    return socket.socket(family, kind, protocol)
