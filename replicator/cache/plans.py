"""What a pull of a cached tag does now, and when the tag is due: the rule's word, and what is known besides it.

To `core.freshness` this adds what one entry tells: that its rule leads to another upstream than it did, that a digest
has been held back for long enough, that the upstream has the tag no more; and how the upstream is: whether it wants to
be left alone, and how much of its rate limit is left for checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.cache.selection import refusal_of
from replicator.core import freshness
from replicator.core.circuit_breaker import BreakerState
from replicator.core.freshness import PullPlan, plan_pull
from replicator.core.rate_budget import stretch

if TYPE_CHECKING:
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.cache_rules import CacheRule
    from replicator.core.names import Tag
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.upstream.client import UpstreamHealth

_UNHURRIED = {PullPlan.SERVE_AND_CHECK, PullPlan.CHECK_FIRST}


def plan_of(source: UpstreamRepository, entry: CacheEntry, now: float) -> PullPlan:
    """Return what a pull of a cached tag does."""
    rule = source.rule
    plan = plan_pull(rule, entry.tag, entry.checked_at, entry.failed_at, now)
    if entry.upstream != rule.upstream and plan is not PullPlan.REFUSE_STALE:
        return PullPlan.SERVE if has_failed_lately(entry, now) else PullPlan.CHECK_FIRST
    if plan is PullPlan.FRESH and entry.pending_digest is not None and now >= entry.due_at:
        plan = PullPlan.FRESH if has_failed_lately(entry, now) else PullPlan.SERVE_AND_CHECK
    if plan in _UNHURRIED and is_known_gone(rule, entry, now):
        return PullPlan.SERVE
    if plan is PullPlan.SERVE_AND_CHECK and not _is_wise(source, entry, now):
        return PullPlan.SERVE
    return plan


def has_failed_lately(entry: CacheEntry, now: float) -> bool:
    """Tell whether a check failed a moment ago, so that the next one can wait."""
    return freshness.has_failed_lately(entry.failed_at, now)


def due_after(rule: CacheRule, tag: Tag, checked_at: float) -> float:
    """Return when a tag that was confirmed at `checked_at` is due."""
    return checked_at + rule.freshness_of(tag)


def is_known_gone(rule: CacheRule, entry: CacheEntry, now: float) -> bool:
    """Tell whether the upstream said lately enough that it has a tag no more."""
    if entry.gone_at is None or entry.failed_at is None:
        return False
    return 0 <= now - entry.failed_at < rule.freshness_of(entry.tag)


def is_resting(source: UpstreamRepository) -> bool:
    """Tell whether no registry that could be asked about a tag wants to be asked now, or is worth asking."""
    return all(_rests(client.health) for client in source.sources.clients)


def _rests(health: UpstreamHealth) -> bool:
    return health.breaker is BreakerState.OPEN or any(health.paused_for.get(kind) for kind in ("manifests", "tokens"))


def is_due_early(source: UpstreamRepository, entry: CacheEntry, now: float, early: float) -> bool:
    """Tell whether a tag is to be checked without a pull, `early` (a share of its freshness) before it is due.

    An image that waits for its time is not looked for before that.
    """
    rule = source.rule
    if refusal_of(source, entry.tag) or is_known_gone(rule, entry, now) or is_resting(source):
        return False
    if entry.pending_digest is not None:
        return now >= entry.due_at
    factor = stretch_of(source, now)
    return factor is not None and now >= entry.due_at + rule.freshness_of(entry.tag) * (factor - 1 - early)


def stretch_of(source: UpstreamRepository, now: float) -> float | None:
    """Return by how much the time between two checks is multiplied; None when the upstream is not to be checked."""
    longest = 1.0
    for client in source.sources.clients:
        factor = stretch(client.health.rate_limit, now)
        if factor is None:
            return None
        longest = max(longest, factor)
    return longest


def _is_wise(source: UpstreamRepository, entry: CacheEntry, now: float) -> bool:
    """Tell whether a check that nobody waits for has a chance, and the upstream's rate limit has room for it."""
    if is_resting(source):
        return False
    factor = stretch_of(source, now)
    if factor is None or factor == 1.0:
        return factor is not None
    return now - entry.checked_at >= factor * source.rule.freshness_of(entry.tag)
