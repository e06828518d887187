"""What ECR says of each thing that goes wrong, word for word: tools and their tests look for these texts (ECR §5).

Each text is provoked through boto3 against the daemon on `configs/ecr-local.yaml`. Layers and images that are missing,
which that file allows, are looked at where the other tests of images are.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.local_ecr import ACCOUNT, REGION, digest_of, made_up_manifest, new_name, refusal, running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.local_ecr import LocalEcr

pytestmark = [pytest.mark.clients, pytest.mark.slow]

ABSENT = "sha256:" + "0" * 64
IN_REGISTRY = f"in the registry with id '{ACCOUNT}'"
INVALID = "InvalidParameterException"
UPLOAD = "00000000-0000-4000-8000-000000000000"


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEcr]:
    yield from running(tmp_path_factory.mktemp("ecr"))


@pytest.fixture(scope="module")
def client(local: LocalEcr) -> Any:
    return local.client()


@pytest.fixture
def name(client: Any) -> str:
    made = new_name("texts")
    client.create_repository(repositoryName=made)
    return made


def constraint(field: str, text: str) -> tuple[str, str]:
    """Return the error of a parameter."""
    return INVALID, f"Invalid parameter at '{field}' failed to satisfy constraint: '{text}'"


@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("describe_images", {}),
        ("list_images", {}),
        ("delete_repository", {}),
        ("initiate_layer_upload", {}),
        ("get_repository_policy", {}),
        ("get_lifecycle_policy", {}),
        ("batch_get_image", {"imageIds": [{"imageTag": "v1"}]}),
        ("batch_delete_image", {"imageIds": [{"imageTag": "v1"}]}),
        ("batch_check_layer_availability", {"layerDigests": [ABSENT]}),
        ("put_image", {"imageManifest": made_up_manifest("none")}),
        ("put_image_tag_mutability", {"imageTagMutability": "MUTABLE"}),
        ("put_image_scanning_configuration", {"imageScanningConfiguration": {}}),
        ("start_image_scan", {"imageId": {"imageTag": "v1"}}),
        ("describe_image_scan_findings", {"imageId": {"imageTag": "v1"}}),
        ("describe_image_replication_status", {"imageId": {"imageTag": "v1"}}),
        ("upload_layer_part", {"uploadId": UPLOAD, "partFirstByte": 0, "partLastByte": 0, "layerPartBlob": b"x"}),
        ("complete_layer_upload", {"uploadId": UPLOAD, "layerDigests": [ABSENT]}),
        ("get_download_url_for_layer", {"layerDigest": ABSENT}),
        ("list_image_referrers", {"subjectId": {"imageDigest": ABSENT}}),
        ("update_image_storage_class", {"imageId": {"imageTag": "v1"}, "targetStorageClass": "ARCHIVE"}),
    ],
)
def test_a_repository_that_is_missing(client: Any, operation: str, members: dict[str, Any]) -> None:
    assert refusal(getattr(client, operation), repositoryName="no/such", **members) == (
        "RepositoryNotFoundException",
        f"The repository with name 'no/such' does not exist {IN_REGISTRY}",
    )


class TestRepositories:
    def test_one_that_exists(self, client: Any, name: str) -> None:
        assert refusal(client.create_repository, repositoryName=name) == (
            "RepositoryAlreadyExistsException",
            f"The repository with name '{name}' already exists {IN_REGISTRY}",
        )

    def test_one_that_holds_images(self, client: Any, name: str) -> None:
        client.put_image(repositoryName=name, imageManifest=made_up_manifest(name))
        assert refusal(client.delete_repository, repositoryName=name) == (
            "RepositoryNotEmptyException",
            f"The repository with name '{name}' in registry with id '{ACCOUNT}' cannot be deleted because it still"
            " contains images",
        )

    def test_filters_that_are_missing(self, client: Any, name: str) -> None:
        for setting in ("IMMUTABLE_WITH_EXCLUSION", "MUTABLE_WITH_EXCLUSION"):
            text = f"ImageTagMutabilityExclusionFilters can't be null when imageTagMutability is set as {setting}"
            expected = constraint("imageTagMutabilityExclusionFilters", text)
            for call in (client.put_image_tag_mutability, client.create_repository):
                assert refusal(call, repositoryName=name, imageTagMutability=setting) == expected

    def test_an_arn_that_is_none(self, client: Any) -> None:
        expected = constraint("resourceArn", "Invalid ARN")
        assert refusal(client.list_tags_for_resource, resourceArn="invalid") == expected
        assert refusal(client.tag_resource, resourceArn="invalid", tags=[{"Key": "a", "Value": "b"}]) == expected
        assert refusal(client.untag_resource, resourceArn="invalid", tagKeys=["a"]) == expected

    def test_tags_that_are_too_many_or_too_long(self, client: Any) -> None:
        many = [{"Key": str(number), "Value": ""} for number in range(51)]
        code, text = refusal(client.create_repository, repositoryName=new_name(), tags=many)
        assert code == "TooManyTagsException"
        assert text.endswith("The maximum number of tags that can be applied to a repository is 50.")
        code, text = refusal(client.create_repository, repositoryName=new_name(), tags=[{"Key": "", "Value": ""}])
        assert (code, text) == ("InvalidTagParameterException", "Tag parameters are invalid")


class TestImages:
    def test_one_that_is_missing(self, client: Any, name: str) -> None:
        for image, shown in (
            ({"imageTag": "v1"}, "imageDigest:'null', imageTag:'v1'"),
            ({"imageDigest": ABSENT}, f"imageDigest:'{ABSENT}', imageTag:'null'"),
            ({"imageDigest": ABSENT, "imageTag": "v1"}, f"imageDigest:'{ABSENT}', imageTag:'v1'"),
        ):
            expected = (
                "ImageNotFoundException",
                f"The image with imageId {{{shown}}} does not exist within the repository with name '{name}'"
                f" {IN_REGISTRY}",
            )
            assert refusal(client.describe_images, repositoryName=name, imageIds=[image]) == expected
            assert refusal(client.start_image_scan, repositoryName=name, imageId=image) == expected
            assert refusal(client.describe_image_replication_status, repositoryName=name, imageId=image) == expected

    def test_one_that_exists(self, client: Any, name: str) -> None:
        manifest = made_up_manifest(name)
        client.put_image(repositoryName=name, imageManifest=manifest, imageTag="v1")
        assert refusal(client.put_image, repositoryName=name, imageManifest=manifest, imageTag="v1") == (
            "ImageAlreadyExistsException",
            f"Image with digest '{digest_of(manifest)}' and tag 'v1' already exists in the repository with name"
            f" '{name}' in registry with id '{ACCOUNT}'",
        )

    def test_a_tag_that_cannot_move(self, client: Any, name: str) -> None:
        client.put_image_tag_mutability(repositoryName=name, imageTagMutability="IMMUTABLE")
        client.put_image(repositoryName=name, imageManifest=made_up_manifest(name), imageTag="v1")
        assert refusal(client.put_image, repositoryName=name, imageManifest=made_up_manifest("x"), imageTag="v1") == (
            "ImageTagAlreadyExistsException",
            f"The image tag 'v1' already exists in the '{name}' repository and cannot be overwritten because the tag is"
            " immutable.",
        )

    def test_a_manifest_that_is_none(self, client: Any, name: str) -> None:
        for text in ("{", "[]", "no json"):
            expected = constraint("ImageManifest", "Invalid JSON syntax")
            assert refusal(client.put_image, repositoryName=name, imageManifest=text) == expected
        untyped = made_up_manifest(name, mediaType=None)
        assert refusal(client.put_image, repositoryName=name, imageManifest=untyped) == (
            INVALID,
            "image manifest mediatype not provided in manifest or parameter",
        )

    def test_another_digest(self, client: Any, name: str) -> None:
        code, text = refusal(
            client.put_image, repositoryName=name, imageManifest=made_up_manifest(name), imageDigest=ABSENT
        )
        assert (code, ABSENT in text) == ("ImageDigestDoesNotMatchException", True)

    def test_failures_of_a_batch(self, client: Any, name: str) -> None:
        digest = digest_of(made_up_manifest(name))
        client.put_image(repositoryName=name, imageManifest=made_up_manifest(name), imageTag="v1")
        expected = {
            "ImageNotFound": ({"imageTag": "v2"}, "Requested image not found"),
            "MissingDigestAndTag": ({}, "Invalid request parameters: both tag and digest cannot be null"),
            "InvalidImageDigest": (
                {"imageDigest": "sha256:no"},
                "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
            ),
        }
        for code, (image, reason) in expected.items():
            for call in (client.batch_get_image, client.batch_delete_image):
                answer = call(repositoryName=name, imageIds=[image])
                failure = {"imageId": image, "failureCode": code, "failureReason": reason}
                assert answer["failures"] == [failure]
        index = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.index.v1+json",
                "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1}],
            }
        )
        client.put_image(repositoryName=name, imageManifest=index, imageTag="all")
        answer = client.batch_delete_image(repositoryName=name, imageIds=[{"imageDigest": digest}])
        assert answer["failures"] == [
            {
                "imageId": {"imageDigest": digest},
                "failureCode": "ImageReferencedByManifestList",
                "failureReason": f"Requested image referenced by manifest list: [{digest_of(index)}]",
            }
        ]


class TestLayers:
    def test_uploads(self, client: Any, name: str) -> None:
        upload = client.initiate_layer_upload(repositoryName=name)["uploadId"]
        part = {"repositoryName": name, "uploadId": upload}
        digest = f"sha256:{hashlib.sha256(b'xy').hexdigest()}"
        assert refusal(client.complete_layer_upload, **part, layerDigests=[digest])[0] == "EmptyUploadException"
        sent = {"partLastByte": 0, "layerPartBlob": b"x"}
        assert client.upload_layer_part(**part, partFirstByte=0, **sent)["lastByteReceived"] == 0
        with pytest.raises(client.exceptions.InvalidLayerPartException) as caught:
            client.upload_layer_part(**part, partFirstByte=5, partLastByte=5, layerPartBlob=b"y")
        extra = {key: caught.value.response[key] for key in ("registryId", "repositoryName", "uploadId")}
        assert extra == {"registryId": ACCOUNT, **part}
        assert caught.value.response["lastValidByteReceived"] == 0
        client.upload_layer_part(**part, partFirstByte=1, partLastByte=1, layerPartBlob=b"y")
        assert refusal(client.complete_layer_upload, **part, layerDigests=[digest]) == (
            "LayerPartTooSmallException",
            "All layer parts except the last part should be at least 5MB",
        )

    def test_layers_that_are_wrong_or_here_already(self, client: Any, name: str) -> None:
        digest = f"sha256:{hashlib.sha256(b'layer').hexdigest()}"

        def upload() -> dict[str, Any]:
            part = {
                "repositoryName": name,
                "uploadId": client.initiate_layer_upload(repositoryName=name)["uploadId"],
            }
            client.upload_layer_part(**part, partFirstByte=0, partLastByte=4, layerPartBlob=b"layer")
            return part

        assert refusal(client.complete_layer_upload, **upload(), layerDigests=[ABSENT])[0] == "InvalidLayerException"
        client.complete_layer_upload(**upload(), layerDigests=[digest])
        assert refusal(client.complete_layer_upload, **upload(), layerDigests=[digest]) == (
            "LayerAlreadyExistsException",
            "The image layer already exists in the associated repository.",
        )
        for unknown in (UPLOAD, "does-not-exist"):
            assert refusal(
                client.complete_layer_upload, repositoryName=name, uploadId=unknown, layerDigests=[digest]
            ) == (
                "UploadNotFoundException",
                f"The upload with id '{unknown}' does not exist in the repository with name '{name}' {IN_REGISTRY}",
            )
        code = refusal(client.get_download_url_for_layer, repositoryName=name, layerDigest=digest)[0]
        assert code == "LayerInaccessibleException"
        code = refusal(client.get_download_url_for_layer, repositoryName=name, layerDigest=ABSENT)[0]
        assert code == "LayersNotFoundException"


class TestPolicies:
    def test_there_is_none(self, client: Any, name: str) -> None:
        repository = f"for the repository with name '{name}' {IN_REGISTRY}"
        for call in (client.get_repository_policy, client.delete_repository_policy):
            assert refusal(call, repositoryName=name) == (
                "RepositoryPolicyNotFoundException",
                f"Repository policy does not exist {repository}",
            )
        for call in (client.get_lifecycle_policy, client.delete_lifecycle_policy):
            assert refusal(call, repositoryName=name) == (
                "LifecyclePolicyNotFoundException",
                f"Lifecycle policy does not exist {repository}",
            )
        assert refusal(client.get_lifecycle_policy_preview, repositoryName=name) == (
            "LifecyclePolicyPreviewNotFoundException",
            f"Lifecycle policy preview does not exist {repository}",
        )
        for call in (client.get_registry_policy, client.delete_registry_policy):
            assert refusal(call) == (
                "RegistryPolicyNotFoundException",
                f"Registry policy does not exist {IN_REGISTRY}",
            )

    @pytest.mark.parametrize("text", ["no json", "{}", '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow"}]}'])
    def test_one_that_is_none(self, client: Any, name: str, text: str) -> None:
        assert refusal(client.set_repository_policy, repositoryName=name, policyText=text) == constraint(
            "PolicyText", "Invalid repository policy provided"
        )
        assert refusal(client.put_registry_policy, policyText=text) == constraint(
            "PolicyText", "Invalid registry policy provided"
        )

    @pytest.mark.parametrize(
        ("text", "detail"),
        [
            ("x" * 100, "Could not map policyString into LifecyclePolicy.'"),
            (json.dumps({"rule": "x" * 100}), 'object has missing required properties (["rules"])\''),
        ],
    )
    def test_a_lifecycle_policy_that_is_none(self, client: Any, name: str, text: str, detail: str) -> None:
        assert refusal(client.put_lifecycle_policy, repositoryName=name, lifecyclePolicyText=text) == (
            INVALID,
            "Invalid parameter at 'LifecyclePolicyText' failed to satisfy constraint: 'Lifecycle policy validation"
            f" failure: {detail}",
        )


class TestRegistry:
    def test_replication_to_itself(self, client: Any) -> None:
        rules = {"rules": [{"destinations": [{"region": REGION, "registryId": ACCOUNT}]}]}
        assert refusal(client.put_replication_configuration, replicationConfiguration=rules) == constraint(
            "replicationConfiguration", "Replication destination cannot be the same as the source registry"
        )

    def test_scans(self, client: Any, name: str) -> None:
        client.put_image(repositoryName=name, imageManifest=made_up_manifest(name), imageTag="v1")
        image = {"repositoryName": name, "imageId": {"imageTag": "v1"}}
        assert refusal(client.describe_image_scan_findings, **image) == (
            "ScanNotFoundException",
            "Image scan does not exist for the image with '{imageDigest:'null', imageTag:'v1'}' in the repository with"
            f" name '{name}' {IN_REGISTRY}",
        )
        client.start_image_scan(**image)
        assert refusal(client.start_image_scan, **image) == (
            "LimitExceededException",
            "The scan quota per image has been exceeded. Wait and try again.",
        )


@pytest.mark.parametrize(
    ("operation", "members", "expected"),
    [
        (
            "describe_repositories",
            {"maxResults": 1001},
            constraint("maxResults", "Member must have value less than or equal to 1000"),
        ),
        (
            "put_image_tag_mutability",
            {"repositoryName": "app", "imageTagMutability": "invalid"},
            constraint(
                "imageTagMutability",
                "Member must satisfy enum value set: [IMMUTABLE, MUTABLE, MUTABLE_WITH_EXCLUSION,"
                " IMMUTABLE_WITH_EXCLUSION]",
            ),
        ),
        (
            "create_repository",
            {"repositoryName": "a" * 257},
            constraint("repositoryName", "Member must have length less than or equal to 256"),
        ),
        (
            "set_repository_policy",
            {"repositoryName": "app", "policyText": "x" * 10241},
            constraint("policyText", "Member must have length less than or equal to 10240"),
        ),
    ],
)
def test_what_the_client_does_not_check(
    client: Any, operation: str, members: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert refusal(getattr(client, operation), **members) == expected
