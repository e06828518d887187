"""Checking cached tags at once, because somebody wants to know, whatever their age and whatever failed before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from replicator.cache.check_outcome import CheckOutcome
from replicator.core.errors import AccessError, ManifestNotFound, NotFound, UpstreamError
from replicator.storage.metadata import cache_entries
from replicator.transfer.push_image import for_each
from replicator.upstream.insistence import insisting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.cache.inventory import Inventory
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.node import RegistryNode

_AT_ONCE = 4


class RefreshesTags(Protocol):
    """What checks a tag, whatever its age."""

    async def refresh(self, repository: RepositoryName, tag: Tag) -> CheckOutcome:
        """Check a tag now, or fetch it where it is not here."""
        ...


@dataclass(frozen=True, slots=True)
class TagRefresh:
    """What a check found: `outcome`, the digest that is served now, and why the check failed, if it did."""

    tag: Tag
    outcome: CheckOutcome
    digest: Digest | None
    error: str | None


class Refreshes:
    """Checks the cached tags of one node for operators."""

    def __init__(self, node: RegistryNode, cache: RefreshesTags, inventory: Inventory) -> None:
        self._node = node
        self._cache = cache
        self._inventory = inventory

    async def refresh(self, repository: RepositoryName, tag: Tag | None) -> Sequence[TagRefresh]:
        """Check one tag, which is fetched where it is not here, or all cached tags of a repository, in order.

        For one tag the upstream is asked even while it is paused or left alone, and a good answer ends that.

        Raises what checking the one tag raises, ManifestNotFound when no tag of the repository is cached, StorageError.
        """
        if tag is not None:
            with insisting():
                return [await self._check(repository, tag)]
        known = await self._inventory.tags(repository)
        if not known:
            raise ManifestNotFound(f"repository {repository} has no cached tags")
        found: dict[Tag, TagRefresh] = {}

        async def check(one: Tag) -> None:
            try:
                found[one] = await self._check(repository, one)
            except (NotFound, AccessError, UpstreamError) as error:
                found[one] = TagRefresh(one, CheckOutcome.FAILED, None, str(error))

        await for_each(known, _AT_ONCE, check)
        return [found[one] for one in known]

    async def _check(self, repository: RepositoryName, tag: Tag) -> TagRefresh:
        outcome = await self._cache.refresh(repository, tag)
        entry = await self._node.database.read(cache_entries.find(repository, tag))
        if entry is None:
            return TagRefresh(tag, outcome, None, None)
        return TagRefresh(tag, outcome, entry.digest, entry.last_error)
