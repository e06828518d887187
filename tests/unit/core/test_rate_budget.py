"""Spending a rate limit: checks get rarer as it runs low, and stop before misses have to."""

from __future__ import annotations

import pytest

from replicator.core.rate_budget import LOW, RESERVED, RateLimit, stretch

SEEN = 1_750_000_000.0


def left(remaining: int, limit: int | None = 100, window: int | None = 600) -> RateLimit:
    return RateLimit(remaining, limit, window, SEEN)


@pytest.mark.parametrize(
    ("limit", "passed", "share"),
    [
        (left(76), 0, 0.76),
        (left(0), 599, 0.0),
        (left(0), 600, 1.0),  # a new window has begun
        (left(0), -1, 1.0),  # the clock went back: nothing is known
        (left(150), 0, 1.0),
        (left(5, None), 0, 1.0),  # some are left, of how many is not known
        (left(0, None), 0, 0.0),
        (left(0, 0), 0, 0.0),
        (left(0, 100, None), 6 * 3600 - 1, 0.0),
        (left(0, 100, None), 6 * 3600, 1.0),
        (left(0, 100, 0), 0, 0.0),  # a window of no length is none that was stated
    ],
)
def test_share_left_is_believed_until_the_window_has_passed(limit: RateLimit, passed: float, share: float) -> None:
    assert limit.share_left(SEEN + passed) == share


@pytest.mark.parametrize("limit", [None, left(100), left(50), left(3, None)])
def test_checks_are_not_stretched_while_there_is_enough_or_nothing_is_known(limit: RateLimit | None) -> None:
    assert stretch(limit, SEEN) == 1.0


def test_checks_are_stretched_more_the_less_is_left() -> None:
    factors = [stretch(left(remaining), SEEN) or 0.0 for remaining in (49, 40, 30, 20, 10)]
    assert factors == sorted(factors)
    assert factors[0] > 1.0
    assert factors[-1] == pytest.approx(8.0)


@pytest.mark.parametrize("remaining", [9, 1, 0])
def test_checks_stop_when_what_is_left_is_for_misses(remaining: int) -> None:
    assert stretch(left(remaining), SEEN) is None


def test_reserve_is_the_smaller_share() -> None:
    assert 0 < RESERVED < LOW < 1
