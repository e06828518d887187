"""Creation templates of the file: all of ECR's members, and what is refused before the daemon runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from replicator.config.loader import check_settings, load_settings
from replicator.core.encryption import Encryption, EncryptionType
from replicator.core.templates import CreationCause

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.core.templates import CreationTemplate

ROLE = "arn:aws:iam::111122223333:role/ecr-templates"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}],
}
SELECTION = {"tagStatus": "untagged", "countType": "imageCountMoreThan", "countNumber": 3}


def lifecycle(rules: int = 1) -> dict[str, Any]:
    """Return a policy of untagged images, and of tagged ones by prefix."""
    tagged = [{**SELECTION, "tagStatus": "tagged", "tagPrefixList": [f"v{number}"]} for number in range(1, rules)]
    return {
        "rules": [
            {"rulePriority": number, "selection": one, "action": {"type": "expire"}}
            for number, one in enumerate([SELECTION, *tagged], 1)
        ]
    }


def write(directory: Path, template: dict[str, Any], **settings: Any) -> Path:
    template = {"prefix": "team", "applied_for": ["CREATE_ON_PUSH"], **template}
    node = {"account": "111122223333", "region": "eu-west-1", "listen": "127.0.0.1:0", **settings}
    file = directory / "replicator.yaml"
    file.write_text(yaml.safe_dump({"version": 1, "nodes": [{**node, "repositories": {"templates": [template]}}]}))
    return file


def loaded(directory: Path, **template: Any) -> CreationTemplate:
    [node] = load_settings(write(directory, template), {}).nodes
    [found] = node.templates()
    return found


def problems(directory: Path, template: dict[str, Any], **settings: Any) -> list[str]:
    return [f"{one.key}: {one.message}" for one in check_settings(write(directory, template, **settings), {})]


def test_all_members_reach_the_core(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        description="the team's",
        encryption="KMS",
        kms_key="alias/team",
        resource_tags={"team": "a", "cost": "42"},
        repository_policy=POLICY,
        lifecycle_policy=lifecycle(),
        custom_role_arn=ROLE,
    )
    assert found.applied_for == {CreationCause.CREATE_ON_PUSH}
    assert found.description == "the team's"
    assert found.encryption == Encryption(EncryptionType.KMS, "alias/team")
    assert dict(found.resource_tags) == {"team": "a", "cost": "42"}
    assert found.repository_policy is not None
    assert json.loads(found.repository_policy) == POLICY
    assert found.lifecycle_policy is not None
    assert json.loads(found.lifecycle_policy) == lifecycle()
    assert found.custom_role_arn == ROLE


def test_none_of_them_is_needed(tmp_path: Path) -> None:
    found = loaded(tmp_path)
    assert (found.description, found.encryption, found.resource_tags) == (None, Encryption(), ())
    assert (found.repository_policy, found.lifecycle_policy, found.custom_role_arn) == (None, None, None)


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({"resource_tags": {"team": "a"}}, "expected a custom_role_arn"),
        ({"encryption": "KMS"}, "expected a custom_role_arn"),
        ({"encryption": "KMS_DSSE"}, "expected a custom_role_arn"),
        ({"kms_key": "alias/team", "custom_role_arn": ROLE}, "expected no kms_key with the encryption AES256"),
        ({"encryption": "ROT13"}, "encryption"),
        ({"custom_role_arn": "the-role"}, "custom_role_arn"),
        ({"description": "x" * 257}, "description"),
        ({"resource_tags": {"aws:team": "a"}, "custom_role_arn": ROLE}, "does not begin with aws:"),
        ({"resource_tags": {"": "a"}, "custom_role_arn": ROLE}, "expected a key of 1 to 128 characters"),
        ({"resource_tags": {"team": "x" * 257}, "custom_role_arn": ROLE}, "a value of at most 256"),
        ({"repository_policy": "{}"}, "expected a repository policy, a mapping"),
        ({"repository_policy": {"Version": "2012-10-17"}}, "not a repository policy"),
        ({"repository_policy": {**POLICY, "Statements": []}}, "not a repository policy"),
        ({"lifecycle_policy": {"rules": []}}, "array is too short"),
        ({"lifecycle_policy": {**lifecycle(), "more": 1}}, "not a lifecycle policy"),
        ({"lifecycle_policy": ["rules"]}, "expected a lifecycle policy, a mapping"),
        ({"scan_on_push": True}, "scan_on_push"),
    ],
    ids=str,
)
def test_what_could_never_be_applied_is_refused(tmp_path: Path, template: dict[str, Any], said: str) -> None:
    [problem] = problems(tmp_path, template)
    assert problem.startswith("nodes[0].repositories.templates[0]")
    assert said in problem


def test_the_node_s_quotas_hold(tmp_path: Path) -> None:
    template = {
        "resource_tags": {"a": "1", "b": "2"},
        "custom_role_arn": ROLE,
        "lifecycle_policy": lifecycle(rules=2),
    }
    assert problems(tmp_path, template) == []
    assert problems(tmp_path, template, quotas={"resource_tags": 1, "lifecycle_rules": 1}) == [
        "nodes[0].repositories.templates[0].lifecycle_policy: expected at most 1 rules, got 2",
        "nodes[0].repositories.templates[0].resource_tags: expected at most 1 tags, got 2",
    ]
