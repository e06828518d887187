"""How an upstream is, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from replicator.daemon.amounts import age_text

if TYPE_CHECKING:
    from collections.abc import Mapping


def health_text(one: Mapping[str, Any]) -> str:
    """Return what is known of how an upstream is, empty when nothing is."""
    health = one["health"]
    parts: list[str] = []
    if health["breaker"] != "closed":
        parts.append(f"not asked, breaker {health['breaker']}" if health["breaker"] == "open" else "being tried again")
    parts += [f"{kind} paused for {age_text(left)}" for kind, left in sorted(health["paused_seconds"].items())]
    limit = health["rate_limit"]
    if limit is not None:
        of = "" if limit["limit"] is None else f" of {limit['limit']}"
        parts.append(f"{limit['remaining']}{of} requests left")
    return ", ".join(parts)
