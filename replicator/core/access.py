"""Who may do what: principals, actions, and the grants that join them.

Nothing is allowed that no grant allows. What nodes do for each other is not granted here: it is for the replication
rules and the registry policy to say.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.mutability import matches_wildcard

if TYPE_CHECKING:
    from replicator.core.names import NodeId, RepositoryName


class Action(enum.StrEnum):
    """What can be granted on a repository."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


class PrincipalKind(enum.StrEnum):
    """What stands behind a request."""

    ANONYMOUS = "anonymous"
    USER = "user"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Grant:
    """`actions` on the repositories that match one of `repositories` (`*` is any characters)."""

    actions: frozenset[Action]
    repositories: tuple[str, ...] = ("*",)

    def allows(self, action: Action, repository: RepositoryName) -> bool:
        """Tell whether this grant covers `action` on `repository`."""
        return action in self.actions and any(
            pattern == "*" or matches_wildcard(pattern, repository) for pattern in self.repositories
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller with what it was granted; `node` is set for a node.

    A node is shown what lies here; one that `pulls_through` may also have fetched what a cache rule leads to.
    """

    name: str
    kind: PrincipalKind
    grants: tuple[Grant, ...] = ()
    node: NodeId | None = None
    pulls_through: bool = False

    def may(self, action: Action, repository: RepositoryName) -> bool:
        """Tell whether the caller may do `action` on `repository`."""
        return any(grant.allows(action, repository) for grant in self.grants)


ALL_USER_ACTIONS = frozenset({Action.PULL, Action.PUSH, Action.DELETE})

UNRESTRICTED = Principal("anonymous", PrincipalKind.ANONYMOUS, (Grant(ALL_USER_ACTIONS),))
"""The caller of a node that runs without authentication."""


def node_principal(node: NodeId) -> Principal:
    """Return the principal of a peer; it may read, where the edge lets it."""
    return Principal(str(node), PrincipalKind.NODE, (Grant(frozenset({Action.PULL})),), node)
