"""Tokens that were fetched before, so that not every pull asks for one.

A token is kept under what it was fetched with: other credentials never get it. The file is its owner's only. Whatever
is wrong with it costs a token, and no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, cast

from replicator.core.errors import ConfigurationError
from replicator.daemon.aws_identity import RegistryLogin
from replicator.daemon.private_files import read_object, write_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock
    from replicator.upstream.ecr_credentials import AwsIdentity

EARLY = 1800.0
"""Seconds before its end from which on a token is not used any more: a pull may take long."""


def cache_path(environ: Mapping[str, str]) -> Path:
    """Return where tokens are kept."""
    home = environ.get("XDG_CACHE_HOME") or str(Path(environ.get("HOME") or "~").expanduser() / ".cache")
    return Path(home) / "replicator" / "tokens.json"


def cache_key(registry: str, identity: AwsIdentity) -> str:
    """Return what a token for a registry is kept under; it says nothing of the credentials."""
    parts = (registry, identity.region, identity.endpoint, identity.access_key_id, identity.session_token)
    secret = (identity.secret_access_key or "").encode()
    return hashlib.blake2b(json.dumps(parts).encode(), key=hashlib.sha256(secret).digest(), digest_size=24).hexdigest()


class TokenCache:
    """The tokens in a file."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path = path
        self._clock = clock

    def find(self, key: str) -> RegistryLogin | None:
        """Return a login that holds for a while yet."""
        entry = self._entries().get(key)
        if not isinstance(entry, dict):
            return None
        name, password, end = (entry.get(one) for one in ("username", "password", "expires_at"))
        if not (isinstance(name, str) and isinstance(password, str) and isinstance(end, int | float)):
            return None
        return RegistryLogin(name, password, end) if end - EARLY > self._clock.now() else None

    def keep(self, key: str, registry: str, login: RegistryLogin) -> None:
        """Remember a login, and forget those that have ended."""
        now = self._clock.now()
        kept = {name: one for name, one in self._entries().items() if _end(one) > now}
        kept[key] = {
            "registry": registry,
            "username": login.username,
            "password": login.password,
            "expires_at": login.expires_at,
        }
        with contextlib.suppress(ConfigurationError):  # a disk that takes nothing: the token was fetched all the same
            write_object(self._path, kept)

    def forget(self, registry: str) -> None:
        """Forget every login at a registry; raises ConfigurationError."""
        entries = self._entries()
        kept = {
            name: one
            for name, one in entries.items()
            if not (isinstance(one, dict) and one.get("registry") == registry)
        }
        if kept != entries:
            write_object(self._path, kept)

    def _entries(self) -> dict[str, object]:
        try:
            return read_object(self._path)
        except ConfigurationError:
            return {}


def _end(entry: object) -> float:
    end = cast("dict[str, object]", entry).get("expires_at") if isinstance(entry, dict) else None
    return float(end) if isinstance(end, int | float) else 0.0
