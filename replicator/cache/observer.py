"""What the cache reports of its work; the daemon turns it into metrics."""

from __future__ import annotations

import enum
from typing import Protocol


class Finding(enum.StrEnum):
    """What a check found that operators may want to know of; each is counted when it is found first."""

    DRIFT = "drift"
    """The upstream moved a tag that is immutable here."""
    ROLLBACK = "rollback"
    """The upstream went back to an image that the tag had here before."""
    COOL_DOWN = "cool-down"
    """The upstream moved a tag to an image that is too new to be served."""
    GONE = "gone"
    """The upstream has a cached tag no more."""


class CacheObserver(Protocol):
    """Sees every pull of a cached repository. Must be quick, and must not raise."""

    def result(self, rule: str, result: str) -> None:
        """Note one pull under the rule with this prefix."""
        ...

    def upstream_bytes(self, upstream: str, size: int) -> None:
        """Note bytes of content that came from an upstream."""
        ...

    def found(self, rule: str, finding: str) -> None:
        """Note what a check found of a tag under the rule with this prefix; see Finding."""
        ...
