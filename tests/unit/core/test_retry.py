from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.retry import Backoff, parse_retry_after
from replicator.core.throttle import TokenBucket


@pytest.mark.parametrize(("attempt", "step"), [(-5, 1), (0, 1), (1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (10**9, 60)])
def test_the_wait_doubles_up_to_the_maximum(attempt: int, step: float) -> None:
    backoff = Backoff(initial=1, maximum=60)
    assert backoff.delay(attempt, 0) == step / 2
    assert step / 2 < backoff.delay(attempt, 0.999) < step


@given(
    st.integers(min_value=-5, max_value=10**6),
    st.floats(min_value=0, max_value=1, exclude_max=True),
    st.none() | st.floats(min_value=0, max_value=1e6),
)
def test_the_wait_is_bounded_and_never_shorter_than_asked(attempt: int, jitter: float, asked: float | None) -> None:
    delay = Backoff(initial=0.5, maximum=30).delay(attempt, jitter, asked)
    assert 0.25 <= delay <= max(30, asked or 0)
    assert delay >= (asked or 0)


@pytest.mark.parametrize(
    ("header", "date", "seconds"),
    [
        (None, None, None),
        (None, 150.0, None),
        ("0", None, 0.0),
        (" 120 ", None, 120.0),
        ("120", 999.0, 120.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 150.0, 50.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 50.0, 0.0),
        ("soon", None, None),
        ("-5", None, None),
        ("1.5", None, None),
        ("9" * 5000, None, None),
        ("\u0661", None, None),
    ],
)
def test_what_retry_after_says(header: str | None, date: float | None, seconds: float | None) -> None:
    assert parse_retry_after(header, 100.0, date) == seconds


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(rate=2, burst=3, tokens=3, updated=10)
    assert [bucket.take(10) for _ in range(4)] == [0, 0, 0, 0.5]
    assert bucket.take(10.25) == 0.25
    assert bucket.take(10.5) == 0
    assert [bucket.take(1000) for _ in range(4)] == [0, 0, 0, 0.5]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = TokenBucket(rate=1, burst=1, tokens=0, updated=100)
    assert bucket.take(50) == 1
    assert bucket.take(50.5) == 0.5


@given(
    st.floats(min_value=0.01, max_value=1000),
    st.integers(min_value=1, max_value=50),
    st.lists(st.floats(min_value=0, max_value=10), max_size=100),
)
def test_no_interval_has_more_than_burst_and_rate_allow(rate: float, burst: int, waits: list[float]) -> None:
    bucket = TokenBucket(rate, burst, burst, 0.0)
    now, taken = 0.0, 0
    for wait in waits:
        now += wait
        left = bucket.take(now)
        assert left >= 0
        taken += left == 0
        assert taken <= burst + rate * now + 1e-6


@given(st.floats(min_value=0.01, max_value=100))
def test_whoever_waits_as_told_is_let_in(rate: float) -> None:
    bucket = TokenBucket(rate, 1, 0, 0.0)
    assert bucket.take(bucket.take(0.0) + 1e-6) == 0
