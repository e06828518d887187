"""Docker's `config.json`: passwords that `docker login` wrote down, or the programs that keep them.

Which one knows a registry is Docker's order: the helper named for its host (`credHelpers`), the helper for all
(`credsStore`), then what is written in the file (`auths`). Docker Hub is there under a key of its own, of old. The file
is looked at again a few seconds later, and read again when it changed: whoever logs in need not restart the daemon.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from replicator.core.errors import UpstreamDenied
from replicator.core.image_names import DOCKER_HUB_HOSTS
from replicator.upstream.credential_helpers import HelperCredentials
from replicator.upstream.credentials import IDENTITY_TOKEN_USER, Found
from replicator.upstream.endpoint import Credentials

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FILE_GOOD_FOR: Final = 5.0
"""Seconds after which the file is looked at again."""

_HUB_KEY: Final = "https://index.docker.io/v1/"
_MAX_FILE: Final = 4 * 1024 * 1024
_VERSIONS: Final = ("/v1", "/v2")


def registry_keys(url: str) -> tuple[str, ...]:
    """Return the keys under which Docker and its helpers know the registry at `url`, the usual one first."""
    parts = urlsplit(url)
    if (parts.hostname or "") in DOCKER_HUB_HOSTS:
        return (_HUB_KEY, *sorted(DOCKER_HUB_HOSTS))
    host = parts.netloc.lower()
    return (host, f"{parts.scheme}://{host}")


@dataclass(frozen=True, slots=True)
class _Version:
    """Tells whether a file is the one that was read."""

    modified: int
    size: int
    inode: int


class DockerConfigCredentials:
    """A `Search` in Docker's `config.json` for the registry at `url`."""

    def __init__(self, name: str, path: Path, url: str, environ: Mapping[str, str]) -> None:
        self._name = name
        self._path = path
        self._keys = registry_keys(url)
        self._environ = environ
        self._read: tuple[_Version, Mapping[str, object]] | None = None

    async def __call__(self) -> Found:
        """Look the registry up; nobody in particular if the file does not know it."""
        config = await asyncio.to_thread(self._config)
        helper = _helper(config, self._keys)
        if helper is not None:
            found = await HelperCredentials(self._name, helper, self._keys, self._environ)()
            if found.credentials is not None:
                return found
        return Found(self._written(config), FILE_GOOD_FOR)

    def _config(self) -> Mapping[str, object]:
        """Return the file's content; read if it is another one than last time. Raises UpstreamDenied."""
        try:
            with self._path.open("rb") as opened:
                status = self._path.stat()
                version = _Version(status.st_mtime_ns, status.st_size, status.st_ino)
                if self._read is not None and self._read[0] == version:
                    return self._read[1]
                data = opened.read(_MAX_FILE + 1)
        except OSError as error:
            raise UpstreamDenied(f"{self._name}: {self._path} cannot be read: {error.strerror}") from error
        config = self._parsed(data)
        self._read = (version, config)
        return config

    def _parsed(self, data: bytes) -> Mapping[str, object]:
        try:
            config = json.loads(data) if len(data) <= _MAX_FILE else None
        except (ValueError, RecursionError):
            config = None  # not chained below: the decoder's error carries the file
        if not isinstance(config, dict):
            raise UpstreamDenied(f"{self._name}: {self._path} is not Docker's config.json")
        return config

    def _written(self, config: Mapping[str, object]) -> Credentials | None:
        auths = _mapping(config.get("auths"))
        wanted = {_host(key) for key in self._keys}
        for key in (*(key for key in self._keys if key in auths), *(key for key in auths if _host(key) in wanted)):
            try:
                found = _credentials(_mapping(auths[key]))
            except ValueError:
                raise UpstreamDenied(f"{self._name}: {self._path} holds no credentials under {key[:100]!r}") from None
            if found is not None:
                return found
        return None


def _helper(config: Mapping[str, object], keys: tuple[str, ...]) -> str | None:
    helpers = _mapping(config.get("credHelpers"))
    wanted = {_host(key) for key in keys}
    named = next((helper for key, helper in helpers.items() if _host(key) in wanted), config.get("credsStore"))
    is_name = isinstance(named, str) and bool(named) and "/" not in named
    return str(named) if is_name else None


def _credentials(entry: Mapping[str, object]) -> Credentials | None:
    """Return what one entry says; None where it says nothing, as beside a helper. Raises ValueError for nonsense."""
    token = entry.get("identitytoken")
    if isinstance(token, str) and token:
        return Credentials(IDENTITY_TOKEN_USER, token)
    pair = entry.get("auth")
    if isinstance(pair, str) and pair:
        try:
            username, colon, password = base64.b64decode(pair, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError("expected base64 of a user name and a password") from None
        if not (username and colon):
            raise ValueError("expected a user name and a password")
        return Credentials(username, password.rstrip("\0"))
    user, secret = entry.get("username"), entry.get("password")
    return Credentials(user, secret) if isinstance(user, str) and isinstance(secret, str) and user else None


def _host(key: str) -> str:
    """Return the host that a key is for, in lower case; a key for a part of a registry stays as it is."""
    rest = key.partition("://")[2] or key
    rest = rest.rstrip("/")
    for version in _VERSIONS:
        rest = rest.removesuffix(version)
    return rest.lower()


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}
