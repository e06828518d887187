"""How far replication is, and backfills (ECR §9.3, §9.5).

Only what goes to registries of ECR's kind is told: other destinations have neither account nor region.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import EcrError
from replicator.control_api.pages import page_of
from replicator.control_api.registry_settings import destination_document, read_destination
from replicator.control_api.single_image import single_image
from replicator.core.backfill import BackfillCause
from replicator.core.destinations import parse_destination
from replicator.core.errors import BackfillNotFound, InvalidInput
from replicator.core.names import NodeId
from replicator.core.replication import ReplicationState
from replicator.replication.status import summarise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.replication.backfill_view import Backfill, BackfillProgress
    from replicator.replication.status import DestinationStatus
    from replicator.storage.metadata.backfills import BackfillImage

_BACKFILLS = 25


async def describe_image_replication_status(call: Call) -> Document:
    """Return how an image stands at each of its destinations."""
    image = single_image(call)
    digest, rows = await call.registry.replication_status.of_named_image(
        call.registry.names.id.account, call.repository, image.digest, image.tag
    )
    statuses = [_status(one) for one in summarise(rows, image.tag) if _is_ours(one.destination)]
    return {
        "repositoryName": call.repository,
        "imageId": image.document(digest),
        "replicationStatuses": statuses,
    }


async def start_replication_backfill(call: Call) -> Document:
    """Have what is here already brought to a destination."""
    destination = read_destination(call.input.structure("destination"))
    try:
        backfill_id = await call.registry.backfills.start(destination)
    except InvalidInput as error:
        raise EcrError("ValidationException", str(error)) from error
    return _started(call, await call.registry.backfills.get(backfill_id))


async def stop_replication_backfill(call: Call) -> Document:
    """Stop a backfill."""
    found = await _find(call)
    return _started(call, await call.registry.backfills.stop(found.id))


async def list_replication_backfills(call: Call) -> Document:
    """Return the backfills that are not over, or ended in the last 90 days, the youngest first."""
    page = page_of(call, _BACKFILLS)
    found = await call.registry.backfills.list(page.size + 1, page.after or None, BackfillCause.BACKFILL)
    backfills, token = page.cut(found.backfills, lambda one: one.position)
    return present(
        registryId=call.registry.names.id.account,
        backfills=[_summary(one) for one in backfills if _is_ours(one.destination)],
        nextToken=token,
    )


async def describe_replication_backfill_results(call: Call) -> Document:
    """Return a backfill with what became of its images."""
    page = page_of(call)
    found = await _find(call)
    text = call.input.find_text("resultStatusFilter")
    status = None if text is None else ReplicationState(text)
    images = await call.registry.backfills.images(found.id, status, page.size + 1, page.after or None)
    results, token = page.cut(images.images, lambda one: " ".join(one.cursor))
    return present(
        registryId=call.registry.names.id.account,
        **_summary(found),
        results=[_result(one) for one in results],
        nextToken=token,
    )


async def _find(call: Call) -> Backfill:
    """Return the backfill that is asked for; one that ECR could not have is not there."""
    found = await call.registry.backfills.get(call.input.text("replicationBackfillId").lower())
    if found.cause is not BackfillCause.BACKFILL or not _is_ours(found.destination):
        raise BackfillNotFound(f"there is no backfill {found.id}")
    return found


def _is_ours(destination: str) -> bool:
    return isinstance(parse_destination(destination), NodeId)


def _destination(text: str) -> Document:
    destination = parse_destination(text)
    return destination_document(destination) if isinstance(destination, NodeId) else {}


def _status(found: DestinationStatus) -> Document:
    return present(**_destination(found.destination), status=found.status.value, failureCode=found.failure_code)


def _started(call: Call, found: Backfill) -> Document:
    return {
        "replicationBackfillId": found.id,
        "registryId": call.registry.names.id.account,
        "destination": _destination(found.destination),
        "status": found.state.value,
        "startedAt": found.created_at,
    }


def _summary(found: Backfill) -> Document:
    return present(
        replicationBackfillId=found.id,
        destination=_destination(found.destination),
        status=found.state.value,
        failureCode=found.failure,
        progress=None if found.progress is None else _progress(found.progress),
        startedAt=found.created_at,
        endedAt=found.finished_at,
    )


def _progress(found: BackfillProgress) -> Document:
    return {
        "totalReplicationCount": found.total,
        "completedReplicationCount": found.complete,
        "failedReplicationCount": found.failed,
        "failureCodes": list(found.failure_codes),
    }


def _result(found: BackfillImage) -> Document:
    return present(
        repositoryName=found.repository,
        imageId=present(imageDigest=found.digest, imageTag=found.tag),
        status=found.status,
        failureCode=found.failure_code,
    )


HANDLERS: Mapping[str, Handler] = {
    "DescribeImageReplicationStatus": describe_image_replication_status,
    "StartReplicationBackfill": start_replication_backfill,
    "StopReplicationBackfill": stop_replication_backfill,
    "ListReplicationBackfills": list_replication_backfills,
    "DescribeReplicationBackfillResults": describe_replication_backfill_results,
}
