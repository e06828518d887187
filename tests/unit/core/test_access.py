from __future__ import annotations

import pytest

from replicator.core.access import (
    ALL_USER_ACTIONS,
    UNRESTRICTED,
    Action,
    Grant,
    Principal,
    PrincipalKind,
    node_principal,
)
from replicator.core.names import RepositoryName, parse_node

A, AB = RepositoryName("team-a/api"), RepositoryName("team-ab/api")


@pytest.mark.parametrize(
    ("pattern", "repository", "allowed"),
    [
        ("*", A, True),
        ("team-a/*", A, True),
        ("team-a/*", AB, False),
        ("team-a*", AB, True),
        ("*/api", A, True),
        ("team-a/api", A, True),
        ("team-a", A, False),
        ("TEAM-A/*", A, False),
        ("team.a/*", A, False),
    ],
)
def test_a_grant_covers_what_its_patterns_match(pattern: str, repository: RepositoryName, allowed: bool) -> None:
    grant = Grant(frozenset({Action.PULL}), (pattern,))
    assert grant.allows(Action.PULL, repository) is allowed
    assert not grant.allows(Action.PUSH, repository)


def test_nothing_is_allowed_that_no_grant_allows() -> None:
    nobody = Principal("nobody", PrincipalKind.USER)
    assert not any(nobody.may(action, A) for action in Action)
    assert not Grant(frozenset({Action.PULL}), ()).allows(Action.PULL, A)


def test_one_grant_is_enough() -> None:
    grants = (Grant(frozenset({Action.PULL})), Grant(frozenset({Action.PUSH}), ("team-a/*",)))
    user = Principal("user", PrincipalKind.USER, grants)
    assert [user.may(action, A) for action in (Action.PULL, Action.PUSH, Action.DELETE)] == [True, True, False]
    assert not user.may(Action.PUSH, AB)


def test_an_open_node_lets_everybody_do_what_users_do() -> None:
    assert {action for action in Action if UNRESTRICTED.may(action, A)} == ALL_USER_ACTIONS


def test_a_node_reads_and_nothing_else() -> None:
    node = parse_node("1" * 12 + "/eu")
    peer = node_principal(node)
    assert {action for action in Action if peer.may(action, A)} == {Action.PULL}
    assert (peer.name, peer.kind, peer.node) == (str(node), PrincipalKind.NODE, node)
