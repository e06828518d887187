"""How long the cache lets callers wait for an upstream."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheLimits:
    """Seconds: `stale_wait` for a check of what is here, `cold_wait` for what is not.

    What is here is to be served within two seconds, so a check gets less than that.
    """

    stale_wait: float = 1.5
    cold_wait: float = 30.0
