"""`replicator-credential-provider`: what the kubelet asks for credentials before it pulls (exec plugin, v1).

The kubelet writes a CredentialProviderRequest with the image's name and reads a CredentialProviderResponse. One for a
registry that is not known has no credentials, and the kubelet pulls without. A failure is a text on the standard error,
which the kubelet logs, and exit code 1.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from replicator.core.errors import ConfigurationError, ReplicatorError
from replicator.daemon.credential_settings import load_credential_settings, registry_of, settings_path
from replicator.daemon.token_cache import EARLY
from replicator.daemon.token_source import TokenSource
from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.clock import Clock

API_VERSION = "credentialprovider.kubelet.k8s.io/v1"
MAX_CACHE = 6 * 3600
"""Seconds for which the kubelet may keep a token, at most."""
_MAX_REQUEST = 1024 * 1024
_USAGE = "usage: replicator-credential-provider [--config FILE]"


def main() -> None:
    """Answer the request on the standard input."""
    sys.exit(run(sys.argv[1:], os.environ, SystemClock(), sys.stdin, sys.stdout, sys.stderr))


def run(
    arguments: Sequence[str],
    environ: Mapping[str, str],
    clock: Clock,
    source: TextIO,
    destination: TextIO,
    errors: TextIO,
) -> int:
    """Answer one request, and return the exit code."""
    try:
        path = _path(arguments)
        settings = load_credential_settings(path or settings_path(environ), must_exist=path is not None)
        registry = registry_of(_image(source))
        auth: dict[str, object] = {}
        lasts = 0
        found = settings.find(registry)
        if found is not None:
            login = TokenSource(environ, clock).login(registry, found)
            auth = {registry: {"username": login.username, "password": login.password}}
            lasts = int(min(MAX_CACHE, max(0.0, login.expires_at - EARLY - clock.now())))
    except ReplicatorError as error:
        errors.write(f"replicator-credential-provider: {error}\n")
        return 1
    document = {
        "apiVersion": API_VERSION,
        "kind": "CredentialProviderResponse",
        "cacheKeyType": "Registry",
        "cacheDuration": f"{lasts}s",
        "auth": auth,
    }
    destination.write(json.dumps(document) + "\n")
    return 0


def _path(arguments: Sequence[str]) -> Path | None:
    if not arguments:
        return None
    if len(arguments) != 2 or arguments[0] != "--config":
        raise ConfigurationError(_USAGE)
    return Path(arguments[1])


def _image(source: TextIO) -> str:
    try:
        request = json.loads(source.read(_MAX_REQUEST))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError("expected a CredentialProviderRequest in JSON") from error
    fields = request if isinstance(request, dict) else {}
    if (fields.get("apiVersion"), fields.get("kind")) != (API_VERSION, "CredentialProviderRequest"):
        raise ConfigurationError(f"expected a CredentialProviderRequest of {API_VERSION}")
    image = fields.get("image")
    if not isinstance(image, str) or not image:
        raise ConfigurationError("expected the request to name an image")
    return image
