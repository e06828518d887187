"""What a lifecycle policy is made of, and what it looks at: rules, and images as they were at one moment (ECR §8).

A policy here has passed `lifecycle_grammar`: its rules stand by priority, highest first (the lowest number), and no
two of them contradict each other.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.image_status import ImageStatus

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import Tag


class TagStatus(enum.StrEnum):
    """Which images a rule selects by whether they have tags."""

    TAGGED = "tagged"
    UNTAGGED = "untagged"
    ANY = "any"


class StorageClass(enum.StrEnum):
    """Where the images are that a rule selects."""

    STANDARD = "standard"
    ARCHIVE = "archive"


class CountType(enum.StrEnum):
    """How a rule decides which of the images that it selects are too many or too old."""

    IMAGE_COUNT_MORE_THAN = "imageCountMoreThan"
    SINCE_IMAGE_PUSHED = "sinceImagePushed"
    SINCE_IMAGE_PULLED = "sinceImagePulled"
    SINCE_IMAGE_TRANSITIONED = "sinceImageTransitioned"


class ActionType(enum.StrEnum):
    """What a rule does with an image: delete it, or move it to the archive."""

    EXPIRE = "expire"
    TRANSITION = "transition"


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """One rule. Of `patterns` and `prefixes` at most one is given, and only for tagged images; `*` is the wildcard."""

    priority: int
    tag_status: TagStatus
    count_type: CountType
    count: int
    """Images to keep, or days."""
    action: ActionType
    storage_class: StorageClass = StorageClass.STANDARD
    patterns: tuple[str, ...] = ()
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LifecyclePolicy:
    """Rules by priority, and the text that they were written in without its white space."""

    rules: tuple[LifecycleRule, ...]
    text: str


@dataclass(frozen=True, slots=True)
class ImageSnapshot:
    """An image as an evaluation sees it; times are Unix seconds, None for what never happened."""

    digest: Digest
    tags: tuple[Tag, ...]
    pushed_at: float
    status: ImageStatus = ImageStatus.ACTIVE
    pulled_at: float | None = None
    archived_at: float | None = None
    activated_at: float | None = None
    is_referrer: bool = False
    """A manifest with a subject: it goes where its subject goes, whatever the policy says."""

    @property
    def born_at(self) -> float:
        """When it was pushed, or restored from the archive last: a restored image counts as new."""
        return self.pushed_at if self.activated_at is None else self.activated_at

    @property
    def used_at(self) -> float:
        """When it was pulled last; one that was not pulled since it was pushed or restored counts from then on."""
        if self.pulled_at is None or (self.activated_at is not None and self.pulled_at < self.activated_at):
            return self.born_at
        return self.pulled_at


@dataclass(frozen=True, slots=True)
class LifecycleAction:
    """What becomes of one image, and the rule that decides it."""

    image: ImageSnapshot
    rule: LifecycleRule
