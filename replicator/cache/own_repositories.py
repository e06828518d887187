"""Which repositories are this registry's own, although a rule for all names covers them.

A rule with a prefix says which repositories are cached ones. The `ROOT` rule covers every name, also those of
repositories that were pushed here: were a tag that is missing there looked for at a public upstream, anybody could
publish it under the private name (dependency confusion). So what was not created by the cache is resolved here and
nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.registry.ownership import is_own
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.registry.node import RegistryNode


class OwnRepositories:
    """Knows the repositories of one node that have no upstream for all that a rule says."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def holds(self, source: UpstreamRepository) -> bool:
        """Tell whether a repository must not be looked for at an upstream; raises StorageError."""
        if not source.is_catch_all:
            return False
        return is_own(await self._node.database.read(repositories.find(source.repository)))
