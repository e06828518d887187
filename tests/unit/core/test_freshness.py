from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.cache_rules import CacheRule, FreshnessProfile
from replicator.core.digest import digest_of
from replicator.core.freshness import (
    FAILED_CHECK_PAUSE,
    PullPlan,
    TagMove,
    TagObservation,
    decide_move,
    is_rollback,
    plan_pull,
)
from replicator.core.names import Tag

DAY = 24 * 3600.0
NOW = 1_750_000_000.0
LATEST = Tag("latest")
OLD, NEW = digest_of(b"old"), digest_of(b"new")
BOUNDED = CacheRule("hub", "hub", stale_while_revalidate=2 * DAY, max_stale=10 * DAY)


@pytest.mark.parametrize(
    ("age", "failed_ago", "plan"),
    [
        (0, None, PullPlan.FRESH),
        (DAY - 1, None, PullPlan.FRESH),
        (DAY, None, PullPlan.SERVE_AND_CHECK),
        (3 * DAY - 1, None, PullPlan.SERVE_AND_CHECK),
        (3 * DAY, None, PullPlan.CHECK_FIRST),
        (10 * DAY - 1, None, PullPlan.CHECK_FIRST),
        (10 * DAY, None, PullPlan.REFUSE_STALE),
        # a check that failed a moment ago is not repeated, and makes nothing fresh
        (DAY - 1, 0, PullPlan.FRESH),
        (DAY, 0, PullPlan.SERVE),
        (5 * DAY, FAILED_CHECK_PAUSE - 1, PullPlan.SERVE),
        (5 * DAY, FAILED_CHECK_PAUSE, PullPlan.CHECK_FIRST),
        (10 * DAY, 0, PullPlan.REFUSE_STALE),
        # a clock that went back makes nothing fresh
        (-1, None, PullPlan.REFUSE_STALE),
        (2 * DAY, -1, PullPlan.SERVE_AND_CHECK),
    ],
)
def test_what_a_pull_of_a_cached_tag_does(age: float, failed_ago: float | None, plan: PullPlan) -> None:
    failed_at = None if failed_ago is None else NOW - failed_ago
    assert plan_pull(BOUNDED, LATEST, NOW - age, failed_at, NOW) is plan


@pytest.mark.parametrize(("age", "plan"), [(-1, PullPlan.CHECK_FIRST), (1000 * DAY, PullPlan.CHECK_FIRST)])
def test_without_a_bound_nothing_is_refused(age: float, plan: PullPlan) -> None:
    assert plan_pull(CacheRule("hub", "hub"), LATEST, NOW - age, None, NOW) is plan


def test_a_tags_own_profile_counts() -> None:
    rule = CacheRule("hub", "hub", freshness=(FreshnessProfile(("latest",), 60.0),))
    assert plan_pull(rule, LATEST, NOW - 60, None, NOW) is PullPlan.SERVE_AND_CHECK
    assert plan_pull(rule, Tag("1.0.0"), NOW - 60, None, NOW) is PullPlan.FRESH


def test_nothing_stays_fresh_when_every_pull_should_ask() -> None:
    rule = CacheRule("hub", "hub", fresh_for=0, stale_while_revalidate=0)
    assert plan_pull(rule, LATEST, NOW, None, NOW) is PullPlan.CHECK_FIRST


@given(
    age=st.floats(-1e9, 1e9),
    failed_ago=st.none() | st.floats(-1e9, 1e9),
    fresh_for=st.floats(0, 1e7),
    window=st.floats(0, 1e7),
    max_stale=st.none() | st.floats(0, 1e8),
)
def test_what_is_too_old_is_never_served_unchecked(
    age: float, failed_ago: float | None, fresh_for: float, window: float, max_stale: float | None
) -> None:
    rule = CacheRule("hub", "hub", fresh_for=fresh_for, stale_while_revalidate=window, max_stale=max_stale)
    failed_at = None if failed_ago is None else NOW - failed_ago
    plan = plan_pull(rule, LATEST, NOW - age, failed_at, NOW)
    exact = NOW - (NOW - age)
    if plan is PullPlan.FRESH:
        assert 0 <= exact < fresh_for
    elif plan is not PullPlan.REFUSE_STALE:
        assert max_stale is None or 0 <= exact < max_stale


@pytest.mark.parametrize(
    ("observed", "cool_down", "move"),
    [
        (TagObservation(OLD, OLD, NOW, True, True), 0.0, TagMove.CONFIRM),
        (TagObservation(OLD, OLD, NOW, True, False), DAY, TagMove.CONFIRM),
        (TagObservation(OLD, NEW, None, False, True), 0.0, TagMove.MOVE),
        (TagObservation(OLD, NEW, None, False, False), 0.0, TagMove.KEEP_IMMUTABLE),
        (TagObservation(OLD, NEW, None, False, True), DAY, TagMove.WAIT),
        (TagObservation(OLD, NEW, NOW - DAY + 1, False, True), DAY, TagMove.WAIT),
        (TagObservation(OLD, NEW, NOW - DAY, False, True), DAY, TagMove.MOVE),
        # what was served here before has been known for longer
        (TagObservation(OLD, NEW, NOW - 1, True, True), DAY, TagMove.MOVE),
        (TagObservation(OLD, NEW, NOW - 1, True, False), DAY, TagMove.KEEP_IMMUTABLE),
    ],
)
def test_what_becomes_of_a_tag(observed: TagObservation, cool_down: float, move: TagMove) -> None:
    assert decide_move(CacheRule("hub", "hub", cool_down=cool_down), observed, NOW) is move


@pytest.mark.parametrize(
    ("observed", "rollback"),
    [
        (TagObservation(OLD, NEW, NOW, True, True), True),
        (TagObservation(OLD, NEW, NOW, False, True), False),
        (TagObservation(OLD, OLD, NOW, True, True), False),
    ],
)
def test_going_back_to_what_was_here_before_is_a_rollback(observed: TagObservation, rollback: bool) -> None:
    assert is_rollback(observed) is rollback
