"""What is scanned and what scans found, through boto3; a scanner's reports are stored through `Scans.record`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError, WaiterError

from replicator.core.digest import digest_of
from replicator.core.errors import ManifestNotFound, ScanningMismatch
from replicator.core.names import RepositoryName
from replicator.core.scanning import EnhancedFinding, Finding, ScanReport, ScanStatus, ScanType, Severity
from replicator.registry.scans import Scans
from replicator.storage.metadata import scans
from tests.support.ecr_images import put_manifest, upload
from tests.support.ecr_node import ACCOUNT, REGION, ecr_nodes, node
from tests.support.images import build_image, build_index, walk
from tests.support.threaded_upstream import ThreadedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes
    from tests.support.images import Built

DAY = 24 * 60 * 60
WAIT = {"Delay": 0, "MaxAttempts": 5}
UNSUPPORTED = "UnsupportedImageError: The operating system and/or package manager are not supported."
EVERYTHING = [{"filter": "*", "filterType": "WILDCARD"}]
APP = "team/app"
NAME = RepositoryName(APP)
IMAGE = build_image([b"scanned"])


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path) as nodes:
        yield nodes


@pytest.fixture
def client(ecr: EcrNodes) -> Any:
    found = ecr.client()
    found.create_repository(repositoryName=APP)
    return found


def push(ecr: EcrNodes, built: Built, *references: str, repository: str = APP) -> None:
    upload(ecr, repository, built)
    for one in walk(built):
        assert put_manifest(ecr, repository, one).status == 201
    for reference in references:
        assert put_manifest(ecr, repository, built, reference).status == 201


def configure(client: Any, scan_type: str, frequency: str | None = None, *filters: str) -> None:
    chosen = [{"filter": one, "filterType": "WILDCARD"} for one in filters]
    rules = [{"scanFrequency": frequency, "repositoryFilters": chosen}] if frequency else []
    client.put_registry_scanning_configuration(scanType=scan_type, rules=rules)


def findings(client: Any, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.describe_image_scan_findings(
        repositoryName=APP, imageId={"imageDigest": IMAGE.digest}, **more
    )
    return found


def refusal(caught: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def start(client: Any, **image_id: str) -> dict[str, Any]:
    started: dict[str, Any] = client.start_image_scan(repositoryName=APP, imageId=image_id)
    return started


def record(ecr: EcrNodes, report: ScanReport) -> None:
    ecr.run(Scans(ecr.node().registry).record(NAME, report))


class TestConfiguration:
    def test_nothing_is_scanned_by_itself_at_first(self, client: Any) -> None:
        found = client.get_registry_scanning_configuration()
        assert found["registryId"] == ACCOUNT
        assert found["scanningConfiguration"] == {"scanType": "BASIC", "rules": []}

    def test_what_is_put_is_returned(self, client: Any) -> None:
        rules = [
            {"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "team", "filterType": "WILDCARD"}]},
            {"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": EVERYTHING},
        ]
        put = client.put_registry_scanning_configuration(scanType="ENHANCED", rules=rules)
        assert put["registryScanningConfiguration"] == {"scanType": "ENHANCED", "rules": rules}
        found = client.get_registry_scanning_configuration()
        assert found["scanningConfiguration"] == put["registryScanningConfiguration"]

    def test_rules_that_are_left_out(self, client: Any) -> None:
        put = client.put_registry_scanning_configuration(scanType="ENHANCED")
        everything = [{"scanFrequency": "CONTINUOUS_SCAN", "repositoryFilters": EVERYTHING}]
        assert put["registryScanningConfiguration"] == {"scanType": "ENHANCED", "rules": everything}
        put = client.put_registry_scanning_configuration()
        assert put["registryScanningConfiguration"] == {"scanType": "BASIC", "rules": []}

    @pytest.mark.parametrize(("scan_type", "frequency"), [("BASIC", "CONTINUOUS_SCAN"), ("ENHANCED", "MANUAL")])
    def test_a_frequency_that_the_scan_type_does_not_have(self, client: Any, scan_type: str, frequency: str) -> None:
        configure(client, "BASIC", "SCAN_ON_PUSH", "team")
        before = client.get_registry_scanning_configuration()["scanningConfiguration"]
        with pytest.raises(client.exceptions.ValidationException):
            configure(client, scan_type, frequency, "*")
        assert client.get_registry_scanning_configuration()["scanningConfiguration"] == before

    def test_how_repositories_are_scanned(self, client: Any) -> None:
        client.create_repository(repositoryName="other", imageScanningConfiguration={"scanOnPush": True})
        client.put_registry_scanning_configuration(
            scanType="ENHANCED",
            rules=[
                {"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "o*", "filterType": "WILDCARD"}]},
                {
                    "scanFrequency": "CONTINUOUS_SCAN",
                    "repositoryFilters": [{"filter": "am", "filterType": "WILDCARD"}],
                },
            ],
        )
        found = client.batch_get_repository_scanning_configuration(repositoryNames=[APP, "absent", "other"])
        arn = f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository"
        assert found["scanningConfigurations"] == [
            {
                "repositoryArn": f"{arn}/{APP}",
                "repositoryName": APP,
                "scanOnPush": False,
                "scanFrequency": "CONTINUOUS_SCAN",
                "appliedScanFilters": [{"filter": "am", "filterType": "WILDCARD"}],
            },
            {
                "repositoryArn": f"{arn}/other",
                "repositoryName": "other",
                "scanOnPush": True,
                "scanFrequency": "SCAN_ON_PUSH",
                "appliedScanFilters": [{"filter": "o*", "filterType": "WILDCARD"}],
            },
        ]
        failure = {"repositoryName": "absent", "failureCode": "REPOSITORY_NOT_FOUND"}
        assert found["failures"] == [failure | {"failureReason": "REPOSITORY_NOT_FOUND"}]

    def test_a_repository_without_a_rule(self, client: Any) -> None:
        (found,) = client.batch_get_repository_scanning_configuration(repositoryNames=[APP])["scanningConfigurations"]
        assert found["scanFrequency"] == "MANUAL"
        assert found["scanOnPush"] is False
        assert found["appliedScanFilters"] == []

    def test_more_than_two_rules_and_a_malformed_filter(self, ecr: EcrNodes) -> None:
        rule = {"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": EVERYTHING}
        bad = {"scanFrequency": "SCAN_ON_PUSH", "repositoryFilters": [{"filter": "A b", "filterType": "WILDCARD"}]}
        for rules in ([rule, rule, rule], [bad], [{**rule, "scanFrequency": "NEVER"}]):
            reply = ecr.signed("PutRegistryScanningConfiguration", {"scanType": "BASIC", "rules": rules})
            assert (reply.status, reply.error[0]) == (400, "InvalidParameterException")


class TestManualScans:
    def test_a_scan_ends_as_that_of_an_unsupported_image(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE, "v1")
        started = start(client, imageTag="v1")
        assert started["imageId"] == {"imageDigest": IMAGE.digest, "imageTag": "v1"}
        assert started["imageScanStatus"] == {"status": "IN_PROGRESS"}
        assert (started["registryId"], started["repositoryName"]) == (ACCOUNT, APP)
        found = client.describe_image_scan_findings(repositoryName=APP, imageId={"imageTag": "v1"})
        assert found["imageScanStatus"] == {"status": "FAILED", "description": UNSUPPORTED}
        assert found["imageId"] == {"imageDigest": IMAGE.digest, "imageTag": "v1"}
        assert "imageScanFindings" not in found
        with pytest.raises(WaiterError, match="terminal failure state"):
            client.get_waiter("image_scan_complete").wait(
                repositoryName=APP, imageId={"imageTag": "v1"}, WaiterConfig=WAIT
            )

    def test_an_image_is_scanned_once_a_day(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        start(client, imageDigest=IMAGE.digest)
        ecr.advance(DAY - 1)
        with pytest.raises(client.exceptions.LimitExceededException) as caught:
            start(client, imageDigest=IMAGE.digest)
        assert refusal(caught)[1] == "The scan quota per image has been exceeded. Wait and try again."
        ecr.advance(1)
        start(client, imageDigest=IMAGE.digest)

    def test_scans_on_push_count(self, ecr: EcrNodes, client: Any) -> None:
        client.put_image_scanning_configuration(repositoryName=APP, imageScanningConfiguration={"scanOnPush": True})
        push(ecr, IMAGE)
        with pytest.raises(client.exceptions.LimitExceededException):
            start(client, imageDigest=IMAGE.digest)

    def test_what_cannot_be_scanned(self, ecr: EcrNodes, client: Any) -> None:
        index = build_index([IMAGE])
        artifact = build_image([b"chart"], artifact_type="application/vnd.example.chart")
        push(ecr, index, "index")
        push(ecr, artifact, "chart")
        for tag in ("index", "chart"):
            with pytest.raises(client.exceptions.UnsupportedImageTypeException):
                start(client, imageTag=tag)

    def test_an_archived_image(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE, "v1")
        start(client, imageTag="v1")
        client.update_image_storage_class(repositoryName=APP, imageId={"imageTag": "v1"}, targetStorageClass="ARCHIVE")
        with pytest.raises(client.exceptions.ImageArchivedException):
            start(client, imageTag="v1")
        with pytest.raises(client.exceptions.ScanNotFoundException):  # the results of before are gone
            findings(client)

    def test_enhanced_scanning_has_no_scans_by_hand(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        configure(client, "ENHANCED", "SCAN_ON_PUSH", "*")
        with pytest.raises(client.exceptions.ValidationException, match="This feature is disabled"):
            start(client, imageDigest=IMAGE.digest)

    def test_what_is_not_there(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE, "v1")
        absent = digest_of(b"absent")
        named = f"{{imageDigest:'{absent}', imageTag:'null'}}"
        for operation in (client.start_image_scan, client.describe_image_scan_findings):
            with pytest.raises(client.exceptions.ImageNotFoundException) as caught:
                operation(repositoryName=APP, imageId={"imageDigest": absent})
            assert refusal(caught)[1] == (
                f"The image with imageId {named} does not exist within the repository with name '{APP}' in the"
                f" registry with id '{ACCOUNT}'"
            )
            with pytest.raises(client.exceptions.ImageNotFoundException):
                operation(repositoryName=APP, imageId={"imageDigest": absent, "imageTag": "v1"})
            with pytest.raises(client.exceptions.RepositoryNotFoundException):
                operation(repositoryName="absent", imageId={"imageTag": "v1"})
            with pytest.raises(client.exceptions.InvalidParameterException):
                operation(repositoryName=APP, imageId={})
        with pytest.raises(client.exceptions.ScanNotFoundException) as caught:
            client.describe_image_scan_findings(repositoryName=APP, imageId={"imageTag": "v1"})
        assert refusal(caught)[1] == (
            "Image scan does not exist for the image with '{imageDigest:'null', imageTag:'v1'}' in the repository with"
            f" name '{APP}' in the registry with id '{ACCOUNT}'"
        )


class TestScansOnPush:
    def test_by_a_rule(self, ecr: EcrNodes, client: Any) -> None:
        configure(client, "BASIC", "SCAN_ON_PUSH", "team")
        client.create_repository(repositoryName="other")
        push(ecr, IMAGE)
        push(ecr, IMAGE, repository="other")
        assert findings(client)["imageScanStatus"]["status"] == "FAILED"
        with pytest.raises(client.exceptions.ScanNotFoundException):
            client.describe_image_scan_findings(repositoryName="other", imageId={"imageDigest": IMAGE.digest})

    def test_by_put_image(self, ecr: EcrNodes, client: Any) -> None:
        configure(client, "BASIC", "SCAN_ON_PUSH", "*")
        upload(ecr, APP, IMAGE)
        client.put_image(repositoryName=APP, imageManifest=IMAGE.manifest.decode(), imageTag="v1")
        assert findings(client)["imageScanStatus"]["status"] == "FAILED"

    def test_of_an_image_that_the_cache_brought(self, tmp_path: Path) -> None:
        with ThreadedUpstream() as upstream:
            upstream.registry.add("app", IMAGE, "v1")
            caching = node(cache={"rules": [{"prefix": "hub", "upstream": "hub"}]})
            whole = {"upstreams": [{"name": "hub", "url": upstream.url}]}
            with ecr_nodes(tmp_path / "caching", whole, nodes=[caching]) as ecr:
                client = ecr.client()
                configure(client, "BASIC", "SCAN_ON_PUSH", "hub/*")
                assert ecr.send("GET", "/v2/hub/app/manifests/v1").status == 200
                found = client.describe_image_scan_findings(repositoryName="hub/app", imageId={"imageTag": "v1"})
                assert found["imageScanStatus"]["status"] == "FAILED"

    def test_not_again_within_a_day(self, ecr: EcrNodes, client: Any) -> None:
        configure(client, "BASIC", "SCAN_ON_PUSH", "*")
        push(ecr, IMAGE)
        record(ecr, ScanReport(IMAGE.digest, ScanType.BASIC, ScanStatus.COMPLETE))
        ecr.advance(DAY - 1)
        push(ecr, IMAGE, "again")
        assert findings(client)["imageScanStatus"]["status"] == "COMPLETE"
        ecr.advance(1)
        push(ecr, IMAGE, "later")
        assert findings(client)["imageScanStatus"]["status"] == "FAILED"

    def test_a_restored_image_is_scanned_again(self, ecr: EcrNodes, client: Any) -> None:
        configure(client, "BASIC", "SCAN_ON_PUSH", "*")
        push(ecr, IMAGE)
        record(ecr, ScanReport(IMAGE.digest, ScanType.BASIC, ScanStatus.COMPLETE))
        image_id = {"imageDigest": IMAGE.digest}
        client.update_image_storage_class(repositoryName=APP, imageId=image_id, targetStorageClass="ARCHIVE")
        with pytest.raises(client.exceptions.ScanNotFoundException):
            findings(client)
        push(ecr, IMAGE)
        assert findings(client)["imageScanStatus"]["status"] == "FAILED"

    def test_the_images_of_an_index_are_scanned_and_it_is_not(self, ecr: EcrNodes, client: Any) -> None:
        index = build_index([IMAGE])
        push(ecr, index, "index")
        configure(client, "BASIC", "SCAN_ON_PUSH", "*")
        push(ecr, index, "again")
        assert findings(client)["imageScanStatus"]["status"] == "FAILED"
        with pytest.raises(client.exceptions.ScanNotFoundException):
            client.describe_image_scan_findings(repositoryName=APP, imageId={"imageTag": "index"})

    def test_a_replica_is_scanned_where_it_arrives(self, tmp_path: Path) -> None:
        eu = f"{ACCOUNT}/eu-west-1"
        with ecr_nodes(tmp_path / "two", nodes=[node(), node("eu-west-1")]) as two:
            here, there = two.client(), two.client(region="eu-west-1", node=eu)
            destination = {"region": "eu-west-1", "registryId": ACCOUNT}
            here.put_replication_configuration(replicationConfiguration={"rules": [{"destinations": [destination]}]})
            configure(there, "BASIC", "SCAN_ON_PUSH", "team")
            here.create_repository(repositoryName=APP)
            push(two, IMAGE, "v1")

            async def is_scanned() -> bool:
                database = two.node(eu).registry.database
                return await database.read(scans.find(NAME, IMAGE.digest, ScanType.BASIC)) is not None

            two.until(is_scanned)
            assert findings(there)["imageScanStatus"]["status"] == "FAILED"
            with pytest.raises(here.exceptions.ScanNotFoundException):
                findings(here)

    def test_enhanced(self, ecr: EcrNodes, client: Any) -> None:
        client.put_registry_scanning_configuration(scanType="ENHANCED")
        push(ecr, IMAGE)
        assert findings(client)["imageScanStatus"] == {"status": "UNSUPPORTED_IMAGE", "description": UNSUPPORTED}

    def test_an_image_that_was_deleted_is_scanned_anew(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        start(client, imageDigest=IMAGE.digest)
        client.batch_delete_image(repositoryName=APP, imageIds=[{"imageDigest": IMAGE.digest}])
        push(ecr, IMAGE)
        with pytest.raises(client.exceptions.ScanNotFoundException):
            findings(client)
        start(client, imageDigest=IMAGE.digest)


SEVERITIES = (Severity.CRITICAL, Severity.HIGH, Severity.HIGH, Severity.LOW, Severity.INFORMATIONAL)
FOUND = tuple(
    Finding(
        f"CVE-2026-{number:04}",
        severity,
        f"vulnerability {number}",
        f"https://security.example/CVE-2026-{number:04}",
        (("package_name", f"package{number}"), ("package_version", "1.2-3"), ("CVSS2_SCORE", "7.5")),
    )
    for number, severity in enumerate(SEVERITIES)
)
COUNTS = {"CRITICAL": 1, "HIGH": 2, "LOW": 1, "INFORMATIONAL": 1}
REPORT = ScanReport(
    IMAGE.digest, ScanType.BASIC, ScanStatus.COMPLETE, source_updated_at=1_700_000_000.5, findings=FOUND
)


class TestFindings:
    def test_what_a_scan_found(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        start(client, imageDigest=IMAGE.digest)
        ecr.advance(30)
        record(ecr, REPORT)
        client.get_waiter("image_scan_complete").wait(
            repositoryName=APP, imageId={"imageDigest": IMAGE.digest}, WaiterConfig=WAIT
        )
        found = findings(client)
        assert found["imageScanStatus"] == {
            "status": "COMPLETE",
            "description": "The scan was completed successfully.",
        }
        shown = found["imageScanFindings"]
        assert shown["imageScanCompletedAt"] == ecr.now
        assert shown["vulnerabilitySourceUpdatedAt"] == datetime.fromtimestamp(1_700_000_000.5, UTC)
        assert shown["findingSeverityCounts"] == COUNTS
        assert len(shown["findings"]) == 5
        assert shown["findings"][0] == {
            "name": "CVE-2026-0000",
            "severity": "CRITICAL",
            "description": "vulnerability 0",
            "uri": "https://security.example/CVE-2026-0000",
            "attributes": [
                {"key": "package_name", "value": "package0"},
                {"key": "package_version", "value": "1.2-3"},
                {"key": "CVSS2_SCORE", "value": "7.5"},
            ],
        }

    def test_pages_of_findings_count_all_of_them(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        record(ecr, REPORT)
        paginator = client.get_paginator("describe_image_scan_findings")
        pages = list(
            paginator.paginate(
                repositoryName=APP, imageId={"imageDigest": IMAGE.digest}, PaginationConfig={"PageSize": 2}
            )
        )
        assert [len(page["imageScanFindings"]["findings"]) for page in pages] == [2, 2, 1]
        assert "nextToken" not in pages[-1]
        assert all(page["imageScanFindings"]["findingSeverityCounts"] == COUNTS for page in pages)
        names = [one["name"] for page in pages for one in page["imageScanFindings"]["findings"]]
        assert names == [one.name for one in FOUND]

    def test_images_are_described_with_their_scans(self, ecr: EcrNodes, client: Any) -> None:
        other, never = build_image([b"other"]), build_image([b"never"])
        for image in (IMAGE, other, never):
            push(ecr, image)
        record(ecr, REPORT)
        start(client, imageDigest=other.digest)
        described = client.describe_images(repositoryName=APP)["imageDetails"]
        found = {one["imageDigest"]: one for one in described}
        assert found[IMAGE.digest]["imageScanStatus"]["status"] == "COMPLETE"
        assert found[IMAGE.digest]["imageScanFindingsSummary"] == {
            "imageScanCompletedAt": ecr.now,
            "vulnerabilitySourceUpdatedAt": datetime.fromtimestamp(1_700_000_000.5, UTC),
            "findingSeverityCounts": COUNTS,
        }
        assert found[other.digest]["imageScanStatus"] == {"status": "FAILED", "description": UNSUPPORTED}
        assert "imageScanFindingsSummary" not in found[other.digest]
        assert not {"imageScanStatus", "imageScanFindingsSummary"} & set(found[never.digest])
        (named,) = client.describe_images(repositoryName=APP, imageIds=[{"imageDigest": IMAGE.digest}])["imageDetails"]
        assert named == found[IMAGE.digest]

    def test_a_scan_that_found_nothing(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        record(ecr, ScanReport(IMAGE.digest, ScanType.BASIC, ScanStatus.COMPLETE))
        shown = findings(client)["imageScanFindings"]
        assert shown["findingSeverityCounts"] == {}
        assert shown["findings"] == []

    def test_a_scan_under_way_has_no_findings(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        record(ecr, REPORT)
        record(ecr, ScanReport(IMAGE.digest, ScanType.BASIC, ScanStatus.IN_PROGRESS))
        found = findings(client)
        assert found["imageScanStatus"] == {"status": "IN_PROGRESS"}
        assert "imageScanFindings" not in found

    def test_each_scan_type_has_results_of_its_own(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        record(ecr, REPORT)
        members = {
            "awsAccountId": ACCOUNT,
            "title": "CVE-2026-1 - openssl",
            "type": "PACKAGE_VULNERABILITY",
            "status": "ACTIVE",
            "score": 9.8,
            "firstObservedAt": 1_700_000_000.0,
            "fixAvailable": "YES",
            "packageVulnerabilityDetails": {
                "vulnerabilityId": "CVE-2026-1",
                "source": "NVD",
                "cvss": [{"baseScore": 9.8, "scoringVector": "CVSS:3.1/AV:N", "source": "NVD", "version": "3.1"}],
                "vulnerablePackages": [{"name": "openssl", "version": "3.0.1", "fixedInVersion": "3.0.2"}],
            },
            "resources": [{"id": "arn", "type": "AWS_ECR_CONTAINER_IMAGE", "tags": {"a": "b"}}],
        }
        enhanced = (EnhancedFinding("CRITICAL", members), EnhancedFinding("UNTRIAGED", members))
        record(ecr, ScanReport(IMAGE.digest, ScanType.ENHANCED, ScanStatus.ACTIVE, findings=enhanced))
        assert "enhancedFindings" not in findings(client)["imageScanFindings"]
        configure(client, "ENHANCED", "CONTINUOUS_SCAN", "*")
        found = findings(client)
        assert found["imageScanStatus"] == {"status": "ACTIVE", "description": "Continuous scan is selected for image."}
        shown = found["imageScanFindings"]
        assert "findings" not in shown
        assert shown["findingSeverityCounts"] == {"CRITICAL": 1, "UNDEFINED": 1}
        first = {**members, "severity": "CRITICAL", "firstObservedAt": datetime.fromtimestamp(1_700_000_000, UTC)}
        assert shown["enhancedFindings"][0] == first
        assert shown["enhancedFindings"][1]["severity"] == "UNTRIAGED"
        configure(client, "BASIC")
        assert findings(client)["imageScanFindings"]["findingSeverityCounts"] == COUNTS

    def test_what_a_scanner_cannot_report(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, IMAGE)
        with pytest.raises(ManifestNotFound):
            record(ecr, ScanReport(digest_of(b"absent"), ScanType.BASIC, ScanStatus.COMPLETE))
        with pytest.raises(ScanningMismatch):
            record(ecr, ScanReport(IMAGE.digest, ScanType.ENHANCED, ScanStatus.ACTIVE, findings=FOUND))
        with pytest.raises(client.exceptions.ScanNotFoundException):
            findings(client)
