"""Whether something may be fetched from an upstream on a caller's behalf (ECR §10.2).

To whoever may not, a cached repository is what lies in it: nobody is asked for more, neither for content nor for lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.actions import Action
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode


async def may_import(node: RegistryNode, principal: Principal, repository: RepositoryName) -> bool:
    """Tell whether the caller may have something fetched into a repository, which may have to be made for it."""
    if not principal.may(Action.BATCH_IMPORT_UPSTREAM_IMAGE, repository):
        return False
    if principal.may(Action.CREATE_REPOSITORY, repository):
        return True
    return await node.database.read(repositories.find(repository)) is not None
