"""The policies of a registry and its repositories, as decisions ask for them, and what they keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from replicator.core.bounded import BoundedMap

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.account_settings import PolicyScope
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.policy import Policy
    from replicator.core.policy_evaluation import Decision
    from replicator.core.public_registry import PublicRegistry

_REMEMBERED = 20_000


class DecisionMemory:
    """Decisions that no condition takes part in, until something changes that they depend on."""

    def __init__(self) -> None:
        self._decisions: BoundedMap[object, Decision] = BoundedMap(_REMEMBERED)

    def find(self, key: object) -> Decision | None:
        """Return a decision that was kept."""
        return self._decisions.peek(key)

    def keep(self, key: object, decision: Decision) -> None:
        """Remember a decision, if it is the same for every request."""
        if decision.is_constant:
            self._decisions.put(key, decision)

    def clear(self) -> None:
        """Forget everything."""
        self._decisions.clear()


class ResourcePolicies(Protocol):
    """The policies of one registry and of its repositories, as they are now."""

    @property
    def owner(self) -> NodeId:
        """The registry."""
        ...

    @property
    def registry_policies(self) -> tuple[Policy, ...]:
        """What the registry's policy says: the file's part, and what was put at run time."""
        ...

    @property
    def scope(self) -> PolicyScope:
        """Which actions the registry's policy decides on."""
        ...

    @property
    def public_registry(self) -> PublicRegistry:
        """Which repositories are public."""
        ...

    @property
    def memory(self) -> DecisionMemory:
        """Decisions made by these policies, which forgets them when one changes, and after a while."""
        ...

    def repository_policy(self, repository: RepositoryName) -> Policy | None:
        """Return the policy of a repository, if it has one."""
        ...

    def resource_tags(self, repository: RepositoryName) -> Mapping[str, str]:
        """Return the tags of a repository."""
        ...
