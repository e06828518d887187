from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidInput, LoopDetected
from replicator.core.names import parse_node
from replicator.registry_api.loops import MAX_HOPS, LoopGuard

NODE = parse_node("111122223333/us-east-1")
OWN = "1.1 replicator-0a1b2c"
GUARD = LoopGuard(NODE, OWN)


def test_a_request_of_a_client_has_passed_nobody() -> None:
    assert GUARD.admit([]) == ()


def test_what_others_said_is_passed_on_without_comments() -> None:
    headers = ["1.1 squid (squid/5.7, on a box)", "1.0 fred:80,HTTP/2 replicator-other"]
    assert GUARD.admit(headers) == ("1.1 squid", "1.0 fred:80", "HTTP/2 replicator-other")


@pytest.mark.parametrize("header", [OWN, OWN.upper(), f"1.1 other, {OWN}", f"{OWN} (a comment), 1.1 other"])
def test_a_request_that_passed_this_node_is_refused(header: str) -> None:
    with pytest.raises(LoopDetected, match="come back to node 111122223333/us-east-1"):
        GUARD.admit([header])


def test_a_request_that_passed_too_many_is_refused() -> None:
    hops = [f"1.1 node-{number}" for number in range(MAX_HOPS)]
    assert GUARD.admit(hops) == tuple(hops)
    with pytest.raises(LoopDetected, match="over more than 8 others"):
        GUARD.admit([*hops, "1.1 one-more"])


@pytest.mark.parametrize("header", ["nonsense", "1.1 a b", "1.1 \udcff", ",,,", "(1.1 comment)", "1.1 a\x00b"])
def test_what_is_no_entry_is_not_passed_on(header: str) -> None:
    assert GUARD.admit([header]) == ()


def test_a_header_too_long_to_read_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 4096 characters"):
        GUARD.admit(["1.1 " + "a" * 5000])


def test_a_node_that_adds_no_entry_of_its_own_counts_only() -> None:
    assert LoopGuard(NODE, None).admit([OWN]) == (OWN,)


@given(st.lists(st.text(max_size=200), max_size=20))
def test_no_header_raises_anything_else(headers: list[str]) -> None:
    try:
        entries = GUARD.admit(headers)
    except (LoopDetected, InvalidInput):
        return
    for entry in entries:
        assert all("!" <= one <= "~" and one != "," for one in entry if one not in " \t"), "RFC 9110 allows a tab"
