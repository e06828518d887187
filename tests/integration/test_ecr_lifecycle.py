"""Lifecycle policies and their previews, through boto3 and the `aws` CLI."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.core.names import RepositoryName
from replicator.storage.metadata import lifecycle_previews
from replicator.storage.metadata.lifecycle_previews import Preview, PreviewStatus
from tests.support.ecr_images import put_manifest, upload
from tests.support.ecr_node import ACCOUNT, KEY, REGION, SECRET, ecr_nodes
from tests.support.images import build_image, build_index, walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ecr_node import EcrNodes
    from tests.support.images import Built

DAY = 24 * 60 * 60
PREFIX = (
    "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation failure: "
)
WAIT = {"Delay": 0, "MaxAttempts": 2000}


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path_factory.mktemp("lifecycle")) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def client(ecr: EcrNodes) -> Any:
    return ecr.client()


@pytest.fixture
def repository(client: Any, request: pytest.FixtureRequest) -> str:
    name = f"lifecycle/{request.node.originalname.replace('_', '-')}"
    client.create_repository(repositoryName=name)
    return name


def rule(
    priority: int,
    tag_status: str,
    count_type: str,
    count: int,
    action: str = "expire",
    description: str = "keeps the repository small",
    **selection: object,
) -> dict[str, object]:
    chosen: dict[str, object] = {"tagStatus": tag_status, **selection, "countType": count_type, "countNumber": count}
    if count_type != "imageCountMoreThan":
        chosen["countUnit"] = "days"
    done = {"type": action} if action == "expire" else {"type": action, "targetStorageClass": "archive"}
    return {"rulePriority": priority, "description": description, "selection": chosen, "action": done}


def text_of(*rules: object, indent: int | None = 2) -> str:
    return json.dumps({"rules": rules}, indent=indent)


def compact(text: str) -> str:
    return json.dumps(json.loads(text), separators=(",", ":"))


def push(ecr: EcrNodes, built: Built, repository: str, *references: str) -> None:
    """Push an image, or an index with its images, under tags or its digest, at one moment."""
    upload(ecr, repository, built)
    for one in walk(built):
        assert put_manifest(ecr, repository, one).status == 201
    for reference in references:
        assert put_manifest(ecr, repository, built, reference).status == 201


KEEP_ONE = text_of(rule(1, "any", "imageCountMoreThan", 1))


def code_and_text(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def preview(client: Any, repository: str, text: str | None = None, **more: Any) -> dict[str, Any]:
    """Start a preview, wait for it as people do, and return it."""
    given = {} if text is None else {"lifecyclePolicyText": text}
    started = client.start_lifecycle_policy_preview(repositoryName=repository, **given)
    assert started["status"] == "IN_PROGRESS"
    waiter = client.get_waiter("lifecycle_policy_preview_complete")
    waiter.wait(repositoryName=repository, WaiterConfig=WAIT)
    found: dict[str, Any] = client.get_lifecycle_policy_preview(repositoryName=repository, **more)
    return found


class TestPolicies:
    def test_a_policy_is_kept_without_its_white_space(self, client: Any, repository: str) -> None:
        place = {"registryId": ACCOUNT, "repositoryName": repository, "lifecyclePolicyText": compact(KEEP_ONE)}
        put = client.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=KEEP_ONE)
        assert without_metadata(put) == place
        never = {"lastEvaluatedAt": datetime.fromtimestamp(0, UTC)}
        assert without_metadata(client.get_lifecycle_policy(repositoryName=repository)) == place | never
        assert without_metadata(client.delete_lifecycle_policy(repositoryName=repository)) == place | never

    def test_without_a_policy(self, client: Any, repository: str) -> None:
        expected = (
            f"Lifecycle policy does not exist for the repository with name '{repository}' in the registry with id"
            f" '{ACCOUNT}'"
        )
        for operation in (
            client.get_lifecycle_policy,
            client.delete_lifecycle_policy,
            client.start_lifecycle_policy_preview,
        ):
            with pytest.raises(client.exceptions.LifecyclePolicyNotFoundException) as caught:
                operation(repositoryName=repository)
            assert code_and_text(caught)[1] == expected

    @pytest.mark.parametrize(
        "operation",
        [
            "put_lifecycle_policy",
            "get_lifecycle_policy",
            "delete_lifecycle_policy",
            "start_lifecycle_policy_preview",
            "get_lifecycle_policy_preview",
        ],
    )
    def test_without_a_repository(self, client: Any, operation: str) -> None:
        more = {"lifecyclePolicyText": KEEP_ONE} if operation.startswith(("put", "start")) else {}
        with pytest.raises(client.exceptions.RepositoryNotFoundException) as caught:
            getattr(client, operation)(repositoryName="lifecycle/absent", **more)
        assert code_and_text(caught)[1] == (
            f"The repository with name 'lifecycle/absent' does not exist in the registry with id '{ACCOUNT}'"
        )

    def test_a_refused_policy_leaves_the_former_one(self, client: Any, repository: str) -> None:
        client.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=KEEP_ONE)
        twice = text_of(rule(1, "untagged", "imageCountMoreThan", 1), rule(2, "untagged", "imageCountMoreThan", 2))
        for operation in (client.put_lifecycle_policy, client.start_lifecycle_policy_preview):
            with pytest.raises(ClientError) as caught:
                operation(repositoryName=repository, lifecyclePolicyText=twice)
            assert code_and_text(caught) == (
                "InvalidParameterException",
                f"{PREFIX}Only one rule can select Untagged images per storage class.'",
            )
        found = client.get_lifecycle_policy(repositoryName=repository)
        assert found["lifecyclePolicyText"] == compact(KEEP_ONE)

    def test_what_is_refused(self, client: Any, repository: str) -> None:
        """The documents of which ECR §8.6 says that they must be, each with its reason."""
        refused = {
            "Rule for tagStatus=ANY must have the lowest priority": [
                rule(1, "any", "imageCountMoreThan", 1),
                rule(2, "untagged", "imageCountMoreThan", 1),
            ],
            "Duplicate priority": [
                rule(1, "untagged", "imageCountMoreThan", 1),
                rule(1, "any", "imageCountMoreThan", 1),
            ],
            "Must specify tagPrefixList or tagPatternList": [rule(1, "tagged", "imageCountMoreThan", 1)],
            "must specify only one of tagPrefixList": [
                rule(1, "tagged", "imageCountMoreThan", 1, tagPrefixList=["a"], tagPatternList=["a*"])
            ],
            "Invalid tag pattern": [rule(1, "tagged", "imageCountMoreThan", 1, tagPatternList=["a*b*c*d*e*"])],
            "SINCE_IMAGE_PULLED": [rule(1, "any", "sinceImagePulled", 1)],
            "found: 30": [rule(1, "any", "sinceImageTransitioned", 30, storageClass="archive")],
            "SINCE_IMAGE_TRANSITIONED": [rule(1, "any", "sinceImageTransitioned", 90)],
            "instance failed to match exactly one schema (matched 0 out of 2)": [
                rule(1, "any", "imageCountMoreThan", 1, countUnit="days")
            ],
        }
        for reason, rules in refused.items():
            with pytest.raises(ClientError) as caught:
                client.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=text_of(*rules))
            code, text = code_and_text(caught)
            assert code == "InvalidParameterException"
            assert text.startswith(PREFIX)
            assert reason in text

    def test_a_text_that_is_too_short_or_too_long(self, ecr: EcrNodes, repository: str) -> None:
        for text, limit in (("{}", "greater than or equal to 100"), (" " * 30_721, "less than or equal to 30720")):
            reply = ecr.signed("PutLifecyclePolicy", {"repositoryName": repository, "lifecyclePolicyText": text})
            assert reply.status == 400
            assert reply.error[0] == "InvalidParameterException"
            assert limit in reply.error[1]


def without_metadata(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "ResponseMetadata"}


class TestPreviews:
    def test_what_a_preview_shows(self, ecr: EcrNodes, client: Any, repository: str) -> None:
        images = [build_image([f"{repository}-{number}".encode()]) for number in range(4)]
        push(ecr, images[0], repository, "v1", "stable")
        pushed = [ecr.now]
        for number, reference in ((1, "v2"), (2, images[2].digest), (3, "v3")):
            ecr.advance(DAY)
            push(ecr, images[number], repository, reference)
            pushed.append(ecr.now)
        text = text_of(
            rule(10, "untagged", "sinceImagePushed", 7), rule(20, "any", "imageCountMoreThan", 1, "transition")
        )
        found = preview(client, repository, text)
        assert found["lifecyclePolicyText"] == text
        assert found["status"] == "COMPLETE"
        assert found["previewResults"] == [
            {
                "imageTags": ["stable", "v1"],
                "imageDigest": images[0].digest,
                "imagePushedAt": pushed[0],
                "action": {"type": "TRANSITION", "targetStorageClass": "ARCHIVE"},
                "appliedRulePriority": 20,
                "storageClass": "STANDARD",
            },
            {
                "imageTags": ["v2"],
                "imageDigest": images[1].digest,
                "imagePushedAt": pushed[1],
                "action": {"type": "TRANSITION", "targetStorageClass": "ARCHIVE"},
                "appliedRulePriority": 20,
                "storageClass": "STANDARD",
            },
        ]
        assert found["summary"] == {
            "expiringImageTotalCount": 0,
            "transitioningImageTotalCounts": [{"targetStorageClass": "ARCHIVE", "imageTotalCount": 2}],
        }
        assert "nextToken" not in found

    def test_a_preview_changes_nothing(self, ecr: EcrNodes, client: Any, repository: str) -> None:
        for number in range(3):
            push(ecr, build_image([f"{repository}-{number}".encode()]), repository, f"v{number}")
        client.put_lifecycle_policy(repositoryName=repository, lifecyclePolicyText=KEEP_ONE)
        before = client.describe_images(repositoryName=repository)["imageDetails"]
        found = preview(client, repository)
        assert found["lifecyclePolicyText"] == compact(KEEP_ONE)
        assert found["summary"] == {"expiringImageTotalCount": 2}
        assert client.describe_images(repositoryName=repository)["imageDetails"] == before
        policy = client.get_lifecycle_policy(repositoryName=repository)
        assert policy["lastEvaluatedAt"] == datetime.fromtimestamp(0, UTC)

    def test_pages_and_filters(self, ecr: EcrNodes, client: Any, repository: str) -> None:
        images = [build_image([f"{repository}-{number}".encode()]) for number in range(7)]
        for number, image in enumerate(images):
            push(ecr, image, repository, f"v{number}" if number % 2 else image.digest)
            ecr.advance(60)
        preview(client, repository, KEEP_ONE)
        paginator = client.get_paginator("get_lifecycle_policy_preview")
        pages = list(paginator.paginate(repositoryName=repository, PaginationConfig={"PageSize": 4}))
        assert [len(page["previewResults"]) for page in pages] == [4, 2]
        assert "nextToken" not in pages[-1]
        found = [one["imageDigest"] for page in pages for one in page["previewResults"]]
        assert found == [image.digest for image in images[:6]]
        assert {page["summary"]["expiringImageTotalCount"] for page in pages} == {6}
        for status, parity in (("TAGGED", 1), ("UNTAGGED", 0)):
            shown = client.get_lifecycle_policy_preview(repositoryName=repository, filter={"tagStatus": status})
            assert [one["imageDigest"] for one in shown["previewResults"]] == found[parity::2]
        shown = client.get_lifecycle_policy_preview(
            repositoryName=repository,
            imageIds=[
                {"imageTag": "v3"},
                {"imageDigest": images[0].digest},
                {"imageTag": "v1", "imageDigest": images[1].digest},
                {"imageTag": "v1", "imageDigest": images[2].digest},
                {"imageDigest": images[6].digest},
                {"imageTag": "absent"},
            ],
        )
        assert [one["imageDigest"] for one in shown["previewResults"]] == [images[n].digest for n in (0, 1, 3)]
        assert shown["summary"] == {"expiringImageTotalCount": 6}

    @pytest.mark.parametrize("more", [{"maxResults": 5}, {"nextToken": "djE6NA=="}])
    def test_images_that_are_named_are_not_given_in_pages(self, client: Any, more: dict[str, Any]) -> None:
        with pytest.raises(client.exceptions.InvalidParameterException):
            client.get_lifecycle_policy_preview(repositoryName="a/b", imageIds=[{"imageTag": "v"}], **more)

    @pytest.mark.parametrize("token", ["nonsense", "djE6YQ==", "djE6LTE="])
    def test_a_token_that_none_of_our_answers_had(self, client: Any, token: str) -> None:
        with pytest.raises(client.exceptions.InvalidParameterException):
            client.get_lifecycle_policy_preview(repositoryName="a/b", nextToken=token)

    def test_archived_images_and_indexes(self, ecr: EcrNodes, client: Any, repository: str) -> None:
        old, child = build_image([f"{repository}-old".encode()]), build_image([f"{repository}-child".encode()])
        index = build_index([child])
        push(ecr, old, repository, "old")
        push(ecr, index, repository, "app-1")
        client.update_image_storage_class(
            repositoryName=repository, imageId={"imageTag": "old"}, targetStorageClass="ARCHIVE"
        )
        ecr.advance(91 * DAY)
        text = text_of(
            rule(1, "untagged", "sinceImagePushed", 7),
            rule(2, "any", "sinceImageTransitioned", 90, storageClass="archive"),
        )
        found = preview(client, repository, text)
        told = {
            one["imageDigest"]: (one["appliedRulePriority"], one["storageClass"]) for one in found["previewResults"]
        }
        assert told == {child.digest: (1, "STANDARD"), old.digest: (2, "ARCHIVE")}
        assert found["summary"] == {"expiringImageTotalCount": 2}

    def test_none_was_started(self, client: Any, repository: str) -> None:
        with pytest.raises(client.exceptions.LifecyclePolicyPreviewNotFoundException) as caught:
            client.get_lifecycle_policy_preview(repositoryName=repository)
        assert code_and_text(caught)[1] == (
            f"Lifecycle policy preview does not exist for the repository with name '{repository}' in the registry with"
            f" id '{ACCOUNT}'"
        )

    def test_it_expires_after_a_day_and_a_new_one_takes_its_place(
        self, ecr: EcrNodes, client: Any, repository: str
    ) -> None:
        push(ecr, build_image([b"1"]), repository, "v1")
        push(ecr, build_image([b"2"]), repository, "v2")
        assert preview(client, repository, KEEP_ONE)["summary"] == {"expiringImageTotalCount": 1}
        ecr.advance(DAY)
        found = client.get_lifecycle_policy_preview(repositoryName=repository)
        assert found["status"] == "EXPIRED"
        assert found["lifecyclePolicyText"] == KEEP_ONE
        assert not {"previewResults", "summary"} & set(found)
        none = text_of(rule(1, "tagged", "imageCountMoreThan", 5, tagPatternList=["v*"]))
        assert preview(client, repository, none)["previewResults"] == []

    def test_one_at_a_time(self, ecr: EcrNodes, client: Any, repository: str) -> None:
        elsewhere = Preview(RepositoryName(repository), KEEP_ONE, PreviewStatus.IN_PROGRESS, ecr.clock.now())
        database = ecr.node().registry.database
        ecr.run(database.write(lambda: lifecycle_previews.put(elsewhere)))
        with pytest.raises(client.exceptions.LifecyclePolicyPreviewInProgressException):
            client.start_lifecycle_policy_preview(repositoryName=repository, lifecyclePolicyText=KEEP_ONE)
        found = client.get_lifecycle_policy_preview(repositoryName=repository)
        assert found["status"] == "IN_PROGRESS"
        assert not {"previewResults", "summary"} & set(found)


def test_a_preview_survives_a_restart_and_an_interrupted_one_is_evaluated_again(tmp_path: Path) -> None:
    with ecr_nodes(tmp_path) as ecr:
        client = ecr.client()
        for name in ("whole", "broken", "unreadable"):
            client.create_repository(repositoryName=name)
            for number in range(3):
                push(ecr, build_image([f"{name}-{number}".encode()]), name, f"v{number}")
        before = preview(client, "whole", KEEP_ONE)
        database = ecr.node().registry.database
        for name, text in (("broken", KEEP_ONE), ("unreadable", "{}")):
            left = Preview(RepositoryName(name), text, PreviewStatus.IN_PROGRESS, ecr.clock.now())
            ecr.run(database.write(partial(lifecycle_previews.put, left)))
        clock = ecr.clock
    with ecr_nodes(tmp_path, clock=clock) as ecr:
        client = ecr.client()
        again = client.get_lifecycle_policy_preview(repositoryName="whole")
        assert again["previewResults"] == before["previewResults"]
        client.get_waiter("lifecycle_policy_preview_complete").wait(repositoryName="broken", WaiterConfig=WAIT)
        found = client.get_lifecycle_policy_preview(repositoryName="broken")
        assert found["summary"] == {"expiringImageTotalCount": 2}

        async def has_failed() -> bool:
            row = await ecr.node().registry.database.read(lifecycle_previews.find(RepositoryName("unreadable")))
            return row is not None and row.status is PreviewStatus.FAILED

        ecr.until(has_failed)
        assert client.get_lifecycle_policy_preview(repositoryName="unreadable")["status"] == "FAILED"


def test_the_command_line(ecr: EcrNodes, client: Any, repository: str, tmp_path: Path) -> None:
    text = tmp_path / "policy.json"
    text.write_text(KEEP_ONE)

    def aws(*arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
        }
        command = [str(Path(sys.executable).parent / "aws"), "--endpoint-url", ecr.url(), "ecr", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603

    put = aws("put-lifecycle-policy", "--repository-name", repository, "--lifecycle-policy-text", f"file://{text}")
    assert put.returncode == 0, put.stderr
    assert json.loads(put.stdout)["lifecyclePolicyText"] == compact(KEEP_ONE)
    started = aws("start-lifecycle-policy-preview", "--repository-name", repository)
    assert json.loads(started.stdout)["status"] == "IN_PROGRESS"
    client.get_waiter("lifecycle_policy_preview_complete").wait(repositoryName=repository, WaiterConfig=WAIT)
    waited = aws("wait", "lifecycle-policy-preview-complete", "--repository-name", repository)
    assert waited.returncode == 0, waited.stderr
    found = aws("get-lifecycle-policy-preview", "--repository-name", repository)
    assert json.loads(found.stdout)["summary"] == {"expiringImageTotalCount": 0}
    refused = aws("get-lifecycle-policy", "--repository-name", "absent/absent")
    assert refused.returncode == 255
    assert "(RepositoryNotFoundException) when calling the GetLifecyclePolicy operation" in refused.stderr
