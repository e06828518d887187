"""The JSON that operators read about replication."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.replication.backfill_view import Backfill
    from replicator.replication.status import DestinationStatus
    from replicator.replication.sync import SyncItem
    from replicator.replication.sync_request import SyncPlan
    from replicator.replication.wait import WaitOutcome, WaitResult
    from replicator.storage.metadata.backfills import BackfillImage
    from replicator.storage.metadata.replication_status import ReplicationStatus
    from replicator.storage.metadata.tag_conflicts import TagConflict

MAX_ITEMS = 1000
"""Items of a plan that are listed; all of them are counted."""

Json = Mapping[str, object]


def conflict_json(found: TagConflict) -> Json:
    """Return a conflict; `winner` is null where the tag was deleted."""
    return {
        "repository": found.repository,
        "tag": found.tag,
        "winner": found.winner,
        "loser": found.loser,
        "winner_revision": found.winner_revision,
        "found_at": found.found_at,
    }


def status_json(found: ReplicationStatus) -> Json:
    """Return the status of an image at one destination. Times are Unix seconds."""
    lag = None if found.completed_at is None else round(max(0.0, found.completed_at - found.enqueued_at), 3)
    return {
        "destination": found.destination,
        "repository": found.target or found.repository,
        "tag": found.tag,
        "rule": found.rule,
        "status": found.status.value,
        "failure_code": found.failure_code,
        "enqueued_at": found.enqueued_at,
        "completed_at": found.completed_at,
        "seconds": lag,
        "bytes": found.bytes,
    }


def destination_json(found: DestinationStatus) -> Json:
    """Return the one status of an image at one destination, as ECR gives it."""
    return {"destination": found.destination, "status": found.status.value, "failure_code": found.failure_code}


def wait_json(result: WaitResult) -> Json:
    """Return what came of a wait."""
    return {
        "digest": result.digest,
        "complete": result.is_complete,
        "destinations": [_outcome_json(one) for one in result.outcomes],
    }


def _outcome_json(outcome: WaitOutcome) -> Json:
    return {
        "destination": outcome.destination,
        "repository": outcome.repository,
        "state": outcome.state.value,
        "rule": outcome.rule,
        "failure_code": outcome.failure_code,
        "reason": outcome.reason,
    }


def backfill_json(found: Backfill) -> Json:
    """Return a backfill; `progress` is null until its images are named. Times are Unix seconds."""
    progress = found.progress
    return {
        "id": found.id,
        "cause": found.cause.value,
        "destination": found.destination or None,
        "repository": found.repository,
        "state": found.state.value,
        "created_at": found.created_at,
        "finished_at": found.finished_at,
        "failure": found.failure,
        "progress": None
        if progress is None
        else {
            "total": progress.total,
            "in_progress": progress.in_progress,
            "complete": progress.complete,
            "failed": progress.failed,
            "stopped": progress.stopped,
            "failure_codes": list(progress.failure_codes),
            "bytes": progress.sent_bytes,
        },
    }


def backfill_image_json(found: BackfillImage) -> Json:
    """Return what became of one image of a backfill."""
    return {
        "repository": found.repository,
        "digest": found.digest,
        "tag": found.tag,
        "destination": found.destination,
        "kind": found.kind.value,
        "status": found.status,
        "failure_code": found.failure_code,
        "bytes": found.bytes,
    }


def plan_json(plan: SyncPlan) -> Json:
    """Return a plan: its first items, and the totals of all."""
    return {
        "items": [_item_json(one) for one in plan.items[:MAX_ITEMS]],
        "count": len(plan.items),
        "bytes": plan.bytes,
        "not_allowed": plan.not_allowed,
        "unreachable": unreachable_json(plan),
    }


def unreachable_json(plan: SyncPlan) -> list[Json]:
    """Return the destinations that could not be asked."""
    return [{"destination": one.destination, "reason": one.reason} for one in plan.unreachable]


def _item_json(item: SyncItem) -> Json:
    return {
        "repository": item.repository,
        "target": item.target,
        "digest": item.digest,
        "tag": item.tag,
        "destination": str(item.destination),
        "kind": item.kind.value,
        "rule": item.rule,
        "bytes": item.bytes,
        "missing_permission": item.missing_permission,
        "repairable": item.repairable,
    }
