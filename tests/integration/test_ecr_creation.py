"""Repositories that nobody creates by hand, and what a registry refuses for its quotas (ECR §11, §17)."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_images import push
from tests.support.ecr_node import ACCOUNT, KEY, REGION, SECRET, EcrNodes, ecr_nodes, node
from tests.support.images import build_image

if TYPE_CHECKING:
    from collections.abc import Iterator

ROLE = f"arn:aws:iam::{ACCOUNT}:role/creates-repositories"
POLICY = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}],
}
LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "only as many images as anybody will ever want to pull again",
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 9},
            "action": {"type": "expire"},
        }
    ]
}
UPLOADS = "/v2/{}/blobs/uploads/"


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path, nodes=[node(repositories={"create_on_push": False})]) as running:
        yield running


def missing(name: str) -> str:
    return f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"


def code(call: Any, **members: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**members)
    return str(caught.value.response["Error"]["Code"])


class TestCreatingOnPush:
    def test_without_a_template_a_push_finds_no_repository(self, ecr: EcrNodes) -> None:
        image = build_image()
        for method, path, body in (
            ("POST", UPLOADS.format("team/app"), b""),
            ("POST", UPLOADS.format("team/app") + f"?digest={image.config}", image.blobs[image.config]),
            ("PUT", "/v2/team/app/manifests/latest", image.manifest),
        ):
            reply = ecr.send(method, path, body, {"Content-Type": image.media_type})
            assert reply.status == 404
            assert reply.json()["errors"] == [{"code": "NAME_UNKNOWN", "message": missing("team/app")}]
        assert ecr.client().describe_repositories()["repositories"] == []

    def test_the_first_request_of_a_push_makes_it_as_the_template_says(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        client.create_repository_creation_template(
            prefix="team",
            appliedFor=["CREATE_ON_PUSH"],
            encryptionConfiguration={"encryptionType": "KMS"},
            resourceTags=[{"Key": "team", "Value": "a"}],
            imageTagMutability="IMMUTABLE_WITH_EXCLUSION",
            imageTagMutabilityExclusionFilters=[{"filterType": "WILDCARD", "filter": "dev-*"}],
            repositoryPolicy=json.dumps(POLICY),
            lifecyclePolicy=json.dumps(LIFECYCLE),
            customRoleArn=ROLE,
        )
        assert ecr.send("POST", UPLOADS.format("team/app"), b"").status == 202
        [made] = client.describe_repositories()["repositories"]
        assert made["repositoryName"] == "team/app"
        assert made["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
        assert made["imageTagMutabilityExclusionFilters"] == [{"filterType": "WILDCARD", "filter": "dev-*"}]
        assert made["encryptionConfiguration"]["encryptionType"] == "KMS"
        assert made["encryptionConfiguration"]["kmsKey"].startswith(f"arn:aws:kms:{REGION}:{ACCOUNT}:key/")
        tags = client.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"]
        assert tags == [{"Key": "team", "Value": "a"}]
        policy = client.get_repository_policy(repositoryName="team/app")["policyText"]
        assert json.loads(policy) == POLICY
        lifecycle = client.get_lifecycle_policy(repositoryName="team/app")["lifecyclePolicyText"]
        assert json.loads(lifecycle) == LIFECYCLE
        push(ecr, "team/app", build_image(), "latest")
        assert ecr.send("POST", UPLOADS.format("other/app"), b"").status == 404

    def test_the_api_makes_none(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        client.create_repository_creation_template(prefix="ROOT", appliedFor=["CREATE_ON_PUSH"])
        assert code(client.initiate_layer_upload, repositoryName="app") == "RepositoryNotFoundException"
        image = build_image()
        assert (
            code(client.put_image, repositoryName="app", imageManifest=image.manifest.decode())
            == "RepositoryNotFoundException"
        )
        assert ecr.send("POST", UPLOADS.format("app"), b"").status == 202

    @pytest.mark.parametrize(
        "settings",
        [{"resourceTags": [{"Key": "a", "Value": "b"}]}, {"encryptionConfiguration": {"encryptionType": "KMS_DSSE"}}],
    )
    def test_tags_and_keys_need_a_role(self, ecr: EcrNodes, settings: dict[str, Any]) -> None:
        client = ecr.client()
        client.create_repository_creation_template(prefix="ROOT", appliedFor=["CREATE_ON_PUSH"], **settings)
        reply = ecr.send("POST", UPLOADS.format("app"), b"")
        assert (reply.status, "customRoleArn" in reply.body.decode()) == (403, True)
        assert client.describe_repositories()["repositories"] == []

    def test_the_file_may_say_that_every_push_makes_its_repository(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path) as ecr:
            push(ecr, "any/app", build_image(), "latest")
            assert len(ecr.client().describe_repositories()["repositories"]) == 1

    def test_the_file_may_declare_all_that_a_template_has(self, tmp_path: Path) -> None:
        policy = {
            "Version": "2012-10-17",
            "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}],
        }
        lifecycle = {
            "rules": [
                {
                    "rulePriority": 1,
                    "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 3},
                    "action": {"type": "expire"},
                }
            ]
        }
        template = {
            "prefix": "team",
            "applied_for": ["CREATE_ON_PUSH"],
            "description": "the team's",
            "encryption": "KMS",
            "resource_tags": {"team": "a"},
            "repository_policy": policy,
            "lifecycle_policy": lifecycle,
            "custom_role_arn": f"arn:aws:iam::{ACCOUNT}:role/templates",
        }
        repositories = {"create_on_push": False, "templates": [template]}
        with ecr_nodes(tmp_path, nodes=[node(repositories=repositories)]) as ecr:
            client = ecr.client()
            push(ecr, "team/app", build_image(), "latest")
            [made] = client.describe_repositories()["repositories"]
            assert made["encryptionConfiguration"]["encryptionType"] == "KMS"
            tags = client.list_tags_for_resource(resourceArn=made["repositoryArn"])["tags"]
            assert tags == [{"Key": "team", "Value": "a"}]
            assert json.loads(client.get_repository_policy(repositoryName="team/app")["policyText"]) == policy
            found = client.get_lifecycle_policy(repositoryName="team/app")["lifecyclePolicyText"]
            assert json.loads(found) == lifecycle
            [shown] = client.describe_repository_creation_templates()["repositoryCreationTemplates"]
            assert (shown["description"], shown["resourceTags"]) == ("the team's", tags)
            assert ecr.send("POST", UPLOADS.format("other"), b"").status == 404


class TestQuotas:
    @pytest.fixture
    def ecr(self, tmp_path: Path) -> Iterator[EcrNodes]:
        quotas = {"repositories": 2, "images_per_repository": 2, "tags_per_image": 2}
        with ecr_nodes(tmp_path, nodes=[node(quotas=quotas)]) as running:
            yield running

    def test_a_push_makes_no_repository_beyond_the_quota(self, ecr: EcrNodes) -> None:
        for name in ("one", "two"):
            assert ecr.send("POST", UPLOADS.format(name), b"").status == 202
        reply = ecr.send("POST", UPLOADS.format("three"), b"")
        text = f"The registry with id '{ACCOUNT}' already has the maximum allowed number of repositories which is '2'"
        assert (reply.status, reply.json()["errors"][0]["message"]) == (403, text)
        assert ecr.send("POST", UPLOADS.format("two"), b"").status == 202
        ecr.client().delete_repository(repositoryName="two")
        assert ecr.send("POST", UPLOADS.format("three"), b"").status == 202

    def test_a_repository_takes_so_many_images(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        first, second, third = (build_image(annotations={"number": str(number)}) for number in range(3))
        push(ecr, "app", first, "1")
        push(ecr, "app", second, "2")
        reply = ecr.send("PUT", "/v2/app/manifests/3", third.manifest, {"Content-Type": third.media_type})
        text = (
            f"The repository with name 'app' in the registry with id '{ACCOUNT}' already has the maximum allowed number"
            " of images which is '2'"
        )
        assert (reply.status, reply.json()["errors"][0]["message"]) == (403, text)
        assert (
            code(client.put_image, repositoryName="app", imageManifest=third.manifest.decode(), imageTag="3")
            == "LimitExceededException"
        )
        push(ecr, "app", second, "again")
        client.batch_delete_image(repositoryName="app", imageIds=[{"imageDigest": first.digest}])
        push(ecr, "app", third, "3")

    def test_an_image_takes_so_many_tags(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        image = build_image()
        push(ecr, "app", image, "1")
        push(ecr, "app", image, "2")
        push(ecr, "app", image, "2")
        reply = ecr.send("PUT", "/v2/app/manifests/3", image.manifest, {"Content-Type": image.media_type})
        assert (reply.status, "maximum allowed number of tags which is '2'" in reply.body.decode()) == (403, True)
        assert (
            code(client.put_image, repositoryName="app", imageManifest=image.manifest.decode(), imageTag="3")
            == "LimitExceededException"
        )
        assert ecr.send("GET", "/v2/app/tags/list").json()["tags"] == ["1", "2"]


class TestSessions:
    def test_an_upload_of_one_api_goes_on_at_the_other(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        client.create_repository(repositoryName="app")
        location = ecr.send("POST", UPLOADS.format("app"), b"").headers["Location"]
        upload = location.rpartition("/")[2]
        assert str(uuid.UUID(upload)) == upload
        answer = client.upload_layer_part(
            repositoryName="app", uploadId=upload, partFirstByte=0, partLastByte=4, layerPartBlob=b"bytes"
        )
        assert answer["lastByteReceived"] == 4
        assert ecr.send("GET", location).headers["Range"] == "0-4"
        assert ecr.send("PATCH", location, b" more").status == 202
        digest = f"sha256:{hashlib.sha256(b'bytes more').hexdigest()}"
        done = client.complete_layer_upload(repositoryName="app", uploadId=upload, layerDigests=[digest])
        assert done["layerDigest"] == digest
        assert ecr.send("HEAD", f"/v2/app/blobs/{digest}").status == 200

    def test_uploads_belong_to_their_caller(self, tmp_path: Path) -> None:
        identities = [
            {
                "arn": f"arn:aws:iam::{ACCOUNT}:user/{name}",
                "access_keys": [{"id": key, "secret": {"insecure": SECRET}}],
                "administrator": True,
            }
            for name, key in (("dev", KEY), ("other", "AKIDOTHER"))
        ]
        with ecr_nodes(tmp_path, {"identities": identities}) as ecr:
            dev, other = ecr.client(), ecr.client(key="AKIDOTHER")
            dev.create_repository(repositoryName="app")
            upload = dev.initiate_layer_upload(repositoryName="app")["uploadId"]
            part = {"uploadId": upload, "partFirstByte": 0, "partLastByte": 0, "layerPartBlob": b"x"}
            assert code(other.upload_layer_part, repositoryName="app", **part) == "UploadNotFoundException"
            assert dev.upload_layer_part(repositoryName="app", **part)["lastByteReceived"] == 0
            token = dev.get_authorization_token()["authorizationData"][0]["authorizationToken"]
            path = f"/v2/app/blobs/uploads/{upload}"
            assert ecr.send("GET", path, headers={"Authorization": f"Basic {token}"}).status == 204
            token = other.get_authorization_token()["authorizationData"][0]["authorizationToken"]
            assert ecr.send("GET", path, headers={"Authorization": f"Basic {token}"}).status == 404


class TestCommandLine:
    """The aws CLI, as people use it."""

    def aws(self, ecr: EcrNodes, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {
            **os.environ,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }
        program = Path(__file__).parents[2] / ".venv" / "bin" / "aws"
        command = [str(program), "ecr", *arguments, "--endpoint-url", ecr.url(), "--output", "json"]
        return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603

    def test_a_repository_from_its_creation_to_its_end(self, ecr: EcrNodes) -> None:
        tag = "Key=team,Value=a"
        made = self.aws(ecr, "create-repository", "--repository-name", "cli/app", "--tags", tag)
        assert made.returncode == 0, made.stderr
        assert json.loads(made.stdout)["repository"]["repositoryName"] == "cli/app"
        again = self.aws(ecr, "create-repository", "--repository-name", "cli/app")
        assert again.returncode == 255
        assert (
            "An error occurred (RepositoryAlreadyExistsException) when calling the CreateRepository operation: The"
            f" repository with name 'cli/app' already exists in the registry with id '{ACCOUNT}'"
        ) in again.stderr
        listed = self.aws(ecr, "describe-repositories", "--page-size", "1")
        assert [one["repositoryName"] for one in json.loads(listed.stdout)["repositories"]] == ["cli/app"]
        upload = json.loads(self.aws(ecr, "initiate-layer-upload", "--repository-name", "cli/app").stdout)
        assert set(upload) == {"uploadId", "partSize"}
        gone = self.aws(ecr, "delete-repository", "--repository-name", "cli/app", "--force")
        assert gone.returncode == 0, gone.stderr
        assert json.loads(self.aws(ecr, "describe-repositories").stdout) == {"repositories": []}
