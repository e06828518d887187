"""Where an upstream is, who we are there, and how patient we are with it.

A password is held here and shown nowhere: neither value's representation contains it.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from yarl import URL

from replicator.core.errors import ConfigurationError
from replicator.core.image_names import DOCKER_HUB_NAMES, DOCKER_HUB_REGISTRY

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.upstream.addresses import Network


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """A user name and a password (or access token)."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=***)"


def basic_authorization(credentials: Credentials) -> str:
    """Return the value of an Authorization header (RFC 7617)."""
    pair = f"{credentials.username}:{credentials.password}".encode()
    return f"Basic {base64.b64encode(pair).decode('ascii')}"


class CredentialSource(Protocol):
    """Knows who we are to one upstream, where that changes: a helper program, a token that expires, a mounted secret.

    Asked before every use; what takes long to find is kept by the source itself.
    """

    async def get(self) -> Credentials | None:
        """Return who we are now, None for nobody in particular. Raises UpstreamDenied when that cannot be found out."""
        ...

    def refused(self, credentials: Credentials) -> None:
        """Note that the upstream did not accept `credentials`: a source that can get others does at the next `get`."""
        ...


class FixedCredentials:
    """The credentials that a configuration states, which stay as they are."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    async def get(self) -> Credentials | None:
        """Return them."""
        return self._credentials

    def refused(self, credentials: Credentials) -> None:
        """Do nothing: there are no others."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """An HTTP proxy that an upstream is reached through: https upstreams by CONNECT, http ones by absolute URLs.

    Raises ConfigurationError when `url` is not the plain address of a proxy.
    """

    url: str
    credentials: Credentials | None = None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError("proxy: expected an http or https URL with a host")
        if "@" in parts.netloc:
            raise ConfigurationError("proxy: expected a URL without user and password; use credentials")
        if parts.path not in {"", "/"} or parts.query or parts.fragment:
            raise ConfigurationError("proxy: expected a URL of a host and a port alone")


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """The files of a certificate and its key, in PEM, that prove who we are to the upstream in the TLS handshake."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Scheme, host and port: what credentials are bound to (RFC 6454)."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def origin_of(url: URL) -> Origin:
    """Return the origin of an absolute http or https URL."""
    default = 443 if url.scheme == "https" else 80
    return Origin(url.scheme, (url.raw_host or "").lower().rstrip("."), url.port or default)


@dataclass(frozen=True, slots=True)
class UpstreamEndpoint:
    """One upstream registry. Durations are seconds; a rate of None is unlimited.

    `realm_hosts` are token hosts, besides the registry's own and the known ones, that may receive the credentials.
    `ca_file` is trusted in addition to the system's authorities. `stall_timeout` bounds the silence within an answer,
    `total_timeout` a whole small request, and the wait for the first byte of a large one. `client_certificate` is shown
    to the registry itself, never to hosts that it names. `networks` are the kinds of network that the registry's name
    may lead to, public ones always; None allows any, and an address (or `localhost`) in `url` is its own permission.
    `namespace` is the registry that we want of one that stands for others (distribution-spec, "Registry Proxying").
    `via` is our entry in the Via of every request, and `breaker` says whether an upstream that keeps failing is left
    alone for a while. Raises ConfigurationError when `url` is not the plain address of a registry.
    """

    name: str
    url: str
    credentials: Credentials | None = None
    realm_hosts: frozenset[str] = frozenset()
    ca_file: Path | None = None
    connect_timeout: float = 10.0
    stall_timeout: float = 30.0
    total_timeout: float = 60.0
    max_connections: int = 32
    requests_per_second: float | None = None
    bytes_per_second: float | None = None
    proxy: ProxySettings | None = None
    client_certificate: ClientCertificate | None = None
    networks: frozenset[Network] | None = None
    namespace: str | None = None
    via: str | None = None
    breaker: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(f"upstream {self.name!r}: expected an http or https URL with a host")
        if "@" in parts.netloc:
            raise ConfigurationError(
                f"upstream {self.name!r}: expected a URL without user and password; use credentials"
            )
        if parts.query or parts.fragment:
            raise ConfigurationError(f"upstream {self.name!r}: expected a URL without query and fragment")

    @property
    def api_url(self) -> str:
        """The URL that `/v2/` is appended to; Docker Hub's well-known names stand for its registry host."""
        host = (urlsplit(self.url).hostname or "").lower()
        return f"https://{DOCKER_HUB_REGISTRY}" if host in DOCKER_HUB_NAMES else self.url.rstrip("/")

    @property
    def origin(self) -> Origin:
        """Where the registry is, and the only place its credentials go to (its token service aside)."""
        return origin_of(URL(self.api_url))
