"""HTTP to one upstream, with the habits that keep credentials and our own network safe.

- Redirects are followed by hand. Authorization goes to the origin the request was made to, and is not sent again once
  a hop has left it, not even when a later hop comes back (CVE-2020-15157). https never continues as http
  (CVE-2014-5277).
- No connection leads to an address that it may not lead to (see `network_guard`).
- Behind a proxy it is the proxy that resolves names and connects; addresses that the upstream names are still checked.
- Our certificate is shown to the registry itself alone.
- Content comes as it was sent: nothing is decompressed, no cookie is kept, no proxy is taken from the environment.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from yarl import URL

from replicator import __version__
from replicator.core.errors import ShuttingDown, UpstreamContent, UpstreamUnavailable
from replicator.upstream.endpoint import (
    Credentials,
    ProxySettings,
    UpstreamEndpoint,
    basic_authorization,
    origin_of,
)
from replicator.upstream.network_guard import Lane, NetworkGuard
from replicator.upstream.urls import parse_url
from replicator.upstream.via import via_header

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Mapping
    from pathlib import Path

    from aiohttp.abc import AbstractResolver

    from replicator.upstream.endpoint import ClientCertificate

MAX_REDIRECTS = 5

_FOLLOWED_METHODS = frozenset({"GET", "HEAD"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {"User-Agent": f"replicator/{__version__}", "Accept-Encoding": "identity"}


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
        self._guard = NetworkGuard(endpoint, resolver)
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
        await self._guard.close()

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
            self._guard.check_named(url)
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
        connector = aiohttp.TCPConnector(
            limit=0,  # the upstream's limit is held by UpstreamLimits, across all lanes
            resolver=self._guard.resolver(),
            ssl=tls,
            # Through a proxy it is always the proxy that is connected to.
            socket_factory=None if self._proxy.url is not None else self._guard.socket_factory(lane),
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


def finish(response: aiohttp.ClientResponse) -> None:
    """Give the connection back if the answer was read to its end, else close it."""
    if response.content.at_eof():
        response.release()
    else:
        response.close()


def _load_certificate(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    # A password, even none, so that an encrypted key is refused and nobody is asked for one on a terminal.
    context.load_cert_chain(certificate.certificate, certificate.key, password="")


def _tls_context(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=ca_file)
    return context
