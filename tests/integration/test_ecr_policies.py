"""Policies of repositories and of the registry, as boto3 sees them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_node import ACCOUNT, OTHER_ACCOUNT, ecr_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

REPOSITORY = "team/app"
ALLOW: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "others may pull",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"},
            "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        }
    ],
}
LOCKS_OUT: dict[str, Any] = {
    "Version": "2008-10-17",
    "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "ecr:*RepositoryPolicy"}],
}


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path) as nodes:
        nodes.client().create_repository(repositoryName=REPOSITORY)
        yield nodes


def error_of(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def test_a_policy_is_set_read_and_deleted(ecr: EcrNodes) -> None:
    client, text = ecr.client(), json.dumps(ALLOW)
    place = {"registryId": ACCOUNT, "repositoryName": REPOSITORY, "policyText": text}

    def answer(document: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in document.items() if name != "ResponseMetadata"}

    assert answer(client.set_repository_policy(repositoryName=REPOSITORY, policyText=text)) == place
    assert answer(client.get_repository_policy(repositoryName=REPOSITORY)) == place
    assert answer(client.delete_repository_policy(repositoryName=REPOSITORY)) == place
    for ask in (client.get_repository_policy, client.delete_repository_policy):
        with pytest.raises(ClientError) as error:
            ask(repositoryName=REPOSITORY)
        assert error_of(error) == (
            "RepositoryPolicyNotFoundException",
            f"Repository policy does not exist for the repository with name '{REPOSITORY}' in the registry with id"
            f" '{ACCOUNT}'",
        )


def test_a_repository_that_is_not_there_has_no_policy(ecr: EcrNodes) -> None:
    client = ecr.client()
    for ask in (
        client.get_repository_policy,
        client.delete_repository_policy,
        lambda **members: client.set_repository_policy(policyText=json.dumps(ALLOW), **members),
    ):
        with pytest.raises(ClientError) as error:
            ask(repositoryName="unknown")
        assert error_of(error) == (
            "RepositoryNotFoundException",
            f"The repository with name 'unknown' does not exist in the registry with id '{ACCOUNT}'",
        )


@pytest.mark.parametrize(
    "text",
    [
        "no JSON",
        "[]",
        "{}",
        json.dumps({**ALLOW, "Statement": []}),
        json.dumps({**ALLOW, "Colour": "red"}),
        json.dumps({"Statement": [{**ALLOW["Statement"][0], "Effect": "Maybe"}]}),
        json.dumps({"Statement": [{**ALLOW["Statement"][0], "Condition": {"StringSounds": {"aws:username": "x"}}}]}),
    ],
)
def test_what_is_no_policy_is_refused_and_changes_nothing(ecr: EcrNodes, text: str) -> None:
    client = ecr.client()
    client.set_repository_policy(repositoryName=REPOSITORY, policyText=json.dumps(ALLOW))
    with pytest.raises(ClientError) as error:
        client.set_repository_policy(repositoryName=REPOSITORY, policyText=text)
    assert error_of(error) == (
        "InvalidParameterException",
        "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'",
    )
    assert json.loads(client.get_repository_policy(repositoryName=REPOSITORY)["policyText"]) == ALLOW
