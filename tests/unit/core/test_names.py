from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidDigest, InvalidInput, InvalidName, InvalidReference, InvalidTag
from replicator.core.names import NodeId, parse_account, parse_node, parse_region, parse_repository, parse_tag
from replicator.core.reference import as_digest, as_tag, parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable

# The specification's grammar, written down once more and by someone else's rules (a regular expression with `$`).
REPOSITORY = re.compile(r"^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*\Z")
TAG = re.compile(r"^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    "name", ["a", "library/nginx", "a.b/c_d/e__f/g-h/i---j", "0", "a/b/c/d/e/f/g", "a" * 256, "blobs/manifests/tags"]
)
def test_repository_names(name: str) -> None:
    assert parse_repository(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/./b", "A", "a/B", "-a", "a-", "a_", "a..b", "a___b"),
        *("a._b", "a b", "a\n", "\na", "a\x00b", "a\\b", "a%2fb", "a:b", "é", "a" * 257, "a/" * 200 + "a", "ａ"),  # noqa: RUF001
    ],
)
def test_other_repository_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName):
        parse_repository(name)


@pytest.mark.parametrize("tag", ["latest", "v1.2-rc_3", "_", "_.-", "A" * 128, "0"])
def test_tags(tag: str) -> None:
    assert parse_tag(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", ".", "..", "-a", ".a", "a/b", "a b", "a:b", "a\n", "A" * 129, "é", "a\x00", "%61", "../../x", "a\\b"]
)
def test_other_tags_are_refused(tag: str) -> None:
    with pytest.raises(InvalidTag):
        parse_tag(tag)


alphabet = st.text(st.sampled_from("ab01._-/A\n%:é\x00\\"), max_size=12)


@given(st.one_of(st.text(), alphabet))
def test_names_are_what_the_grammar_says(text: str) -> None:
    for parse, grammar, error in ((parse_repository, REPOSITORY, InvalidName), (parse_tag, TAG, InvalidTag)):
        assert _accepts(parse, text, error) == bool(grammar.match(text) and len(text) <= 256)


def _accepts(parse: Callable[[str], str], text: str, refusal: type[InvalidInput]) -> bool:
    try:
        return parse(text) == text
    except refusal:
        return False


@pytest.mark.parametrize("text", ["a" * 254 + "!", "a-" * 127, "a." * 127, "-" * 250, "a/" * 127 + "_"])
def test_no_name_takes_long(text: str) -> None:
    started = time.process_time()
    for _ in range(100):
        with pytest.raises(InvalidName):
            parse_repository(text)
    assert time.process_time() - started < 1


def test_a_node_is_an_account_and_a_region() -> None:
    node = parse_node("123456789012/eu-west-1")
    assert node == NodeId(parse_account("123456789012"), parse_region("eu-west-1"))
    assert str(node) == "123456789012/eu-west-1"
    assert node < parse_node("123456789012/us-east-1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/",
        "123456789012",
        "123456789012/",
        "12345678901/eu",
        "1234567890123/eu",
        "123456789012/EU",
        "123456789012/eu/west",
        "123456789012/-eu",
        "12345678901a/eu",
        "\u06611234567890\u0661/eu",
        "123456789012/" + "a" * 41,
    ],
)
def test_other_nodes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_node(text)


@given(st.text())
def test_parsing_a_node_raises_nothing_else(text: str) -> None:
    with contextlib.suppress(InvalidInput):
        assert str(parse_node(text)) == text


def test_a_reference_is_a_tag_or_a_digest() -> None:
    tag, digest = parse_reference("latest"), parse_reference(DIGEST)
    assert (as_tag(tag), as_digest(tag)) == ("latest", None)
    assert (as_tag(digest), as_digest(digest)) == (None, DIGEST)


@pytest.mark.parametrize(("text", "error"), [("a/b", InvalidReference), ("", InvalidReference), ("a:b", InvalidDigest)])
def test_other_references_are_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        parse_reference(text)


@given(st.one_of(st.text(), alphabet))
def test_every_reference_is_exactly_one_of_both(text: str) -> None:
    try:
        reference = parse_reference(text)
    except (InvalidReference, InvalidDigest):
        return
    assert reference == text
    assert (as_tag(reference) is None) != (as_digest(reference) is None)
