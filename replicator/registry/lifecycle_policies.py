"""The lifecycle policy of a repository: put, read, taken away. Carrying it out is somebody else's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import LifecyclePolicyNotFound, RepositoryNotFound
from replicator.core.lifecycle_grammar import parse_lifecycle_policy
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.repositories import Repository
    from replicator.storage.metadata.statement import Steps

NEVER_EVALUATED = 0.0
"""When a policy was evaluated that never was, as ECR tells it."""


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """The text of a policy, without its white space, and when it was evaluated last."""

    text: str
    evaluated_at: float = NEVER_EVALUATED


class LifecyclePolicies:
    """The lifecycle policies of one node's repositories."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def put(self, repository: RepositoryName, text: str) -> StoredPolicy:
        """Replace the policy of a repository.

        Raises InvalidLifecyclePolicy, RepositoryNotFound or a StorageError; nothing is changed then.
        """
        settings = self._node.settings
        policy = parse_lifecycle_policy(text, settings.quotas.lifecycle_rules)
        await self._node.database.write(partial(_put, repository, settings.node.account, policy.text))
        return StoredPolicy(policy.text)

    async def get(self, repository: RepositoryName) -> StoredPolicy:
        """Return the policy; raises RepositoryNotFound, LifecyclePolicyNotFound, StorageError."""
        return await self._node.database.read(policy_of(repository, self._node.settings.node.account))

    async def delete(self, repository: RepositoryName) -> StoredPolicy:
        """Take the policy away, and return it; raises RepositoryNotFound, LifecyclePolicyNotFound, StorageError."""
        return await self._node.database.write(partial(_delete, repository, self._node.settings.node.account))


def find_repository(repository: RepositoryName, account: str) -> Steps[Repository]:
    """Return the repository; raises RepositoryNotFound in ECR's words."""
    found = yield from repositories.find(repository)
    if found is None or found.is_public:
        raise RepositoryNotFound(texts.repository_not_found(repository, account))
    return found


def policy_of(repository: RepositoryName, account: str) -> Steps[StoredPolicy]:
    """Return the policy of a repository; raises RepositoryNotFound, LifecyclePolicyNotFound."""
    found = yield from find_repository(repository, account)
    if found.lifecycle_policy is None:
        raise LifecyclePolicyNotFound(texts.no_lifecycle_policy(repository, account))
    return StoredPolicy(found.lifecycle_policy, found.lifecycle_evaluated_at or NEVER_EVALUATED)


def _put(repository: RepositoryName, account: str, text: str) -> Steps[None]:
    yield from find_repository(repository, account)
    yield from repositories.set_lifecycle_policy(repository, text)


def _delete(repository: RepositoryName, account: str) -> Steps[StoredPolicy]:
    found = yield from policy_of(repository, account)
    yield from repositories.set_lifecycle_policy(repository, None)
    return found
