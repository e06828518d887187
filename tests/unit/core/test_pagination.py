from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidPagination
from replicator.core.pagination import MAX_PAGE_SIZE, Page, parse_page


@pytest.mark.parametrize(
    ("n", "last", "page"),
    [
        (None, None, Page(MAX_PAGE_SIZE, None)),
        (None, "", Page(MAX_PAGE_SIZE, None)),
        ("5", None, Page(5, None)),
        ("0", "v1", Page(0, "v1")),
        ("0005", "v1", Page(5, "v1")),
        ("1001", None, Page(MAX_PAGE_SIZE, None)),
        (str(2**31), None, Page(MAX_PAGE_SIZE, None)),
        (str(2**63), None, Page(MAX_PAGE_SIZE, None)),
        ("9" * 20, None, Page(MAX_PAGE_SIZE, None)),
    ],
)
def test_pages(n: str | None, last: str | None, page: Page) -> None:
    assert parse_page(n, last) == page


def test_the_default_size_is_the_caller_s() -> None:
    assert parse_page(None, None, 100) == Page(100)


@pytest.mark.parametrize(
    "n", ["", "-1", "+1", "abc", "1.0", "1e3", " 1", "1 ", "1_0", "²", "٣", "0x10", "9" * 40, "9" * 100_000]
)
def test_other_sizes_are_refused(n: str) -> None:
    with pytest.raises(InvalidPagination) as raised:
        parse_page(n, None)
    assert len(str(raised.value)) < 200


@pytest.mark.parametrize("last", ["\x00", "a\nb", "a\r\nX: y", "\ud800", "x" * 513])
def test_other_positions_are_refused(last: str) -> None:
    with pytest.raises(InvalidPagination):
        parse_page(None, last)


@given(st.one_of(st.none(), st.text()), st.one_of(st.none(), st.text()))
def test_parsing_raises_nothing_else(n: str | None, last: str | None) -> None:
    try:
        page = parse_page(n, last)
    except InvalidPagination:
        return
    assert 0 <= page.size <= MAX_PAGE_SIZE
