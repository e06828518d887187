"""Whether a repository is there, and the error of one that is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import RepositoryNotFound
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.repositories import Repository
    from replicator.storage.metadata.statement import Steps


def require_repository(node: RegistryNode, name: RepositoryName) -> Steps[Repository]:
    """Return the repository; raise RepositoryNotFound when there is none."""
    found = yield from repositories.find(name)
    if found is None:
        raise no_repository(node, name)
    return found


def no_repository(node: RegistryNode, name: RepositoryName) -> RepositoryNotFound:
    """Return the error of a repository that is not there, in ECR's words."""
    return RepositoryNotFound(texts.repository_not_found(name, node.settings.node.account))
