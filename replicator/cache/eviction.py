"""Giving up a cached image: what goes with it, in one transaction, as if it had never been fetched.

With an image go the indexes that list it, since an index without its images is of no use, their tags, what is known
of these tags' upstreams, and the other images that only these indexes list. Then the repository lets go of the blobs
that none of its images needs any more, and the row of a blob that no repository holds goes in the same transaction.
Its bytes are the caller's to delete after the commit: a crash in between leaves bytes without a row, which nobody can
reach. No deletion is remembered or sent on, because nobody deleted anything.

What must stay stays: what somebody pushed or another node sent, what is pinned, and what is still to be replicated.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.eviction import CachedImage
from replicator.core.replication import Origin
from replicator.storage.metadata import (
    blobs,
    cache_entries,
    cache_pins,
    cache_space,
    cached_images,
    images,
    replication_status,
    tags,
)
from replicator.storage.metadata.name_ranges import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.name_ranges import NameRange
    from replicator.storage.metadata.statement import Steps

_MAX_PARENTS = 100
_MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class GivenUp:
    """What a transaction gave up. `size` are the bytes that nobody in the range asked about holds any more."""

    images: tuple[Digest, ...] = ()
    tags: tuple[Tag, ...] = ()
    size: int = 0
    dropped: tuple[StoredBlob, ...] = ()
    """Blobs whose row is gone; their bytes are to be deleted."""


NOTHING = GivenUp()


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms an image is given up: not used since `used_before`; pinned ones only by `force`."""

    used_before: float
    force: bool = False
    names: NameRange = EVERYTHING
    """The repositories that bytes are counted for."""


@dataclass(slots=True)
class _Doomed:
    """Images that go together, in the order in which they go, and the blobs that they need."""

    images: list[Digest] = field(default_factory=list)
    tags: list[Tag] = field(default_factory=list)
    blobs: dict[Digest, int] = field(default_factory=dict)
    freed: int = 0
    """Bytes of manifests."""


def give_up(repository: RepositoryName, digest: Digest, terms: Terms) -> Steps[GivenUp]:
    """Give up a cached image with what goes with it; NOTHING when any of it must stay."""
    first = [*(yield from _above(repository, digest)), digest]
    for one in first:
        may_go = yield from _may_go(repository, one, terms)
        if not may_go:
            return NOTHING
    doomed = _Doomed()
    for one in first:
        yield from _take(repository, one, doomed)
    yield from _take_children(repository, terms, doomed)
    size, dropped = yield from _let_go(repository, doomed.blobs, terms.names)
    return GivenUp(tuple(doomed.images), tuple(doomed.tags), size + doomed.freed, dropped)


def give_up_tag(repository: RepositoryName, tag: Tag, terms: Terms) -> Steps[GivenUp]:
    """Give up a cached tag, and its image when no other tag points to it; NOTHING when it must stay."""
    state = yield from tags.find(repository, tag)
    entry = yield from cache_entries.find(repository, tag)
    if state is None or state.digest is None or entry is None or entry.digest != state.digest:
        return NOTHING
    others = yield from tags.of_digest(repository, state.digest)
    if others == [tag]:
        return (yield from give_up(repository, state.digest, terms))
    is_pinned = yield from cache_pins.has(repository, tag)
    if is_pinned and not terms.force:
        return NOTHING
    yield from _remove_tag(repository, tag, state.digest)
    return GivenUp(tags=(tag,))


def let_go_of_loose(
    repository: RepositoryName, found: Iterable[Digest], linked_before: float, names: NameRange
) -> Steps[GivenUp]:
    """Let go of blobs that are still loose in a repository; see `cache_space`."""
    wanted = set(found)
    still = yield from cache_space.loose_blobs(repository, linked_before, len(wanted) + 1000)
    loose = dict.fromkeys(digest for digest in still if digest in wanted)
    size, dropped = yield from _let_go(repository, loose, names)
    return GivenUp(size=size, dropped=dropped)


def describe(
    repository: RepositoryName, digest: Digest, used_at: float, is_read: Callable[[Digest], bool]
) -> Steps[tuple[CachedImage, dict[Digest, int]]]:
    """Return a cached image as eviction sees it, with the sizes of its blobs and its manifest.

    One that must stay counts as pinned.
    """
    sizes = yield from cache_space.blobs_of(repository, digest)
    must_stay = any(map(is_read, sizes))
    if not must_stay:
        for one in [digest, *(yield from _above(repository, digest))]:
            must_stay = must_stay or (yield from _must_stay(repository, one))
    sizes[digest] = yield from cache_space.manifest_size(digest)
    return CachedImage(repository, digest, used_at, frozenset(sizes), must_stay), sizes


def _above(repository: RepositoryName, digest: Digest) -> Steps[list[Digest]]:
    """Return the indexes that list an image, and those that list them; the outermost first."""
    found: dict[Digest, None] = {}
    layer = [digest]
    for _ in range(_MAX_DEPTH):
        parents: list[Digest] = []
        for one in layer:
            parents += yield from images.parents(repository, one, _MAX_PARENTS)
        layer = [one for one in dict.fromkeys(parents) if one not in found and one != digest]
        found.update(dict.fromkeys(layer))
    return list(reversed(found))


def _may_go(repository: RepositoryName, digest: Digest, terms: Terms) -> Steps[bool]:
    used_at = yield from cached_images.find_use(repository, digest)
    if used_at is not None and used_at > terms.used_before:
        return False
    return not (yield from _must_stay(repository, digest, force=terms.force))


def _must_stay(repository: RepositoryName, digest: Digest, *, force: bool = False) -> Steps[bool]:
    origin = yield from images.find_origin(repository, digest)
    if origin is not Origin.CACHE:
        return True
    is_pinned = yield from cache_pins.holds(repository, digest)
    if is_pinned and not force:
        return True
    return (yield from replication_status.is_waiting(repository, digest))


def _take(repository: RepositoryName, digest: Digest, doomed: _Doomed) -> Steps[None]:
    doomed.blobs.update((yield from cache_space.blobs_of(repository, digest)))
    doomed.images.append(digest)
    names = yield from tags.of_digest(repository, digest)
    for tag in names:
        yield from _remove_tag(repository, tag, digest)
    doomed.tags += names


def _take_children(repository: RepositoryName, terms: Terms, doomed: _Doomed) -> Steps[None]:
    """Delete the images to go, outermost first, and add what only they listed, until there is nothing more."""
    done = 0
    while done < len(doomed.images):
        digest = doomed.images[done]
        children = yield from cache_space.children(repository, digest)
        size = yield from cache_space.manifest_size(digest)
        yield from images.delete(repository, digest)
        left = yield from cache_space.count_images(digest, terms.names)
        doomed.freed += 0 if left else size
        yield from cached_images.forget(repository, digest)
        yield from replication_status.forget(repository, digest)
        done += 1
        for child in children:
            is_left = child not in doomed.images and (yield from _is_left(repository, child, terms))
            if is_left:
                yield from _take(repository, child, doomed)


def _is_left(repository: RepositoryName, digest: Digest, terms: Terms) -> Steps[bool]:
    """Tell whether nothing keeps an image whose index has gone."""
    listed = yield from images.is_child(repository, digest)
    tagged = yield from tags.of_digest(repository, digest)
    if listed or tagged:
        return False
    return (yield from _may_go(repository, digest, terms))


def _remove_tag(repository: RepositoryName, tag: Tag, digest: Digest) -> Steps[None]:
    yield from tags.remove(repository, tag, digest)
    yield from cache_entries.delete(repository, tag)


def _let_go(
    repository: RepositoryName, found: Iterable[Digest], names: NameRange
) -> Steps[tuple[int, tuple[StoredBlob, ...]]]:
    """Unlink those blobs that no image of the repository needs, and drop the rows that nobody holds."""
    size, dropped = 0, []
    for digest in found:
        needed = yield from images.with_blob(repository, digest, "", 1)
        if needed:
            continue
        stored = yield from cache_space.find_size(digest)
        yield from blobs.unlink(repository, digest)
        row = yield from blobs.drop_unlinked(digest)
        if row is not None:
            dropped.append(row)
        is_held = row is None and (yield from cache_space.is_held(digest, names))
        if not is_held:
            size += stored
    return size, tuple(dropped)
