"""Every change of an image is told once, in its transaction, and what changes nothing is told to nobody."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from replicator.cache.imports import Imports, TagImport
from replicator.core.cache_rules import CacheRule
from replicator.core.errors import (
    ManifestNotFound,
    MissingReferences,
    RepositoryNotEmpty,
    TagImmutable,
    UpstreamThrottled,
)
from replicator.core.event_sinks import EventFilter, EventSink
from replicator.core.events import EventResult
from replicator.core.image_requests import RequestedImage
from replicator.core.image_status import StorageClass
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag
from replicator.core.peer_messages import Deletion, OfferedTag
from replicator.core.principal import UNRESTRICTED
from replicator.core.reference import parse_reference
from replicator.core.scanning import RegistryScanning, ScanFrequency, ScanningRule, ScanType
from replicator.registry import repositories as repository_cases
from replicator.registry.lifecycle_previews import LifecyclePreviews
from replicator.registry.pushes import Pushes
from replicator.registry.repositories import Repositories
from replicator.registry.scanning_configuration import ScanningConfiguration
from replicator.registry.settings import RegistrySettings
from replicator.registry.storage_classes import StorageClasses
from replicator.storage.metadata import events, repositories
from replicator.storage.metadata.images import StoredManifest
from replicator.storage.metadata.repositories import Repository
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.replica_scene import SOURCE, V1, Scene, pointing, revision
from tests.support.replica_scene import A as REPLICA
from tests.support.single_node import NODE, open_node

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.registry.node import RegistryNode
    from tests.support.images import Built
    from tests.support.replica_scene import OpenScene

REPOSITORY = RepositoryName("team/app")
CACHED = RepositoryName("hub/library/nginx")
A, B = build_image([b"a"]), build_image([b"b"])
SIGNATURE = build_image([b"signature"], subject=A, artifact_type="text/sbom")
SINKS = (EventSink("ci"), EventSink("failures", EventFilter(results=frozenset({EventResult.FAILURE}))))
RULE = CacheRule("hub", "docker", namespaces=("docker.io",))


def settings(**more: Any) -> RegistrySettings:
    return RegistrySettings(NODE, event_sinks=SINKS, sparse_images=True, cache_rules=(RULE,), **more)


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[RegistryNode]:
    async with open_node(tmp_path, FakeClock(), settings=settings()) as opened:
        yield opened


async def push(node: RegistryNode, built: Built, reference: str, *tags: str) -> None:
    await Pushes(node).put_manifest(
        UNRESTRICTED,
        REPOSITORY,
        parse_reference(reference),
        built.manifest,
        built.media_type,
        [Tag(tag) for tag in tags],
    )


async def delete(node: RegistryNode, reference: str) -> None:
    await Pushes(node).delete_manifest(UNRESTRICTED, REPOSITORY, parse_reference(reference))


async def told(node: RegistryNode) -> list[dict[str, Any]]:
    """Return the events that are stored, the first one first."""
    found = await node.database.read(events.latest(100))
    return [dict(one.document) for one in reversed(found)]


def short(documents: list[dict[str, Any]]) -> list[tuple[str, str, str | None, str]]:
    details = [one["detail"] for one in documents]
    return [(one["action-type"], one["result"], one.get("image-tag"), one["image-digest"]) for one in details]


async def test_a_push_tells_of_each_tag_it_sets_or_moves_and_of_none_that_it_does_not(node: RegistryNode) -> None:
    await push(node, A, "v1")
    await push(node, A, A.digest, "v1", "v2", "v3")
    await push(node, A, "v1")
    await push(node, B, "v1")
    assert short(await told(node)) == [
        ("PUSH", "SUCCESS", "v1", A.digest),
        ("PUSH", "SUCCESS", "v2", A.digest),
        ("PUSH", "SUCCESS", "v3", A.digest),
        ("PUSH", "SUCCESS", "v1", B.digest),
    ]


async def test_a_push_by_digest_tells_of_an_image_that_is_new(node: RegistryNode) -> None:
    for _ in range(2):
        await push(node, A, A.digest)
    (event,) = await told(node)
    assert event["detail"] == {
        "result": "SUCCESS",
        "repository-name": REPOSITORY,
        "image-digest": A.digest,
        "action-type": "PUSH",
        "manifest-media-type": A.media_type,
    }
    assert (event["account"], event["region"]) == (NODE.account, NODE.region)


async def test_a_referrer_is_told_as_one(node: RegistryNode) -> None:
    await push(node, A, "v1")
    await push(node, SIGNATURE, SIGNATURE.digest)
    await delete(node, SIGNATURE.digest)
    _, pushed, deleted = await told(node)
    assert (pushed["detail-type"], pushed["detail"]["artifact-media-type"]) == ("ECR Referrer Action", "text/sbom")
    assert (deleted["detail-type"], deleted["detail"]["action-type"]) == ("ECR Referrer Action", "DELETE")


async def test_deletions_are_told_tag_by_tag(node: RegistryNode) -> None:
    await push(node, A, A.digest, "v1", "v2", "v3")
    await delete(node, "v1")
    await delete(node, A.digest)
    with pytest.raises(ManifestNotFound):
        await delete(node, "v1")
    assert short(await told(node))[3:] == [
        ("DELETE", "SUCCESS", "v1", A.digest),
        ("DELETE", "SUCCESS", "v2", A.digest),
        ("DELETE", "SUCCESS", "v3", A.digest),
    ]


async def test_a_push_that_breaks_a_rule_is_told_as_a_failure_where_the_repository_exists(tmp_path: Path) -> None:
    strict = settings(mutability=MutabilityRule(TagMutability.IMMUTABLE))
    async with open_node(tmp_path, FakeClock(), settings=strict) as node:
        await push(node, A, "v1")
        with pytest.raises(TagImmutable):
            await push(node, B, "v1")
        assert short(await told(node)) == [
            ("PUSH", "SUCCESS", "v1", A.digest),
            ("PUSH", "FAILURE", "v1", B.digest),
        ]


async def test_a_push_that_is_undone_leaves_nothing(tmp_path: Path) -> None:
    whole = RegistrySettings(NODE, event_sinks=SINKS)
    async with open_node(tmp_path, FakeClock(), settings=whole) as node:
        with pytest.raises(MissingReferences):
            await push(node, A, "v1")
        assert await told(node) == []


async def test_without_a_sink_nothing_is_noted(tmp_path: Path) -> None:
    async with open_node(tmp_path, FakeClock(), settings=RegistrySettings(NODE, sparse_images=True)) as node:
        await push(node, A, "v1")
        await delete(node, "v1")
        assert await told(node) == []


async def test_what_the_cache_brings_is_told_once(node: RegistryNode) -> None:
    imports, manifest = Imports(node), StoredManifest(A.digest, A.media_type, A.manifest)
    for _ in range(2):
        await imports.put_tag(TagImport(CACHED, Tag("1.27"), "docker", manifest, 1.0))
        await imports.put_untagged(CACHED, StoredManifest(B.digest, B.media_type, B.manifest))
    tagged, untagged = await told(node)
    assert tagged["detail-type"] == "ECR Pull Through Cache Action"
    assert tagged["detail"] == {
        "rule-version": "1",
        "sync-status": "SUCCESS",
        "ecr-repository-prefix": "hub",
        "repository-name": CACHED,
        "upstream-registry-url": "docker.io",
        "image-tag": "1.27",
        "image-digest": A.digest,
    }
    assert untagged["detail"]["image-digest"] == B.digest
    assert "image-tag" not in untagged["detail"]


async def test_what_the_cache_cannot_bring_is_told_once_in_a_while(node: RegistryNode) -> None:
    imports, error = Imports(node), UpstreamThrottled("docker: answered 429")
    for _ in range(3):
        await imports.tell_failure(CACHED, parse_reference("1.27"), error)
    clock = node.clock
    assert isinstance(clock, FakeClock)
    (event,) = await told(node)
    assert event["detail"]["sync-status"] == "FAILED"
    assert event["detail"]["failure-code"] == "UpstreamTooManyRequests"
    assert event["detail"]["failure-reason"] == "docker: answered 429"
    clock.advance(61.0)
    await imports.tell_failure(CACHED, parse_reference("1.27"), error)
    assert len(await told(node)) == 2


async def test_a_tag_whose_checks_begin_to_fail_is_told_once(node: RegistryNode) -> None:
    imports, manifest = Imports(node), StoredManifest(A.digest, A.media_type, A.manifest)
    entry = await imports.put_tag(TagImport(CACHED, Tag("1.27"), "docker", manifest, 1.0))
    assert entry is not None
    failed = replace(entry, failed_at=2.0, last_error="down")
    for _ in range(2):
        await imports.update(failed, UpstreamThrottled("down"))
    await imports.update(replace(entry, failed_at=None))
    await imports.update(failed, UpstreamThrottled("down"))
    assert [one["detail"]["sync-status"] for one in await told(node)] == ["SUCCESS", "FAILED", "FAILED"]


async def test_what_comes_and_goes_by_replication_is_told_at_the_destination(open_scene: OpenScene) -> None:
    scene: Scene = await open_scene(event_sinks=SINKS, sparse_images=True)
    register = pointing(REPLICA, 1.0)
    for _ in range(2):
        await scene.receive(REPLICA, 1.0, register)
    untag = Deletion(REPOSITORY, REPLICA.digest, revision(3.0), OfferedTag(V1, pointing(None, 3.0, register)))
    for _ in range(2):
        await scene.replicas.delete(SOURCE, untag)
    arrived, gone = await told(scene.node)
    assert short([gone]) == [("DELETE", "SUCCESS", "v1", REPLICA.digest)]
    assert arrived["detail-type"] == "ECR Replication Action"
    assert arrived["detail"] == {
        "result": "SUCCESS",
        "repository-name": REPOSITORY,
        "image-digest": REPLICA.digest,
        "source-account": SOURCE.account,
        "action-type": "REPLICATE",
        "source-region": SOURCE.region,
        "image-tag": "v1",
    }


async def test_repositories_that_are_scanned_at_another_frequency_are_told_each(node: RegistryNode) -> None:
    for number in range(3):
        made = Repository(RepositoryName(f"team/app{number}"), 1.0, "push", MutabilityRule())
        await node.database.write(partial(repositories.create, made))
    await node.database.write(
        partial(
            repositories.create, Repository(RepositoryName("team/open"), 1.0, "api", MutabilityRule(), is_public=True)
        )
    )
    heard: list[None] = []
    node.on_events(lambda: heard.append(None))
    scanning = ScanningConfiguration(node)
    on_push = RegistryScanning(ScanType.BASIC, (ScanningRule(ScanFrequency.SCAN_ON_PUSH, ("app0", "app1")),))
    for _ in range(2):
        await scanning.put(on_push)
    assert heard
    changes = [one["detail"]["repositories"] for one in await told(node)]
    assert changes == [
        [
            {
                "repository-name": f"team/app{number}",
                "repository-arn": f"arn:aws:ecr:{NODE.region}:{NODE.account}:repository/team/app{number}",
                "scan-frequency": "SCAN_ON_PUSH",
                "previous-scan-frequency": "MANUAL",
            }
        ]
        for number in range(2)
    ]
    continuous = ScanningRule(ScanFrequency.CONTINUOUS_SCAN, ("app1",))
    await scanning.put(RegistryScanning(ScanType.ENHANCED, (continuous,)))
    later = (await told(node))[2:]
    assert {one["detail-type"] for one in later} == {"ECR Scan Resource Change"}
    assert [(one["detail"]["action-type"], one["detail"]["scan-type"]) for one in later] == [
        ("SCAN_FREQUENCY_CHANGE", "ENHANCED")
    ] * 2
    assert [tuple(one["detail"]["repositories"][0].values())[2:] for one in later] == [
        ("MANUAL", "SCAN_ON_PUSH"),
        ("CONTINUOUS_SCAN", "SCAN_ON_PUSH"),
    ]


async def test_a_storage_class_is_told_with_what_the_image_is(node: RegistryNode) -> None:
    await push(node, SIGNATURE, SIGNATURE.digest)
    wanted = RequestedImage(digest=SIGNATURE.digest)
    await StorageClasses(node).move(REPOSITORY, wanted, StorageClass.ARCHIVE)
    detail = (await told(node))[-1]["detail"]
    assert (detail["action-type"], detail["target-storage-class"]) == ("UPDATE_STORAGE_CLASS", "ARCHIVE")
    assert (detail["manifest-media-type"], detail["artifact-media-type"]) == (SIGNATURE.media_type, "text/sbom")


async def test_a_repository_that_is_deleted_by_force_tells_of_each_image_tag_by_tag(
    node: RegistryNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repository_cases, "_IMAGES_AT_ONCE", 2)
    images = [build_image([str(number).encode()]) for number in range(5)]
    for number, image in enumerate(images):
        await push(node, image, image.digest, *[f"v{number}.{patch}" for patch in range(number % 3)])
    cases = Repositories(node)
    with pytest.raises(RepositoryNotEmpty):
        await cases.delete(REPOSITORY)
    before = len(await told(node))
    await cases.delete(REPOSITORY, force=True)
    gone = short((await told(node))[before:])
    expected: list[tuple[str, str, str | None, str]] = []
    for number, image in enumerate(images):
        tags = [f"v{number}.{patch}" for patch in range(number % 3)]
        expected += [("DELETE", "SUCCESS", tag, image.digest) for tag in tags or (None,)]
    assert sorted(gone, key=str) == sorted(expected, key=str)
    assert await node.database.read(repositories.find(REPOSITORY)) is None


async def test_a_preview_tells_what_the_policy_would_do(node: RegistryNode) -> None:
    images = [build_image([str(number).encode()]) for number in range(12)]
    for image in images:
        await push(node, image, image.digest)
    before, previews = len(await told(node)), LifecyclePreviews(node)
    selection = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1}
    rules = [{"rulePriority": 7, "selection": selection, "action": {"type": "expire"}}]
    for _ in range(2):
        await previews.start(REPOSITORY, json.dumps({"rules": rules}))
        await previews.settle()
    records = (await told(node))[before:]
    assert [one["detail"]["eventName"] for one in records] == ["DryRunEvent"] * 4
    details = [one["detail"]["serviceEventDetails"] for one in records]
    acted = [one for detail in details[:2] for one in detail["lifecycleEventImageActions"]]
    assert len(acted) == 11
    assert {one["rulePriority"] for one in acted} == {7}
    assert {one["lifecycleEventImage"]["digest"] for one in acted} < {image.digest for image in images}
    assert details[0]["lifecycleEventPolicy"]["lifecycleEventRules"] == rules
    assert len({one["lifecycleEventPolicy"]["policyId"] for one in details}) == 1


async def test_a_preview_that_chooses_nothing_is_told_once(node: RegistryNode) -> None:
    await push(node, A, "v1")
    before, previews = len(await told(node)), LifecyclePreviews(node)
    selection = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 5}
    rules = [{"rulePriority": 1, "selection": selection, "action": {"type": "expire"}}]
    await previews.start(REPOSITORY, json.dumps({"rules": rules}))
    await previews.settle()
    (record,) = (await told(node))[before:]
    assert record["detail"]["serviceEventDetails"]["lifecycleEventImageActions"] == []
