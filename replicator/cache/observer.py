"""What the cache reports of its work; the daemon turns it into metrics."""

from __future__ import annotations

from typing import Protocol


class CacheObserver(Protocol):
    """Sees every pull of a cached repository. Must be quick, and must not raise."""

    def result(self, rule: str, result: str) -> None:
        """Note one pull under the rule with this prefix."""
        ...

    def upstream_bytes(self, upstream: str, size: int) -> None:
        """Note bytes of content that came from an upstream."""
        ...
