"""The `ns` parameter: a client takes this node for another registry, and means a repository of that one.

containerd, and whoever else pulls through a mirror, sends the host that stands in the image's name (distribution-spec,
"Registry Proxying"). Which registries this node stands for is what its cache rules say, and nothing else: a host that
no rule names is unknown here, so that no request can make this node ask a registry of the caller's choosing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.core.cache_rules import match_namespace
from replicator.core.errors import InvalidInput, RepositoryNotFound
from replicator.registry_api.endpoint import Route

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from replicator.core.cache_rules import CacheRule
    from replicator.registry_api.endpoint import Endpoint

_MAX_LENGTH = 261
_NAMESPACE = re.compile(r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_SHOWN = 20


def parse_namespace(given: Sequence[str]) -> str:
    """Return the registry host that a request names; raise InvalidInput unless it is one host, with or without port."""
    if len(given) != 1:
        raise InvalidInput(f"expected one parameter ns, got {len(given)}")
    if len(given[0]) > _MAX_LENGTH or _NAMESPACE.fullmatch(given[0]) is None:
        raise InvalidInput(f"expected ns to be a registry's host, such as docker.io, got {given[0][:80]!r}")
    return given[0]


def resolve(rules: Sequence[CacheRule], namespace: str, endpoint: Endpoint, own_hosts: Collection[str]) -> Endpoint:
    """Return the endpoint with our name for the repository; as it is when the registry is this one.

    Raises RepositoryNotFound when no rule stands for the registry, or none reaches the repository.
    """
    wanted = namespace.lower()
    standing = [rule for rule in rules if wanted in rule.namespaces]
    if not standing:
        if wanted in own_hosts:
            return endpoint
        raise RepositoryNotFound(f"this node does not stand for registry {namespace}; {_expected(rules)}")
    if endpoint.route is Route.BASE or not endpoint.repository:
        return replace(endpoint, namespace=namespace)
    match = match_namespace(rules, namespace, endpoint.repository)
    if match is None:
        prefixes = ", ".join(rule.prefix for rule in standing[:_SHOWN])
        raise RepositoryNotFound(
            f"no cache rule for registry {namespace} reaches repository {endpoint.repository} (rules: {prefixes})"
        )
    return replace(endpoint, repository=match[1], namespace=namespace, client_name=endpoint.repository)


def _expected(rules: Sequence[CacheRule]) -> str:
    known = sorted({namespace for rule in rules for namespace in rule.namespaces})
    if not known:
        return "no cache rule has namespaces"
    more = ", …" if len(known) > _SHOWN else ""
    return f"expected ns to be one of {', '.join(known[:_SHOWN])}{more}"
