"""What is written down about an attempt whose job another worker has by now: nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import UpstreamDenied
from replicator.core.jobs import JobKind
from replicator.core.replication import ReplicateImage, ReplicationState
from replicator.replication.attempt import Delivered
from replicator.replication.lane import Lane
from replicator.replication.settlement import Settlement
from replicator.storage.metadata import jobs
from tests.support.images import build_image
from tests.unit.replication.conftest import EU

if TYPE_CHECKING:
    from replicator.storage.metadata.jobs import LeasedJob
    from tests.unit.replication.conftest import Scene

IMAGE = build_image([b"layer"])


async def _lost_lease(scene: Scene) -> tuple[LeasedJob, LeasedJob]:
    """Return the same job as the worker that lost it sees it, and as the one that has it."""
    scene.replicate_only_to(EU)
    await scene.push(IMAGE)
    now = scene.clock.now()
    (lost,) = await scene.database.write(lambda: jobs.lease(JobKind.REPLICATE, "slow", now, now + 30, 1))
    (taken,) = await scene.database.write(lambda: jobs.lease(JobKind.REPLICATE, "other", now + 31, now + 60, 1))
    return lost, taken


@pytest.mark.parametrize("outcome", ["complete", "fail", "drop"])
async def test_an_attempt_that_lost_its_lease_changes_neither_status_nor_job(scene: Scene, outcome: str) -> None:
    lost, taken = await _lost_lease(scene)
    settlement = Settlement(scene.registry, scene.recorder, lambda: 0.0)
    replication = ReplicateImage.from_payload(lost.job.payload)
    if outcome == "complete":
        await settlement.complete(lost, replication, Delivered(), 0)
    elif outcome == "fail":
        await settlement.fail(Lane(4), lost, replication, UpstreamDenied(), 0)
    else:
        await settlement.drop(lost, replication)
    status = await scene.state(IMAGE.digest)
    assert (status.status, status.failure_code) == (ReplicationState.IN_PROGRESS, None)
    assert scene.recorder.replications == []
    assert await scene.database.write(lambda: jobs.complete(taken, scene.clock.now()))


async def test_bytes_of_failed_attempts_count(scene: Scene) -> None:
    _, taken = await _lost_lease(scene)
    settlement = Settlement(scene.registry, scene.recorder, lambda: 0.0)
    replication = ReplicateImage.from_payload(taken.job.payload)
    await settlement.fail(Lane(4), taken, replication, UpstreamDenied(), 100)
    now = scene.clock.now()
    (again,) = await scene.database.write(lambda: jobs.lease(JobKind.REPLICATE, "me", now + 900, now + 930, 1))
    await settlement.complete(again, replication, Delivered(), 11)
    status = await scene.state(IMAGE.digest)
    assert (status.status, status.bytes, status.failure_code) == (ReplicationState.COMPLETE, 111, None)
