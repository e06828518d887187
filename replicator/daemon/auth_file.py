"""The file in which docker, podman and skopeo keep logins, or the program to which it hands them.

Which one keeps a registry's login is Docker's order: the helper named for its host (`credHelpers`), the helper for all
(`credsStore`), then the file itself (`auths`). Everything else in the file stays as it is.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from replicator.core.errors import ConfigurationError
from replicator.daemon.private_files import read_object, write_object

if TYPE_CHECKING:
    from collections.abc import Mapping

_HELPER_TIMEOUT = 60.0
_OWN_HELPER = "replicator"


def auth_path(environ: Mapping[str, str]) -> Path:
    """Return the file that clients started from here would read."""
    if environ.get("REGISTRY_AUTH_FILE"):
        return Path(environ["REGISTRY_AUTH_FILE"])
    if environ.get("DOCKER_CONFIG"):
        return Path(environ["DOCKER_CONFIG"]) / "config.json"
    return Path(environ.get("HOME") or "~").expanduser() / ".docker" / "config.json"


def keep_login(path: Path, registry: str, username: str, password: str, environ: Mapping[str, str]) -> str:
    """Keep a login, and return where it is now; raises ConfigurationError."""
    document = read_object(path)
    helpers = document.get("credHelpers")
    named = helpers.get(registry) if isinstance(helpers, dict) else None
    helper = named or document.get("credsStore")
    if helper == _OWN_HELPER:
        return "docker-credential-replicator, which asks by itself"
    if isinstance(helper, str) and helper:
        return _hand_over(helper, {"ServerURL": registry, "Username": username, "Secret": password}, environ)
    known = document.get("auths")
    logins = dict(known) if isinstance(known, dict) else {}
    logins[registry] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    write_object(path, {**document, "auths": logins})
    return str(path)


def _hand_over(helper: str, login: Mapping[str, str], environ: Mapping[str, str]) -> str:
    program = f"docker-credential-{helper}"
    found = None if "/" in helper else shutil.which(program, path=environ.get("PATH"))
    if found is None:
        raise ConfigurationError(f"there is no program {program} on PATH")
    try:
        done = subprocess.run(  # noqa: S603 - the helper that the file names
            [found, "store"],
            input=json.dumps(login).encode(),
            capture_output=True,
            check=False,
            timeout=_HELPER_TIMEOUT,
            env=dict(environ),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{program} cannot be asked to keep the login") from error
    if done.returncode != 0:
        raise ConfigurationError(f"{program} did not keep the login: exit code {done.returncode}")
    return program
