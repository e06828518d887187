"""Events have ECR's shapes, member by member."""

from __future__ import annotations

import pytest

from replicator.core.cloud_events import cloud_event, type_of
from replicator.core.digest import Digest
from replicator.core.errors import InvalidInput
from replicator.core.event_sinks import EventFilter, EventSink, SinkOrder, sinks_for
from replicator.core.events import (
    DetailType,
    Event,
    EventResult,
    ImageAction,
    LifecycleImage,
    LifecycleRecord,
    LifecycleRun,
    MediaTypes,
    PulledThrough,
    ScanFrequencyChange,
    StorageClassChange,
    envelope,
    image_action,
    image_actions,
    image_scan,
    lifecycle_records,
    pull_through_action,
    replication_action,
    scan_resource_change,
    storage_class_change,
)
from replicator.core.names import RepositoryName, Tag, parse_account, parse_node, parse_region
from replicator.core.webhook_signature import signature_headers, signing_key

NODE = parse_node("123456789012/us-west-2")
REPOSITORY = RepositoryName("docker-hub/alpine")
ARN = "arn:aws:ecr:us-west-2:123456789012:repository/docker-hub/alpine"
DIGEST = Digest("sha256:" + "7f" * 32)
TAG = Tag("3.17.2")
NOW = 1_573_869_274.9
OCI = "application/vnd.oci.image.manifest.v1+json"


def test_the_envelope_is_eventbridges() -> None:
    push = image_action(ImageAction.PUSH, REPOSITORY, DIGEST, Tag("latest"))
    assert envelope(push, "13cde686-328b-6117-af20-0e5566167482", NODE, NOW) == {
        "version": "0",
        "id": "13cde686-328b-6117-af20-0e5566167482",
        "detail-type": "ECR Image Action",
        "source": "aws.ecr",
        "account": "123456789012",
        "time": "2019-11-16T01:54:34Z",
        "region": "us-west-2",
        "resources": [],
        "detail": {
            "result": "SUCCESS",
            "repository-name": REPOSITORY,
            "image-digest": DIGEST,
            "action-type": "PUSH",
            "image-tag": "latest",
        },
    }


def test_an_image_action_leaves_out_what_it_does_not_know() -> None:
    deleted = image_action(ImageAction.DELETE, REPOSITORY, DIGEST)
    assert deleted.detail == {
        "result": "SUCCESS",
        "repository-name": REPOSITORY,
        "image-digest": DIGEST,
        "action-type": "DELETE",
    }
    refused = image_action(ImageAction.PUSH, REPOSITORY, DIGEST, TAG, result=EventResult.FAILURE)
    assert refused.detail["result"] == "FAILURE"
    typed = image_action(ImageAction.PUSH, REPOSITORY, DIGEST, media=MediaTypes(OCI, "text/sbom"))
    assert (typed.detail["manifest-media-type"], typed.detail["artifact-media-type"]) == (OCI, "text/sbom")


def test_one_event_for_each_tag_and_one_for_none() -> None:
    made = image_actions(ImageAction.DELETE, REPOSITORY, DIGEST, [Tag("a"), Tag("b")])
    assert [one.detail.get("image-tag") for one in made] == ["a", "b"]
    assert [one.detail.get("image-tag") for one in image_actions(ImageAction.DELETE, REPOSITORY, DIGEST, [])] == [None]


def test_what_is_done_to_a_referrer_is_a_referrer_action() -> None:
    pushed = image_action(ImageAction.PUSH, REPOSITORY, DIGEST, is_referrer=True)
    assert envelope(pushed, "id", NODE, NOW)["detail-type"] == "ECR Referrer Action"


def test_a_move_between_storage_classes() -> None:
    change = StorageClassChange("STANDARD", NOW)
    event = storage_class_change(REPOSITORY, DIGEST, change, MediaTypes(OCI, "text/sbom"), TAG)
    assert event.detail == {
        "result": "SUCCESS",
        "repository-name": REPOSITORY,
        "image-digest": DIGEST,
        "action-type": "UPDATE_STORAGE_CLASS",
        "image-tag": TAG,
        "manifest-media-type": OCI,
        "artifact-media-type": "text/sbom",
        "target-storage-class": "STANDARD",
        "last-activated-at": "2019-11-16T01:54:34Z",
    }
    archived = storage_class_change(REPOSITORY, DIGEST, StorageClassChange("ARCHIVE"), MediaTypes(OCI))
    assert "last-activated-at" not in archived.detail


def test_a_scan() -> None:
    event = image_scan(REPOSITORY, DIGEST, [TAG], "COMPLETE", {"CRITICAL": 10, "LOW": 0, "MEDIUM": 9})
    document = envelope(event, "id", NODE, NOW)
    assert document["detail-type"] == "ECR Image Scan"
    assert document["resources"] == [ARN]
    assert document["detail"] == {
        "scan-status": "COMPLETE",
        "repository-name": REPOSITORY,
        "finding-severity-counts": {"CRITICAL": 10, "MEDIUM": 9},
        "image-digest": DIGEST,
        "image-tags": [TAG],
    }
    assert image_scan(REPOSITORY, DIGEST, [], "FAILED", {}).result is EventResult.FAILURE


def test_a_scan_frequency() -> None:
    event = scan_resource_change(NODE, ScanFrequencyChange(REPOSITORY, "SCAN_ON_PUSH", "MANUAL"), "ENHANCED")
    assert event.detail_type == "ECR Scan Resource Change"
    assert event.detail == {
        "action-type": "SCAN_FREQUENCY_CHANGE",
        "repositories": [
            {
                "repository-name": REPOSITORY,
                "repository-arn": ARN,
                "scan-frequency": "SCAN_ON_PUSH",
                "previous-scan-frequency": "MANUAL",
            }
        ],
        "resource-type": "REPOSITORY",
        "scan-type": "ENHANCED",
    }


def test_a_pull_through_action() -> None:
    pulled = PulledThrough(REPOSITORY, "docker-hub", "registry-1.docker.io", TAG, DIGEST)
    document = envelope(pull_through_action(pulled), "id", NODE, NOW)
    assert (document["detail-type"], document["resources"]) == ("ECR Pull Through Cache Action", [ARN])
    assert document["detail"] == {
        "rule-version": "1",
        "sync-status": "SUCCESS",
        "ecr-repository-prefix": "docker-hub",
        "repository-name": REPOSITORY,
        "upstream-registry-url": "registry-1.docker.io",
        "image-tag": TAG,
        "image-digest": DIGEST,
    }
    failed = pull_through_action(
        PulledThrough(REPOSITORY, "docker-hub", "docker.io", TAG), "UpstreamUnavailable", "down"
    )
    assert failed.result is EventResult.FAILURE
    assert failed.detail["sync-status"] == "FAILED"
    assert failed.detail["failure-code"] == "UpstreamUnavailable"
    assert failed.detail["failure-reason"] == "down"
    assert "image-digest" not in failed.detail


def test_a_replication_action() -> None:
    source = parse_account("999999999999"), parse_region("eu-west-1")
    document = envelope(replication_action(REPOSITORY, DIGEST, source, TAG), "id", NODE, NOW)
    assert (document["detail-type"], document["resources"]) == ("ECR Replication Action", [ARN])
    assert document["detail"] == {
        "result": "SUCCESS",
        "repository-name": REPOSITORY,
        "image-digest": DIGEST,
        "source-account": "999999999999",
        "action-type": "REPLICATE",
        "source-region": "eu-west-1",
        "image-tag": TAG,
    }
    failed = replication_action(REPOSITORY, DIGEST, source, result=EventResult.FAILURE)
    assert failed.detail["result"] == "FAILED"


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (10, [10]), (23, [10, 10, 3])])
def test_lifecycle_records_hold_ten_images_each(count: int, sizes: list[int]) -> None:
    run = LifecycleRun(LifecycleRecord.DRY_RUN, REPOSITORY, [{"rulePriority": 1}], NOW, "policy-id")
    images = [LifecycleImage(DIGEST, [TAG], NOW, 1) for _ in range(count)]
    records = lifecycle_records(NODE, run, images)
    details = [one.detail["serviceEventDetails"] for one in records]
    assert [len(one["lifecycleEventImageActions"]) for one in details] == sizes  # type: ignore[index]


def test_a_lifecycle_record_has_the_members_of_cloudtrails() -> None:
    run = LifecycleRun(LifecycleRecord.EXECUTION, REPOSITORY, [{"rulePriority": 1}], NOW, "policy-id")
    refused = LifecycleImage(DIGEST, [], NOW, 2, "ImageReferencedByManifestList", "it is listed")
    (record,) = lifecycle_records(NODE, run, [LifecycleImage(DIGEST, [TAG], NOW, 1), refused])
    assert record.detail["eventName"] == "PolicyExecutionEvent"
    image = {"digest": DIGEST, "tagStatus": "Tagged", "tagList": [TAG], "pushedAt": 1573869274900}
    assert record.detail["serviceEventDetails"] == {
        "repositoryName": REPOSITORY,
        "lifecycleEventPolicy": {
            "lifecycleEventRules": [{"rulePriority": 1}],
            "lastEvaluatedAt": 1573869274900,
            "policyVersion": 1,
            "policyId": "policy-id",
        },
        "lifecycleEventImageActions": [{"lifecycleEventImage": image, "rulePriority": 1}],
        "lifecycleEventFailureDetails": [
            {
                "lifecycleEventImage": {**image, "tagStatus": "Untagged", "tagList": []},
                "rulePriority": 2,
                "failureCode": "ImageReferencedByManifestList",
                "failureReason": "it is listed",
            }
        ],
    }
    assert record.result is EventResult.FAILURE


PUSH = image_action(ImageAction.PUSH, REPOSITORY, DIGEST, TAG)
FAILED = image_action(ImageAction.PUSH, REPOSITORY, DIGEST, TAG, result=EventResult.FAILURE)


@pytest.mark.parametrize(
    ("wanted", "event", "wants"),
    [
        (EventFilter(), PUSH, True),
        (EventFilter(detail_types=frozenset({DetailType.IMAGE})), PUSH, True),
        (EventFilter(detail_types=frozenset({DetailType.SCAN})), PUSH, False),
        (EventFilter(repositories=("docker-hub/*",)), PUSH, True),
        (EventFilter(repositories=("team/*", "docker-*")), PUSH, True),
        (EventFilter(repositories=("docker-hub",)), PUSH, False),
        (EventFilter(results=frozenset({EventResult.FAILURE})), PUSH, False),
        (EventFilter(results=frozenset({EventResult.FAILURE})), FAILED, True),
        (EventFilter(repositories=("team/*",), results=frozenset({EventResult.FAILURE})), FAILED, False),
    ],
)
def test_a_filter_wants_what_meets_all_its_choices(wanted: EventFilter, event: Event, wants: bool) -> None:
    assert wanted.wants(event) is wants
    assert [one.name for one in sinks_for([EventSink("ci", wanted)], event)] == (["ci"] if wants else [])


def test_order_is_kept_by_image_or_altogether() -> None:
    assert EventSink("ci").key_of(PUSH) == f"{REPOSITORY}@{DIGEST}"
    assert EventSink("audit", order=SinkOrder.ALL).key_of(PUSH) == ""
    change = scan_resource_change(NODE, ScanFrequencyChange(REPOSITORY, "MANUAL", "SCAN_ON_PUSH"), "BASIC")
    assert EventSink("ci").key_of(change) == REPOSITORY


def test_a_cloud_event_has_what_the_specification_requires() -> None:
    document = envelope(PUSH, "an-id", NODE, NOW)
    event = cloud_event(document, PUSH.image)
    assert event == {
        "specversion": "1.0",
        "id": "an-id",
        "type": "com.amazonaws.ecr.image-action",
        "source": "urn:replicator:us-west-2:123456789012",
        "subject": f"{REPOSITORY}@{DIGEST}",
        "time": "2019-11-16T01:54:34Z",
        "datacontenttype": "application/json",
        "account": "123456789012",
        "region": "us-west-2",
        "data": document["detail"],
    }
    # CloudEvents 1.0: names of attributes are lower-case letters and digits; the required ones hold text.
    assert all(name.isalnum() and name == name.lower() for name in event)
    assert all(isinstance(event[name], str) and event[name] for name in ("specversion", "id", "type", "source"))


@pytest.mark.parametrize("kind", list(DetailType))
def test_every_kind_has_a_type_of_its_own(kind: DetailType) -> None:
    assert type_of(kind).startswith("com.amazonaws.ecr.")
    assert len({type_of(one) for one in DetailType}) == len(DetailType)


class TestSignature:
    def test_it_is_that_of_standard_webhooks(self) -> None:
        # The example of the specification's own libraries.
        key = signing_key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        headers = signature_headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
        assert headers == {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }

    def test_two_keys_sign_side_by_side_and_none_does_not_sign(self) -> None:
        both = signature_headers([b"new", b"old"], "id", 1, b"body")["webhook-signature"].split(" ")
        assert both == [signature_headers([key], "id", 1, b"body")["webhook-signature"] for key in (b"new", b"old")]
        assert "webhook-signature" not in signature_headers([], "id", 1, b"body")

    def test_a_secret_is_base64_after_its_prefix_and_itself_without(self) -> None:
        assert signing_key("whsec_c2VjcmV0") == b"secret"
        assert signing_key("c2VjcmV0") == b"c2VjcmV0"
        with pytest.raises(InvalidInput, match="Base64") as caught:
            signing_key("whsec_not base64!")
        assert "not base64!" not in str(caught.value)
