"""Asks the upstreams and peers of cache rules whether they answer and accept us, for `config check --connect`.

An upstream is asked once, however many rules name it. A node of the file itself is not asked: it need not run.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

from replicator.config.problems import KeyPath, Problem, dotted
from replicator.core.errors import ReplicatorError
from replicator.daemon.endpoints import Endpoints
from replicator.registry.peer_tokens import PeerTokens
from replicator.upstream.auth import BearerAuthorizer
from replicator.upstream.client import UpstreamClient, open_client

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.core.clock import Clock
    from replicator.daemon.secrets import SecretStore


class UpstreamCheck:
    """Checks what the cache rules of one configuration lead to."""

    def __init__(self, settings: Settings, file: str, secrets: SecretStore, clock: Clock) -> None:
        self._settings = settings
        self._file = file
        self._secrets = secrets
        self._clock = clock

    async def check(self) -> list[Problem]:
        """Ask all at once, and return a problem for each that cannot be used; raises ConfigurationError."""
        asked = [*self._upstreams(), *self._peers()]
        async with asyncio.TaskGroup() as group:
            tasks = [(path, what, group.create_task(_refusal(client))) for path, what, client in asked]
        return [
            Problem(self._file, None, dotted(path), f"{what} cannot be used: {refusal}")
            for path, what, task in tasks
            if (refusal := task.result()) is not None
        ]

    def _upstreams(self) -> Iterator[tuple[KeyPath, str, UpstreamClient]]:
        rules = [rule for node in self._settings.nodes for rule in node.cache.rules]
        endpoints = self._endpoints(self._settings.nodes[0])
        for i, upstream in enumerate(self._settings.upstreams):
            prefixes = dict.fromkeys(rule.prefix for rule in rules if upstream.name in rule.sources)
            if prefixes:
                credentials = endpoints.upstream_credentials(upstream.name, self._clock)
                client = open_client(endpoints.upstream(upstream.name), self._clock, credentials=credentials)
                yield ("upstreams", i), f"upstream {upstream.name} of cache rule {', '.join(prefixes)}", client

    def _peers(self) -> Iterator[tuple[KeyPath, str, UpstreamClient]]:
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
                        yield path, f"cache rule {rule.prefix}: {peer}", client

    def _endpoints(self, node: NodeSettings) -> Endpoints:
        return Endpoints(self._settings, node, self._secrets, {})


async def _refusal(client: UpstreamClient) -> str | None:
    """Return why a registry cannot be used, or None when it answers and accepts us; the client is closed."""
    try:
        await client.ping()
    except ReplicatorError as error:
        return str(error)
    finally:
        await client.close()
    return None
