"""The one place where access is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.access import Action, Principal, PrincipalKind
from replicator.core.errors import Denied, Unauthenticated

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName


def authorize(principal: Principal, action: Action, repository: RepositoryName) -> None:
    """Return if the caller may do `action`; raise Unauthenticated for a nameless caller, Denied for a known one."""
    if not principal.may(action, repository):
        refuse(principal, action, repository)


def authorize_push(principal: Principal, repository: RepositoryName) -> None:
    """Return if the caller may add content: a user by `push`, a peer node by `replicate`."""
    action = Action.REPLICATE if principal.kind is PrincipalKind.NODE else Action.PUSH
    authorize(principal, action, repository)


def refuse(principal: Principal, action: Action, repository: RepositoryName) -> None:
    """Raise the error that tells this caller what is missing."""
    if principal.kind is PrincipalKind.ANONYMOUS:
        raise Unauthenticated("authentication is required")
    raise Denied(f"{principal.kind} {principal.name} is not allowed to {action} in repository {repository}")
