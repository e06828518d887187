"""Where cache rules lead that are made while the daemon runs, and the secrets that they are given."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from replicator.core.errors import ConfigurationError, ReplicatorError, SecretInaccessible, SecretNotFound
from replicator.core.pull_through_rules import KnownUpstream, kind_of
from replicator.core.upstream_presets import PRESETS
from replicator.upstream.client import open_client

if TYPE_CHECKING:
    from replicator.config.model import Settings
    from replicator.config.upstreams import UpstreamSettings
    from replicator.core.clock import Clock
    from replicator.daemon.endpoints import Endpoints
    from replicator.daemon.secrets import SecretStore

PROBE_TIMEOUT = 20.0
"""Seconds for which a registry is waited for that a caller wants to have validated."""


class DaemonUpstreams:
    """What a configuration says of upstreams and secrets; see `RuleUpstreams`."""

    def __init__(self, settings: Settings, endpoints: Endpoints, secrets: SecretStore, clock: Clock) -> None:
        self.known = tuple(_known(one) for one in settings.upstreams)
        self._settings = settings
        self._endpoints = endpoints
        self._secrets = secrets
        self._clock = clock

    async def check_secret(self, arn: str) -> None:
        """Return if there is such a secret with credentials in it; raises like `RuleUpstreams.check_secret`."""
        await asyncio.to_thread(partial(self._secrets.rule_credentials, self._settings, arn))

    async def probe(self, client: str) -> str | None:
        """Connect and log in to a registry; return what is wrong, None for nothing."""
        try:
            endpoint = self._endpoints.client_endpoint(client)
            credentials = self._endpoints.client_credentials(client, self._clock)
        except (ConfigurationError, SecretNotFound, SecretInaccessible) as error:
            return str(error)
        opened = open_client(endpoint, self._clock, credentials=credentials)
        try:
            async with asyncio.timeout(PROBE_TIMEOUT):
                await opened.ping()
        except TimeoutError:
            return f"{endpoint.name} did not answer within {PROBE_TIMEOUT:.0f} seconds"
        except ReplicatorError as error:
            return str(error)
        finally:
            await opened.close()
        return None


def _known(upstream: UpstreamSettings) -> KnownUpstream:
    """Return what rules may call an upstream: its name, its address, and the hosts that its preset stands for."""
    here = urlsplit(upstream.url)
    preset = upstream.known_as
    kind = next((name for name, one in PRESETS.items() if one is preset), None) or kind_of(here.netloc)
    hosts = {upstream.name.lower(), here.netloc, here.hostname or "", *upstream.namespaces}
    host = here.netloc
    if preset is not None and preset.url is not None:
        host = urlsplit(preset.url).netloc
        hosts |= {host, *preset.namespaces}
    return KnownUpstream(
        upstream.name,
        frozenset(hosts - {""}),
        host,
        kind,
        has_credentials=upstream.credentials is not None,
        namespaces=tuple(sorted(upstream.namespaces)),
    )
