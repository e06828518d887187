"""How a command logs in to the nodes of its configuration: by name and password, or with AWS credentials.

A user that the command names goes with the password of the environment. Without one, where the configuration has
identities, each node is asked for an authorization token with the AWS credentials of this machine, as `replicator
login` would, when it is first spoken to. Without credentials too, the node is asked without a login, and says what it
wants. Tokens are kept no longer than the command runs, and go to the node that gave them only.
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.core.errors import ConfigurationError
from replicator.daemon.aws_identity import fetch_login, find_identity
from replicator.daemon.credential_settings import check_endpoint
from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.model import Settings

_HOW = "use --user, with the password in REPLICATOR_PASSWORD"


class NodeLogins:
    """The logins of one command."""

    def __init__(
        self, settings: Settings, user: str | None, environ: Mapping[str, str], ca_file: Path | None = None
    ) -> None:
        """Know whom to log in; raises ConfigurationError for a name that no user can have."""
        self._user = None if user is None else password_login(user, environ)
        self._has_identities = bool(settings.identities)
        self._ca_file = ca_file
        self._tokens: dict[str, Mapping[str, str]] = {}

    async def headers(self, region: str, url: str) -> Mapping[str, str]:
        """Return what logs in to the node of a region that is reached at `url`.

        Raises UpstreamDenied when it gives no token, ConfigurationError when one would cross a network in clear.
        """
        if self._user is not None:
            return self._user
        if not self._has_identities:
            return {}
        if url not in self._tokens:
            self._tokens[url] = await self._fetch(region, url)
        return self._tokens[url]

    async def _fetch(self, region: str, url: str) -> Mapping[str, str]:
        try:
            identity = await asyncio.to_thread(find_identity, region, url)
        except ConfigurationError:  # nobody: the node says whether it minds
            return {}
        check_endpoint(url)
        ca_file = None if self._ca_file is None else str(self._ca_file)
        login = await fetch_login(replace(identity, ca_file=ca_file), SystemClock())
        return _basic(login.username, login.password)

    def refused(self, headers: Mapping[str, str]) -> str:
        """Return what it means that a node answers 401 to these headers."""
        if self._user is not None:
            return "refuses the user or the password in REPLICATOR_PASSWORD"
        if headers:
            return "refuses the token that it gave for the AWS credentials"
        more = ", or AWS credentials of one of its identities" if self._has_identities else ""
        return f"asks for credentials: {_HOW}{more}"


def password_login(user: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the headers that log a user in, with the password of the environment; raises ConfigurationError."""
    if ":" in user:
        raise ConfigurationError("expected --user without ':'")
    return _basic(user, environ.get("REPLICATOR_PASSWORD", ""))


def _basic(user: str, password: str) -> Mapping[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"}
