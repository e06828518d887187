"""The one place where access is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.access import PrincipalKind
from replicator.core.errors import Denied, ReplicationDenied, Unauthenticated
from replicator.core.registry_policy import RegistryPolicy

if TYPE_CHECKING:
    from replicator.core.access import Action, Principal
    from replicator.core.names import NodeId, RepositoryName
    from replicator.registry.settings import RegistrySettings


def authorize(principal: Principal, action: Action, repository: RepositoryName) -> None:
    """Return if the caller may do `action`; raise Unauthenticated for a nameless caller, Denied for a known one."""
    if principal.may(action, repository):
        return
    if principal.kind is PrincipalKind.ANONYMOUS:
        raise Unauthenticated("authentication is required")
    raise Denied(f"{principal.kind} {principal.name} is not allowed to {action} in repository {repository}")


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
