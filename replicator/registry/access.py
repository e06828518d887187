"""The one place where access is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.core.cache_rules import refusing_rule
from replicator.core.errors import Denied, ReplicationDenied, Unauthenticated
from replicator.core.policy import Effect
from replicator.core.principal import PrincipalKind
from replicator.core.registry_policy import Permission, RegistryPolicy
from replicator.registry.ownership import is_own

if TYPE_CHECKING:
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.repositories import Repository


def authorize(principal: Principal, action: str, repository: RepositoryName | None) -> None:
    """Return if the caller may do `action` in a repository, or in the registry itself (None).

    Raises Unauthenticated for a nameless caller, Denied with ECR's sentence for a known one.
    """
    if not principal.may(action, repository):
        raise refused(principal, action, repository)


def authorize_head(principal: Principal, repository: RepositoryName) -> None:
    """Return if the caller may ask for a layer without getting it; raises like `authorize`."""
    if not principal.may(Action.GET_DOWNLOAD_URL_FOR_LAYER, repository):
        authorize(principal, Action.BATCH_CHECK_LAYER_AVAILABILITY, repository)


def authorize_everywhere(principal: Principal, action: str) -> None:
    """Return if the caller may do `action` in all repositories; raises like `authorize`."""
    if not principal.may_everywhere(action):
        raise refused(principal, action, None)


def authorize_somewhere(principal: Principal, action: str) -> None:
    """Return if the caller may do `action` in some repositories, going by its own policies; raises like `authorize`."""
    if not principal.may(action, None) and not _is_granted(principal, action):
        raise refused(principal, action, None)


def _is_granted(principal: Principal, action: str) -> bool:
    """Tell whether a policy of a caller of this account grants `action` anywhere."""
    resources = principal.resources
    if resources is not None and principal.account not in {None, resources.owner.account}:
        return False
    statements = (one for policy in principal.policies for one in policy.statements)
    return any(one.effect is Effect.ALLOW and one.actions.matches(action.lower()) for one in statements)


def refused(principal: Principal, action: str, repository: RepositoryName | None) -> Unauthenticated | Denied:
    """Return the error for a caller who may not do `action`."""
    if principal.kind is PrincipalKind.ANONYMOUS and not principal.is_root:
        return Unauthenticated("authentication is required")
    return Denied(principal.refusal(action, repository))


def authorize_push(settings: RegistrySettings, principal: Principal, action: str, repository: RepositoryName) -> None:
    """Return if a user may do a step of a push into a repository; raises like `authorize`, and where a cache fills it.

    Whether a cache made the repository is for `check_pushable` to tell, where it is read.
    """
    authorize(principal, action, repository)
    _check_not_filled(settings, repository, is_cached=False)


def check_pushable(settings: RegistrySettings, repository: Repository) -> None:
    """Return if users may push into a repository that exists; raise Denied where a cache fills it."""
    _check_not_filled(settings, repository.name, is_cached=not is_own(repository))


def _check_not_filled(settings: RegistrySettings, repository: RepositoryName, *, is_cached: bool) -> None:
    if settings.public_registry.covers(repository):
        return
    rule = refusing_rule(settings.cache_rules, repository, is_cached=is_cached)
    if rule is not None:
        raise Denied(
            f"repository {repository} is filled by cache rule {rule.prefix}; pushes are refused (accept_pushes)"
        )


def may_replicate(settings: RegistrySettings, peer: NodeId, repository: RepositoryName) -> bool:
    """Tell whether a peer may replicate into a repository that exists."""
    if settings.public_registry.covers(repository):
        return False
    return _policy(settings).missing(settings.node, peer, repository, exists=True) is None


def authorize_replication(
    settings: RegistrySettings, peer: NodeId, repository: RepositoryName, *, exists: bool
) -> None:
    """Return if a peer may replicate into a repository; raise ReplicationDenied with the permission that it lacks.

    Nobody may replicate into a public one: what is private elsewhere would be for everybody to see.
    """
    if settings.public_registry.covers(repository):
        raise ReplicationDenied(
            f"repository {repository} would be a public one here", permission=Permission.REPLICATE_IMAGE.value
        )
    permission = _policy(settings).missing(settings.node, peer, repository, exists=exists)
    if permission is not None:
        raise ReplicationDenied(
            f"the registry policy does not allow account {peer.account} {permission} on repository {repository}",
            permission=permission.value,
        )


def _policy(settings: RegistrySettings) -> RegistryPolicy:
    return settings.registry_policy or RegistryPolicy(settings.node.account)
