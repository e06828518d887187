from __future__ import annotations

import contextlib

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from replicator.core.byte_range import ByteRange, parse_chunk_range, parse_range, session_range
from replicator.core.errors import InvalidUpload, RangeNotSatisfiable

numbers = st.integers(min_value=0, max_value=40)


def wanted(header: str, size: int) -> list[int] | None:
    """Which positions a single range means (RFC 9110 §14.1.2), position by position; None: it cannot be satisfied."""
    first, _, last = header.removeprefix("bytes=").partition("-")
    if not first:
        positions = [at for at in range(size) if at >= size - int(last)]
    else:
        positions = [at for at in range(size) if int(first) <= at <= (int(last) if last else size)]
    return positions or None


@given(st.one_of(st.none(), numbers), st.one_of(st.none(), numbers), numbers)
def test_a_range_means_the_positions_it_names(first: int | None, last: int | None, size: int) -> None:
    assume(first is not None or last is not None)
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    positions = wanted(header, size)
    if positions is None:
        with pytest.raises(RangeNotSatisfiable) as raised:
            parse_range(header, size)
        assert raised.value.size == size
        return
    part = parse_range(header, size)
    assert part is not None
    assert list(range(part.start, part.stop)) == positions
    assert part.content_range(size) == f"bytes {positions[0]}-{positions[-1]}/{size}"


@pytest.mark.parametrize(
    "header",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "bytes=1-2,3-4", "bytes=--1", "bytes=-1-2"),
        *("items=0-1", "bytes 0-1", "bytes=0-1;", "bytes=+1-2", "bytes=1_0-20", "bytes=0x1-2", "bytes=\u0660-\u0661"),
        *("bytes=0-" + "9" * 20, "bytes=" + "9" * 5000 + "-", "bytes=0-0\x00"),
    ],
)
def test_what_is_no_single_range_is_ignored(header: str) -> None:
    assert parse_range(header, 1000) is None


def test_white_space_is_allowed() -> None:
    assert parse_range(" bytes = 1 - 2 ", 10) == ByteRange(1, 2)


def test_huge_numbers_are_clipped() -> None:
    assert parse_range("bytes=0-" + "9" * 19, 10) == ByteRange(0, 10)
    assert parse_range("bytes=-" + "9" * 19, 10) == ByteRange(0, 10)


@given(st.text(), st.integers(min_value=0, max_value=2**63))
def test_parsing_raises_nothing_else(header: str, size: int) -> None:
    try:
        part = parse_range(header, size)
    except RangeNotSatisfiable:
        return
    assert part is None or (0 <= part.start < part.stop <= size)


@given(
    numbers, numbers, st.sampled_from(["{}-{}", "bytes {}-{}", "bytes={}-{}", " {}-{} ", "{}-{}/*", "bytes {}-{}/99"])
)
def test_a_chunk_s_place(first: int, last: int, form: str) -> None:
    header = form.format(first, last)
    if last < first:
        with pytest.raises(InvalidUpload):
            parse_chunk_range(header)
    else:
        assert parse_chunk_range(header) == ByteRange(first, last - first + 1)


@pytest.mark.parametrize(
    "header",
    [
        "",
        "-",
        "1-",
        "-1",
        "a-b",
        "0-1,2-3",
        "bytes */5",
        "0-" + "9" * 20,
        "\u0660-\u0661",
        "0--1",
        "0-1\x00",
        "0-1/",
        "x" * 9999,
    ],
)
def test_other_places_are_refused(header: str) -> None:
    with pytest.raises(InvalidUpload) as raised:
        parse_chunk_range(header)
    assert len(str(raised.value)) < 200


@given(st.text())
def test_parsing_a_place_raises_nothing_else(header: str) -> None:
    with contextlib.suppress(InvalidUpload):
        assert parse_chunk_range(header).length > 0


@pytest.mark.parametrize(("offset", "text"), [(0, "0-0"), (1, "0-0"), (2, "0-1"), (2**40, f"0-{2**40 - 1}")])
def test_a_session_s_range(offset: int, text: str) -> None:
    assert session_range(offset) == text
