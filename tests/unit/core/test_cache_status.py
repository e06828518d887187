from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.cache_status import CacheResult, PullTrace, render_age, render_cache_status

NODE = "111122223333/eu"
NAME = '"replicator 111122223333/eu"'


@pytest.mark.parametrize(
    ("trace", "rendered"),
    [
        (PullTrace(), None),
        (PullTrace(CacheResult.HIT), f"{NAME}; hit"),
        (PullTrace(CacheResult.HIT, ttl=3600.9), f"{NAME}; hit; ttl=3600"),
        (
            PullTrace(CacheResult.STALE, ttl=-119.5, error="hub: cannot connect"),
            f'{NAME}; hit; ttl=-120; detail="hub: cannot connect"',
        ),
        (PullTrace(CacheResult.REVALIDATED, ttl=60.0, status=200), f"{NAME}; fwd=stale; fwd-status=200; ttl=60"),
        (
            PullTrace(CacheResult.MISS, status=200, collapsed=True),
            f"{NAME}; fwd=uri-miss; fwd-status=200; stored; collapsed",
        ),
        (PullTrace(CacheResult.MISS), f"{NAME}; fwd=uri-miss; stored"),
        (PullTrace(CacheResult.MISS, status=200, stored=False), f"{NAME}; fwd=uri-miss; fwd-status=200"),
        (PullTrace(CacheResult.MISS, status=404), f"{NAME}; fwd=uri-miss; fwd-status=404"),
        (PullTrace(CacheResult.MISS, status=200, was_cached=True), f"{NAME}; fwd=stale; fwd-status=200; stored"),
        (PullTrace(CacheResult.STALE, was_cached=True), f"{NAME}; hit"),
        (
            PullTrace(CacheResult.ERROR, status=429, error="hub: slow down"),
            f'{NAME}; fwd=uri-miss; fwd-status=429; detail="hub: slow down"',
        ),
        (PullTrace(CacheResult.NEGATIVE, error="hub: absent"), f'{NAME}; hit; detail="NEGATIVE"'),
        # what was not asked for this pull has no status
        (PullTrace(CacheResult.HIT, status=200), f"{NAME}; hit"),
    ],
)
def test_cache_status(trace: PullTrace, rendered: str | None) -> None:
    assert render_cache_status(NODE, trace) == rendered


@given(st.text())
def test_detail_is_a_string_of_structured_fields(error: str) -> None:
    rendered = render_cache_status(NODE, PullTrace(CacheResult.STALE, error=error))
    assert rendered is not None
    assert rendered.isascii()
    assert rendered.isprintable()
    detail = rendered.removeprefix(f"{NAME}; hit").removeprefix('; detail="').removesuffix('"')
    assert '"' not in detail.replace("\\\\", "").replace('\\"', "")
    assert len(detail) <= 400


@pytest.mark.parametrize(("age", "rendered"), [(None, None), (0.0, "0"), (59.9, "59"), (-3.0, "0")])
def test_age_is_whole_seconds(age: float | None, rendered: str | None) -> None:
    assert render_age(PullTrace(age=age)) == rendered


def test_note_says_how_and_from_where() -> None:
    trace = PullTrace(error="kept")
    trace.note(CacheResult.MISS, "docker-hub", "hub")
    assert trace == PullTrace(CacheResult.MISS, "docker-hub", "hub", error="kept")
