"""How long the cache lets callers wait for an upstream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Seconds: `stale_wait` for a check of what is here, `cold_wait` for what is not."""

    stale_wait: float = 2.0
    cold_wait: float = 60.0
