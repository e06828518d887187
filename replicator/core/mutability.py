"""Tag mutability of a repository: may this tag move? (ECR, "Preventing image tags from being overwritten")."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import Tag


class TagMutability(enum.StrEnum):
    """ECR's four settings."""

    MUTABLE = "MUTABLE"
    IMMUTABLE = "IMMUTABLE"
    MUTABLE_WITH_EXCLUSION = "MUTABLE_WITH_EXCLUSION"
    IMMUTABLE_WITH_EXCLUSION = "IMMUTABLE_WITH_EXCLUSION"


WITH_EXCLUSION = frozenset({TagMutability.MUTABLE_WITH_EXCLUSION, TagMutability.IMMUTABLE_WITH_EXCLUSION})
"""The settings that have exclusion filters, and must."""


@dataclass(frozen=True, slots=True)
class MutabilityRule:
    """A setting with its exclusion filters; `*` in a filter stands for any characters, the rest is literal."""

    setting: TagMutability = TagMutability.MUTABLE
    exclusions: tuple[str, ...] = ()

    def is_mutable(self, tag: Tag) -> bool:
        """Tell whether an existing `tag` may point to another digest."""
        mutable = self.setting in {
            TagMutability.MUTABLE,
            TagMutability.MUTABLE_WITH_EXCLUSION,
        }
        return not mutable if self._excluded(tag) else mutable

    def permits(self, tag: Tag, current: Digest | None, wanted: Digest) -> bool:
        """Tell whether `tag`, which points to `current` (None: absent), may be set to `wanted`."""
        return current is None or current == wanted or self.is_mutable(tag)

    def _excluded(self, tag: Tag) -> bool:
        if self.setting in {TagMutability.MUTABLE, TagMutability.IMMUTABLE}:
            return False
        return any(matches_wildcard(pattern, tag) for pattern in self.exclusions)


def matches_wildcard(pattern: str, text: str) -> bool:
    """Match the whole of `text`, case-sensitively; `*` is zero or more characters. No pattern makes it go back."""
    first, *parts = pattern.split("*")
    if not parts:
        return pattern == text
    last = parts.pop()
    position, end = len(first), len(text) - len(last)
    if position > end or not text.startswith(first) or not text.endswith(last):
        return False
    for part in parts:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True
