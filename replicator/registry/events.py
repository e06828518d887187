"""What a change of an image is told as: steps that record it in the transaction of the change.

So a change that is rolled back tells nothing, and one that is kept tells of itself once. On a node without sinks these
steps do nothing at all. Recorders look at what is there: call them before the change is written.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from replicator.core.cache_rules import covering_rule
from replicator.core.errors import StorageError, UpstreamContent, UpstreamDenied, UpstreamNotFound, UpstreamThrottled
from replicator.core.event_sinks import sinks_for
from replicator.core.events import (
    EventResult,
    ImageAction,
    LifecycleImage,
    LifecycleRecord,
    LifecycleRun,
    MediaTypes,
    PulledThrough,
    envelope,
    image_actions,
    image_scan,
    lifecycle_records,
    pull_through_action,
    replication_action,
    scan_resource_change,
    storage_class_change,
)
from replicator.core.manifest import parse_manifest
from replicator.storage.metadata import events, images, repositories, tags
from replicator.storage.metadata.events import NewEvent
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.errors import ReplicatorError
    from replicator.core.events import Event, ScanFrequencyChange, StorageClassChange
    from replicator.core.lifecycle import LifecycleAction
    from replicator.core.names import NodeId, RepositoryName, Tag
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.images import StoredImage
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

_MAX_REASON = 500
_FAILURE_CODES: Mapping[type[ReplicatorError], str] = {
    UpstreamDenied: "UpstreamAccessDenied",
    UpstreamThrottled: "UpstreamTooManyRequests",
    UpstreamNotFound: "ImageNotFound",
    UpstreamContent: "UnableToGetUpstreamImage",
}


def record_event(node: RegistryNode, event: Event, now: float) -> Steps[None]:
    """Store an event for the sinks that want it, if any do; ECR Public tells nothing of its repositories."""
    wanting = sinks_for(node.settings.event_sinks, event)
    if not wanting or node.settings.public_registry.covers(event.repository):
        return
    event_id = str(uuid.uuid4())
    document = envelope(event, event_id, node.settings.node, now)
    stored = NewEvent(event_id, event.detail_type.value, event.image, document)
    yield from events.put(stored, [(sink.name, sink.key_of(event)) for sink in wanting], now)


def record_events(node: RegistryNode, told: Iterable[Event], now: float) -> Steps[None]:
    """Store several events, in order."""
    for event in told:
        yield from record_event(node, event, now)


def record_push(
    node: RegistryNode, repository: RepositoryName, image: StoredImage, names: Sequence[Tag], now: float
) -> Steps[None]:
    """Tell of every tag that a push sets or moves; of a push without tags, if the image is new in its repository."""
    if not node.settings.event_sinks:
        return
    digest = image.manifest.digest
    moved = yield from _moved(repository, digest, names)
    if not moved and (names or (yield from images.find_origin(repository, digest)) is not None):
        return
    told = image_actions(
        ImageAction.PUSH,
        repository,
        digest,
        moved,
        is_referrer=image.parsed.subject is not None,
        media=_media(image),
    )
    yield from record_events(node, told, now)


def _moved(repository: RepositoryName, digest: Digest, names: Sequence[Tag]) -> Steps[list[Tag]]:
    found = []
    for name in names:
        register = yield from tags.find(repository, name)
        if register is None or register.digest != digest:
            found.append(name)
    return found


async def tell_refused_push(
    node: RegistryNode, repository: RepositoryName, image: StoredImage, names: Sequence[Tag], now: float
) -> None:
    """Tell of a push into a repository that exists, which broke one of its rules.

    In a transaction of its own, as that of the push is undone, and best effort: the pusher hears of it anyway.
    """
    if not node.settings.event_sinks:
        return
    try:
        await node.database.write(lambda: _record_refused_push(node, repository, image, names, now))
    except StorageError as error:
        _log.warning("refused push could not be told", repository=repository, error=str(error))
        return
    node.announce_events()


def _record_refused_push(
    node: RegistryNode, repository: RepositoryName, image: StoredImage, names: Sequence[Tag], now: float
) -> Steps[None]:
    there = yield from repositories.find(repository)
    if there is None:
        return
    told = image_actions(
        ImageAction.PUSH,
        repository,
        image.manifest.digest,
        names,
        is_referrer=image.parsed.subject is not None,
        media=_media(image),
        result=EventResult.FAILURE,
    )
    yield from record_events(node, told, now)


def record_deletion(
    node: RegistryNode, repository: RepositoryName, digest: Digest, names: Sequence[Tag], now: float
) -> Steps[None]:
    """Tell of every tag that is deleted; of an image that goes without a tag, once."""
    if not node.settings.event_sinks:
        return
    image = yield from images.find_listed(repository, digest)
    is_referrer = image is not None and image.subject is not None
    told = image_actions(ImageAction.DELETE, repository, digest, names, is_referrer=is_referrer)
    yield from record_events(node, told, now)


def record_storage_class(
    node: RegistryNode, repository: RepositoryName, digest: Digest, change: StorageClassChange, now: float
) -> Steps[None]:
    """Tell that an image was archived or activated: of each of its tags, or once."""
    if not node.settings.event_sinks:
        return
    manifest = yield from images.find(repository, digest)
    listed = yield from images.find_listed(repository, digest)
    names = yield from tags.of_digest(repository, digest)
    media = MediaTypes("")
    if manifest is not None:
        media = MediaTypes(manifest.media_type, parse_manifest(manifest.content, manifest.media_type).artifact_type)
    is_referrer = listed is not None and listed.subject is not None
    for name in names or (None,):
        event = storage_class_change(repository, digest, change, media, name, is_referrer=is_referrer)
        yield from record_event(node, event, now)


def record_dry_run(
    node: RegistryNode,
    repository: RepositoryName,
    policy: str,
    evaluated_at: float,
    actions: Sequence[LifecycleAction],
    now: float,
) -> Steps[None]:
    """Tell what a lifecycle policy would do to images, without failures: nothing was tried."""
    if not node.settings.event_sinks:
        return
    rules = json.loads(policy)["rules"]
    # The same text is the same policy, whenever and wherever it is previewed.
    policy_id = str(uuid.uuid5(uuid.NAMESPACE_OID, policy))
    run = LifecycleRun(LifecycleRecord.DRY_RUN, repository, rules, evaluated_at, policy_id)
    chosen = [
        LifecycleImage(one.image.digest, one.image.tags, one.image.pushed_at, one.rule.priority) for one in actions
    ]
    yield from record_events(node, lifecycle_records(node.settings.node, run, chosen), now)


def record_scan(
    node: RegistryNode,
    repository: RepositoryName,
    digest: Digest,
    status: str,
    severities: Mapping[str, int],
    now: float,
) -> Steps[None]:
    """Tell that a scan of an image ended."""
    if not node.settings.event_sinks:
        return
    names = yield from tags.of_digest(repository, digest)
    yield from record_event(node, image_scan(repository, digest, names, status, severities), now)


def record_scan_frequency(node: RegistryNode, change: ScanFrequencyChange, scan_type: str, now: float) -> Steps[None]:
    """Tell that a repository is scanned at another frequency from now on."""
    yield from record_event(node, scan_resource_change(node.settings.node, change, scan_type), now)


def record_replication(
    node: RegistryNode, repository: RepositoryName, digest: Digest, tag: Tag | None, source: NodeId, now: float
) -> Steps[None]:
    """Tell that an image, or a tag of it, came by replication."""
    yield from record_event(node, replication_action(repository, digest, (source.account, source.region), tag), now)


def record_import(
    node: RegistryNode, repository: RepositoryName, digest: Digest, tag: Tag | None, now: float
) -> Steps[None]:
    """Tell that the cache brought an image here."""
    if not node.settings.event_sinks:
        return
    pulled = replace(_pulled(node, repository), tag=tag, digest=digest)
    yield from record_event(node, pull_through_action(pulled), now)


def record_failed_import(
    node: RegistryNode,
    repository: RepositoryName,
    tag: Tag | None,
    digest: Digest | None,
    error: ReplicatorError,
    now: float,
) -> Steps[None]:
    """Tell that the cache could not bring, or could not check, an image."""
    if not node.settings.event_sinks:
        return
    pulled = replace(_pulled(node, repository), tag=tag, digest=digest)
    event = pull_through_action(pulled, failure_code_of(error), str(error)[:_MAX_REASON])
    yield from record_event(node, event, now)


def failure_code_of(error: ReplicatorError) -> str:
    """Return ECR's word for what was wrong with an upstream."""
    found = (_FAILURE_CODES[kind] for kind in type(error).__mro__ if kind in _FAILURE_CODES)
    return next(found, "UpstreamUnavailable")


def _pulled(node: RegistryNode, repository: RepositoryName) -> PulledThrough:
    rule = covering_rule(node.settings.cache_rules, repository)
    if rule is None:
        return PulledThrough(repository, "", "")
    return PulledThrough(repository, rule.prefix, rule.namespaces[0] if rule.namespaces else rule.upstream)


def _media(image: StoredImage) -> MediaTypes:
    return MediaTypes(image.manifest.media_type, image.parsed.artifact_type)
