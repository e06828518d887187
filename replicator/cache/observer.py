"""What the cache reports of its work; the daemon turns it into metrics."""

from __future__ import annotations

import enum
from typing import Protocol


class CacheResult(enum.StrEnum):
    """What became of one pull: served from here, fetched, served without a check that was due, or confirmed first."""

    HIT = "hit"
    MISS = "miss"
    STALE = "stale"
    REVALIDATED = "revalidated"


class CacheObserver(Protocol):
    """Sees every pull of a cached repository. Must be quick, and must not raise."""

    def result(self, rule: str, result: str) -> None:
        """Note one pull under the rule with this prefix."""
        ...

    def upstream_bytes(self, upstream: str, size: int) -> None:
        """Note bytes of content that came from an upstream."""
        ...
