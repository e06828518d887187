from __future__ import annotations

import fnmatch
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.digest import digest_of
from replicator.core.mutability import MutabilityRule, TagMutability, matches_wildcard
from replicator.core.names import Tag

ONE, OTHER = digest_of(b"one"), digest_of(b"other")
FILTERS = ("dev-*", "latest")


@pytest.mark.parametrize(
    ("setting", "excluded", "others"),
    [
        (TagMutability.MUTABLE, True, True),
        (TagMutability.IMMUTABLE, False, False),
        (TagMutability.MUTABLE_WITH_EXCLUSION, False, True),
        (TagMutability.IMMUTABLE_WITH_EXCLUSION, True, False),
    ],
)
def test_which_tags_may_move(setting: TagMutability, excluded: bool, others: bool) -> None:
    """The table of Amazon ECR, "Preventing image tags from being overwritten"."""
    rule = MutabilityRule(setting, FILTERS)
    for tag, movable in (("dev-1", excluded), ("latest", excluded), ("v1", others), ("Latest", others)):
        assert rule.is_mutable(Tag(tag)) is movable
        assert rule.permits(Tag(tag), ONE, OTHER) is movable
        assert rule.permits(Tag(tag), None, OTHER)
        assert rule.permits(Tag(tag), ONE, ONE)


def test_tags_are_mutable_by_default() -> None:
    assert MutabilityRule().is_mutable(Tag("latest"))


@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c", False),
        ("a*b*c", "abc", True),
        ("ab*ba", "aba", False),
        ("*a*a*", "a", False),
        ("*", "", True),
        ("", "", True),
        ("", "a", False),
    ],
)
def test_wildcards(pattern: str, text: str, matches: bool) -> None:
    assert matches_wildcard(pattern, text) is matches


letters = st.text(st.sampled_from("ab*?[.\n"), max_size=8)


@given(letters, letters)
def test_only_the_star_is_special(pattern: str, text: str) -> None:
    literal = re.sub(r"([?\[])", r"[\1]", pattern)
    assert matches_wildcard(pattern, text) == fnmatch.fnmatchcase(text, literal)


@given(st.text(), st.text(), st.text())
def test_a_star_is_any_text(head: str, middle: str, tail: str) -> None:
    star = (head + "*" + tail).replace("**", "*")
    assert matches_wildcard(star, head + middle + tail)


@pytest.mark.parametrize("pattern", ["*a" * 64, "a*" * 64 + "b", "*" * 128, "*a*" * 40 + "b"])
def test_no_pattern_takes_long(pattern: str) -> None:
    started = time.process_time()
    for _ in range(100):
        matches_wildcard(pattern, "a" * 255)
    assert time.process_time() - started < 1
