"""The way to public repositories: who comes in without a name, what is asked of those who push, how often (ECR §16).

What may be done is for policies to say, which know a public repository from a private one by its name. Here is only
what is particular to the door: its challenge, its token, its rates, and its way of naming things.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from replicator.core import texts
from replicator.core.errors import PageNotFound, ReplicatorError, RepositoryNotFound, Throttled
from replicator.core.principal import PrincipalKind
from replicator.core.public_registry import BEARER_TOKEN_ACTION, HOST
from replicator.core.rate_limit import RateLimit
from replicator.registry.access import authorize
from replicator.registry_api.endpoint import Route, parse_endpoint

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.principal import Principal
    from replicator.core.public_registry import PublicRegistry
    from replicator.registry.node import RegistryNode
    from replicator.registry_api.endpoint import Endpoint

TOKEN_PATHS = frozenset({"/token", "/token/"})
"""Where tokens for public registries are asked for."""

_READS = ("GET", "HEAD")


class PublicDoor:
    """The public registry of one node, as clients of `/v2/` meet it."""

    def __init__(self, node: RegistryNode, clock: Clock) -> None:
        self._node = node
        registry = self._registry
        self._anonymous = _limit(registry.anonymous_pulls, clock)
        self._named = _limit(registry.named_pulls, clock)
        self._own_host = None if registry.url is None else urlsplit(registry.url).netloc.lower()

    @property
    def _registry(self) -> PublicRegistry:
        return self._node.settings.public_registry

    def leads_to(self, path: str, host: str) -> bool:
        """Tell whether a path is one of a public repository, or the entrance of a host that is the public one."""
        try:
            endpoint = parse_endpoint(path)
        except ReplicatorError:
            return False
        if endpoint.route is Route.BASE:
            return self._registry.is_enabled and host.lower() == self._own_host
        return self.is_public(endpoint)

    def is_public(self, endpoint: Endpoint) -> bool:
        """Tell whether an endpoint is one of a public repository."""
        return bool(endpoint.repository) and self._registry.covers(endpoint.repository)

    def check_served(self) -> None:
        """Return if there is a public registry to get tokens for; raise PageNotFound otherwise."""
        if not self._registry.is_enabled:
            raise PageNotFound("there is nothing at this path")

    def admit(self, principal: Principal, address: str, method: str, endpoint: Endpoint) -> None:
        """Let a caller in, who may still lack the permission for what it asks.

        Raises RepositoryNotFound where nothing is public, Throttled, or like `authorize` for one who may not have a
        token to push with.
        """
        if not self._registry.is_enabled:
            account = self._node.settings.node.account
            raise RepositoryNotFound(texts.repository_not_found(endpoint.repository, account))
        if method not in _READS:
            # No policy of this registry decides on it: tokens are a service of their own.
            authorize(replace(principal, resources=None), BEARER_TOKEN_ACTION, None)
        elif method == "GET" and endpoint.route is Route.MANIFEST:
            self._count(principal, address)

    def _count(self, principal: Principal, address: str) -> None:
        is_named = principal.kind is PrincipalKind.USER
        limit = self._named if is_named else self._anonymous
        if limit is None:
            return
        try:
            limit.admit(principal.name if is_named else f"@{address}")
        except Throttled as error:
            raise Throttled(texts.RATE_EXCEEDED, retry_after=error.retry_after) from error

    @staticmethod
    def challenge(base_url: str) -> str:
        """Return where clients get a token, as Amazon's public registry says it."""
        return f'Bearer realm="{base_url}/token/",service="{HOST}",scope="aws"'

    def reword(self, error: ReplicatorError) -> None:
        """Have an error name repositories as public ones are named, and the registry by its alias."""
        registry, account = self._registry, self._node.settings.node.account
        text = registry.in_words(str(error))
        error.args = (text.replace(f"registry with id '{account}'", f"registry with id '{registry.alias}'"),)


def _limit(rate: float | None, clock: Clock) -> RateLimit | None:
    return None if rate is None else RateLimit(rate, rate, clock)
