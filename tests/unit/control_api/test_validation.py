"""Requests held against the model: ECR's texts for what breaks it (ECR §5.2)."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from replicator.control_api.errors import EcrError
from replicator.control_api.model import service_model
from replicator.control_api.validation import validated

PATTERN = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*"
MUTABILITIES = "IMMUTABLE, MUTABLE, MUTABLE_WITH_EXCLUSION, IMMUTABLE_WITH_EXCLUSION"


def check(operation: str, service: str = "ecr", **members: Any) -> dict[str, object]:
    return validated(service_model(service).operations[operation].input, members)


def refusal(operation: str, service: str = "ecr", **members: Any) -> tuple[str, str]:
    with pytest.raises(EcrError) as caught:
        check(operation, service, **members)
    assert caught.value.status == 400
    return caught.value.code, str(caught.value)


def constraint(field: str, text: str) -> tuple[str, str]:
    return "InvalidParameterException", f"Invalid parameter at '{field}' failed to satisfy constraint: '{text}'"


@pytest.mark.parametrize(
    ("operation", "members", "field", "text"),
    [
        ("CreateRepository", {}, "repositoryName", "Member must not be null"),
        ("CreateRepository", {"repositoryName": None}, "repositoryName", "Member must not be null"),
        (
            "CreateRepository",
            {"repositoryName": "a" * 257},
            "repositoryName",
            "Member must have length less than or equal to 256",
        ),
        (
            "CreateRepository",
            {"repositoryName": "a"},
            "repositoryName",
            "Member must have length greater than or equal to 2",
        ),
        (
            "CreateRepository",
            {"repositoryName": "Team"},
            "repositoryName",
            f"must satisfy regular expression '{PATTERN}'",
        ),
        (
            "CreateRepository",
            {"repositoryName": "team", "imageTagMutability": "NONE"},
            "imageTagMutability",
            f"Member must satisfy enum value set: [{MUTABILITIES}]",
        ),
        (
            "CreateRepository",
            {"repositoryName": "team", "tags": [{"Value": "v"}]},
            "tags.1.member.key",
            "Member must not be null",
        ),
        (
            "CreateRepository",
            {"repositoryName": "team", "tags": [{"Key": "k", "Value": "v"}, {"Key": "l"}]},
            "tags.2.member.value",
            "Member must not be null",
        ),
        (
            "CreateRepository",
            {"repositoryName": "team", "encryptionConfiguration": {"kmsKey": "k"}},
            "encryptionConfiguration.encryptionType",
            "Member must not be null",
        ),
        (
            "CreateRepository",
            {"repositoryName": "team", "encryptionConfiguration": {"encryptionType": "ROT13"}},
            "encryptionConfiguration.encryptionType",
            "Member must satisfy enum value set: [AES256, KMS, KMS_DSSE]",
        ),
        (
            "DescribeRepositories",
            {"maxResults": 1001},
            "maxResults",
            "Member must have value less than or equal to 1000",
        ),
        ("DescribeRepositories", {"maxResults": 0}, "maxResults", "Member must have value greater than or equal to 1"),
        (
            "DescribeRepositories",
            {"repositoryNames": []},
            "repositoryNames",
            "Member must have length greater than or equal to 1",
        ),
        (
            "DescribeRepositories",
            {"repositoryNames": ["ok"] * 101},
            "repositoryNames",
            "Member must have length less than or equal to 100",
        ),
        (
            "DescribeRepositories",
            {"repositoryNames": ["ok", None]},
            "repositoryNames.2.member",
            "Member must not be null",
        ),
        (
            "DescribeRepositories",
            {"repositoryNames": ["ok", "A"]},
            "repositoryNames",
            "Member must satisfy constraint: [Member must have length greater than or equal to 2,"
            f" Member must satisfy regular expression pattern: {PATTERN}]",
        ),
        (
            "GetAuthorizationToken",
            {"registryIds": ["12345678901"]},
            "registryIds",
            "Member must satisfy constraint: [Member must satisfy regular expression pattern: [0-9]{12}]",
        ),
        (
            "PutReplicationConfiguration",
            {"replicationConfiguration": {"rules": [{"destinations": [{"region": "eu-west-1"}]}]}},
            "replicationConfiguration.rules.1.member.destinations.1.member.registryId",
            "Member must not be null",
        ),
        (
            "PutLifecyclePolicy",
            {"repositoryName": "team", "lifecyclePolicyText": "x" * 99},
            "lifecyclePolicyText",
            "Member must have length greater than or equal to 100",
        ),
        (
            "CreateRepository",
            {"repositoryName": "ab\0c"},
            "repositoryName",
            f"must satisfy regular expression '{PATTERN}'",
        ),
        (
            "PutImage",
            {"repositoryName": "team", "imageManifest": "{\0}"},
            "imageManifest",
            "Member must not contain the character U+0000",
        ),
    ],
)
def test_what_breaks_a_constraint_is_named_with_its_place(
    operation: str, members: dict[str, Any], field: str, text: str
) -> None:
    assert refusal(operation, **members) == constraint(field, text)


@pytest.mark.parametrize(
    ("operation", "members", "text"),
    [
        ("CreateRepository", {"repositoryName": 5}, "NUMBER_VALUE can not be converted to String"),
        ("CreateRepository", {"repositoryName": True}, "TRUE_VALUE can not be converted to String"),
        ("CreateRepository", {"repositoryName": ["a"]}, "Start of list found where not expected"),
        ("CreateRepository", {"repositoryName": {"a": 1}}, "Start of structure or map found where not expected."),
        ("CreateRepository", {"repositoryName": "ab", "tags": "all"}, "Expected list or null"),
        ("CreateRepository", {"repositoryName": "ab", "tags": ["all"]}, "Unexpected field type"),
        ("CreateRepository", {"repositoryName": "\ud800"}, "Invalid UTF-8"),
        ("DeleteRepository", {"repositoryName": "ab", "force": "yes"}, "STRING_VALUE can not be converted to Boolean"),
        ("DescribeRepositories", {"maxResults": "5"}, "STRING_VALUE can not be converted to Integer"),
        ("DescribeRepositories", {"maxResults": 5.5}, "NUMBER_VALUE can not be converted to Integer"),
        ("DescribeRepositories", {"maxResults": True}, "TRUE_VALUE can not be converted to Integer"),
        ("DescribeRepositories", {"maxResults": 2**31}, "NUMBER_VALUE can not be converted to Integer"),
        ("DescribeRepositories", {"repositoryNames": ["a"] * 10_001}, "Too many elements"),
    ],
)
def test_another_type_than_the_model_s_cannot_be_read(operation: str, members: dict[str, Any], text: str) -> None:
    assert refusal(operation, **members) == ("SerializationException", text)


PART: dict[str, Any] = {
    "repositoryName": "team",
    "uploadId": "0" * 8 + "-0000-0000-0000-" + "0" * 12,
    "partFirstByte": 0,
    "partLastByte": 1,
}


def test_a_part_must_be_base64() -> None:
    assert refusal("UploadLayerPart", **PART, layerPartBlob="%%%") == (
        "SerializationException",
        "LayerPartBlob is not valid Base64",
    )


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 1000])
def test_a_part_is_as_long_as_its_bytes(size: int) -> None:
    blob = base64.b64encode(bytes(size)).decode()
    assert check("UploadLayerPart", **PART, layerPartBlob=blob)["layerPartBlob"] == blob


def test_a_part_of_more_than_20_mib_is_too_long() -> None:
    largest = base64.b64encode(bytes(20_971_520)).decode()
    assert check("UploadLayerPart", **PART, layerPartBlob=largest)
    larger = base64.b64encode(bytes(20_971_521)).decode()
    assert refusal("UploadLayerPart", **PART, layerPartBlob=larger) == constraint(
        "layerPartBlob", "Member must have length less than or equal to 20971520"
    )


def test_members_that_are_not_known_or_null_are_passed_over() -> None:
    found = check("ListImages", repositoryName="team", future=[1], maxResults=None, filter={"tagStatus": "ANY", "x": 1})
    assert found == {"repositoryName": "team", "filter": {"tagStatus": "ANY"}}


def test_a_digest_without_any_form_is_for_the_operation_to_judge() -> None:
    assert check("BatchGetImage", repositoryName="team", imageIds=[{"imageDigest": "nonsense"}])


def test_the_public_model_has_limits_of_its_own() -> None:
    assert refusal("CreateRepository", "ecr-public", repositoryName="a" * 206) == constraint(
        "repositoryName", "Member must have length less than or equal to 205"
    )
