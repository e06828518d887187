"""What is public and what it is called: a name alone decides, so that no spelling of it may decide otherwise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidInput
from replicator.core.names import AccountId, RepositoryName, parse_repository
from replicator.core.policy import PolicyKind
from replicator.core.public_registry import (
    PublicRegistry,
    default_alias,
    is_pull,
    parse_alias,
    parse_repository_arn,
    public_action,
    repository_arn,
)

ACCOUNT = AccountId("123456789012")
REGISTRY = PublicRegistry("my-team")
NAMES = st.from_regex(r"(?:[a-z0-9]{1,4}(?:[._-][a-z0-9]{1,4}){0,2}/){0,2}[a-z0-9]{2,4}", fullmatch=True)


@pytest.mark.parametrize(
    ("name", "is_public"),
    [
        ("my-team/app", True),
        ("my-team/web/app", True),
        ("my-team", False),
        ("my-teams/app", False),
        ("my-team-2/app", False),
        ("web/my-team/app", False),
        ("my_team/app", False),
        ("", False),
    ],
)
def test_what_is_below_the_alias_is_public(name: str, is_public: bool) -> None:
    assert REGISTRY.covers(name) is is_public
    kind = PolicyKind.PUBLIC_REPOSITORY if is_public else PolicyKind.REPOSITORY
    assert REGISTRY.kind_of_policy(RepositoryName(name)) is kind


@given(NAMES)
def test_every_public_name_is_a_name_of_the_node_and_comes_back(name: str) -> None:
    stored = REGISTRY.to_stored(name)
    assert parse_repository(stored) == stored
    assert REGISTRY.covers(stored)
    assert REGISTRY.to_public(stored) == name
    assert parse_repository_arn(repository_arn(ACCOUNT, name)) == (ACCOUNT, name)


@given(NAMES)
def test_without_an_alias_nothing_that_can_be_there_is_public(name: str) -> None:
    none = PublicRegistry()
    assert not none.covers(name)
    stored = none.to_stored(name)
    assert none.covers(stored)
    with pytest.raises(InvalidInput):
        parse_repository(stored)


@pytest.mark.parametrize("alias", ["ab", "a1b2c3d4", "my-team", "ab.c_d-e", "a" * 50])
def test_aliases(alias: str) -> None:
    assert parse_alias(alias) == alias


@pytest.mark.parametrize("alias", ["", "a", "1a", "-a", "a-", "a--b", "a.bc", "a/b", "A1", "a\n", "a" * 51, "aé"])
def test_what_is_no_alias(alias: str) -> None:
    with pytest.raises(InvalidInput):
        parse_alias(alias)


def test_a_default_alias_is_letters_and_digits_in_turns() -> None:
    assert default_alias(lambda letters: letters[1]) == "b1b1b1b1"
    parse_alias(default_alias(lambda letters: letters[0]))


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "arn:aws:ecr-public::123456789012:repository/",
        "arn:aws:ecr-public::123456789012:repository/a",
        "arn:aws:ecr-public:us-east-1:123456789012:repository/app",
        "arn:aws:ecr:us-east-1:123456789012:repository/app",
        "arn:aws:ecr-public::123456789012:registry/123456789012",
        "arn:aws:ecr-public::12345678901:repository/app",
        "arn:aws:ecr-public::123456789012:repository/a__b",
        "arn:aws:ecr-public::123456789012:repository/../b",
        "arn:aws:ecr-public::123456789012:repository/app\n",
        "arn:aws:ecr-public::123456789012:repository/" + "a" * 206,
    ],
)
def test_what_is_no_arn_of_a_public_repository(arn: str) -> None:
    with pytest.raises(InvalidInput):
        parse_repository_arn(arn)


def test_actions_have_the_same_names() -> None:
    assert public_action("ecr:PutImage") == "ecr-public:PutImage"
    assert public_action("ECR:PutImage") == "ecr-public:PutImage"
    for other in ("ecr-public:PutImage", "replicator:DescribeStatus", "sts:GetServiceBearerToken"):
        assert public_action(other) == other


def test_only_reads_are_for_everybody() -> None:
    assert is_pull("ecr-public:BatchGetImage")
    for action in (
        "ecr-public:PutImage",
        "ecr-public:BatchDeleteImage",
        "ecr-public:DescribeImages",
        "ecr:BatchGetImage",
    ):
        assert not is_pull(action)


def test_words() -> None:
    text = "The repository with name 'my-team/web' is not 'web/my-team/x'"
    assert REGISTRY.in_words(text) == "The repository with name 'web' is not 'web/my-team/x'"
