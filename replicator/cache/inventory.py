"""What the cache holds, for people: its tags and images with their size, freshness and use, in pages.

Nothing here asks an upstream, and nothing changes because somebody looked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.cache.plans import due_after, plan_of
from replicator.core.freshness import PullPlan
from replicator.storage.metadata import cache_entries, cache_inventory, cache_pins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.cache.completion import Completion
    from replicator.cache.upstreams import UpstreamRepositories
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.storage.metadata.cache_inventory import CachedRow, CachedUse, Holdings

MAX_TAGS = 1000
"""Tags of one repository that are named at once."""

_AFTER_NAME = "!"
"""Sorts before everything that a longer name could go on with."""
_AFTER_ALL = "~"
"""Sorts after everything that a name may hold."""


@dataclass(frozen=True, slots=True)
class CachedImageReport:
    """A cached tag, or an image without one. `entry` is what its upstream said, `plan` what a pull now would do.

    `use` is None for an image that the cache does not count as its own.
    """

    repository: RepositoryName
    tag: Tag | None
    digest: Digest
    rule: str | None
    holdings: Holdings
    is_complete: bool
    """Whether everything that the image is made of lies here, for all its platforms."""
    use: CachedUse | None
    is_pinned: bool
    entry: CacheEntry | None
    fresh_until: float | None
    plan: PullPlan | None

    @property
    def is_fresh(self) -> bool:
        """Whether it is served without asking anybody; a digest always is."""
        return self.plan in {None, PullPlan.FRESH}


@dataclass(frozen=True, slots=True)
class Page:
    """Some images in order, and where the next page begins, if there is one."""

    images: Sequence[CachedImageReport]
    next_after: tuple[str, str] | None


class Inventory:
    """Lists what one node has cached."""

    def __init__(self, node: RegistryNode, upstreams: UpstreamRepositories, completion: Completion) -> None:
        self._node = node
        self._upstreams = upstreams
        self._completion = completion

    async def of_repository(self, repository: RepositoryName, after: tuple[str, str], limit: int) -> Page:
        """Return a page of one repository; raises StorageError."""
        return await self._page(repository, repository + _AFTER_NAME, after, limit, lambda _: True)

    async def of_prefix(
        self, prefix: str, after: tuple[str, str], limit: int, may_see: Callable[[RepositoryName], bool]
    ) -> Page:
        """Return a page of the repositories whose names begin with `prefix`, as far as `may_see` allows.

        Raises StorageError.
        """
        return await self._page(prefix, prefix + _AFTER_ALL, after, limit, may_see)

    async def tags(self, repository: RepositoryName) -> Sequence[Tag]:
        """Return the cached tags of a repository, a thousand at most; raises StorageError."""
        return await self._node.database.read(cache_inventory.tags_of(repository, MAX_TAGS))

    async def describe(self, repository: RepositoryName, tag: Tag | None, digest: Digest) -> CachedImageReport:
        """Return what is known of an image that is here; raises StorageError."""
        database = self._node.database
        holdings = await database.read(cache_inventory.holdings(repository, digest))
        is_complete = await self._is_complete(repository, digest, holdings)
        use = await database.read(cache_inventory.find_use(repository, digest))
        is_pinned = await database.read(cache_pins.holds(repository, digest))
        entry = None if tag is None else await database.read(cache_entries.find(repository, tag))
        if entry is not None and entry.digest != digest:
            entry = None  # somebody pushed the tag; the upstream has no say in it
        source = self._upstreams.find(repository)
        fresh_until = plan = None
        if source is not None and entry is not None:
            fresh_until = due_after(source.rule, entry.tag, entry.checked_at)
            plan = plan_of(source, entry, self._node.clock.now())
        name = None if source is None else source.rule.prefix
        return CachedImageReport(
            repository, tag, digest, name, holdings, is_complete, use, is_pinned, entry, fresh_until, plan
        )

    async def _page(
        self, first: str, last: str, after: tuple[str, str], limit: int, may_see: Callable[[RepositoryName], bool]
    ) -> Page:
        page = await self._node.database.read(cache_inventory.page(first, last, after, limit))
        seen: list[CachedRow] = [row for row in page.rows if may_see(row.repository)]
        found = []
        for row in seen:
            found.append(await self.describe(row.repository, row.tag, row.digest))
            await asyncio.sleep(0)  # reads of SQLite hold up the loop
        return Page(found, page.next_after)

    async def _is_complete(self, repository: RepositoryName, digest: Digest, holdings: Holdings) -> bool:
        """Tell whether nothing lacks; layers that no registry has to hold are counted, and may lack."""
        if holdings.manifests < holdings.all_manifests:
            return False
        if holdings.blobs == holdings.all_blobs:
            return True
        return (await self._completion.find_lack(repository, digest)).is_nothing
