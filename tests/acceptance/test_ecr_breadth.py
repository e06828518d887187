"""Every operation of ECR through boto3, against the daemon on `configs/ecr-local.yaml`, in the order of real scripts.

What is written is read back, what is deleted is gone and its second deletion is told by a NotFoundException, as
providers of infrastructure tools expect. Each script says which operations it uses; together they are all of the model.
"""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from botocore.loaders import Loader

from tests.support.local_ecr import ACCOUNT, REGION, digest_of, made_up_manifest, new_name, refusal, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.local_ecr import LocalEcr

pytestmark = [pytest.mark.clients, pytest.mark.slow]

KMS_KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/51d81fab-b138-4bd2-8a09-07fd6d37224d"
PROFILE = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/ours"
LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": "keep the two newest",
            "selection": {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 2},
            "action": {"type": "expire"},
        }
    ]
}
POLICY: dict[str, Any] = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Sid": "pull",
            "Effect": "Allow",
            "Principal": {"AWS": ["210987654321", "arn:aws:iam::111111111111:root"]},
            "Action": "ecr:BatchGetImage",
        },
        {"Effect": "Allow", "Principal": "*", "Action": ["ecr:GetDownloadUrlForLayer"]},
    ],
}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEcr]:
    yield from running(tmp_path_factory.mktemp("ecr"))


def put(client: Any, name: str, seed: str, tag: str | None = None) -> str:
    """Put a made-up image; return its digest."""
    tagged = {} if tag is None else {"imageTag": tag}
    answer = client.put_image(repositoryName=name, imageManifest=made_up_manifest(seed), **tagged)
    return str(answer["image"]["imageId"]["imageDigest"])


def repositories(client: Any) -> None:
    name = new_name()
    made = client.create_repository(
        repositoryName=name,
        tags=[{"Key": "team", "Value": "one"}],
        imageTagMutability="IMMUTABLE",
        imageScanningConfiguration={"scanOnPush": True},
        encryptionConfiguration={"encryptionType": "KMS", "kmsKey": KMS_KEY},
    )["repository"]
    assert made["repositoryArn"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{name}"
    assert made["repositoryUri"] == f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/{name}"
    assert client.describe_repositories(repositoryNames=[name])["repositories"] == [made]
    arn = made["repositoryArn"]
    client.tag_resource(resourceArn=arn, tags=[{"Key": "team", "Value": "two"}, {"Key": "stage", "Value": "test"}])
    client.untag_resource(resourceArn=arn, tagKeys=["stage", "never"])
    assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "team", "Value": "two"}]
    filters = [{"filterType": "WILDCARD", "filter": "dev-*"}]
    changed = client.put_image_tag_mutability(
        repositoryName=name, imageTagMutability="IMMUTABLE_WITH_EXCLUSION", imageTagMutabilityExclusionFilters=filters
    )
    assert changed["imageTagMutabilityExclusionFilters"] == filters
    client.put_image_scanning_configuration(repositoryName=name, imageScanningConfiguration={"scanOnPush": False})
    [read] = client.describe_repositories(repositoryNames=[name])["repositories"]
    assert read == {
        **made,
        "imageTagMutability": "IMMUTABLE_WITH_EXCLUSION",
        "imageTagMutabilityExclusionFilters": filters,
        "imageScanningConfiguration": {"scanOnPush": False},
    }
    assert client.delete_repository(repositoryName=name)["repository"] == read
    assert refusal(client.delete_repository, repositoryName=name)[0] == "RepositoryNotFoundException"
    assert refusal(client.list_tags_for_resource, resourceArn=arn)[0] == "RepositoryNotFoundException"


def images(client: Any) -> None:
    name = new_name()
    client.create_repository(repositoryName=name)
    manifest = made_up_manifest(name)
    stored = client.put_image(repositoryName=name, imageManifest=manifest, imageTag="v1")["image"]
    assert stored["imageId"] == {"imageDigest": digest_of(manifest), "imageTag": "v1"}
    got = client.batch_get_image(repositoryName=name, imageIds=[{"imageTag": "v1"}, {"imageTag": "v2"}])
    assert [one["imageManifest"] for one in got["images"]] == [manifest]
    assert got["failures"] == [
        {"imageId": {"imageTag": "v2"}, "failureCode": "ImageNotFound", "failureReason": "Requested image not found"}
    ]
    client.put_image(repositoryName=name, imageManifest=manifest, imageTag="latest")
    assert refusal(client.delete_repository, repositoryName=name)[0] == "RepositoryNotEmptyException"
    [detail] = client.describe_images(repositoryName=name)["imageDetails"]
    assert detail["imageTags"] == ["v1", "latest"]
    assert detail["imageSizeInBytes"] == 3003
    put(client, name, f"{name} other", "latest")
    listed = client.list_images(repositoryName=name)["imageIds"]
    assert [one["imageTag"] for one in listed] == ["v1", "latest"]
    client.update_image_storage_class(repositoryName=name, imageId={"imageTag": "v1"}, targetStorageClass="ARCHIVE")
    archived = client.describe_images(repositoryName=name, filter={"imageStatus": "ARCHIVED"})["imageDetails"]
    assert [one["imageDigest"] for one in archived] == [digest_of(manifest)]
    statement = {"mediaType": stored["imageManifestMediaType"], "digest": digest_of(manifest), "size": len(manifest)}
    put_by = made_up_manifest(f"{name} sbom", subject=statement, mediaType="application/vnd.oci.image.manifest.v1+json")
    client.put_image(repositoryName=name, imageManifest=put_by)
    found = client.list_image_referrers(repositoryName=name, subjectId={"imageDigest": digest_of(manifest)})
    assert [one["digest"] for one in found["referrers"]] == [digest_of(put_by)]
    gone = client.batch_delete_image(
        repositoryName=name, imageIds=[{"imageTag": "latest"}, {"imageDigest": digest_of(put_by)}]
    )
    assert (len(gone["imageIds"]), gone["failures"]) == (2, [])
    again = client.batch_delete_image(repositoryName=name, imageIds=[{"imageTag": "latest"}])
    assert [one["failureCode"] for one in again["failures"]] == ["ImageNotFound"]
    client.delete_repository(repositoryName=name, force=True)


def layers(client: Any) -> None:
    name, content = new_name(), b"a layer"
    client.create_repository(repositoryName=name)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    begun = client.initiate_layer_upload(repositoryName=name)
    part = {"uploadId": begun["uploadId"], "partFirstByte": 0, "partLastByte": len(content) - 1}
    sent = client.upload_layer_part(repositoryName=name, layerPartBlob=content, **part)
    assert sent["lastByteReceived"] == len(content) - 1
    done = client.complete_layer_upload(repositoryName=name, uploadId=begun["uploadId"], layerDigests=[digest])
    assert done["layerDigest"] == digest
    known = client.batch_check_layer_availability(repositoryName=name, layerDigests=[digest])
    assert known["layers"] == [
        {
            "layerDigest": digest,
            "layerAvailability": "AVAILABLE",
            "layerSize": len(content),
            "mediaType": "application/octet-stream",
        }
    ]
    assert known["failures"] == []
    code, _ = refusal(client.get_download_url_for_layer, repositoryName=name, layerDigest=digest)
    assert code == "LayerInaccessibleException"
    layer = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": len(content)}
    client.put_image(repositoryName=name, imageManifest=made_up_manifest(name, layers=[layer]))
    url = client.get_download_url_for_layer(repositoryName=name, layerDigest=digest)["downloadUrl"]
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.read() == content
    client.delete_repository(repositoryName=name, force=True)


def repository_policies(client: Any) -> None:
    name = new_name()
    client.create_repository(repositoryName=name)
    assert refusal(client.get_repository_policy, repositoryName=name)[0] == "RepositoryPolicyNotFoundException"
    for _ in range(2):
        client.set_repository_policy(repositoryName=name, policyText=json.dumps(POLICY))
    assert json.loads(client.get_repository_policy(repositoryName=name)["policyText"]) == POLICY
    assert json.loads(client.delete_repository_policy(repositoryName=name)["policyText"]) == POLICY
    assert refusal(client.delete_repository_policy, repositoryName=name)[0] == "RepositoryPolicyNotFoundException"
    client.delete_repository(repositoryName=name)


def registry_policies(client: Any) -> None:
    policy = {**POLICY, "Statement": [{**one, "Resource": "*"} for one in POLICY["Statement"]]}
    assert refusal(client.get_registry_policy)[0] == "RegistryPolicyNotFoundException"
    assert json.loads(client.put_registry_policy(policyText=json.dumps(policy))["policyText"]) == policy
    assert json.loads(client.get_registry_policy()["policyText"]) == policy
    assert json.loads(client.delete_registry_policy()["policyText"]) == policy
    assert refusal(client.delete_registry_policy)[0] == "RegistryPolicyNotFoundException"


def lifecycle(client: Any) -> None:
    name, text = new_name(), json.dumps(LIFECYCLE, indent=2)
    client.create_repository(repositoryName=name)
    assert refusal(client.get_lifecycle_policy, repositoryName=name)[0] == "LifecyclePolicyNotFoundException"
    client.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=text)
    read = client.get_lifecycle_policy(repositoryName=name)
    assert read["lifecyclePolicyText"] == json.dumps(LIFECYCLE, separators=(",", ":"))
    assert read["lastEvaluatedAt"].timestamp() == 0
    digests = [put(client, name, f"{name} {number}", f"v{number}") for number in range(3)]
    started = client.start_lifecycle_policy_preview(repositoryName=name)
    assert started["status"] == "IN_PROGRESS"
    client.get_waiter("lifecycle_policy_preview_complete").wait(
        repositoryName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    preview = client.get_lifecycle_policy_preview(repositoryName=name)
    assert [one["imageDigest"] for one in preview["previewResults"]] == digests[:1]
    assert preview["summary"] == {"expiringImageTotalCount": 1}
    assert len(client.list_images(repositoryName=name)["imageIds"]) == 3
    client.delete_lifecycle_policy(repositoryName=name)
    assert refusal(client.delete_lifecycle_policy, repositoryName=name)[0] == "LifecyclePolicyNotFoundException"
    client.delete_repository(repositoryName=name, force=True)


def replication(client: Any) -> None:
    name, there = new_name(), {"region": "eu-west-1", "registryId": ACCOUNT}
    client.create_repository(repositoryName=name)
    filters = [{"filter": name, "filterType": "PREFIX_MATCH"}]
    wanted = {"rules": [{"destinations": [there], "repositoryFilters": filters}]}
    digest = put(client, name, name, "v1")
    for _ in range(2):
        assert (
            client.put_replication_configuration(replicationConfiguration=wanted)["replicationConfiguration"] == wanted
        )
    read = client.describe_registry()
    assert (read["registryId"], read["replicationConfiguration"]) == (ACCOUNT, wanted)
    status = client.describe_image_replication_status(repositoryName=name, imageId={"imageDigest": digest})
    assert status["replicationStatuses"] == []
    begun = client.start_replication_backfill(destination=there)
    assert begun["destination"] == there
    identifier = begun["replicationBackfillId"]
    assert identifier in {one["replicationBackfillId"] for one in client.list_replication_backfills()["backfills"]}
    seen = client.describe_replication_backfill_results(replicationBackfillId=identifier)
    assert seen["replicationBackfillId"] == identifier
    try:
        client.stop_replication_backfill(replicationBackfillId=identifier)
    except client.exceptions.ReplicationBackfillInvalidStatusException:
        # Nobody is there to bring images to: it may have ended before.
        assert seen["status"] != "PREPARING"
    client.put_replication_configuration(replicationConfiguration={"rules": []})
    assert client.describe_registry()["replicationConfiguration"] == {"rules": []}
    client.delete_repository(repositoryName=name, force=True)


def cache_rules(client: Any) -> None:
    made = client.create_pull_through_cache_rule(ecrRepositoryPrefix="kube", upstreamRegistryUrl="registry.k8s.io")
    assert made["upstreamRegistry"] == "k8s"
    [read] = client.describe_pull_through_cache_rules(ecrRepositoryPrefixes=["kube"])["pullThroughCacheRules"]
    assert (read["upstreamRegistryUrl"], read["createdAt"]) == ("registry.k8s.io", made["createdAt"])
    validated = client.validate_pull_through_cache_rule(ecrRepositoryPrefix="kube")
    assert validated["isValid"] is False, "tests reach no other machine"
    updated = client.update_pull_through_cache_rule(
        ecrRepositoryPrefix="kube", customRoleArn=f"arn:aws:iam::{ACCOUNT}:role/cache"
    )
    assert updated["customRoleArn"] == f"arn:aws:iam::{ACCOUNT}:role/cache"
    client.delete_pull_through_cache_rule(ecrRepositoryPrefix="kube")
    code, _ = refusal(client.delete_pull_through_cache_rule, ecrRepositoryPrefix="kube")
    assert code == "PullThroughCacheRuleNotFoundException"


def templates(client: Any) -> None:
    made = client.create_repository_creation_template(
        prefix="made", description="ours", appliedFor=["CREATE_ON_PUSH"], imageTagMutability="IMMUTABLE"
    )["repositoryCreationTemplate"]
    [read] = client.describe_repository_creation_templates(prefixes=["made"])["repositoryCreationTemplates"]
    assert read == made
    changed = client.update_repository_creation_template(prefix="made", description="theirs")
    assert changed["repositoryCreationTemplate"]["description"] == "theirs"
    client.delete_repository_creation_template(prefix="made")
    code, _ = refusal(client.delete_repository_creation_template, prefix="made")
    assert code == "TemplateNotFoundException"


def scanning(client: Any) -> None:
    name = new_name("scans")
    client.create_repository(repositoryName=name)
    put(client, name, name, "v1")
    rules = [{"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "scans/*", "filterType": "WILDCARD"}]}]
    client.put_registry_scanning_configuration(scanType="BASIC", rules=rules)
    read = client.get_registry_scanning_configuration()["scanningConfiguration"]
    assert read == {"scanType": "BASIC", "rules": rules}
    of_both = client.batch_get_repository_scanning_configuration(repositoryNames=[name, "unknown"])
    assert of_both["scanningConfigurations"][0]["appliedScanFilters"] == rules[0]["repositoryFilters"]
    assert of_both["failures"] == [
        {
            "repositoryName": "unknown",
            "failureCode": "REPOSITORY_NOT_FOUND",
            "failureReason": "REPOSITORY_NOT_FOUND",
        }
    ]
    started = client.start_image_scan(repositoryName=name, imageId={"imageTag": "v1"})
    assert started["imageScanStatus"] == {"status": "IN_PROGRESS"}
    assert client.describe_image_scan_findings(repositoryName=name, imageId={"imageTag": "v1"})["imageScanStatus"]
    client.put_registry_scanning_configuration(scanType="BASIC", rules=[])
    client.delete_repository(repositoryName=name, force=True)


def account(client: Any) -> None:
    assert client.get_account_setting(name="BLOB_MOUNTING")["value"] == "DISABLED"
    client.put_account_setting(name="BLOB_MOUNTING", value="ENABLED")
    assert client.get_account_setting(name="BLOB_MOUNTING")["value"] == "ENABLED"
    client.put_account_setting(name="BLOB_MOUNTING", value="DISABLED")
    [one] = client.get_authorization_token()["authorizationData"]
    user, password = base64.b64decode(one["authorizationToken"]).decode().split(":")
    assert (user, bool(password)) == ("AWS", True)
    assert one["proxyEndpoint"] == f"https://{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"


def signing(client: Any) -> None:
    name = new_name()
    client.create_repository(repositoryName=name)
    wanted = {"rules": [{"signingProfileArn": PROFILE}]}
    assert client.put_signing_configuration(signingConfiguration=wanted)["signingConfiguration"] == wanted
    assert client.get_signing_configuration()["signingConfiguration"] == wanted
    put(client, name, name, "v1")
    status = client.describe_image_signing_status(repositoryName=name, imageId={"imageTag": "v1"})
    assert [one["signingProfileArn"] for one in status["signingStatuses"]] == [PROFILE]
    client.delete_signing_configuration()
    assert refusal(client.get_signing_configuration)[0] == "SigningConfigurationNotFoundException"
    assert refusal(client.delete_signing_configuration)[0] == "SigningConfigurationNotFoundException"
    client.delete_repository(repositoryName=name, force=True)


def pull_time_exclusions(client: Any) -> None:
    principal = {"principalArn": f"arn:aws:iam::{ACCOUNT}:role/scanner"}
    client.register_pull_time_update_exclusion(**principal)
    assert refusal(client.register_pull_time_update_exclusion, **principal)[0] == "ExclusionAlreadyExistsException"
    assert client.list_pull_time_update_exclusions()["pullTimeUpdateExclusions"] == [principal["principalArn"]]
    client.deregister_pull_time_update_exclusion(**principal)
    assert refusal(client.deregister_pull_time_update_exclusion, **principal)[0] == "ExclusionNotFoundException"


IMAGES = "CreateRepository DeleteRepository PutImage"
SCRIPTS: dict[Callable[[Any], None], str] = {
    repositories: "CreateRepository DescribeRepositories DeleteRepository TagResource UntagResource ListTagsForResource"
    " PutImageTagMutability PutImageScanningConfiguration",
    images: f"{IMAGES} BatchGetImage BatchDeleteImage ListImages DescribeImages ListImageReferrers"
    " UpdateImageStorageClass",
    layers: f"{IMAGES} BatchCheckLayerAvailability InitiateLayerUpload UploadLayerPart CompleteLayerUpload"
    " GetDownloadUrlForLayer",
    repository_policies: "CreateRepository DeleteRepository SetRepositoryPolicy GetRepositoryPolicy"
    " DeleteRepositoryPolicy",
    registry_policies: "PutRegistryPolicy GetRegistryPolicy DeleteRegistryPolicy",
    lifecycle: f"{IMAGES} ListImages PutLifecyclePolicy GetLifecyclePolicy DeleteLifecyclePolicy"
    " StartLifecyclePolicyPreview GetLifecyclePolicyPreview",
    replication: f"{IMAGES} PutReplicationConfiguration DescribeRegistry DescribeImageReplicationStatus"
    " StartReplicationBackfill StopReplicationBackfill ListReplicationBackfills DescribeReplicationBackfillResults",
    cache_rules: "CreatePullThroughCacheRule DescribePullThroughCacheRules UpdatePullThroughCacheRule"
    " DeletePullThroughCacheRule ValidatePullThroughCacheRule",
    templates: "CreateRepositoryCreationTemplate DescribeRepositoryCreationTemplates UpdateRepositoryCreationTemplate"
    " DeleteRepositoryCreationTemplate",
    scanning: f"{IMAGES} PutRegistryScanningConfiguration GetRegistryScanningConfiguration"
    " BatchGetRepositoryScanningConfiguration StartImageScan DescribeImageScanFindings",
    account: "GetAccountSetting PutAccountSetting GetAuthorizationToken",
    signing: f"{IMAGES} PutSigningConfiguration GetSigningConfiguration DeleteSigningConfiguration"
    " DescribeImageSigningStatus",
    pull_time_exclusions: "RegisterPullTimeUpdateExclusion ListPullTimeUpdateExclusions"
    " DeregisterPullTimeUpdateExclusion",
}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda one: one.__name__)
def test_a_script_works(local: LocalEcr, script: Callable[[Any], None]) -> None:
    client, used = local.client(), set()
    client.meta.events.register("before-call", lambda model, **_: used.add(model.name))
    script(client)
    assert used == set(SCRIPTS[script].split())


def test_the_scripts_use_every_operation() -> None:
    operations = Loader().load_service_model("ecr", "service-2")["operations"]
    assert len(operations) == 62
    assert {name for used in SCRIPTS.values() for name in used.split()} == set(operations)
