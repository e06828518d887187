from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.config.units import (
    format_duration,
    format_size,
    parse_duration,
    parse_size,
    positive_duration,
    positive_size,
    shown,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (123, 123),
        ("123", 123),
        ("1B", 1),
        ("500MB", 500_000_000),
        ("10GiB", 10 * 2**30),
        ("10 GiB", 10 * 2**30),
        ("1.5GiB", 3 * 2**29),
        ("4kib", 4096),
        ("2TB", 2 * 10**12),
    ],
)
def test_sizes_are_bytes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "-1", "1e3", "10GIGA", "1,5GB", "٣MB", True, None, 1.5, [], "9" * 41, "9000000000TiB", "1\n"]
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a size such as 10GiB, 500MB or 4096, got "):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("24h", 86400), ("7d", 604800), ("5m", 300), ("1h30m", 5400), ("250ms", 0.25), ("1.5h", 5400)],
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "30", 30, "s", "-1s", "1h 30m", "1 h", "5y", None, True, "1000000000d", "5s\n"])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as 30s, 24h or 1h30m, got "):
        parse_duration(text)


def test_zero_is_no_limit_and_no_time() -> None:
    with pytest.raises(ValueError, match="above zero, got '0MB'"):
        positive_size("0MB")
    with pytest.raises(ValueError, match="above zero, got '0s'"):
        positive_duration("0s")


@given(st.integers(0, 2**62))
def test_a_written_size_reads_back(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 10**9))
def test_a_written_duration_reads_back(milliseconds: int) -> None:
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.text(max_size=50))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (parse_size, parse_duration):
        try:
            value: float | None = parse(text)
        except ValueError:
            value = None
        assert value is None or value >= 0


def test_messages_quote_briefly_and_never_the_inside_of_a_section() -> None:
    assert shown({"password": "x"}) == "a mapping"
    assert shown(["x"]) == "a list"
    assert shown(None) == "nothing"
    assert shown(True) == "true"
    assert len(shown("x" * 1000)) == 60
