"""Asks the upstreams and peers of cache rules whether they answer and accept us, for `config check --connect`.

An upstream is asked once, however many rules name it. A node of the file itself is not asked: it need not run. Whether
credentials were of any use shows in whether they were asked for, and found.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.config.problems import KeyPath, Problem, Severity, dotted
from replicator.core.errors import ReplicatorError, UpstreamDenied
from replicator.daemon.endpoints import Endpoints
from replicator.registry.peer_tokens import PeerTokens
from replicator.upstream.auth import BearerAuthorizer
from replicator.upstream.client import UpstreamClient, open_client
from replicator.upstream.endpoint import FixedCredentials

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.core.clock import Clock
    from replicator.daemon.secrets import SecretStore
    from replicator.upstream.endpoint import Credentials, CredentialSource


_NOTHING_FOUND = "its credentials have nothing for this registry"


class _WatchedCredentials:
    """Credentials that note whether a registry wanted them, and whether there were any."""

    def __init__(self, source: CredentialSource) -> None:
        self._source = source
        self.wanted = False
        self.found = False

    async def get(self) -> Credentials | None:
        """Return what the source has, and note that; raises what it raises."""
        self.wanted = True
        found = await self._source.get()
        self.found = found is not None
        return found

    def refused(self, credentials: Credentials) -> None:
        """Tell the source."""
        self._source.refused(credentials)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A registry to ask: where it is named, what for, and whether the file has credentials for it."""

    path: KeyPath
    what: str
    client: UpstreamClient
    credentials: _WatchedCredentials | None = None
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class _Found:
    """What is wrong with a registry."""

    message: str
    severity: Severity


class UpstreamCheck:
    """Checks what the cache rules of one configuration lead to."""

    def __init__(self, settings: Settings, file: str, secrets: SecretStore, clock: Clock) -> None:
        self._settings = settings
        self._file = file
        self._secrets = secrets
        self._clock = clock

    async def check(self) -> list[Problem]:
        """Ask all at once, and return a problem for each that cannot be used, or is given credentials in vain.

        Raises ConfigurationError.
        """
        asked = [*self._upstreams(), *self._peers()]
        async with asyncio.TaskGroup() as group:
            tasks = [(one, group.create_task(_refusal(one))) for one in asked]
        return [
            Problem(self._file, None, dotted(one.path), f"{one.what} {found.message}", found.severity)
            for one, task in tasks
            if (found := task.result()) is not None
        ]

    def _upstreams(self) -> Iterator[_Asked]:
        rules = [rule for node in self._settings.nodes for rule in node.cache.rules]
        endpoints = self._endpoints(self._settings.nodes[0])
        for i, upstream in enumerate(self._settings.upstreams):
            prefixes = dict.fromkeys(rule.prefix for rule in rules if upstream.name in rule.sources)
            if prefixes:
                endpoint = endpoints.upstream(upstream.name)
                source = endpoints.upstream_credentials(upstream.name, self._clock)
                watched = _WatchedCredentials(source or FixedCredentials(endpoint.credentials))
                client = open_client(endpoint, self._clock, credentials=watched)
                what = f"upstream {upstream.name} of cache rule {', '.join(prefixes)}"
                yield _Asked(("upstreams", i), what, client, watched, is_known=upstream.credentials is not None)

    def _peers(self) -> Iterator[_Asked]:
        elsewhere = {peer.id for peer in self._settings.peers}
        for i, node in enumerate(self._settings.nodes):
            secrets = self._secrets.peer_secret(self._settings), self._secrets.pair_secrets(self._settings)
            tokens = PeerTokens(node.id, secrets[0], self._clock, secrets[1])
            for j, rule in enumerate(node.cache.rules):
                for k, peer in enumerate(one.id for one in rule.peers):
                    if peer in elsewhere:
                        endpoint = self._endpoints(node).nodes()[peer]
                        authorizer = BearerAuthorizer(partial(tokens.issue, peer))
                        path: KeyPath = ("nodes", i, "cache", "rules", j, "peers", k)
                        client = UpstreamClient(endpoint, authorizer, self._clock)
                        yield _Asked(path, f"cache rule {rule.prefix}: {peer}", client)

    def _endpoints(self, node: NodeSettings) -> Endpoints:
        return Endpoints(self._settings, node, self._secrets, {})


async def _refusal(asked: _Asked) -> _Found | None:
    """Return what is wrong with a registry, or None when it answers and accepts us; its client is closed."""
    try:
        await asked.client.ping()
    except ReplicatorError as error:
        return _Found(f"cannot be used: {error}{_hint(asked, error)}", Severity.ERROR)
    finally:
        await asked.client.close()
    watched = asked.credentials
    if watched is None or not asked.is_known:
        return None
    if not watched.wanted:
        return _Found("answers without asking for credentials: it may need none", Severity.WARNING)
    return None if watched.found else _Found(f"is asked as nobody: {_NOTHING_FOUND}", Severity.WARNING)


def _hint(asked: _Asked, error: ReplicatorError) -> str:
    """Return what to do about credentials that are missing."""
    if asked.credentials is None or asked.credentials.found or not isinstance(error, UpstreamDenied):
        return ""
    return f"; {_NOTHING_FOUND}" if asked.is_known else "; expected credentials"
