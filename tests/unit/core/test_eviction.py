"""Which images a cache gives up: the longest unused first, counted by what it really frees."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.digest import Digest, digest_of
from replicator.core.eviction import JUST_USED, CachedImage, choose_evictions, excess, freed_by
from replicator.core.names import RepositoryName

REPOSITORY = RepositoryName("hub/app")
NOW = 1_000_000.0
BLOBS = [digest_of(bytes([number])) for number in range(6)]
SIZES = {blob: 10**number for number, blob in enumerate(BLOBS)}


def image(name: str, age: float, *blobs: int, pinned: bool = False) -> CachedImage:
    digest = digest_of(name.encode())
    return CachedImage(REPOSITORY, digest, NOW - age, frozenset(BLOBS[one] for one in blobs), pinned)


def kept_by(*images: CachedImage) -> Counter[Digest]:
    return Counter(blob for one in images for blob in one.blobs)


OLD, MIDDLE, NEW = image("old", 3000, 0), image("middle", 2000, 1), image("new", 1000, 2)
ALL = (NEW, OLD, MIDDLE)


@pytest.mark.parametrize(
    ("to_free", "chosen"),
    [(0, []), (1, [OLD]), (2, [OLD, MIDDLE]), (11, [OLD, MIDDLE]), (12, [OLD, MIDDLE, NEW]), (999, [OLD, MIDDLE, NEW])],
)
def test_the_longest_unused_go_until_enough_is_free(to_free: int, chosen: list[CachedImage]) -> None:
    assert choose_evictions(ALL, SIZES, kept_by(*ALL), to_free, NOW) == chosen


def test_what_is_pinned_or_was_just_used_stays() -> None:
    pinned, used = image("pinned", 9000, 3, pinned=True), image("used", JUST_USED - 1, 4)
    images = [pinned, used, OLD]
    assert choose_evictions(images, SIZES, kept_by(*images), 10**9, NOW) == [OLD]
    assert choose_evictions([image("edge", JUST_USED, 4)], SIZES, Counter(BLOBS), 1, NOW) != []
    assert choose_evictions([used], SIZES, kept_by(used), 1, NOW, just_used=1.0) == [used]


def test_a_shared_blob_is_free_when_the_last_image_goes() -> None:
    first, second = image("first", 3000, 5), image("second", 2000, 5)
    images = [first, second]
    assert choose_evictions(images, SIZES, kept_by(*images), 1, NOW) == [first, second]
    # Somebody else needs it, too: giving these up frees nothing, so they stay.
    assert choose_evictions(images, SIZES, kept_by(*images, image("pushed", 0, 5)), 1, NOW) == []


def test_an_image_that_frees_nothing_stays_though_others_go() -> None:
    shared, bare = image("shared", 5000, 5), image("bare", 4000)
    images = [shared, bare, OLD]
    assert choose_evictions(images, SIZES, kept_by(*images, shared), 1, NOW) == [OLD]


def test_a_blob_of_unknown_size_counts_for_nothing() -> None:
    assert choose_evictions([OLD], {}, kept_by(OLD), 1, NOW) == []


def test_equally_old_images_go_in_the_order_of_their_names() -> None:
    images = sorted([image("a", 3000, 0), image("b", 3000, 1)], key=lambda one: one.digest)
    assert choose_evictions(reversed(images), SIZES, kept_by(*images), 2, NOW)[0] == images[0]


@pytest.mark.parametrize(
    ("size", "limit", "freed"), [(100, None, 0), (99, 100, 0), (100, 100, 0), (101, 100, 6), (300, 100, 205), (1, 0, 1)]
)
def test_over_a_limit_there_is_slack_to_be_made(size: int, limit: int | None, freed: int) -> None:
    assert excess(size, limit) == freed


def test_what_giving_up_frees_counts_each_blob_once() -> None:
    first, second = image("first", 1, 0, 1), image("second", 1, 1, 2)
    kept = kept_by(first, second)
    assert freed_by([first], SIZES, kept) == SIZES[BLOBS[0]]
    assert freed_by([first, second], SIZES, kept) == sum(SIZES[one] for one in BLOBS[:3])
    assert freed_by([], SIZES, kept) == 0


images_strategy = st.lists(
    st.builds(
        image,
        st.text("abcdefgh", min_size=1, max_size=3),
        st.integers(0, 1000).map(float),
        st.integers(0, 5),
        st.integers(0, 5),
        pinned=st.booleans(),
    ),
    max_size=8,
    unique_by=lambda one: one.digest,
)


@given(images_strategy, st.lists(st.sampled_from(BLOBS), max_size=4), st.integers(0, 250_000))
def test_choice_is_the_shortest_run_of_the_longest_unused(
    images: list[CachedImage], others: list[Digest], to_free: int
) -> None:
    """The model: give up one after the other, and look at each step what is left that somebody needs."""
    holders = {blob: {one.digest for one in images if blob in one.blobs} for blob in BLOBS}
    for blob in others:
        holders[blob] = holders[blob] | {digest_of(f"other {len(holders[blob])}".encode())}
    kept = Counter({blob: len(found) for blob, found in holders.items()})
    may_go = [one for one in images if not one.is_pinned and NOW - one.used_at >= JUST_USED]
    may_go.sort(key=lambda one: (one.used_at, one.digest))

    def free_without(gone: list[CachedImage]) -> set[Digest]:
        left = {one.digest for one in gone}
        return {blob for blob, found in holders.items() if found and found <= left}

    def size_of(blobs: set[Digest]) -> int:
        return sum(SIZES[blob] for blob in blobs)

    gone: list[CachedImage] = []
    while size_of(free_without(gone)) < to_free and len(gone) < len(may_go):
        gone.append(may_go[len(gone)])
    free = free_without(gone)
    wanted = [one for one in gone if one.blobs & free]

    chosen = choose_evictions(images, SIZES, kept, to_free, NOW)
    assert chosen == wanted
    assert freed_by(chosen, SIZES, kept) == size_of(free)
