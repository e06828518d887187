"""What a lifecycle policy does to the images of a repository: a function of policy, images and time (ECR §8.3).

All rules look at the same snapshot. An image that the selection of a rule matches is shielded from every rule of lower
priority, whether it is acted on or not, and is counted by them all the same. So an image gets at most one action, and
neither the order of the images nor that of the rules in the text changes the outcome.

Repositories hold many images, so the evaluation also comes in pieces: `evaluation` stops for breath every `PIECE`
comparisons, for callers that share their thread.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from replicator.core.image_status import ImageStatus
from replicator.core.lifecycle import (
    CountType,
    LifecycleAction,
    LifecyclePolicy,
    LifecycleRule,
    StorageClass,
    TagStatus,
)
from replicator.core.mutability import matches_wildcard

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from replicator.core.lifecycle import ImageSnapshot
    from replicator.core.names import Tag

DAY = 24 * 60 * 60
PIECE = 4_000
"""Comparisons between two breaths."""

_CLASSES = {ImageStatus.ACTIVE: StorageClass.STANDARD, ImageStatus.ARCHIVED: StorageClass.ARCHIVE}


def evaluate(policy: LifecyclePolicy, images: Sequence[ImageSnapshot], now: float) -> list[LifecycleAction]:
    """Return what the policy does, by priority and then oldest first."""
    pieces = evaluation(policy, images, now)
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            found: list[LifecycleAction] = done.value
            return found


def evaluation(
    policy: LifecyclePolicy, images: Sequence[ImageSnapshot], now: float
) -> Generator[None, None, list[LifecycleAction]]:
    """Return what `evaluate` does, in pieces: whoever drives this may do something else whenever it yields."""
    standing = yield from _by_class(images)
    shielded: set[str] = set()
    actions: list[LifecycleAction] = []
    for rule in sorted(policy.rules, key=lambda one: one.priority):
        selected = yield from _selected(rule, standing[rule.storage_class])
        due = yield from _due(rule, selected, now)
        for some in _pieces(due):
            actions.extend(LifecycleAction(image, rule) for image in some if image.digest not in shielded)
            yield
        for some in _pieces(selected):
            shielded.update(image.digest for image in some)
            yield
    return actions


def _pieces(images: Sequence[ImageSnapshot]) -> Iterator[Sequence[ImageSnapshot]]:
    return (images[start : start + PIECE] for start in range(0, len(images), PIECE))


def _by_class(
    images: Sequence[ImageSnapshot],
) -> Generator[None, None, dict[StorageClass, list[ImageSnapshot]]]:
    """Return the images that policies look at by storage class: no referrers, and none on its way back."""
    found: dict[StorageClass, list[ImageSnapshot]] = {one: [] for one in StorageClass}
    for some in _pieces(images):
        for image in some:
            if not image.is_referrer and image.status in _CLASSES:
                found[_CLASSES[image.status]].append(image)
        yield
    return found


def _selected(rule: LifecycleRule, images: Sequence[ImageSnapshot]) -> Generator[None, None, Sequence[ImageSnapshot]]:
    """Return the images that the rule's selection matches, shielded ones, too."""
    if rule.tag_status is TagStatus.ANY:
        return images
    selected: list[ImageSnapshot] = []
    if rule.tag_status is TagStatus.UNTAGGED:
        for some in _pieces(images):
            selected += [image for image in some if not image.tags]
            yield
        return selected
    wanted = len(rule.patterns or rule.prefixes)
    work = 0
    for image in images:
        work += 1 + wanted * len(image.tags)
        if work >= PIECE:
            work = 0
            yield
        if image.tags and (yield from _has_tags(rule, image.tags)):
            selected.append(image)
    return selected


def _has_tags(rule: LifecycleRule, tags: tuple[Tag, ...]) -> Generator[None, None, bool]:
    """Tell whether every pattern, or prefix, of the rule is that of one of the tags."""
    matches: Callable[[str, str], bool] = matches_wildcard if rule.patterns else _has_prefix
    work = 0
    for wanted in rule.patterns or rule.prefixes:
        if not any(matches(wanted, tag) for tag in tags):
            return False
        work += len(tags)
        if work >= PIECE:
            work = 0
            yield
    return True


def _has_prefix(prefix: str, tag: str) -> bool:
    return tag.startswith(prefix)


def _due(
    rule: LifecycleRule, selected: Sequence[ImageSnapshot], now: float
) -> Generator[None, None, list[ImageSnapshot]]:
    """Return those of the selected images that are too many or too old, oldest first."""
    if rule.count_type is CountType.IMAGE_COUNT_MORE_THAN:
        excess = max(0, len(selected) - rule.count)
        return (yield from _oldest(selected, _CLOCKS[rule.count_type], excess))
    clock = _CLOCKS[rule.count_type]
    found = []
    for number, image in enumerate(selected):
        since = clock(image)
        if since is not None and now - since > rule.count * DAY:
            found.append(image)
        if number % PIECE == 0:
            yield
    return (yield from _oldest(found, clock, len(found)))


def _oldest(
    images: Sequence[ImageSnapshot], clock: Callable[[ImageSnapshot], float | None], count: int
) -> Generator[None, None, list[ImageSnapshot]]:
    """Return the `count` oldest images in order; digests decide between images of the same age."""
    runs = []
    for start in range(0, len(images), PIECE):
        runs.append(
            sorted(
                ((clock(image) or 0.0, image.digest, image) for image in images[start : start + PIECE]),
                key=lambda one: one[:2],
            )
        )
        yield
    merged: Iterator[tuple[float, str, ImageSnapshot]] = heapq.merge(*runs, key=lambda one: one[:2])
    found: list[ImageSnapshot] = []
    for _, _, image in merged:
        if len(found) == count:
            break
        found.append(image)
        if len(found) % PIECE == 0:
            yield
    return found


_CLOCKS: dict[CountType, Callable[[ImageSnapshot], float | None]] = {
    CountType.IMAGE_COUNT_MORE_THAN: lambda image: image.born_at,
    CountType.SINCE_IMAGE_PUSHED: lambda image: image.born_at,
    CountType.SINCE_IMAGE_PULLED: lambda image: image.used_at,
    CountType.SINCE_IMAGE_TRANSITIONED: lambda image: image.archived_at,
}
