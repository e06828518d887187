"""A login for a registry: one that was fetched before, or a fresh one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from replicator.core.errors import UpstreamDenied
from replicator.daemon.aws_identity import fetch_login, find_identity
from replicator.daemon.token_cache import TokenCache, cache_key, cache_path
from replicator.upstream.credentials import FIND_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock
    from replicator.daemon.aws_identity import RegistryLogin
    from replicator.daemon.credential_settings import TokenSettings
    from replicator.upstream.ecr_credentials import AwsIdentity


class TokenSource:
    """Logs somebody at this machine in, for programs that ask for it."""

    def __init__(self, environ: Mapping[str, str], clock: Clock) -> None:
        self._clock = clock
        self.cache = TokenCache(cache_path(environ), clock)

    def login(self, registry: str, settings: TokenSettings) -> RegistryLogin:
        """Return a login; raises ConfigurationError and UpstreamDenied. Must not be called from a running loop."""
        identity = find_identity(settings.region, settings.endpoint_url, settings.profile)
        key = cache_key(registry, identity)
        found = self.cache.find(key)
        if found is None:
            found = asyncio.run(self._fetch(identity))
            self.cache.keep(key, registry, found)
        return found

    async def _fetch(self, identity: AwsIdentity) -> RegistryLogin:
        try:
            async with asyncio.timeout(FIND_TIMEOUT):
                return await fetch_login(identity, self._clock)
        except TimeoutError as error:
            raise UpstreamDenied("the ECR API gives no token in time") from error
