from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.policy_matching import matches_pattern


def naive(pattern: str, text: str) -> bool:
    """Try every way to match; for short patterns only."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(naive(pattern[1:], text[n:]) for n in range(len(text) + 1))
    return bool(text) and pattern[0] in {"?", text[0]} and naive(pattern[1:], text[1:])


@given(st.text("ab?*", max_size=7), st.text("ab?*", max_size=7))
def test_wildcards_match_as_they_are_defined(pattern: str, text: str) -> None:
    assert matches_pattern(pattern, text) is naive(pattern, text)


@given(st.text("ab/:?*", max_size=12), st.text("ab/:", max_size=20))
def test_wildcards_match_as_regular_expressions_do(pattern: str, text: str) -> None:
    expression = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in pattern)
    assert matches_pattern(pattern, text) is bool(re.fullmatch(expression, text, re.DOTALL))


@pytest.mark.parametrize("pattern", ["*a" * 5000, "*?a" * 3000 + "b", "*" * 10_000 + "b", "?" * 5000 + "*" * 5000])
def test_no_pattern_takes_long(pattern: str) -> None:
    started = time.process_time()
    assert not matches_pattern(pattern, "a" * 2000)
    assert time.process_time() - started < 0.5
