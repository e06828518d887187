from __future__ import annotations

import pytest

from replicator.core.actions import Action
from replicator.core.names import RepositoryName, parse_node
from replicator.core.principal import UNRESTRICTED, Principal, PrincipalKind, node_principal
from replicator.core.rights import ACTIONS_OF, Grant, Right, policies_of

A, AB = RepositoryName("team-a/api"), RepositoryName("team-ab/api")


def user(*grants: Grant) -> Principal:
    return Principal("user", PrincipalKind.USER, policies_of(grants))


def allowed(principal: Principal, repository: RepositoryName) -> set[Action]:
    return {action for action in Action if principal.may(action, repository)}


@pytest.mark.parametrize(
    ("pattern", "repository", "covered"),
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
@pytest.mark.parametrize("right", list(Right))
def test_a_grant_is_the_actions_of_its_rights_where_its_patterns_match(
    pattern: str, repository: RepositoryName, covered: bool, right: Right
) -> None:
    wanted = ACTIONS_OF[right] if covered else set()
    assert allowed(user(Grant(frozenset({right}), (pattern,))), repository) == wanted


def test_nothing_is_allowed_that_no_grant_allows() -> None:
    assert allowed(user(), A) == set()
    assert allowed(user(Grant(frozenset({Right.PULL}), ())), A) == set()


def test_one_grant_is_enough() -> None:
    ann = user(Grant(frozenset({Right.PULL})), Grant(frozenset({Right.PUSH}), ("team-a/*",)))
    assert allowed(ann, A) == ACTIONS_OF[Right.PULL] | ACTIONS_OF[Right.PUSH]
    assert allowed(ann, AB) == ACTIONS_OF[Right.PULL]


def test_the_rights_are_apart() -> None:
    """Whoever may pull cannot push or delete, and whoever may push cannot delete."""
    assert ACTIONS_OF[Right.PULL] & ACTIONS_OF[Right.PUSH] == {Action.CREATE_REPOSITORY}
    assert not ACTIONS_OF[Right.DELETE] & (ACTIONS_OF[Right.PULL] | ACTIONS_OF[Right.PUSH])


def test_a_grant_of_some_repositories_is_no_grant_of_all() -> None:
    assert user(Grant(frozenset({Right.PUSH}))).may_everywhere(Action.SYNC_REGISTRIES)
    assert not user(Grant(frozenset({Right.PUSH}), ("team-a/*",))).may_everywhere(Action.SYNC_REGISTRIES)


def test_an_open_node_lets_everybody_do_everything() -> None:
    assert allowed(UNRESTRICTED, A) == set(Action)
    assert UNRESTRICTED.may("ecr:PutRegistryPolicy", None)


def test_a_node_reads_and_nothing_else() -> None:
    node = parse_node("1" * 12 + "/eu")
    peer = node_principal(node)
    assert allowed(peer, A) == ACTIONS_OF[Right.PULL]
    assert (peer.name, peer.kind, peer.node) == (str(node), PrincipalKind.NODE, node)


def test_the_same_grants_are_the_same_principal() -> None:
    grant = Grant(frozenset({Right.PULL}), ("team-a/*",))
    assert user(grant) == user(Grant(frozenset({Right.PULL}), ("team-a/*",)))
    assert user(grant) != user(Grant(frozenset({Right.PULL}), ("team-b/*",)))
