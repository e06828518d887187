"""When a failing upstream is left alone, and when it is tried again."""

from __future__ import annotations

import pytest

from replicator.core.circuit_breaker import BreakerState, CircuitBreaker
from replicator.core.retry import Backoff

NO_JITTER = 0.999999


def broken(threshold: int = 3, now: float = 0.0) -> CircuitBreaker:
    """Return a breaker that has just opened, for 10 seconds at first and 40 at most."""
    breaker = CircuitBreaker(threshold, Backoff(initial=10.0, maximum=40.0))
    for _ in range(threshold):
        assert breaker.admit(now) == 0
        breaker.fail(now, NO_JITTER)
    return breaker


def test_lets_calls_through_until_so_many_failed_in_a_row() -> None:
    breaker = CircuitBreaker(threshold=3)
    for _ in range(2):
        assert breaker.admit(0.0) == 0
        breaker.fail(0.0, NO_JITTER)
        assert breaker.state(0.0) is BreakerState.CLOSED
    assert breaker.failures == 2
    breaker.fail(0.0, NO_JITTER)
    assert breaker.state(0.0) is BreakerState.OPEN
    assert breaker.failures == 3


def test_success_starts_the_count_again() -> None:
    breaker = CircuitBreaker(threshold=2)
    for _ in range(5):
        breaker.fail(0.0, NO_JITTER)
        breaker.succeed()
    assert breaker.state(0.0) is BreakerState.CLOSED
    assert breaker.failures == 0


def test_says_how_long_it_stays_open() -> None:
    breaker = broken()
    assert breaker.admit(4.0) == pytest.approx(6.0, abs=0.01)
    assert breaker.state(9.0) is BreakerState.OPEN


def test_admits_one_at_a_time_once_the_pause_is_over() -> None:
    breaker = broken()
    assert breaker.state(10.0) is BreakerState.HALF_OPEN
    assert breaker.admit(10.0) == 0
    assert breaker.admit(10.0) == 10.0
    breaker.leave()
    assert breaker.admit(10.0) == 0


def test_closes_when_the_one_that_tried_succeeds() -> None:
    breaker = broken()
    assert breaker.admit(10.0) == 0
    breaker.succeed()
    assert breaker.state(10.0) is BreakerState.CLOSED
    assert [breaker.admit(10.0) for _ in range(5)] == [0] * 5


def test_waits_longer_each_time_up_to_a_limit_and_short_again_after_a_success() -> None:
    breaker, now, pauses = broken(), 0.0, []
    for _ in range(4):
        now += breaker.admit(now)
        assert breaker.admit(now) == 0
        breaker.fail(now, NO_JITTER)
        pauses.append(round(breaker.admit(now)))
    assert pauses == [20, 40, 40, 40]
    breaker.succeed()
    for _ in range(3):
        breaker.fail(now, NO_JITTER)
    assert round(breaker.admit(now)) == 10


def test_one_that_tries_fails_alone_after_a_success_only_with_the_others() -> None:
    """A caller that was admitted before the breaker closed counts as one failure, not as a reason to open it."""
    breaker = broken()
    assert breaker.admit(10.0) == 0
    breaker.succeed()
    breaker.fail(10.0, NO_JITTER)
    assert breaker.state(10.0) is BreakerState.CLOSED


def test_jitter_spreads_the_pause_over_its_upper_half() -> None:
    breaker = CircuitBreaker(1, Backoff(initial=10.0, maximum=40.0))
    breaker.fail(0.0, 0.0)
    assert breaker.admit(0.0) == 5.0
