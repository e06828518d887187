"""Pages of listings: their sizes, their tokens, and what is no token."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.control_api.call import Call
from replicator.control_api.errors import EcrError
from replicator.control_api.input import Input
from replicator.control_api.pages import PageAsked, page_of, token_of
from replicator.core.principal import UNRESTRICTED

if TYPE_CHECKING:
    from replicator.control_api.services import EcrRegistry

keys = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=300)


def call(**members: Any) -> Call:
    return Call("ListImages", Input(members), UNRESTRICTED, cast("EcrRegistry", None))


@given(keys)
def test_a_token_leads_to_what_follows_its_key(key: str) -> None:
    assert page_of(call(nextToken=token_of(key), maxResults=7)) == PageAsked(key, 7)


def test_a_page_begins_at_the_start_and_has_a_size_by_itself() -> None:
    assert page_of(call()) == PageAsked("", 100)
    assert page_of(call(), default=25) == PageAsked("", 25)


@pytest.mark.parametrize(
    "token",
    [
        "",
        "nonsense",
        "====",
        "é",
        "a" * 5000,
        base64.b64encode(b"plain").decode(),
        token_of("a\0b"),
        token_of("a\nb"),
        "AA",
    ],
)
def test_what_no_answer_had_is_no_token(token: str) -> None:
    with pytest.raises(EcrError) as caught:
        page_of(call(nextToken=token))
    assert (caught.value.code, str(caught.value)) == (
        "InvalidParameterException",
        "Invalid parameter at 'nextToken' failed to satisfy constraint: 'Invalid token'",
    )


@given(st.text(max_size=100))
def test_no_token_breaks_it(token: str) -> None:
    try:
        page_of(call(nextToken=token))
    except EcrError as error:
        assert error.code == "InvalidParameterException"  # noqa: PT017 - most of them are refused


@given(st.sets(keys, max_size=30), st.integers(1, 10))
def test_pages_show_everything_once_and_end_without_a_token(entries: set[str], size: int) -> None:
    seen: list[str] = []
    token: str | None = ""
    while token is not None:
        asked = page_of(call(maxResults=size, **({"nextToken": token} if token else {})))
        listed = sorted(entry for entry in entries if entry > asked.after)[: size + 1]
        shown, token = asked.cut(listed, str)
        seen += shown
    assert seen == sorted(entries)
