"""Policies of repositories and of the registry, as boto3 sees them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_images import push
from tests.support.ecr_node import ACCOUNT, OTHER_ACCOUNT, REGION, ecr_nodes
from tests.support.images import build_image

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


def test_a_policy_that_locks_the_caller_out_needs_force(ecr: EcrNodes) -> None:
    client, text = ecr.client(), json.dumps(LOCKS_OUT)
    with pytest.raises(ClientError) as error:
        client.set_repository_policy(repositoryName=REPOSITORY, policyText=text)
    code, message = error_of(error)
    assert (code, message.startswith("Invalid parameter at 'PolicyText'")) == ("InvalidParameterException", True)
    with pytest.raises(ClientError) as error:
        client.get_repository_policy(repositoryName=REPOSITORY)
    assert error_of(error)[0] == "RepositoryPolicyNotFoundException"
    client.set_repository_policy(repositoryName=REPOSITORY, policyText=text, force=True)
    with pytest.raises(ClientError) as error:
        client.set_repository_policy(repositoryName=REPOSITORY, policyText=json.dumps(ALLOW))
    assert error_of(error) == (
        "AccessDeniedException",
        f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: ecr:SetRepositoryPolicy on resource:"
        f" arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{REPOSITORY} with an explicit deny in a resource-based policy",
    )


def test_a_denied_pull_is_refused_at_once_and_allowed_again(ecr: EcrNodes) -> None:
    client, image = ecr.client(), build_image([b"image"])
    push(ecr, REPOSITORY, image, "v1")
    path = f"/v2/{REPOSITORY}/manifests/v1"
    assert ecr.send("GET", path).status == 200
    deny = {"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "ecr:BatchGetImage"}]}
    client.set_repository_policy(repositoryName=REPOSITORY, policyText=json.dumps(deny))
    assert ecr.send("GET", path).status == 403
    client.delete_repository_policy(repositoryName=REPOSITORY)
    assert ecr.send("GET", path).status == 200


REGISTRY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "others may send",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"},
            "Action": ["ecr:ReplicateImage", "ecr:CreateRepository"],
            "Resource": [f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/*"],
        }
    ],
}


def test_the_registrys_policy_is_put_read_and_deleted(ecr: EcrNodes) -> None:
    client, text = ecr.client(), json.dumps(REGISTRY)
    for ask in (client.get_registry_policy, client.delete_registry_policy):
        with pytest.raises(ClientError) as error:
            ask()
        assert error_of(error) == (
            "RegistryPolicyNotFoundException",
            f"Registry policy does not exist in the registry with id '{ACCOUNT}'",
        )
    for answer in (
        client.put_registry_policy(policyText=text),
        client.get_registry_policy(),
        client.delete_registry_policy(),
    ):
        assert (answer["registryId"], answer["policyText"]) == (ACCOUNT, text)
    with pytest.raises(client.exceptions.RegistryPolicyNotFoundException):
        client.get_registry_policy()


@pytest.mark.parametrize(
    "text",
    ["no JSON", "{}", json.dumps(ALLOW), json.dumps(REGISTRY).replace("Allow", "Maybe")],
)
def test_what_is_no_registry_policy_is_refused(ecr: EcrNodes, text: str) -> None:
    with pytest.raises(ClientError) as error:
        ecr.client().put_registry_policy(policyText=text)
    assert error_of(error) == (
        "InvalidParameterException",
        "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry policy provided'",
    )


def test_scope_v1_takes_three_actions_and_decides_on_these_only(ecr: EcrNodes) -> None:
    client = ecr.client()
    deny = {
        "Statement": [
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "ecr:DescribeRepositories",
                "Resource": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/*",
            }
        ]
    }
    client.put_registry_policy(policyText=json.dumps(deny))
    with pytest.raises(ClientError) as error:
        client.describe_repositories(repositoryNames=[REPOSITORY])
    assert error_of(error)[0] == "AccessDeniedException"
    client.put_account_setting(name="REGISTRY_POLICY_SCOPE", value="V1")
    assert len(client.describe_repositories(repositoryNames=[REPOSITORY])["repositories"]) == 1
    with pytest.raises(ClientError) as error:
        client.put_registry_policy(policyText=json.dumps(deny))
    assert error_of(error)[1].endswith("'Invalid registry policy provided'")
    client.put_registry_policy(policyText=json.dumps(REGISTRY))
