"""What an upstream says about its own rate limit, so that requests can be spent where they matter.

Docker Hub's dialect of the RateLimit header fields: `ratelimit-remaining: 76;w=21600`, requests left in a window of
seconds.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from replicator.core.rate_budget import RateLimit

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELD = re.compile(r"\s*(\d{1,12})\s*(?:;\s*w=(\d{1,9})\s*)?(?:;.*)?", re.ASCII)


def parse_rate_limit(headers: Mapping[str, str], now: float) -> RateLimit | None:
    """Return the limit that an answer's headers state, or None when they state none."""
    remaining = _FIELD.fullmatch(headers.get("RateLimit-Remaining", ""))
    if remaining is None:
        return None
    limit = _FIELD.fullmatch(headers.get("RateLimit-Limit", ""))
    window = remaining[2] or (limit[2] if limit else None)
    return RateLimit(int(remaining[1]), int(limit[1]) if limit else None, int(window) if window else None, now)
