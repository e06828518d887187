"""Giving cached images up because an operator says so, whenever they were used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.cache import eviction
from replicator.cache.eviction import NOTHING, GivenUp, Terms
from replicator.core.names import Tag
from replicator.core.reference import as_digest
from replicator.storage.metadata import cache_entries, cached_images

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.cache.doomed_bytes import DoomedBytes
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

_PAGE = 100


@dataclass(frozen=True, slots=True)
class Purged:
    """What a purge did: how many images and tags went, how many had to stay, and the bytes freed."""

    images: int = 0
    tags: int = 0
    kept: int = 0
    freed: int = 0

    def __add__(self, other: Purged) -> Purged:
        return Purged(
            self.images + other.images, self.tags + other.tags, self.kept + other.kept, self.freed + other.freed
        )


class Purges:
    """Gives up cached images on demand, and leaves their bytes to `doomed`."""

    def __init__(self, node: RegistryNode, doomed: DoomedBytes) -> None:
        self._node = node
        self._doomed = doomed

    async def purge(self, repository: RepositoryName, reference: Reference | None, *, force: bool) -> Purged:
        """Give up a cached tag, an image, or all that is cached in a repository; pinned ones only by `force`.

        What was pushed or replicated here stays, and so does what is still to be replicated. A tag takes its image
        with it when it is the only one. Raises StorageError.
        """
        terms = Terms(used_before=float("inf"), force=force)
        if reference is None:
            return await self._purge_all(repository, terms)
        digest = as_digest(reference)
        if digest is not None:
            return await self._give_up(
                repository,
                partial(eviction.give_up, repository, digest, terms),
                partial(cached_images.find_use, repository, digest),
            )
        tag = Tag(reference)
        return await self._give_up(
            repository,
            partial(eviction.give_up_tag, repository, tag, terms),
            partial(cache_entries.find, repository, tag),
        )

    async def _purge_all(self, repository: RepositoryName, terms: Terms) -> Purged:
        done, after = Purged(), ""
        while page := await self._node.database.write(partial(cached_images.of_repository, repository, after, _PAGE)):
            for digest in page:
                done += await self._give_up(
                    repository,
                    partial(eviction.give_up, repository, digest, terms),
                    partial(cached_images.find_use, repository, digest),
                )
            after = page[-1]
        return done

    async def _give_up(
        self, repository: RepositoryName, body: Callable[[], Steps[GivenUp]], find: Callable[[], Steps[object]]
    ) -> Purged:
        given = await self._node.commit(repository, body)
        await self._doomed.delete(given.dropped)
        is_here = given == NOTHING and await self._node.database.read(find()) is not None
        return Purged(len(given.images), len(given.tags), int(is_here), given.size)
