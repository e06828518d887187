"""The one place where access is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.access import Action, PrincipalKind
from replicator.core.cache_rules import refusing_rule
from replicator.core.errors import Denied, ReplicationDenied, Unauthenticated
from replicator.core.registry_policy import RegistryPolicy
from replicator.registry.ownership import is_own

if TYPE_CHECKING:
    from replicator.core.access import Principal
    from replicator.core.names import NodeId, RepositoryName
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.repositories import Repository


def authorize(principal: Principal, action: Action, repository: RepositoryName) -> None:
    """Return if the caller may do `action`; raise Unauthenticated for a nameless caller, Denied for a known one."""
    if principal.may(action, repository):
        return
    if principal.kind is PrincipalKind.ANONYMOUS:
        raise Unauthenticated("authentication is required")
    raise Denied(f"{principal.kind} {principal.name} is not allowed to {action} in repository {repository}")


def authorize_push(settings: RegistrySettings, principal: Principal, repository: RepositoryName) -> None:
    """Return if a user may push into a repository of this name; raises like `authorize`, and where a cache fills it.

    Whether a cache made the repository is for `check_pushable` to tell, where it is read.
    """
    authorize(principal, Action.PUSH, repository)
    _check_not_filled(settings, repository, is_cached=False)


def check_pushable(settings: RegistrySettings, repository: Repository) -> None:
    """Return if users may push into a repository that exists; raise Denied where a cache fills it."""
    _check_not_filled(settings, repository.name, is_cached=not is_own(repository))


def _check_not_filled(settings: RegistrySettings, repository: RepositoryName, *, is_cached: bool) -> None:
    rule = refusing_rule(settings.cache_rules, repository, is_cached=is_cached)
    if rule is not None:
        raise Denied(
            f"repository {repository} is filled by cache rule {rule.prefix}; pushes are refused (accept_pushes)"
        )


def may_replicate(settings: RegistrySettings, peer: NodeId, repository: RepositoryName) -> bool:
    """Tell whether a peer may replicate into a repository that exists."""
    return _policy(settings).missing(peer.account, repository, exists=True) is None


def authorize_replication(
    settings: RegistrySettings, peer: NodeId, repository: RepositoryName, *, exists: bool
) -> None:
    """Return if a peer may replicate into a repository; raise ReplicationDenied with the permission that it lacks."""
    permission = _policy(settings).missing(peer.account, repository, exists=exists)
    if permission is not None:
        raise ReplicationDenied(
            f"the registry policy does not allow account {peer.account} {permission} on repository {repository}",
            permission=permission.value,
        )


def _policy(settings: RegistrySettings) -> RegistryPolicy:
    return settings.registry_policy or RegistryPolicy(settings.node.account)
