"""`docker-credential-replicator`: a credential helper that logs in with AWS credentials.

Docker, podman, skopeo and others start it with an action and speak to it over its standard input and output. `get`
answers with a token, `erase` forgets it, `list` names the registries that are known, and `store` is refused: there is
nothing to keep that would not end by itself. A failure is a text on the standard output and exit code 1; one of the
texts is the protocol's own, and makes clients go on without credentials.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, TextIO

from replicator import __version__
from replicator.core.errors import ReplicatorError
from replicator.daemon.credential_settings import load_credential_settings, registry_of, settings_path
from replicator.daemon.token_source import TokenSource
from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.clock import Clock

NOT_FOUND = "credentials not found in native keychain"
NO_URL = "no credentials server URL"
USER = "AWS"
_MAX_INPUT = 64 * 1024
_USAGE = "usage: docker-credential-replicator get|store|erase|list|version"


def main() -> None:
    """Carry out the action of the command line."""
    sys.exit(run(sys.argv[1:], os.environ, SystemClock(), sys.stdin, sys.stdout))


def run(arguments: Sequence[str], environ: Mapping[str, str], clock: Clock, source: TextIO, destination: TextIO) -> int:
    """Carry out one action, and return the exit code."""
    try:
        answer = _Helper(environ, clock).answer(arguments, source)
    except ReplicatorError as error:
        destination.write(f"{error}\n")
        return 1
    if answer:
        destination.write(f"{answer}\n")
    return 0


class _Failure(ReplicatorError):
    """the action failed."""


class _Helper:
    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._environ = environ
        self._tokens = TokenSource(environ, clock)

    def answer(self, arguments: Sequence[str], source: TextIO) -> str:
        if len(arguments) != 1:
            raise _Failure(_USAGE)
        action = arguments[0]
        if action in {"version", "--version"}:
            return f"docker-credential-replicator {__version__}"
        if action == "list":
            return json.dumps(dict.fromkeys(load_credential_settings(settings_path(self._environ)).registries, USER))
        if action == "store":
            raise _Failure("docker-credential-replicator keeps no passwords: it logs in with AWS credentials")
        if action not in {"get", "erase"}:
            raise _Failure(_USAGE)
        key = source.read(_MAX_INPUT).strip()
        if not key:
            raise _Failure(NO_URL)
        return self._get(key) if action == "get" else self._erase(key)

    def _get(self, key: str) -> str:
        registry = registry_of(key)
        settings = load_credential_settings(settings_path(self._environ)).find(registry)
        if settings is None:
            raise _Failure(NOT_FOUND)
        login = self._tokens.login(registry, settings)
        return json.dumps({"ServerURL": key, "Username": login.username, "Secret": login.password})

    def _erase(self, key: str) -> str:
        self._tokens.cache.forget(registry_of(key))
        return ""
