from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.lag import BUCKET, WINDOWS, LagCounts, LagHistory, burn_rate
from replicator.core.replication import DEFAULT_LAG_TARGET

OBJECTIVE = 60.0
DAY = 86_400.0
Noted = tuple[float, float]  # seconds since the note before, lag
noted = st.lists(st.tuples(st.floats(0, 1500), st.floats(0, 2 * OBJECTIVE)), max_size=60)


def history_of(steps: list[Noted]) -> tuple[LagHistory, list[Noted], float]:
    """Return a history, the (time, lag) pairs it was told, and the time of the last."""
    history, told, now = LagHistory(OBJECTIVE), [], DAY
    for pause, lag in steps:
        now += pause
        history.note(now, lag)
        told.append((now, lag))
    return history, told, now


def within(told: list[Noted], now: float, window: float) -> LagCounts:
    recent = [lag for at, lag in told if at >= now - window]
    met = sum(lag <= OBJECTIVE for lag in recent)
    return LagCounts(met, len(recent) - met)


@given(noted, st.floats(0, 5000), st.sampled_from(sorted(WINDOWS.values())))
def test_a_window_holds_every_image_of_its_time_and_at_most_a_bucket_more(
    steps: list[Noted], later: float, window: float
) -> None:
    history, told, last = history_of(steps)
    now = last + later
    found = history.counts(now, window)
    least, most = within(told, now, window), within(told, now, window + BUCKET)
    assert least.met <= found.met <= most.met
    assert least.missed <= found.missed <= most.missed


@given(noted)
def test_memory_is_bounded_however_many_images_there_are(steps: list[Noted]) -> None:
    history, _, _ = history_of(steps * 20)
    assert len(history._buckets) <= max(WINDOWS.values()) / BUCKET + 2


def test_the_bound_is_reached_and_held() -> None:
    history = LagHistory(OBJECTIVE)
    for second in range(20_000):
        history.note(DAY + second, 1.0)
    assert len(history._buckets) == max(WINDOWS.values()) / BUCKET + 1


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))
def test_burn_lies_between_nothing_and_everything_missed(met: int, missed: int, overdue: int) -> None:
    counts = LagCounts(met, missed).with_overdue(overdue)
    burn = burn_rate(counts)
    assert -1e-9 <= burn <= 1 / (1 - DEFAULT_LAG_TARGET) + 1e-9
    assert (burn == 0) == (missed + overdue == 0)
    assert burn_rate(counts.with_overdue(1)) >= burn


@pytest.mark.parametrize(
    ("counts", "burn"),
    [
        (LagCounts(0, 0), 0.0),
        (LagCounts(100, 0), 0.0),
        (LagCounts(99, 1), 1.0),
        (LagCounts(98, 2), 2.0),
        (LagCounts(0, 5), 100.0),
        (LagCounts(0, 0).with_overdue(1), 100.0),
    ],
)
def test_burn_is_the_share_missed_over_the_share_that_may_be(counts: LagCounts, burn: float) -> None:
    assert burn_rate(counts) == pytest.approx(burn)


def test_another_target_allows_another_share() -> None:
    assert burn_rate(LagCounts(9, 1), target=0.9) == pytest.approx(1.0)


def test_exactly_the_objective_is_in_time() -> None:
    history = LagHistory(OBJECTIVE)
    history.note(DAY, OBJECTIVE)
    history.note(DAY, OBJECTIVE + 0.001)
    assert history.counts(DAY, 300.0) == LagCounts(1, 1)


def test_what_is_older_than_a_window_no_longer_counts() -> None:
    history = LagHistory(OBJECTIVE)
    history.note(DAY, 2 * OBJECTIVE)
    assert history.counts(DAY + 299, 300.0).missed == 1
    assert history.counts(DAY + 300 + BUCKET, 300.0) == LagCounts()
    assert history.counts(DAY + 3599, 3600.0).missed == 1
    assert history.counts(DAY + 3600 + BUCKET, 3600.0) == LagCounts()
