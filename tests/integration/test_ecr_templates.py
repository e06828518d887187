"""Repository creation templates, as boto3 sees them, and as they are used."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_images import push
from tests.support.ecr_node import ACCOUNT, REGION, ecr_nodes, node
from tests.support.images import build_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

IMAGE, OTHER = build_image([b"image"]), build_image([b"other"])
ROLE = f"arn:aws:iam::{ACCOUNT}:role/templates"
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": "pull", "Effect": "Allow", "Principal": {"AWS": "210987654321"}, "Action": ["ecr:BatchGetImage"]}
        ],
    }
)
LIFECYCLE = json.dumps(
    {
        "rules": [
            {
                "rulePriority": 1,
                "selection": {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 5},
                "action": {"type": "expire"},
            }
        ]
    }
)
WHOLE = {
    "prefix": "team",
    "description": "for the team",
    "encryptionConfiguration": {"encryptionType": "AES256"},
    "resourceTags": [{"Key": "owner", "Value": "team"}],
    "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
    "imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "dev*"}],
    "repositoryPolicy": POLICY,
    "lifecyclePolicy": LIFECYCLE,
    "appliedFor": ["CREATE_ON_PUSH", "REPLICATION"],
    "customRoleArn": ROLE,
}


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path, nodes=[node(repositories={"create_on_push": False})]) as nodes:
        yield nodes


def prefixes(ecr: EcrNodes, *wanted: str) -> list[str]:
    given = {"prefixes": list(wanted)} if wanted else {}
    found = ecr.client().describe_repository_creation_templates(**given)
    return [one["prefix"] for one in found["repositoryCreationTemplates"]]


def test_a_template_is_made_with_all_that_it_can_have(ecr: EcrNodes) -> None:
    client = ecr.client()
    made = client.create_repository_creation_template(**WHOLE)
    assert made["registryId"] == ACCOUNT
    found = made["repositoryCreationTemplate"]
    assert found["createdAt"] == found["updatedAt"] == ecr.now
    assert json.loads(found.pop("lifecyclePolicy")) == json.loads(LIFECYCLE)
    assert json.loads(found.pop("repositoryPolicy")) == json.loads(POLICY)
    assert {name: found[name] for name in WHOLE if name in found} == {
        name: value for name, value in WHOLE.items() if name not in {"lifecyclePolicy", "repositoryPolicy"}
    }
    (listed,) = client.describe_repository_creation_templates()["repositoryCreationTemplates"]
    assert listed["prefix"] == "team"


def test_what_is_left_out_has_ecrs_defaults(ecr: EcrNodes) -> None:
    made = ecr.client().create_repository_creation_template(prefix="ROOT", appliedFor=["PULL_THROUGH_CACHE"])
    found = made["repositoryCreationTemplate"]
    assert found["imageTagMutability"] == "MUTABLE"
    assert found["encryptionConfiguration"] == {"encryptionType": "AES256"}
    assert found["appliedFor"] == ["PULL_THROUGH_CACHE"]
    assert not {"resourceTags", "repositoryPolicy", "lifecyclePolicy", "customRoleArn", "description"} & set(found)


def test_an_update_changes_what_is_given_and_an_empty_text_clears(ecr: EcrNodes) -> None:
    client = ecr.client()
    client.create_repository_creation_template(**WHOLE)
    ecr.advance(60)
    changed = client.update_repository_creation_template(
        prefix="team", imageTagMutability="MUTABLE", repositoryPolicy="", appliedFor=["CREATE_ON_PUSH"]
    )["repositoryCreationTemplate"]
    assert (changed["imageTagMutability"], changed["appliedFor"]) == ("MUTABLE", ["CREATE_ON_PUSH"])
    assert not {"imageTagMutabilityExclusionFilters", "repositoryPolicy"} & set(changed)
    assert (changed["description"], changed["resourceTags"]) == ("for the team", WHOLE["resourceTags"])
    assert (changed["updatedAt"] - changed["createdAt"]).total_seconds() == 60


def test_templates_are_there_once_and_found_by_prefix(ecr: EcrNodes) -> None:
    client = ecr.client()
    for prefix in ("team", "base", "ROOT"):
        client.create_repository_creation_template(prefix=prefix, appliedFor=["REPLICATION"])
    for again in ("team", "team/"):
        with pytest.raises(client.exceptions.TemplateAlreadyExistsException):
            client.create_repository_creation_template(prefix=again, appliedFor=["REPLICATION"])
    assert prefixes(ecr) == ["ROOT", "base", "team"]
    assert prefixes(ecr, "team", "unknown") == ["team"]
    pages = client.get_paginator("describe_repository_creation_templates").paginate(PaginationConfig={"PageSize": 2})
    assert [[one["prefix"] for one in page["repositoryCreationTemplates"]] for page in pages] == [
        ["ROOT", "base"],
        ["team"],
    ]
    assert client.delete_repository_creation_template(prefix="team")["repositoryCreationTemplate"]["prefix"] == "team"
    assert prefixes(ecr) == ["ROOT", "base"]
    for ask in (client.delete_repository_creation_template, client.update_repository_creation_template):
        with pytest.raises(client.exceptions.TemplateNotFoundException) as error:
            ask(prefix="team")
        assert error.value.response["Error"]["Message"] == (
            f"The template with prefix 'team' does not exist in the registry with id '{ACCOUNT}'"
        )


@pytest.mark.parametrize(
    "members",
    [
        {"appliedFor": []},
        {"repositoryPolicy": "{}"},
        {"repositoryPolicy": "no JSON"},
        {"lifecyclePolicy": '{"rules": 1}'},
        {"imageTagMutability": "IMMUTABLE_WITH_EXCLUSION"},
        {"imageTagMutabilityExclusionFilters": [{"filterType": "WILDCARD", "filter": "v*"}]},
    ],
)
def test_what_makes_no_sense_is_refused(ecr: EcrNodes, members: dict[str, object]) -> None:
    asked = {"prefix": "team", "appliedFor": ["CREATE_ON_PUSH"], **members}
    with pytest.raises(ClientError) as error:
        ecr.client().create_repository_creation_template(**asked)
    assert error.value.response["Error"]["Code"] == "InvalidParameterException"
    assert prefixes(ecr) == []


def test_a_push_makes_a_repository_by_the_template_that_fits_best(ecr: EcrNodes) -> None:
    client = ecr.client()
    assert ecr.send("POST", "/v2/team/app/blobs/uploads/", b"").status == 404
    client.create_repository_creation_template(prefix="ROOT", appliedFor=["CREATE_ON_PUSH"])
    client.create_repository_creation_template(**WHOLE)
    client.create_repository_creation_template(
        prefix="team/sub", appliedFor=["REPLICATION"], imageTagMutability="MUTABLE"
    )
    for repository in ("team/app", "team/sub/app", "teams/app"):
        push(ecr, repository, IMAGE, "v1")
    found = {one["repositoryName"]: one for one in client.describe_repositories()["repositories"]}
    assert {name: one["imageTagMutability"] for name, one in found.items()} == {
        "team/app": "IMMUTABLE_WITH_EXCLUSION",
        "team/sub/app": "IMMUTABLE_WITH_EXCLUSION",
        "teams/app": "MUTABLE",
    }
    assert client.list_tags_for_resource(resourceArn=found["team/app"]["repositoryArn"])["tags"] == [
        {"Key": "owner", "Value": "team"}
    ]
    text = client.get_repository_policy(repositoryName="team/app")["policyText"]
    assert json.loads(text) == json.loads(POLICY)
    client.delete_repository_creation_template(prefix="ROOT")
    assert ecr.send("POST", "/v2/elsewhere/blobs/uploads/", b"").status == 404


def test_a_template_of_the_file_cannot_be_changed(tmp_path: Path) -> None:
    declared = {"templates": [{"prefix": "team", "applied_for": ["CREATE_ON_PUSH"]}]}
    with ecr_nodes(tmp_path, nodes=[node(REGION, repositories=declared)]) as ecr:
        client = ecr.client()
        assert prefixes(ecr) == ["team"]
        with pytest.raises(ClientError, match=r"is declared in .*replicator\.yaml") as error:
            client.delete_repository_creation_template(prefix="team")
        assert error.value.response["Error"]["Code"] == "InvalidParameterException"
