"""`replicator login`: a token for AWS credentials, or a password, is tried at a registry and kept for its clients.

What was given or fetched is never shown.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import aiohttp

from replicator.config.base import parse_base_url, parse_host
from replicator.core.errors import ConfigurationError, ReplicatorError, UpstreamDenied
from replicator.daemon.auth_file import auth_path, keep_login
from replicator.daemon.aws_identity import RegistryLogin, fetch_login, find_identity
from replicator.daemon.credential_settings import check_endpoint
from replicator.daemon.node_client import trust, unreachable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.core.clock import Clock

_TIMEOUT = aiohttp.ClientTimeout(total=30.0)
_ENDPOINTS = ("AWS_ENDPOINT_URL_ECR", "AWS_ENDPOINT_URL")


class LoginFailed(ReplicatorError):
    """the registry does not accept the login."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line says. With a user name there is a password, and AWS is not asked."""

    registry: str | None = None
    endpoint_url: str | None = None
    region: str | None = None
    profile: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    auth_file: Path | None = None
    ca_file: Path | None = None


def run(wanted: Wanted, environ: Mapping[str, str], clock: Clock) -> str:
    """Log in and return what to tell; raises ReplicatorError, and nothing was kept then."""
    endpoint = _endpoint(wanted, environ)
    registry = _registry(wanted, endpoint)
    scheme = "http" if endpoint == f"http://{registry}" else "https"
    check_endpoint(f"{scheme}://{registry}")
    login = asyncio.run(_tried(wanted, f"{scheme}://{registry}", endpoint, clock))
    path = wanted.auth_file or auth_path(environ)
    place = keep_login(path, registry, login.username, login.password, environ)
    until = "" if wanted.username else f" until {datetime.fromtimestamp(int(login.expires_at), UTC):%Y-%m-%d %H:%M} UTC"
    return f"logged in to {registry} as {login.username}{until}; kept in {place}"


async def _tried(wanted: Wanted, registry: str, endpoint: str | None, clock: Clock) -> RegistryLogin:
    if wanted.username is not None:
        login = RegistryLogin(wanted.username, wanted.password or "", clock.now())
    else:
        identity = find_identity(wanted.region, endpoint, wanted.profile)
        login = await fetch_login(identity, clock)
    await _try(registry, login, trust(wanted.ca_file))
    return login


async def _try(registry: str, login: RegistryLogin, trusted: ssl.SSLContext | bool) -> None:
    """Return if the registry accepts the login; raises LoginFailed or UpstreamDenied."""
    pair = base64.b64encode(f"{login.username}:{login.password}".encode()).decode()
    connector = aiohttp.TCPConnector(ssl=trusted)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=_TIMEOUT, trust_env=True) as session,
            session.get(f"{registry}/v2/", headers={"Authorization": f"Basic {pair}"}, allow_redirects=False) as answer,
        ):
            status = answer.status
    except TimeoutError as error:
        raise UpstreamDenied(f"{registry}: no answer in time") from error
    except (aiohttp.ClientError, ssl.SSLError, OSError) as error:
        raise UpstreamDenied(f"{registry} cannot be reached: {unreachable(error)}") from error
    if status in {401, 403}:
        raise LoginFailed(f"{registry} does not accept the user or the password")
    if status != 200:
        raise LoginFailed(f"{registry} answered {status}")


def _endpoint(wanted: Wanted, environ: Mapping[str, str]) -> str | None:
    given = wanted.endpoint_url or next((environ[name] for name in _ENDPOINTS if environ.get(name)), None)
    if given is None:
        return None
    try:
        return parse_base_url(given.rstrip("/"))
    except ValueError as error:
        raise ConfigurationError(f"--endpoint-url: {error}") from error


def _registry(wanted: Wanted, endpoint: str | None) -> str:
    given = wanted.registry or (None if endpoint is None else urlsplit(endpoint).netloc)
    if given is None:
        raise ConfigurationError("expected --registry, or --endpoint-url of a node")
    try:
        return parse_host(given)
    except ValueError as error:
        raise ConfigurationError(f"--registry: {error}") from error
