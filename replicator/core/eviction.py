"""What a cache gives up when it takes too much space: whole images, the one longest unused first.

Sizes count each blob once, however many images share it, so that giving up an image frees only what no other image
keeps. What is pinned, was used a moment ago, or is not the cache's alone stays, and so do the blobs it needs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName

JUST_USED = 300.0
"""Seconds after its last use during which an image is given up only in need: its pull may still be under way."""

IN_NEED = 15.0
"""The same where nothing else is left to go. A pull that loses its image then fetches the rest once more."""

SLACK = 0.05
"""Part of a limit that is freed beyond what is needed, so that not every fill has to make room for itself."""


@dataclass(frozen=True, slots=True)
class CachedImage:
    """A cached image with the blobs that it keeps, among which is its manifest.

    `used_at` counts the uses of the index it is part of, too.
    """

    repository: RepositoryName
    digest: Digest
    used_at: float
    blobs: frozenset[Digest]
    is_pinned: bool = False


def choose_evictions(
    images: Iterable[CachedImage],
    sizes: Mapping[Digest, int],
    kept: Counter[Digest],
    to_free: int,
    now: float,
    just_used: float = JUST_USED,
) -> list[CachedImage]:
    """Return images to give up, in order, until their blobs free at least `to_free` bytes or none is left.

    `sizes` are the bytes of each stored blob, `kept` how many images of any kind, cached or pushed, need it; a blob is
    free once nobody does. An image that frees nothing is given up only where that lets a later one free something, and
    one that frees no more than its manifest only where the others do not free enough.
    """
    left, freed = Counter(kept), 0
    chosen: list[CachedImage] = []
    for image in sorted(images, key=lambda image: (image.used_at, image.repository, image.digest)):
        if freed >= to_free:
            break
        if image.is_pinned or now - image.used_at < just_used:
            continue
        chosen.append(image)
        for blob in image.blobs:
            left[blob] -= 1
            if left[blob] == 0:
                freed += sizes.get(blob, 0)
    useful = [(image, {blob for blob in image.blobs if left[blob] <= 0 and sizes.get(blob, 0)}) for image in chosen]
    of_weight = [image for image, free in useful if free - {image.digest}]
    if freed_by(of_weight, sizes, kept) >= to_free:
        return of_weight
    return [image for image, free in useful if free]


def freed_by(chosen: Iterable[CachedImage], sizes: Mapping[Digest, int], kept: Counter[Digest]) -> int:
    """Return how many bytes are free once all of `chosen` are given up; see `choose_evictions`."""
    needed = Counter(blob for image in chosen for blob in image.blobs)
    return sum(sizes.get(blob, 0) for blob, count in needed.items() if count >= kept[blob])


def excess(size: int, limit: int | None) -> int:
    """Return how many bytes are to be freed, slack included; 0 within the limit, and where there is none."""
    return 0 if limit is None or size <= limit else size - round(limit * (1 - SLACK))
