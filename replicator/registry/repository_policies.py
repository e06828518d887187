"""The policies of repositories: set, read back, and taken away (ECR §14).

A policy is kept and given back as the text that was set. What it means was checked before, so that the text in a row
always parses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import InvalidPolicy, RepositoryPolicyNotFound
from replicator.core.policy import parse_policy
from replicator.core.resource_policies import DecisionMemory
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.account_settings import PolicyScope
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.policy import Policy
    from replicator.core.principal import Principal
    from replicator.core.public_registry import PublicRegistry
    from replicator.core.resource_policies import ResourcePolicies
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

SET_POLICY = "ecr:SetRepositoryPolicy"


class RepositoryPolicies:
    """The repository policies of one node. Who may ask for what, the edge has checked."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def set(self, caller: Principal, repository: RepositoryName, text: str, *, force: bool = False) -> None:
        """Give a repository a policy, in place of any that it has; the next request is decided by it.

        Raises InvalidPolicy for a text that is none, and unless `force` for one by which the caller could not set
        another; RepositoryNotFound, StorageError.
        """
        policy = parse_policy(text, self._node.settings.public_registry.kind_of_policy(repository))
        if not force:
            _check_not_locked_out(caller, repository, policy)
        await self._node.database.write(partial(self._put, repository, text))
        self._node.announce_policy(repository, text)

    async def get(self, repository: RepositoryName) -> str:
        """Return the policy of a repository; raises RepositoryNotFound, RepositoryPolicyNotFound, StorageError."""
        return await self._node.database.read(self._get(repository))

    async def delete(self, repository: RepositoryName) -> str:
        """Take a repository's policy away and return it; raises like `get`."""
        text = await self._node.database.write(partial(self._delete, repository))
        self._node.announce_policy(repository, None)
        return text

    def _put(self, repository: RepositoryName, text: str) -> Steps[None]:
        yield from require_repository(self._node, repository)
        yield from repositories.set_policy(repository, text)

    def _get(self, repository: RepositoryName) -> Steps[str]:
        found = yield from require_repository(self._node, repository)
        if found.policy is None:
            account = self._node.settings.node.account
            raise RepositoryPolicyNotFound(texts.no_repository_policy(repository, account))
        return found.policy

    def _delete(self, repository: RepositoryName) -> Steps[str]:
        text = yield from self._get(repository)
        yield from repositories.set_policy(repository, None)
        return text


@dataclass(frozen=True, slots=True)
class _Proposed:
    """The policies of a registry as they would be with another policy of one repository."""

    before: ResourcePolicies
    repository: RepositoryName
    policy: Policy
    memory: DecisionMemory = field(default_factory=DecisionMemory)

    @property
    def owner(self) -> NodeId:
        return self.before.owner

    @property
    def registry_policies(self) -> tuple[Policy, ...]:
        return self.before.registry_policies

    @property
    def public_registry(self) -> PublicRegistry:
        return self.before.public_registry

    @property
    def scope(self) -> PolicyScope:
        return self.before.scope

    def repository_policy(self, repository: RepositoryName) -> Policy | None:
        return self.policy if repository == self.repository else self.before.repository_policy(repository)

    def resource_tags(self, repository: RepositoryName) -> Mapping[str, str]:
        return self.before.resource_tags(repository)


def _check_not_locked_out(caller: Principal, repository: RepositoryName, policy: Policy) -> None:
    """Raise InvalidPolicy where a policy would keep the caller from ever setting another."""
    if caller.resources is None:
        return
    proposed = caller.at(_Proposed(caller.resources, repository, policy), caller.context)
    if not proposed.may(SET_POLICY, repository):
        raise InvalidPolicy(texts.constraint("PolicyText", texts.POLICY_LOCKS_OUT))
