"""How a pull was answered, in the words of RFC 9211 (the Cache-Status header) and of metrics and logs.

Cache-Status: "replicator 111122223333/us-east-1"; hit; ttl=3600
Cache-Status: "replicator 111122223333/us-east-1"; hit; ttl=-120; detail="hub: cannot connect"
Cache-Status: "replicator 111122223333/us-east-1"; fwd=uri-miss; fwd-status=200; stored; collapsed
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from functools import lru_cache

_MAX_DETAIL = 200
OK, NOT_FOUND, TOO_MANY = 200, 404, 429
"""What an upstream may have answered to a pull, as an HTTP status."""


class CacheResult(enum.StrEnum):
    """What became of one pull of a cached repository."""

    HIT = "hit"
    """Served from here, as fresh as it should be."""
    STALE = "stale"
    """Served from here although a check is due: it failed, takes too long, or goes on behind the puller's back."""
    REVALIDATED = "revalidated"
    """The upstream confirmed it for this pull."""
    MISS = "miss"
    """Fetched for this pull, or on its way for another one; with status 404: looked for in vain."""
    NEGATIVE = "negative"
    """Refused from memory: the upstream did not have it a moment ago."""
    ERROR = "error"
    """Not here, and no upstream could say."""


@dataclass(slots=True)
class PullTrace:
    """Collects how one pull was answered; whoever answers fills it in. `result` None: no cache was concerned.

    `age` is seconds since the upstream confirmed the content, `ttl` seconds for which it counts as fresh (negative when
    it is stale), `error` what the upstream's last failure was, `collapsed` that somebody else's fetch was joined,
    `upstream` and `rule` where it came from, or would come from.
    """

    result: CacheResult | None = None
    rule: str = ""
    upstream: str = ""
    age: float | None = None
    ttl: float | None = None
    error: str | None = None
    status: int | None = None
    """What the upstream answered, as an HTTP status, where it was asked for this pull."""
    collapsed: bool = False
    was_cached: bool = False
    """Whether something was here that the upstream was asked about: then it was asked for being stale, not missing."""
    stored: bool = True
    """Whether what was fetched is kept here; not so where the upstream was only asked about it."""

    def note(self, result: CacheResult, rule: str, upstream: str) -> None:
        """Say how the pull was answered."""
        self.result, self.rule, self.upstream = result, rule, upstream


_FORWARDED = {
    CacheResult.MISS: "fwd=uri-miss",
    CacheResult.REVALIDATED: "fwd=stale",
    CacheResult.ERROR: "fwd=uri-miss",
}


def render_cache_status(node: str, trace: PullTrace) -> str | None:
    """Return the Cache-Status of an answer, or None when no cache was concerned (RFC 9211, section 2)."""
    if trace.result is None:
        return None
    forwarded = _FORWARDED.get(trace.result, "hit")
    parts = [_quoted(f"replicator {node}"), "fwd=stale" if trace.was_cached and forwarded != "hit" else forwarded]
    if trace.result in _FORWARDED and trace.status is not None:
        parts.append(f"fwd-status={trace.status}")
    if trace.ttl is not None:
        parts.append(f"ttl={math.floor(trace.ttl)}")
    if trace.result is CacheResult.MISS and trace.stored and trace.status != NOT_FOUND:
        parts.append("stored")
    if trace.collapsed:
        parts.append("collapsed")
    detail = "NEGATIVE" if trace.result is CacheResult.NEGATIVE else trace.error
    if detail:
        parts.append(f"detail={_quoted(detail)}")
    return "; ".join(parts)


def render_age(trace: PullTrace) -> str | None:
    """Return the Age of an answer in whole seconds (RFC 9111, section 5.1), or None when it is not known."""
    return None if trace.age is None else str(max(0, math.floor(trace.age)))


@lru_cache(maxsize=256)
def _quoted(text: str) -> str:
    """Return a string of Structured Fields (RFC 8941, section 3.3.3): printable ASCII, at most 200 characters."""
    plain = "".join(one if " " <= one <= "~" else "?" for one in text[:_MAX_DETAIL])
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'
