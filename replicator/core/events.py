"""What happened to images, as ECR tells EventBridge (ECR §18): values that are built here and nowhere else.

An event belongs to one image, or to a repository where it is about no image; that is what its order is kept by. It says
nothing about who wants it: that is for `event_sinks`. Members without a value are left out, and an image that has
several tags makes one event per tag, as in ECR.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicator.core.arns import repository_arn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag

SOURCE = "aws.ecr"
MAX_LIFECYCLE_IMAGES = 10
"""Images in one lifecycle record: CloudTrail's events are small, and so are ours."""
MAX_LIFECYCLE_TAGS = 100


class DetailType(enum.StrEnum):
    """Kinds of events, by ECR's names."""

    IMAGE = "ECR Image Action"
    REFERRER = "ECR Referrer Action"
    SCAN = "ECR Image Scan"
    SCAN_RESOURCE = "ECR Scan Resource Change"
    PULL_THROUGH = "ECR Pull Through Cache Action"
    REPLICATION = "ECR Replication Action"
    LIFECYCLE = "AWS Service Event via CloudTrail"


class ImageAction(enum.StrEnum):
    """What was done to an image."""

    PUSH = "PUSH"
    DELETE = "DELETE"
    UPDATE_STORAGE_CLASS = "UPDATE_STORAGE_CLASS"


class EventResult(enum.StrEnum):
    """Whether what an event tells of succeeded; ECR has several words for failures."""

    SUCCESS = "success"
    FAILURE = "failure"


class LifecycleRecord(enum.StrEnum):
    """Which kind of lifecycle evaluation a record tells of."""

    EXECUTION = "PolicyExecutionEvent"
    DRY_RUN = "DryRunEvent"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `repository` and `digest` say what its order is kept by."""

    detail_type: DetailType
    detail: Mapping[str, object]
    repository: RepositoryName
    digest: Digest | None = None
    result: EventResult = EventResult.SUCCESS
    has_resources: bool = True
    """Whether the envelope names the repository among its resources: not for image and referrer actions."""

    @property
    def image(self) -> str:
        """What the event is about, and what its order is kept by."""
        return f"{self.repository}@{self.digest}" if self.digest is not None else self.repository


@dataclass(frozen=True, slots=True)
class MediaTypes:
    """What a manifest is: its own media type, and that of the artifact, where it has one."""

    manifest: str
    artifact: str | None = None


@dataclass(frozen=True, slots=True)
class StorageClassChange:
    """A move between storage classes: where to (STANDARD, ARCHIVE), and when the image was last activated."""

    target: str
    last_activated_at: float | None = None


@dataclass(frozen=True, slots=True)
class ScanFrequencyChange:
    """A repository whose scan frequency changed."""

    repository: RepositoryName
    now: str
    before: str


@dataclass(frozen=True, slots=True)
class LifecycleImage:
    """An image that a lifecycle policy acts on; `pushed_at` is in Unix seconds. Failures have a code and a reason."""

    digest: Digest
    tags: Sequence[Tag]
    pushed_at: float
    priority: int
    failure_code: str | None = None
    failure_reason: str | None = None


@dataclass(frozen=True, slots=True)
class LifecycleRun:
    """One evaluation of a repository's lifecycle policy; `rules` are as the policy has them."""

    record: LifecycleRecord
    repository: RepositoryName
    rules: Sequence[object]
    evaluated_at: float
    policy_id: str
    policy_version: int = 1


def image_action(
    action: ImageAction,
    repository: RepositoryName,
    digest: Digest,
    tag: Tag | None = None,
    *,
    is_referrer: bool = False,
    media: MediaTypes | None = None,
    result: EventResult = EventResult.SUCCESS,
) -> Event:
    """Return that a tag of an image, or an image without one, was pushed or deleted."""
    return Event(
        DetailType.REFERRER if is_referrer else DetailType.IMAGE,
        _present(
            {
                "result": result.value.upper(),
                "repository-name": repository,
                "image-digest": digest,
                "action-type": action.value,
                "image-tag": tag,
                "manifest-media-type": None if media is None else media.manifest,
                "artifact-media-type": None if media is None else media.artifact,
            }
        ),
        repository,
        digest,
        result,
        has_resources=False,
    )


def image_actions(
    action: ImageAction,
    repository: RepositoryName,
    digest: Digest,
    tags: Sequence[Tag],
    *,
    is_referrer: bool = False,
    media: MediaTypes | None = None,
    result: EventResult = EventResult.SUCCESS,
) -> tuple[Event, ...]:
    """Return one event for each tag, or one without a tag where there is none."""
    return tuple(
        image_action(action, repository, digest, tag, is_referrer=is_referrer, media=media, result=result)
        for tag in (tags or (None,))
    )


def storage_class_change(
    repository: RepositoryName,
    digest: Digest,
    change: StorageClassChange,
    media: MediaTypes,
    tag: Tag | None = None,
    *,
    is_referrer: bool = False,
) -> Event:
    """Return that an image was archived or activated."""
    action = image_action(
        ImageAction.UPDATE_STORAGE_CLASS, repository, digest, tag, is_referrer=is_referrer, media=media
    )
    since = change.last_activated_at
    more = {
        "target-storage-class": change.target,
        "last-activated-at": None if since is None else timestamp(since),
    }
    return Event(
        action.detail_type, {**action.detail, **_present(more)}, repository, digest, action.result, has_resources=False
    )


def image_scan(
    repository: RepositoryName, digest: Digest, tags: Sequence[Tag], status: str, severities: Mapping[str, int]
) -> Event:
    """Return that a scan ended with `status`, with its findings by severity."""
    return Event(
        DetailType.SCAN,
        {
            "scan-status": status,
            "repository-name": repository,
            "finding-severity-counts": {name: count for name, count in severities.items() if count},
            "image-digest": digest,
            "image-tags": list(tags),
        },
        repository,
        digest,
        EventResult.FAILURE if status == "FAILED" else EventResult.SUCCESS,
    )


def scan_resource_change(registry: NodeId, change: ScanFrequencyChange, scan_type: str) -> Event:
    """Return that a repository is scanned at another frequency."""
    return Event(
        DetailType.SCAN_RESOURCE,
        {
            "action-type": "SCAN_FREQUENCY_CHANGE",
            "repositories": [
                {
                    "repository-name": change.repository,
                    "repository-arn": repository_arn(registry, change.repository),
                    "scan-frequency": change.now,
                    "previous-scan-frequency": change.before,
                }
            ],
            "resource-type": "REPOSITORY",
            "scan-type": scan_type,
        },
        change.repository,
    )


@dataclass(frozen=True, slots=True)
class PulledThrough:
    """What the cache brought here, or could not: `prefix` is its rule's, `upstream` a host."""

    repository: RepositoryName
    prefix: str
    upstream: str
    tag: Tag | None = None
    digest: Digest | None = None


def pull_through_action(pulled: PulledThrough, failure_code: str | None = None, reason: str | None = None) -> Event:
    """Return that the cache brought an image here, or why it could not."""
    failed = failure_code is not None
    return Event(
        DetailType.PULL_THROUGH,
        _present(
            {
                "rule-version": "1",
                "sync-status": "FAILED" if failed else "SUCCESS",
                "ecr-repository-prefix": pulled.prefix,
                "repository-name": pulled.repository,
                "upstream-registry-url": pulled.upstream,
                "image-tag": pulled.tag,
                "image-digest": pulled.digest,
                "failure-code": failure_code,
                "failure-reason": reason if failed else None,
            }
        ),
        pulled.repository,
        pulled.digest,
        EventResult.FAILURE if failed else EventResult.SUCCESS,
    )


def replication_action(
    repository: RepositoryName,
    digest: Digest,
    source: tuple[AccountId, Region],
    tag: Tag | None = None,
    result: EventResult = EventResult.SUCCESS,
) -> Event:
    """Return that an image came by replication from `source`, or that it could not."""
    account, region = source
    return Event(
        DetailType.REPLICATION,
        _present(
            {
                "result": "SUCCESS" if result is EventResult.SUCCESS else "FAILED",
                "repository-name": repository,
                "image-digest": digest,
                "source-account": account,
                "action-type": "REPLICATE",
                "source-region": region,
                "image-tag": tag,
            }
        ),
        repository,
        digest,
        result,
    )


def lifecycle_records(registry: NodeId, run: LifecycleRun, images: Sequence[LifecycleImage]) -> tuple[Event, ...]:
    """Return what a lifecycle evaluation did or would do, ten images to a record; one without images for none."""
    parts = [images[start : start + MAX_LIFECYCLE_IMAGES] for start in range(0, len(images), MAX_LIFECYCLE_IMAGES)]
    return tuple(_lifecycle_record(registry, run, part) for part in parts or [()])


def _lifecycle_record(registry: NodeId, run: LifecycleRun, images: Sequence[LifecycleImage]) -> Event:
    failed = [one for one in images if one.failure_code is not None]
    details: dict[str, object] = {
        "repositoryName": run.repository,
        "lifecycleEventPolicy": {
            "lifecycleEventRules": list(run.rules),
            "lastEvaluatedAt": milliseconds(run.evaluated_at),
            "policyVersion": run.policy_version,
            "policyId": run.policy_id,
        },
        "lifecycleEventImageActions": [
            {"lifecycleEventImage": _lifecycle_image(one), "rulePriority": one.priority}
            for one in images
            if one.failure_code is None
        ],
        "lifecycleEventFailureDetails": [
            {
                "lifecycleEventImage": _lifecycle_image(one),
                "rulePriority": one.priority,
                "failureCode": one.failure_code,
                "failureReason": one.failure_reason or "",
            }
            for one in failed
        ],
    }
    return Event(
        DetailType.LIFECYCLE,
        {
            "eventSource": "ecr.amazonaws.com",
            "eventName": run.record.value,
            "eventType": "AwsServiceEvent",
            "awsRegion": registry.region,
            "recipientAccountId": registry.account,
            "serviceEventDetails": details,
        },
        run.repository,
        result=EventResult.FAILURE if failed else EventResult.SUCCESS,
    )


def _lifecycle_image(image: LifecycleImage) -> Mapping[str, object]:
    return {
        "digest": image.digest,
        "tagStatus": "Tagged" if image.tags else "Untagged",
        "tagList": list(image.tags[:MAX_LIFECYCLE_TAGS]),
        "pushedAt": milliseconds(image.pushed_at),
    }


def envelope(event: Event, event_id: str, registry: NodeId, now: float) -> dict[str, object]:
    """Return the whole event as EventBridge hands it on; `event_id` is a UUID."""
    return {
        "version": "0",
        "id": event_id,
        "detail-type": event.detail_type.value,
        "source": SOURCE,
        "account": registry.account,
        "time": timestamp(now),
        "region": registry.region,
        "resources": [repository_arn(registry, event.repository)] if event.has_resources else [],
        "detail": dict(event.detail),
    }


def timestamp(now: float) -> str:
    """Return Unix seconds as EventBridge writes them: whole seconds, in UTC (RFC 3339)."""
    return f"{datetime.fromtimestamp(now, UTC):%Y-%m-%dT%H:%M:%SZ}"


def milliseconds(seconds: float) -> int:
    """Return Unix seconds as CloudTrail's numbers of milliseconds."""
    return round(seconds * 1000)


def _present(members: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in members.items() if value is not None}
