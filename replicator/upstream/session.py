"""HTTP to one upstream, with the habits that keep credentials and our own network safe.

- Redirects are followed by hand. Authorization goes to the origin the request was made to, and is not sent again once
  a hop has left it, not even when a later hop comes back (CVE-2020-15157). https never continues as http
  (CVE-2014-5277).
- Hosts that the upstream names reach no network that is closer to us than the registry itself (see `addresses`), and
  the registry's own name leads into no network that its configuration does not permit; the check is made on the address
  that is being connected to, so that a name cannot resolve twice in two ways.
- Behind a proxy it is the proxy that resolves names and connects; addresses that the upstream names are still checked.
- Our certificate is shown to the registry itself alone.
- Content comes as it was sent: nothing is decompressed, no cookie is kept, no proxy is taken from the environment.
"""

from __future__ import annotations

import asyncio
import enum
import re
import socket
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from replicator import __version__
from replicator.core.errors import ShuttingDown, UpstreamContent, UpstreamUnavailable
from replicator.upstream.addresses import Network, home_network, is_address, is_local_name, may_reach, network_of
from replicator.upstream.endpoint import (
    Credentials,
    ProxySettings,
    UpstreamEndpoint,
    basic_authorization,
    origin_of,
)
from replicator.upstream.errors import ForbiddenAddress
from replicator.upstream.via import via_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Mapping
    from pathlib import Path

    from replicator.upstream.endpoint import ClientCertificate

MAX_REDIRECTS = 5

_FOLLOWED_METHODS = frozenset({"GET", "HEAD"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_URL_TEXT = re.compile(r"[!-\[\]-~]{1,8192}")  # printable ASCII but the backslash, on which parsers disagree
_PORTS = {"http": 80, "https": 443}
_HEADERS = {"User-Agent": f"replicator/{__version__}", "Accept-Encoding": "identity"}

AddressInfo = tuple[int, int, int, str, tuple[object, ...]]


class Lane(enum.Enum):
    """Who named the host of a request, and so where it may lead."""

    REGISTRY = "the registry itself"
    CONFIGURED = "named by the configuration"
    NAMED = "named by the upstream: no address closer to us than the registry"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One request as it goes over the wire, redirects included.

    `authorization` is sent to the origin of `url` only. `answer_timeout` replaces the endpoint's stall timeout for
    the wait after a large body was sent.
    """

    method: str
    url: URL
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes | AsyncIterable[bytes] | None = field(default=None, repr=False)
    lane: Lane = Lane.CONFIGURED
    answer_timeout: float | None = None


def parse_url(text: str, base: URL | None = None) -> URL:
    """Return an http or https URL that an upstream sent, relative to `base` if it has no host of its own.

    Raises UpstreamContent for anything that two parsers could read in two ways, and for a URL with a password in it.
    """
    if _URL_TEXT.fullmatch(text) is None:
        raise UpstreamContent("the upstream sent a malformed URL")
    try:
        sent = URL(text, encoded=True)
        url = sent if base is None or sent.scheme else base.join(sent)
        other = urlsplit(str(url))
        port = other.port or _PORTS.get(url.scheme)  # a port that is the scheme's own may be written or not
        consistent = (url.raw_host or "").lower() == other.hostname and url.port == port
    except ValueError as error:
        raise UpstreamContent("the upstream sent a malformed URL") from error
    if url.scheme not in {"http", "https"} or not url.raw_host or not consistent or "@" in other.netloc:
        raise UpstreamContent("the upstream sent a URL that is not plain http or https")
    return url


class Session:
    """The connections to one upstream and to the hosts it refers us to. Close it when done."""

    def __init__(self, endpoint: UpstreamEndpoint, resolver: AbstractResolver | None = None) -> None:
        self._endpoint = endpoint
        self._timeout = aiohttp.ClientTimeout(
            total=None,
            connect=endpoint.connect_timeout,
            sock_connect=endpoint.connect_timeout,
            sock_read=endpoint.stall_timeout,
        )
        self._given_resolver = resolver
        self._resolver: _HomeResolver | None = None
        self._clients: dict[Lane, aiohttp.ClientSession] = {}
        self._proxy = _Proxy(endpoint.proxy)
        self._opening = asyncio.Lock()
        self._closed = False

    async def send(self, outgoing: Outgoing) -> aiohttp.ClientResponse:
        """Send a request, follow redirects of GET and HEAD, and return the answer with its body unread.

        Hand the answer to `finish` when done. Raises UpstreamContent for a redirect that must not be followed;
        failures of the transport are left to the caller to translate. Cancellation closes the connection.
        """
        home = origin_of(outgoing.url)
        url, authorization = outgoing.url, outgoing.authorization
        for _ in range(MAX_REDIRECTS + 1):
            lane = outgoing.lane if origin_of(url) == home else Lane.NAMED
            response = await self._hop(outgoing, url, authorization, lane)
            if response.status not in _REDIRECTS or outgoing.method not in _FOLLOWED_METHODS:
                return response
            try:
                url = self._redirected(url, response)
            finally:
                finish(response)
            if origin_of(url) != home:
                authorization = {}
        raise UpstreamContent(f"{self._endpoint.name}: more than {MAX_REDIRECTS} redirects")

    async def close(self) -> None:
        """Close every connection, those in use too."""
        self._closed = True
        async with self._opening:
            clients = list(self._clients.values())
            self._clients.clear()
        for client in clients:
            await client.close()
        if self._resolver is not None:
            await self._resolver.close()

    def _redirected(self, url: URL, response: aiohttp.ClientResponse) -> URL:
        name = self._endpoint.name
        location = response.headers.get("Location")
        if not location:
            raise UpstreamContent(f"{name}: answered {response.status} without a Location")
        target = parse_url(location, url)
        if url.scheme == "https" and target.scheme != "https":
            raise UpstreamContent(f"{name}: refused to follow a redirect from https to {origin_of(target)}")
        return target

    async def _hop(
        self, outgoing: Outgoing, url: URL, authorization: Mapping[str, str], lane: Lane
    ) -> aiohttp.ClientResponse:
        if lane is Lane.CONFIGURED and origin_of(url) == self._endpoint.origin:
            lane = Lane.REGISTRY
        if self._proxy.url is not None and lane is Lane.NAMED:
            self._check_named(url)
        client = await self._client(lane)
        timeout = self._timeout
        if outgoing.answer_timeout is not None:
            timeout = aiohttp.ClientTimeout(
                total=None,
                connect=timeout.connect,
                sock_connect=timeout.sock_connect,
                sock_read=outgoing.answer_timeout,
            )
        through, tunnel = self._proxy.headers(url)
        return await client.request(
            outgoing.method,
            url,
            headers={**_HEADERS, **via_header(self._endpoint.via), **outgoing.headers, **authorization, **through},
            data=outgoing.body,
            allow_redirects=False,
            timeout=timeout,
            proxy=self._proxy.url,
            proxy_headers=tunnel,
        )

    async def _client(self, lane: Lane) -> aiohttp.ClientSession:
        """Return the lane's connections; they are made at first use, since both need a running loop."""
        async with self._opening:
            if self._closed:
                raise ShuttingDown
            if lane not in self._clients:
                self._clients[lane] = await self._open(lane)
            return self._clients[lane]

    async def _open(self, lane: Lane) -> aiohttp.ClientSession:
        tls = await self._load_tls(lane)
        if self._resolver is None:
            self._resolver = _HomeResolver(self._given_resolver or aiohttp.ThreadedResolver(), self._endpoint)
        connector = aiohttp.TCPConnector(
            limit=0,  # the upstream's limit is held by UpstreamLimits, across all lanes
            resolver=self._resolver,
            ssl=tls,
            socket_factory=self._socket_factory(lane),
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def _load_tls(self, lane: Lane) -> ssl.SSLContext:
        endpoint = self._endpoint
        certificate = endpoint.client_certificate if lane is Lane.REGISTRY else None
        try:
            context = await asyncio.to_thread(_tls_context, endpoint.ca_file)
        except OSError as error:  # a missing file, or one that holds no certificate
            raise UpstreamUnavailable(f"{endpoint.name}: cannot load {endpoint.ca_file}") from error
        if certificate is not None:
            try:
                await asyncio.to_thread(_load_certificate, context, certificate)
            except (OSError, ValueError) as error:
                raise UpstreamUnavailable(
                    f"{endpoint.name}: cannot load the certificate {certificate.certificate} with its key"
                ) from error
        return context

    def _socket_factory(self, lane: Lane) -> Callable[[AddressInfo], socket.socket] | None:
        """Return what makes the lane's sockets, which looks at the address first; None where any will do."""
        if self._proxy.url is not None:
            return None  # it is always the proxy that is connected to
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

    def _check_named(self, url: URL) -> None:
        """Raise UpstreamContent for an address that the upstream may not have our proxy connect to."""
        host = (url.raw_host or "").rstrip(".")
        try:
            if is_address(host):
                self._check_address(host)
            elif is_local_name(host):
                self._check_address("127.0.0.1")
        except ForbiddenAddress as error:
            raise UpstreamContent(f"{self._endpoint.name}: {error}") from error


class _Proxy:
    """How requests go through a proxy, if there is one."""

    def __init__(self, settings: ProxySettings | None) -> None:
        self.url = None if settings is None else URL(settings.url)
        credentials = None if settings is None else settings.credentials
        self._authorization = {} if credentials is None else _proxy_authorization(credentials)

    def headers(self, url: URL) -> tuple[Mapping[str, str], Mapping[str, str] | None]:
        """Return what a request for `url` carries for the proxy, and what the request for a tunnel to it does."""
        if self.url is None or url.scheme == "https":
            return {}, self._authorization if self.url is not None else None
        return self._authorization, None


def _proxy_authorization(credentials: Credentials) -> Mapping[str, str]:
    return {"Proxy-Authorization": basic_authorization(credentials)}


def _names(authority: str, address: str) -> bool:
    """Tell whether a host, with its port or without, is written as this address, or as this machine if it is that."""
    host = urlsplit(f"//{authority}").hostname or ""
    if is_local_name(host):
        return network_of(address) is Network.LOOPBACK
    return host == address


def _socket(info: AddressInfo) -> socket.socket:
    family, kind, protocol, *_ = info
    return socket.socket(family, kind, protocol)


def finish(response: aiohttp.ClientResponse) -> None:
    """Give the connection back if the answer was read to its end, else close it."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


class _HomeResolver(AbstractResolver):
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


def _load_certificate(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    # A password, even none, so that an encrypted key is refused and nobody is asked for one on a terminal.
    context.load_cert_chain(certificate.certificate, certificate.key, password="")


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
