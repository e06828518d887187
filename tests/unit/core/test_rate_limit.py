from __future__ import annotations

import pytest

from replicator.core.errors import Throttled
from replicator.core.rate_limit import RateLimit
from tests.support.clock import FakeClock


def test_a_caller_gets_its_burst_and_is_told_when_to_come_back() -> None:
    clock = FakeClock()
    limit = RateLimit(0.5, 2, clock)
    limit.admit("a")
    limit.admit("a")
    with pytest.raises(Throttled) as raised:
        limit.admit("a")
    assert raised.value.retry_after == 2
    clock.advance(2)
    limit.admit("a")


def test_callers_do_not_share() -> None:
    limit = RateLimit(1, 1, FakeClock())
    limit.admit("a")
    limit.admit("b")
    with pytest.raises(Throttled):
        limit.admit("a")


def test_a_burst_is_at_least_one() -> None:
    limit = RateLimit(1, 0, FakeClock())
    limit.admit("a")
    with pytest.raises(Throttled):
        limit.admit("a")


def test_only_so_many_callers_are_remembered_the_last_seen_longest() -> None:
    limit = RateLimit(1, 1, FakeClock())
    limit.admit("first")
    with pytest.raises(Throttled):
        limit.admit("first")
    for number in range(9_999):
        limit.admit(str(number))
    with pytest.raises(Throttled):
        limit.admit("first")
    for number in range(10_000):
        limit.admit(f"other-{number}")
    limit.admit("first")
    assert len(limit._buckets) == 10_000
