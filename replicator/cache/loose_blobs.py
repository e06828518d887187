"""Blobs that a cached repository holds and that none of its images needs: let go of after a while.

They come from downloads of a blob whose manifest nobody asked for, from images that somebody deleted, and from images
that were given up while a blob of theirs was still coming in.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.cache import eviction
from replicator.cache.eviction import NOTHING
from replicator.storage.metadata import cache_space, repositories

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.cache.cached_names import CachedNames
    from replicator.cache.eviction import GivenUp
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.name_ranges import NameRange
    from replicator.storage.metadata.statement import Steps

_PAGE = 1000
_AFTER = 3600.0
_AFTER_PUSHES = 24 * 3600.0
"""Seconds that such a blob is kept: longer where it may wait for the manifest of a push."""


class LooseBlobs:
    """Lets go of loose blobs in the cached repositories of a node."""

    def __init__(self, node: RegistryNode, names: CachedNames) -> None:
        self._node = node
        self._names = names

    async def let_go(self, counted: NameRange) -> AsyncIterator[GivenUp]:
        """Yield what each repository let go of; raises StorageError."""
        after = ""
        while page := await self._node.database.write(partial(repositories.names_after, after, _PAGE)):
            for repository in page:
                given = await self._let_go_in(repository, counted)
                if given is not NOTHING:
                    yield given
            after = page[-1]

    async def _let_go_in(self, repository: RepositoryName, counted: NameRange) -> GivenUp:
        now = self._node.clock.now()
        before, found = await self._node.database.write(partial(self._find, repository, now))
        found = [digest for digest in found if not self._node.readings.is_read(digest)]
        if not found:
            return NOTHING
        body = partial(eviction.let_go_of_loose, repository, found, before, counted)
        return await self._node.commit(repository, body)

    def _find(self, repository: RepositoryName, now: float) -> Steps[tuple[float, list[Digest]]]:
        rule = yield from self._names.find_rule(repository)
        if rule is None:
            return now, []
        before = now - (_AFTER_PUSHES if rule.accept_pushes else _AFTER)
        return before, (yield from cache_space.loose_blobs(repository, before, _PAGE))
