"""`config check --connect`: what can be known of peers, registries and upstreams only by asking them.

They are asked as the daemon would ask, with its certificates, secrets and passwords. Nodes of the file itself are not:
they need not run.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicator.config.loader import load_with_warnings
from replicator.config.problems import Problem, dotted
from replicator.daemon.destination_check import DestinationCheck
from replicator.daemon.endpoints import Endpoints
from replicator.daemon.secrets import SecretStore
from replicator.daemon.upstream_check import UpstreamCheck
from replicator.registry.peer_tokens import PeerTokens
from replicator.replication.peers import PeerDirectory
from replicator.telemetry.system_clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.daemon.destination_check import Unusable


def check_connections(path: Path, environ: Mapping[str, str]) -> list[Problem]:
    """Return a problem for each upstream or destination of rules that refuses us; raises ConfigurationError."""
    settings, _ = load_with_warnings(path, environ)
    return asyncio.run(_check(settings, str(path), environ))


async def _check(settings: Settings, file: str, environ: Mapping[str, str]) -> list[Problem]:
    problems = await UpstreamCheck(settings, file, SecretStore(environ), SystemClock()).check()
    for i, node in enumerate(settings.nodes):
        names = [rule.name for rule in node.replication.rules]
        for one in await _unusable(settings, node, environ):
            for rule in one.rules:
                key = dotted(("nodes", i, "replication", "rules", names.index(rule)))
                message = f"rule {rule}: {one.destination} cannot be used: {one.reason}"
                problems.append(Problem(file, None, key, message))
    return problems


async def _unusable(settings: Settings, node: NodeSettings, environ: Mapping[str, str]) -> list[Unusable]:
    clock, secrets = SystemClock(), SecretStore(environ)
    endpoints = Endpoints(settings, node, secrets, {})
    tokens = PeerTokens(node.id, secrets.peer_secret(settings), clock, secrets.pair_secrets(settings))
    destinations = PeerDirectory(
        endpoints.nodes(), tokens, clock, endpoints.registries(), endpoints.registry_credentials(clock)
    )
    try:
        return await DestinationCheck(node.id, node.replication_rules, destinations, clock).check()
    finally:
        await destinations.close()
