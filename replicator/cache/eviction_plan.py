"""Which cached images to give up: what was not used for longest, as far down as it takes.

Rows are read in windows, in the order of use, so that a decision costs what it frees and not what there is. They are
read by transactions that change nothing: on SQLite these run beside the event loop, on the writer's thread.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

from replicator.cache.eviction import describe
from replicator.core.eviction import choose_evictions, freed_by
from replicator.storage.metadata import cache_space, cached_images

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from replicator.core.digest import Digest
    from replicator.core.eviction import CachedImage
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.cached_images import ImageUse
    from replicator.storage.metadata.name_ranges import NameRange
    from replicator.storage.metadata.statement import Steps

_WINDOW = 64
"""Cached images that one transaction looks at."""

_Key = tuple["RepositoryName", "Digest"]
_Window = tuple[list["ImageUse"], list["CachedImage"], dict["Digest", int], dict["Digest", int]]


class EvictionPlan:
    """Chooses among the images of the repositories in `names`.

    `counted` are the repositories that a blob must be gone from to count as free. Images in `tried`, and those
    that were used within `just_used` seconds, are passed over.
    """

    def __init__(
        self, node: RegistryNode, names: NameRange, counted: NameRange, tried: Collection[_Key], just_used: float
    ) -> None:
        self._node = node
        self._just_used = just_used
        self._names = names
        self._counted = counted
        self._tried = tried
        self._images: list[CachedImage] = []
        self._sizes: dict[Digest, int] = {}
        self._kept: Counter[Digest] = Counter()

    async def choose(self, to_free: int) -> Sequence[CachedImage]:
        """Return images whose blobs are at least `to_free` bytes, or all that may go; raises StorageError."""
        place, now, windows = cached_images.FIRST, self._node.clock.now(), 1
        while True:
            for _ in range(windows):
                last = await self._look(place)
                if last is None or now - last.used_at < self._just_used:
                    return self._chosen(to_free, now)
                place = last.place
            chosen = self._chosen(to_free, now)
            if freed_by(chosen, self._sizes, self._kept) >= to_free:
                return chosen
            windows *= 2

    def _chosen(self, to_free: int, now: float) -> Sequence[CachedImage]:
        return choose_evictions(self._images, self._sizes, self._kept, to_free, now, self._just_used)

    async def _look(self, after: tuple[float, str, str]) -> ImageUse | None:
        """Read the next window; return its last image, or None when there are no more."""
        known, is_read = frozenset(self._sizes), self._node.readings.is_read
        found, images, sizes, kept = await self._node.database.write(partial(self._window, after, known, is_read))
        self._images += images
        self._sizes.update(sizes)
        self._kept.update(kept)
        return found[-1] if len(found) == _WINDOW else None

    def _window(
        self, after: tuple[float, str, str], known: Collection[Digest], is_read: Callable[[Digest], bool]
    ) -> Steps[_Window]:
        found = yield from cached_images.least_recently_used(self._names, after, _WINDOW)
        images: list[CachedImage] = []
        sizes: dict[Digest, int] = {}
        kept: dict[Digest, int] = {}
        for one in found:
            if (one.repository, one.digest) not in self._tried:
                image, of_image = yield from describe(one.repository, one.digest, one.used_at, is_read)
                images.append(image)
                sizes.update(of_image)
        for digest in sizes:
            if digest not in known:
                needing = yield from cache_space.count_needing(digest, self._counted)
                kept[digest] = needing + (yield from cache_space.count_images(digest, self._counted))
        return found, images, sizes, kept
