"""What lifecycle policies do: the worked examples of ECR §8.6 by number, and properties against a naive model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.digest import Digest, digest_of
from replicator.core.image_status import ImageStatus
from replicator.core.lifecycle import (
    ActionType,
    CountType,
    ImageSnapshot,
    LifecycleAction,
    LifecyclePolicy,
    LifecycleRule,
    StorageClass,
    TagStatus,
)
from replicator.core.lifecycle_evaluation import DAY, PIECE, evaluate, evaluation
from replicator.core.names import Tag

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

NOW = 1_750_000_000.0
EXPIRE, TRANSITION = ActionType.EXPIRE, ActionType.TRANSITION
COUNT, PUSHED = CountType.IMAGE_COUNT_MORE_THAN, CountType.SINCE_IMAGE_PUSHED
PULLED, TRANSITIONED = CountType.SINCE_IMAGE_PULLED, CountType.SINCE_IMAGE_TRANSITIONED
ARCHIVE = StorageClass.ARCHIVE


def image(name: str, tags: str, age: float, **when: float | None) -> ImageSnapshot:
    """Return an image pushed `age` days ago; `archived`, `pulled` and `restored` are days ago, too."""
    ago = {event: None if days is None else NOW - days * DAY for event, days in when.items()}
    state = ImageStatus.ARCHIVED if "archived" in when else ImageStatus.ACTIVE
    return ImageSnapshot(
        digest_of(name.encode()),
        tuple(map(Tag, tags.split())),
        NOW - age * DAY,
        state,
        ago.get("pulled"),
        ago.get("archived"),
        ago.get("restored"),
    )


def rule(
    priority: int, select: str, count_type: CountType, count: int, action: ActionType = EXPIRE, **more: object
) -> LifecycleRule:
    """Return a rule; `select` is `any`, `untagged`, patterns, or prefixes after a `^`."""
    if select in {"any", "untagged"}:
        found = LifecycleRule(priority, TagStatus(select), count_type, count, action)
    elif select.startswith("^"):
        prefixes = tuple(select[1:].split())
        found = LifecycleRule(priority, TagStatus.TAGGED, count_type, count, action, prefixes=prefixes)
    else:
        found = LifecycleRule(priority, TagStatus.TAGGED, count_type, count, action, patterns=tuple(select.split()))
    return replace(found, **more)  # type: ignore[arg-type]


def policy(*rules: LifecycleRule) -> LifecyclePolicy:
    return LifecyclePolicy(tuple(sorted(rules, key=lambda one: one.priority)), "")


PRODUCTION = (image("A", "beta-1 prod-1", 10), image("B", "beta-2 prod-2", 9), image("C", "beta-3", 8))
APPLICATION = (image("IDX", "app-1", 20), image("X1", "", 20), image("X2", "", 20), image("U", "", 20))


@dataclass(frozen=True)
class Example:
    images: tuple[ImageSnapshot, ...]
    rules: tuple[LifecycleRule, ...]
    result: str


EXAMPLES = {
    "1": Example(PRODUCTION, (rule(1, "prod*", COUNT, 1), rule(2, "beta*", COUNT, 1)), "A1"),
    "2": Example(PRODUCTION, (rule(1, "beta*", COUNT, 1), rule(2, "prod*", COUNT, 1)), "A1 B1"),
    "3": Example(
        (
            image("A", "alpha-1", 12),
            image("B", "beta-1", 11),
            image("C", "alpha-2 beta-2", 10),
            image("D", "alpha-3", 4),
            image("E", "beta-3", 3),
            image("F", "alpha-4 beta-4", 2),
        ),
        (rule(1, "alpha* beta*", PUSHED, 5),),
        "C1",
    ),
    "4": Example(
        (
            image("A", "alpha-1 beta-1 gamma-1", 10),
            image("B", "alpha-2 beta-2", 9),
            image("C", "alpha-3 beta-3 gamma-2", 8),
        ),
        (rule(1, "alpha* beta*", COUNT, 1),),
        "A1 B1",
    ),
    "5": Example(
        (image("A", "alpha-1", 4), image("B", "beta-1", 3), image("C", "", 2), image("D", "alpha-2", 1)),
        (rule(1, "any", COUNT, 1),),
        "A1 B1 C1",
    ),
    "6": Example(
        (
            image("A", "alpha-1 beta-1", 4),
            image("B", "", 3),
            image("C", "alpha-2", 2),
            image("D", "git-hash", 1),
            image("E", "", 0.9),
        ),
        (rule(1, "alpha*", COUNT, 1), rule(2, "untagged", PUSHED, 1), rule(3, "any", COUNT, 1)),
        "A1 B2 D3",
    ),
    "7": Example(
        (
            image("A", "v1", 400),
            image("B", "ci-1", 40),
            image("C", "ci-2", 10),
            image("D", "v2 ci-3", 100),
            image("E", "", 31),
        ),
        (rule(1, "v*", COUNT, 9999), rule(2, "any", PUSHED, 30)),
        "B2 E2",
    ),
    # What is executed of these two is decided later: an image that an index lists cannot be deleted before it.
    "8": Example(APPLICATION, (rule(1, "untagged", PUSHED, 7),), "X11 X21 U1"),
    "8b": Example(APPLICATION, (rule(1, "untagged", PUSHED, 7), rule(2, "any", PUSHED, 14)), "X11 X21 U1 IDX2"),
    "9": Example(
        (
            image("A", "a", 200, pulled=10),
            image("B", "b", 200, pulled=100),
            image("C", "c", 100),
            image("D", "d", 50),
            image("E", "e", 300, pulled=200, restored=20),
        ),
        (rule(1, "any", PULLED, 90, TRANSITION),),
        "B1 C1",
    ),
    "10": Example(
        (
            image("A", "a", 40),
            image("B", "b", 500, archived=400),
            image("C", "c", 200, archived=100),
            image("D", "d", 10),
        ),
        (
            rule(1, "any", PUSHED, 30, TRANSITION),
            rule(2, "any", TRANSITIONED, 365, storage_class=ARCHIVE),
        ),
        "A1 B2",
    ),
    "11": Example(
        (
            image("A", "prod-1", 5),
            image("B", "prod-2", 4),
            image("C", "repo-prod-1", 3),
            image("D", "repo-prod-2", 2),
        ),
        (rule(1, "^prod", COUNT, 1), rule(2, "*prod*", COUNT, 1)),
        "A1 C2",
    ),
    "12": Example(
        (image("A", "a", 400, restored=1), image("B", "b", 3), image("C", "c", 2)),
        (rule(1, "any", COUNT, 2),),
        "B1",
    ),
    "13": Example((image("A", "a", 14), image("B", "b", 14.001)), (rule(1, "any", PUSHED, 14),), "B1"),
}
NAMES = ("A", "B", "C", "D", "E", "F", "IDX", "X1", "X2", "U")
BY_DIGEST = {digest_of(name.encode()): name for name in NAMES}


def told(images: Sequence[ImageSnapshot], rules: Sequence[LifecycleRule], now: float = NOW) -> set[str]:
    return {f"{BY_DIGEST[one.image.digest]}{one.rule.priority}" for one in evaluate(policy(*rules), images, now)}


@pytest.mark.parametrize("number", EXAMPLES)
def test_worked_example(number: str) -> None:
    example = EXAMPLES[number]
    assert told(example.images, example.rules) == set(example.result.split())


@pytest.mark.parametrize("number", ["8", "8b"])
def test_worked_example_of_an_index_goes_on_when_its_children_are_orphans(number: str) -> None:
    """The next run sees what the first has left: the children, untagged, and no index that lists them."""
    example = EXAMPLES[number]
    left = [one for one in example.images if BY_DIGEST[one.digest] in {"X1", "X2"}]
    assert told(left, example.rules) == {"X11", "X21"}


def test_the_first_image_acted_on_by_a_rule_is_the_oldest() -> None:
    images = [image("A", "a", 3), image("B", "b", 9), image("C", "c", 5), image("D", "d", 1)]
    found = evaluate(policy(rule(1, "any", COUNT, 1)), images, NOW)
    assert [BY_DIGEST[one.image.digest] for one in found] == ["B", "C", "A"]


def test_a_prefix_is_literal_and_a_pattern_is_anchored() -> None:
    images = [image("A", "prod1", 2), image("B", "xprod1", 2), image("C", "pro*d", 2)]
    assert told(images, (rule(1, "^pro*", PUSHED, 1),)) == {"C1"}
    assert told(images, (rule(1, "prod", PUSHED, 1),)) == set()
    assert told(images, (rule(1, "*prod1", PUSHED, 1),)) == {"A1", "B1"}


def test_a_referrer_is_neither_acted_on_nor_counted() -> None:
    images = [image("A", "", 3), replace(image("B", "", 2), is_referrer=True), image("C", "", 1)]
    assert told(images, (rule(1, "any", COUNT, 1),)) == {"A1"}
    assert told(images, (rule(1, "any", COUNT, 2),)) == set()


def test_an_image_that_is_being_restored_is_in_neither_storage_class() -> None:
    restoring = replace(image("A", "a", 900, archived=800), status=ImageStatus.ACTIVATING)
    rules = (rule(1, "any", PUSHED, 1), rule(2, "any", TRANSITIONED, 90, storage_class=ARCHIVE))
    assert told([restoring], rules) == set()


def test_a_pull_before_the_restore_does_not_count_and_one_after_it_does() -> None:
    rules = (rule(1, "any", PULLED, 30, TRANSITION),)
    assert told([image("A", "a", 300, pulled=200, restored=100)], rules) == {"A1"}
    assert told([image("A", "a", 300, pulled=20, restored=100)], rules) == set()


# Properties

TAGS = ("v1", "v2", "prod-1", "prod-2", "beta", "beta-prod")
SELECTIONS = ("v*", "*prod*", "v* prod*", "^v", "^prod beta", "untagged", "any")
times = st.one_of(st.none(), st.integers(0, 200))


@st.composite
def snapshots(draw: st.DrawFn) -> list[ImageSnapshot]:
    found = []
    for number in range(draw(st.integers(0, 9))):
        state = draw(st.sampled_from(ImageStatus))
        found.append(
            ImageSnapshot(
                Digest(f"sha256:{number:064x}"),
                tuple(map(Tag, draw(st.lists(st.sampled_from(TAGS), unique=True, max_size=3)))),
                NOW - draw(st.integers(0, 200)) * DAY,
                state,
                _days(draw(times)),
                _days(draw(times)),
                _days(draw(times)),
                draw(st.integers(0, 5)) == 0,
            )
        )
    return found


def _days(ago: int | None) -> float | None:
    return None if ago is None else NOW - ago * DAY


@st.composite
def rule_sets(draw: st.DrawFn) -> list[LifecycleRule]:
    priorities = draw(st.lists(st.integers(1, 50), unique=True, max_size=5))
    return [
        rule(
            priority,
            draw(st.sampled_from(SELECTIONS)),
            draw(st.sampled_from(CountType)),
            draw(st.integers(1, 150)) if draw(st.booleans()) else draw(st.integers(1, 4)),
            draw(st.sampled_from(ActionType)),
            storage_class=draw(st.sampled_from(StorageClass)),
        )
        for priority in priorities
    ]


def naive(rules: Sequence[LifecycleRule], images: Sequence[ImageSnapshot], now: float) -> dict[str, int]:
    """Say which rule takes which image, one image and one rule at a time, straight from the sentences of ECR."""
    taken: dict[str, int] = {}
    for one in images:
        for each in sorted(rules, key=lambda found: found.priority):
            if _sees(each, one):
                if _too_much(each, one, images, now):
                    taken[one.digest] = each.priority
                break  # seen by a rule of higher priority: nothing else may take it
    return taken


def _sees(one: LifecycleRule, seen: ImageSnapshot) -> bool:
    where = {"ACTIVE": "standard", "ARCHIVED": "archive", "ACTIVATING": ""}[seen.status]
    if where != one.storage_class or seen.is_referrer:
        return False
    if one.tag_status == "any":
        return True
    if one.tag_status == "untagged":
        return len(seen.tags) == 0
    prefixes = all(any(tag[: len(prefix)] == prefix for tag in seen.tags) for prefix in one.prefixes)
    return prefixes and all(any(_matches(pattern, tag) for tag in seen.tags) for pattern in one.patterns)


def _matches(pattern: str, text: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_matches(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and text[0] == pattern[0] and _matches(pattern[1:], text[1:])


def _too_much(one: LifecycleRule, seen: ImageSnapshot, images: Sequence[ImageSnapshot], now: float) -> bool:
    if one.count_type == "imageCountMoreThan":
        younger = [
            other for other in images if _sees(one, other) and (_born(other), other.digest) > (_born(seen), seen.digest)
        ]
        return len(younger) >= one.count
    if one.count_type == "sinceImageTransitioned":
        return seen.archived_at is not None and now > seen.archived_at + one.count * DAY
    since = _born(seen)
    if one.count_type == "sinceImagePulled" and seen.pulled_at is not None:
        restored_since = seen.activated_at is not None and seen.activated_at > seen.pulled_at
        since = since if restored_since else seen.pulled_at
    return now > since + one.count * DAY


def _born(one: ImageSnapshot) -> float:
    return one.activated_at if one.activated_at is not None else one.pushed_at


@given(snapshots(), rule_sets())
def test_the_evaluation_agrees_with_a_naive_model(images: list[ImageSnapshot], rules: list[LifecycleRule]) -> None:
    found = evaluate(policy(*rules), images, NOW)
    assert {one.image.digest: one.rule.priority for one in found} == naive(rules, images, NOW)
    assert len({one.image.digest for one in found}) == len(found)


@given(snapshots(), rule_sets(), st.randoms(use_true_random=False))
def test_no_order_changes_the_outcome(
    images: list[ImageSnapshot], rules: list[LifecycleRule], chance: random.Random
) -> None:
    before = evaluate(policy(*rules), images, NOW)
    chance.shuffle(images)
    chance.shuffle(rules)
    assert evaluate(LifecyclePolicy(tuple(rules), ""), images, NOW) == before


@given(snapshots(), rule_sets())
@settings(max_examples=50)
def test_images_that_a_rule_shields_are_counted_all_the_same(
    images: list[ImageSnapshot], rules: list[LifecycleRule]
) -> None:
    """A rule in front that never fires takes images away from what follows, and changes no count."""
    keep = rule(1, "any", COUNT, 10_000)
    behind = [replace(one, priority=one.priority + 1) for one in rules]
    active = [one for one in images if one.status is ImageStatus.ACTIVE and not one.is_referrer]
    found = evaluate(policy(keep, *behind), images, NOW)
    assert not {one.image.digest for one in found} & {one.digest for one in active}


def test_a_large_repository_is_evaluated_in_pieces() -> None:
    count = PIECE * 3 + 7
    images = [
        ImageSnapshot(Digest(f"sha256:{number:064x}"), (Tag(f"v{number}"),), NOW - number) for number in range(count)
    ]
    images.sort(key=lambda one: digest_of(one.digest.encode()))
    pieces = evaluation(policy(rule(1, "v*", COUNT, 5)), images, NOW)
    found: list[LifecycleAction] = []
    breaths = 0
    while True:
        try:
            next(pieces)
        except StopIteration as done:
            found = done.value
            break
        breaths += 1
    assert breaths > count // PIECE
    assert [one.image.pushed_at for one in found] == [NOW - number for number in range(count - 1, 4, -1)]


def test_one_image_of_very_many_tags_is_evaluated_in_pieces() -> None:
    many = replace(image("A", "", 9), tags=tuple(Tag(f"a{number}") for number in range(1_000)))
    prefixes = rule(1, "^" + " ".join(f"a{number}" for number in range(500)), PUSHED, 1)
    assert sum(1 for _ in evaluation(policy(prefixes), [many], NOW)) > 100
