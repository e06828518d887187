"""What to do with a cached tag: serve it, serve it and check behind the puller's back, check first, or refuse.

                     checked_at + fresh_for           + stale_while_revalidate
    ------ FRESH ------|------ SERVE_AND_CHECK ------|------ CHECK_FIRST ------->
                                                              (bounded wait; on failure the cached image)

A tag that was not confirmed for `max_stale` is `REFUSE_STALE` unless a check succeeds now. All times are Unix seconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.core.cache_rules import CacheRule
    from replicator.core.digest import Digest
    from replicator.core.names import Tag

FAILED_CHECK_PAUSE = 30.0
"""Seconds after a failed check during which a due tag is served without asking again."""


class PullPlan(enum.StrEnum):
    """What a pull of a cached tag does."""

    FRESH = "fresh"
    SERVE = "serve"
    """Stale, but a check failed a moment ago: serve what is here and ask nobody."""
    SERVE_AND_CHECK = "serve-and-check"
    CHECK_FIRST = "check-first"
    REFUSE_STALE = "refuse-stale"
    """Too old to be served without a check: check now, and refuse when that fails."""


def plan_pull(rule: CacheRule, tag: Tag, checked_at: float, failed_at: float | None, now: float) -> PullPlan:
    """Return what to do with a tag that its upstream confirmed at `checked_at`.

    A check that failed at `failed_at` is not repeated at once, but does not make the tag fresh either. A clock that was
    set back makes a tag due, never fresh for longer.
    """
    age = now - checked_at
    if 0 <= age < rule.freshness_of(tag):
        return PullPlan.FRESH
    if is_too_old(rule, checked_at, now):
        return PullPlan.REFUSE_STALE
    if has_failed_lately(failed_at, now):
        return PullPlan.SERVE
    if 0 <= age < rule.freshness_of(tag) + rule.stale_while_revalidate:
        return PullPlan.SERVE_AND_CHECK
    return PullPlan.CHECK_FIRST


def is_too_old(rule: CacheRule, checked_at: float, now: float) -> bool:
    """Tell whether what was confirmed at `checked_at` must not be served any more unless it is confirmed again."""
    return rule.max_stale is not None and not 0 <= now - checked_at < rule.max_stale


def has_failed_lately(failed_at: float | None, now: float) -> bool:
    """Tell whether a check failed a moment ago, so that the next one can wait."""
    return failed_at is not None and 0 <= now - failed_at < FAILED_CHECK_PAUSE


class TagMove(enum.StrEnum):
    """What a check decides about a tag whose upstream digest is known."""

    CONFIRM = "confirm"
    """The upstream has what is here."""
    MOVE = "move"
    WAIT = "wait"
    """The upstream's digest is too new to be served; the previous one stays."""
    KEEP_IMMUTABLE = "keep-immutable"
    """The tag must not move here; the difference is reported."""


@dataclass(frozen=True, slots=True)
class TagObservation:
    """What a check saw: the cached digest, the upstream's, and since when that one is known for this tag.

    `seen_since` is None for a digest that was never seen before; `was_served` tells that the tag pointed to it here in
    the past.
    """

    cached: Digest
    upstream: Digest
    seen_since: float | None
    was_served: bool
    is_mutable: bool


def decide_move(rule: CacheRule, observed: TagObservation, now: float) -> TagMove:
    """Return what becomes of a cached tag.

    A digest that the tag had here before needs no cool-down: it has been known for longer.
    """
    if observed.upstream == observed.cached:
        return TagMove.CONFIRM
    if not observed.is_mutable:
        return TagMove.KEEP_IMMUTABLE
    seen_since = now if observed.seen_since is None else observed.seen_since
    if not observed.was_served and now - seen_since < rule.cool_down:
        return TagMove.WAIT
    return TagMove.MOVE


def is_rollback(observed: TagObservation) -> bool:
    """Tell whether the upstream went back to a digest that this tag had here before."""
    return observed.upstream != observed.cached and observed.was_served
