"""The real `aws` CLI against the daemon on `configs/ecr-local.yaml`: what scripts and CI do, and what they see fail.

Images are pushed by skopeo with the password of `aws ecr get-login-password`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.layouts import container_image, write_oci_layout
from tests.support.local_ecr import ACCOUNT, REGION, digest_of, made_up_manifest, new_name, running
from tests.support.skopeo import SkopeoFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.local_ecr import LocalEcr
    from tests.support.skopeo import Skopeo

pytestmark = [pytest.mark.clients, pytest.mark.slow]

POLICY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [{"Sid": "pull", "Effect": "Allow", "Principal": "*", "Action": "ecr:BatchGetImage"}],
}
LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "selection": {
                "tagStatus": "tagged",
                "tagPatternList": ["v*"],
                "countType": "imageCountMoreThan",
                "countNumber": 1,
            },
            "action": {"type": "expire"},
        }
    ]
}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEcr]:
    yield from running(tmp_path_factory.mktemp("ecr"))


@pytest.fixture
def name(local: LocalEcr) -> str:
    made = new_name("cli")
    local.ecr("create-repository", "--repository-name", made)
    return made


def put(local: LocalEcr, name: str, seed: str, tag: str) -> str:
    """Put a made-up image from a file; return its digest."""
    manifest = made_up_manifest(seed)
    (local.daemon.directory / "manifest.json").write_text(manifest)
    stored = local.ecr(
        "put-image", "--repository-name", name, "--image-tag", tag, "--image-manifest", "file://manifest.json"
    )
    assert stored["image"]["imageId"] == {"imageDigest": digest_of(manifest), "imageTag": tag}
    return digest_of(manifest)


def test_an_image_is_pushed_with_the_password_of_the_login(
    local: LocalEcr, name: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    write_oci_layout(tmp_path / "layout", {"app": container_image([{"greeting": b"hello"}])})
    password, image = local.text("get-login-password"), f"docker://{local.address}/{name}:1.0"
    with pytest.raises(SkopeoFailed, match=r"(?i)unauthorized|authentication required|Not Authorized"):
        skopeo.copy(f"oci:{tmp_path / 'layout'}:app", image, "--dest-creds", f"AWS:{password}x")
    skopeo.copy(f"oci:{tmp_path / 'layout'}:app", image, "--dest-creds", f"AWS:{password}")
    digest = local.text(
        *("describe-images", "--repository-name", name),
        *("--query", "imageDetails[?contains(imageTags, '1.0')].imageDigest"),
    )
    assert skopeo.inspect(image, "--creds", f"AWS:{password}")["Digest"] == digest
    # Another tag, as scripts set it: with the manifest's own text.
    manifest = local.text(
        *("batch-get-image", "--repository-name", name, "--image-ids", "imageTag=1.0"),
        *("--query", "images[0].imageManifest"),
    )
    assert digest_of(manifest) == digest
    local.ecr("put-image", "--repository-name", name, "--image-tag", "stable", "--image-manifest", manifest)
    described = local.ecr("describe-images", "--repository-name", name, "--image-ids", "imageTag=stable")
    assert described["imageDetails"][0]["imageTags"] == ["1.0", "stable"]


def test_get_login_tells_dockers_command_line(local: LocalEcr) -> None:
    line = local.aws("ecr", "get-login", "--no-include-email").stdout
    assert line.startswith("docker login -u AWS -p ")
    assert line.endswith(f" https://{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com\n")


def test_a_repository_from_its_creation_to_its_end(local: LocalEcr) -> None:
    name = new_name("cli")
    made = local.ecr(
        *("create-repository", "--repository-name", name, "--image-tag-mutability", "IMMUTABLE"),
        *("--image-scanning-configuration", "scanOnPush=true", "--tags", "Key=team,Value=one"),
    )["repository"]
    arn = local.text(
        *("describe-repositories", "--repository-names", name),
        *("--query", "repositories[0].repositoryArn"),
    )
    assert arn == made["repositoryArn"]
    assert local.ecr("tag-resource", "--resource-arn", arn, "--tags", "Key=stage,Value=test") is None
    assert local.ecr("untag-resource", "--resource-arn", arn, "--tag-keys", "team") is None
    assert local.ecr("list-tags-for-resource", "--resource-arn", arn) == {"tags": [{"Key": "stage", "Value": "test"}]}
    put(local, name, name, "v1")
    assert local.fails("put-image", "--repository-name", name, "--image-tag", "v1", "--image-manifest", "{}") == (
        "An error occurred (InvalidParameterException) when calling the PutImage operation: image manifest mediatype"
        " not provided in manifest or parameter"
    )
    assert local.fails("delete-repository", "--repository-name", name) == (
        "An error occurred (RepositoryNotEmptyException) when calling the DeleteRepository operation: The repository"
        f" with name '{name}' in registry with id '{ACCOUNT}' cannot be deleted because it still contains images"
    )
    assert local.ecr("delete-repository", "--repository-name", name, "--force")["repository"]["repositoryName"] == name
    assert local.fails("delete-repository", "--repository-name", name, "--force") == (
        "An error occurred (RepositoryNotFoundException) when calling the DeleteRepository operation: The repository"
        f" with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
    )


def test_lists_come_in_pages(local: LocalEcr, name: str) -> None:
    tags = [f"v{number}" for number in range(5)]
    for tag in tags:
        put(local, name, f"{name} {tag}", tag)
    query = ("--query", "imageIds[].imageTag")
    assert local.ecr("list-images", "--repository-name", name, "--page-size", "2", *query) == tags
    first = local.ecr("list-images", "--repository-name", name, "--max-items", "3")
    rest = local.ecr("list-images", "--repository-name", name, "--starting-token", first["NextToken"])
    assert [one["imageTag"] for one in (*first["imageIds"], *rest["imageIds"])] == tags
    assert "NextToken" not in rest
    newest = local.ecr(
        *("describe-images", "--repository-name", name, "--page-size", "2"),
        *("--query", "sort_by(imageDetails, &imagePushedAt)[-1].imageTags[0]"),
    )
    assert newest == "v4"


def test_images_are_deleted_in_a_batch(local: LocalEcr, name: str) -> None:
    digest = put(local, name, name, "v1")
    gone = local.ecr(
        *("batch-delete-image", "--repository-name", name),
        *("--image-ids", "imageTag=v1", "imageTag=v2", "imageDigest=sha256:no"),
    )
    assert gone == {
        "imageIds": [{"imageDigest": digest, "imageTag": "v1"}],
        "failures": [
            {
                "imageId": {"imageTag": "v2"},
                "failureCode": "ImageNotFound",
                "failureReason": "Requested image not found",
            },
            {
                "imageId": {"imageDigest": "sha256:no"},
                "failureCode": "InvalidImageDigest",
                "failureReason": "Invalid request parameters: image digest should satisfy the regex"
                " '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'",
            },
        ],
    }
    assert local.fails("describe-images", "--repository-name", name, "--image-ids", "imageTag=v1") == (
        "An error occurred (ImageNotFoundException) when calling the DescribeImages operation: The image with imageId"
        " {imageDigest:'null', imageTag:'v1'} does not exist within the repository with name"
        f" '{name}' in the registry with id '{ACCOUNT}'"
    )


def test_policies_come_from_files(local: LocalEcr, name: str) -> None:
    home = local.daemon.directory
    (home / "policy.json").write_text(json.dumps(POLICY, indent=2))
    local.ecr("set-repository-policy", "--repository-name", name, "--policy-text", "file://policy.json")
    read = local.text("get-repository-policy", "--repository-name", name, "--query", "policyText")
    assert json.loads(read) == POLICY
    local.ecr("delete-repository-policy", "--repository-name", name)
    assert "(RepositoryPolicyNotFoundException)" in local.fails("get-repository-policy", "--repository-name", name)
    registry = {**POLICY, "Statement": [{**POLICY["Statement"][0], "Resource": "*"}]}
    (home / "registry.json").write_text(json.dumps(registry))
    local.ecr("put-registry-policy", "--policy-text", "file://registry.json")
    assert json.loads(local.text("get-registry-policy", "--query", "policyText")) == registry
    local.ecr("delete-registry-policy")
    assert local.fails("delete-registry-policy") == (
        "An error occurred (RegistryPolicyNotFoundException) when calling the DeleteRegistryPolicy operation: Registry"
        f" policy does not exist in the registry with id '{ACCOUNT}'"
    )


def test_a_lifecycle_policy_is_previewed_and_waited_for(local: LocalEcr, name: str) -> None:
    oldest = put(local, name, f"{name} 1", "v1")
    put(local, name, f"{name} 2", "v2")
    (local.daemon.directory / "lifecycle.json").write_text(json.dumps(LIFECYCLE, indent=4))
    put_policy = ("put-lifecycle-policy", "--repository-name", name, "--lifecycle-policy-text", "file://lifecycle.json")
    assert json.loads(local.ecr(*put_policy)["lifecyclePolicyText"]) == LIFECYCLE
    local.ecr("start-lifecycle-policy-preview", "--repository-name", name)
    assert local.ecr("wait", "lifecycle-policy-preview-complete", "--repository-name", name) is None
    preview = local.ecr("get-lifecycle-policy-preview", "--repository-name", name)
    assert [one["imageDigest"] for one in preview["previewResults"]] == [oldest]
    assert preview["summary"] == {"expiringImageTotalCount": 1}
    local.ecr("delete-lifecycle-policy", "--repository-name", name)
    assert "(LifecyclePolicyNotFoundException)" in local.fails("get-lifecycle-policy", "--repository-name", name)


def test_waiting_for_a_scan_ends_without_findings(local: LocalEcr, name: str) -> None:
    """Nobody scans yet: the scan ends as that of an image that cannot be scanned, and the waiter says so."""
    put(local, name, name, "v1")
    image = ("--repository-name", name, "--image-id", "imageTag=v1")
    assert "(ScanNotFoundException)" in local.fails("describe-image-scan-findings", *image)
    assert local.ecr("start-image-scan", *image)["imageScanStatus"] == {"status": "IN_PROGRESS"}
    said = local.fails("start-image-scan", *image)
    assert said.endswith("The scan quota per image has been exceeded. Wait and try again.")
    waited = local.fails("wait", "image-scan-complete", *image)
    assert waited.startswith("Waiter ImageScanComplete failed: Waiter encountered a terminal failure state")
    found = local.ecr("describe-image-scan-findings", *image)
    assert (found["imageScanStatus"]["status"], bool(found.get("imageScanFindings"))) == ("FAILED", False)


def test_settings_of_the_registry(local: LocalEcr) -> None:
    there = {"rules": [{"destinations": [{"region": "eu-west-1", "registryId": ACCOUNT}]}]}
    put_rules = ("put-replication-configuration", "--replication-configuration")
    assert local.ecr(*put_rules, json.dumps(there)) == {"replicationConfiguration": there}
    assert local.ecr("describe-registry")["replicationConfiguration"] == there
    local.ecr(*put_rules, json.dumps({"rules": []}))
    assert local.ecr("describe-registry")["replicationConfiguration"] == {"rules": []}
    rule = ("--ecr-repository-prefix", "cli-cache")
    local.ecr("create-pull-through-cache-rule", *rule, "--upstream-registry-url", "public.ecr.aws")
    described = local.ecr("describe-pull-through-cache-rules", "--ecr-repository-prefixes", "cli-cache")
    assert described["pullThroughCacheRules"][0]["upstreamRegistry"] == "ecr-public"
    local.ecr("delete-pull-through-cache-rule", *rule)
    assert "(PullThroughCacheRuleNotFoundException)" in local.fails("delete-pull-through-cache-rule", *rule)
    template = ("--prefix", "cli-made")
    local.ecr("create-repository-creation-template", *template, "--applied-for", "CREATE_ON_PUSH")
    assert local.ecr("describe-repository-creation-templates", "--prefixes", "cli-made")["repositoryCreationTemplates"]
    local.ecr("delete-repository-creation-template", *template)
    assert "(TemplateNotFoundException)" in local.fails("delete-repository-creation-template", *template)
    setting = ("--name", "BASIC_SCAN_TYPE_VERSION")
    assert local.ecr("get-account-setting", *setting)["value"] == "AWS_NATIVE"
    assert local.ecr("get-registry-scanning-configuration")["scanningConfiguration"]["scanType"] == "BASIC"


def test_what_the_client_does_not_check_is_told_by_the_service(local: LocalEcr) -> None:
    assert local.fails("create-repository", "--repository-name", "Upper") == (
        "An error occurred (InvalidParameterException) when calling the CreateRepository operation: Invalid parameter"
        " at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression"
        " '[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(\\/[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*)*''"
    )
    assert local.fails("list-tags-for-resource", "--resource-arn", "invalid") == (
        "An error occurred (InvalidParameterException) when calling the ListTagsForResource operation: Invalid"
        " parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'"
    )
