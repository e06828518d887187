"""What is written down about an attempt: what became of the image, and nothing where another worker has its job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import UpstreamDenied
from replicator.core.jobs import JobKind
from replicator.core.replication import ReplicateImage, ReplicationState
from replicator.replication.attempt import Delivered
from replicator.replication.lane import Lane
from replicator.replication.settlement import Settlement
from replicator.storage.metadata import jobs, replication_status
from tests.support.images import build_image
from tests.unit.replication.conftest import EU, REPOSITORY

if TYPE_CHECKING:
    from replicator.storage.metadata.jobs import LeasedJob
    from tests.support.images import BuiltImage
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


async def _two_images(scene: Scene) -> tuple[LeasedJob, BuiltImage]:
    """Push one image as `latest` and lease its job; return that, and an image that can take the tag."""
    scene.replicate_only_to(EU)
    newer = build_image([b"other layer"])
    await scene.push(newer)
    await scene.push(IMAGE)
    await scene.put(IMAGE, "latest")
    now = scene.clock.now()
    leased = await scene.database.write(lambda: jobs.lease_replication("me", now, now + 30, 9, str(EU)))
    (mine,) = [one for one in leased if one.job.payload["tag"] == "latest"]
    return mine, newer


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


async def test_a_superseded_image_whose_last_attempt_failed_stays_superseded(scene: Scene) -> None:
    mine, newer = await _two_images(scene)
    await scene.put(newer, "latest")
    settlement = Settlement(scene.registry, scene.recorder, lambda: 0.0)
    await settlement.fail(Lane(4), mine, ReplicateImage.from_payload(mine.job.payload), UpstreamDenied(), 5)
    found = await scene.database.read(replication_status.of_image(REPOSITORY, IMAGE.digest))
    assert [(one.status, one.failure_code, one.bytes) for one in found if one.tag] == [
        (ReplicationState.FAILED, "Superseded", 5)
    ]


async def test_who_waits_for_an_image_is_told_of_its_outcome(scene: Scene) -> None:
    _, taken = await _lost_lease(scene)
    told: list[str] = []
    scene.registry.on_settled(lambda repository, digest: told.append(f"{repository}@{digest}"))
    settlement = Settlement(scene.registry, scene.recorder, lambda: 0.0)
    await settlement.complete(taken, ReplicateImage.from_payload(taken.job.payload), Delivered(), 0)
    assert told == [f"{REPOSITORY}@{IMAGE.digest}"]


async def test_an_image_that_failed_is_superseded_like_one_that_waits(scene: Scene) -> None:
    mine, newer = await _two_images(scene)
    settlement = Settlement(scene.registry, scene.recorder, lambda: 0.0)
    await settlement.fail(Lane(4), mine, ReplicateImage.from_payload(mine.job.payload), UpstreamDenied(), 5)
    await scene.put(newer, "latest")
    found = await scene.database.read(replication_status.of_image(REPOSITORY, IMAGE.digest))
    assert [(one.status, one.failure_code) for one in found if one.tag] == [(ReplicationState.FAILED, "Superseded")]
