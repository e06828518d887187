"""Copies to a node: what is believed, what goes first, and what happens when the source changes its mind."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.errors import UpstreamDenied, UpstreamRefused, UpstreamUnavailable
from replicator.core.jobs import Priority
from replicator.core.names import Tag
from replicator.core.replication import ReplicateImage, ReplicationState
from replicator.replication import image_copy
from replicator.replication.worker import WorkerLimits
from replicator.storage.metadata import jobs, replication_status
from tests.support.images import Built, build_image, build_index
from tests.unit.replication.conftest import EU, REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from replicator.storage.metadata.statement import Steps
    from tests.unit.replication.conftest import Scene

IMAGE, OTHER = build_image([b"layer"]), build_image([b"other layer"])


@pytest.fixture(autouse=True)
def _one_destination(scene: Scene) -> None:
    scene.replicate_only_to(EU)


def _gate(call: str) -> tuple[asyncio.Event, asyncio.Event, Callable[[str], Awaitable[None]]]:
    """Return two events, and what to hold calls with: the first is set when `call` comes, which waits for the other."""
    reached, release = asyncio.Event(), asyncio.Event()

    async def hold(made: str) -> None:
        if made == call:
            reached.set()
            await release.wait()

    return reached, release, hold


# What is believed


async def test_a_node_that_claims_what_it_lacks_is_sent_it_all_the_same(scene: Scene) -> None:
    scene.destinations[EU].claims_all = True
    async with scene.working():
        await scene.push(IMAGE)
        await scene.until_attempts(1)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE
    held = scene.destinations[EU].repository(REPOSITORY)
    assert (set(held.blobs), set(held.manifests)) == (set(IMAGE.blobs), {IMAGE.digest})


async def test_a_node_that_loses_what_it_acknowledged_never_completes(scene: Scene) -> None:
    scene.destinations[EU].forgets = True
    async with scene.working():
        await scene.push(IMAGE, "v1")
        await scene.until_attempts(1)
    assert scene.recorder.outcomes() == ["retry"] * len(scene.recorder.attempts)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.IN_PROGRESS
    assert scene.destinations[EU].repository(REPOSITORY).tags == {}


async def test_manifests_that_fill_several_messages_all_arrive(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_copy, "MAX_DELIVERY_BYTES", 20_000)
    index = build_index([build_image([b"%d" % number], platform=("linux", f"cpu{number}")) for number in range(9)])
    scene.registry.settings = replace(scene.registry.settings, replication_rules=())
    await scene.push(index)
    scene.replicate_only_to(EU)
    await scene.put(index, "v1")
    async with scene.working():
        await scene.until_attempts(1)
    assert scene.recorder.outcomes() == ["complete"]
    assert index.digest in scene.destinations[EU].repository(REPOSITORY).manifests
    assert scene.destinations[EU].count("deliver None") > 1


# Referrers


async def test_a_referrer_that_is_refused_does_not_stop_its_image(scene: Scene) -> None:
    signature = build_image([b"signature"], subject=IMAGE, artifact_type="application/vnd.example.signature")

    def refuse(call: str) -> None:
        if signature.digest in call:
            raise UpstreamRefused

    scene.destinations[EU].before_call = refuse
    await scene.push(IMAGE)
    await scene.push(signature)
    async with scene.working():
        await scene.until_attempts(2)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE
    assert (await scene.state(signature.digest)).failure_code == "RefusedByDestination"


# The source changes its mind


async def test_an_image_that_lost_its_tag_under_way_is_settled_by_what_happened(scene: Scene) -> None:
    reached, release, scene.destinations[EU].hold = _gate(f"deliver {IMAGE.digest}")
    async with scene.working():
        await scene.push(IMAGE)
        await reached.wait()
        release.set()
        await scene.until_attempts(1)
        reached, release, scene.destinations[EU].hold = _gate(f"offer {IMAGE.digest}")
        await scene.put(IMAGE, "latest")
        await reached.wait()
        await scene.push(OTHER)
        await scene.put(OTHER, "latest")
        release.set()
        await scene.until_attempts(4)
    found = await scene.database.read(replication_status.of_image(REPOSITORY, IMAGE.digest))
    assert {(one.tag, one.status) for one in found} == {
        (None, ReplicationState.COMPLETE),
        ("latest", ReplicationState.COMPLETE),
    }
    tags = scene.destinations[EU].repository(REPOSITORY).tags
    assert tags[Tag("latest")].digest == OTHER.digest


async def test_what_was_asked_for_again_while_it_failed_is_tried_at_once(scene: Scene) -> None:
    reached, release, scene.destinations[EU].hold = _gate(f"offer {IMAGE.digest}")
    denied = [True]

    def deny_once(_: str) -> None:
        if denied and denied.pop():
            raise UpstreamDenied

    scene.destinations[EU].before_call = deny_once
    async with scene.working():
        await scene.push(IMAGE)
        await reached.wait()
        await scene.push(IMAGE)
        release.set()
        await scene.until_attempts(2)  # no time passes
    assert scene.recorder.outcomes() == ["failed", "complete"]


async def test_a_destination_is_asked_at_once_when_somebody_says_that_it_is_mended(scene: Scene) -> None:
    def be_down(_: str) -> None:
        raise UpstreamUnavailable(retry_after=600)

    scene.destinations[EU].before_call = be_down
    async with scene.working() as worker:
        await scene.push(IMAGE)
        await scene.until_attempts(1)
        await scene.clock.sleepers(2)
        scene.destinations[EU].before_call = lambda _: None
        now = scene.clock.now()
        await scene.database.write(lambda: _all_due(now))
        worker.reopen(str(EU))
        await scene.until_attempts(2)
    assert (await scene.state(IMAGE.digest)).status is ReplicationState.COMPLETE


# Priorities


async def test_a_backfill_delays_a_push_by_one_blob(scene: Scene) -> None:
    backfill = [build_image([b"old %d" % number, b"older %d" % number]) for number in range(20)]
    for image in backfill:
        await scene.push(image)
    await scene.database.write(lambda: _in_background(scene, backfill))
    blobs = {digest for image in backfill for digest in image.blobs}
    first, release = asyncio.Event(), asyncio.Event()

    async def hold(call: str) -> None:
        if call.startswith("blob ") and call.removeprefix("blob ") in blobs:
            first.set()
            await release.wait()

    destination = scene.destinations[EU]
    destination.hold = hold
    async with scene.working(WorkerLimits(blobs_per_destination=1)):
        await first.wait()
        await scene.push(IMAGE)
        while not destination.count(f"offer {IMAGE.digest}"):  # noqa: ASYNC110 - calls set no event
            await asyncio.sleep(0)
        for _ in range(200):
            await asyncio.sleep(0)
        release.set()
        await scene.until_attempts(21)
    sent = [call.removeprefix("blob ") for call in destination.calls if call.startswith("blob ")]
    assert set(sent[1 : 1 + len(IMAGE.blobs)]) == set(IMAGE.blobs)
    assert len(scene.recorder.replications) == 21
    assert [one.lag_seconds is None for one in scene.recorder.replications].count(False) == 1


def _in_background(scene: Scene, images: Sequence[Built]) -> Steps[None]:
    """Have jobs that wait for images be those of a backfill."""
    now = scene.clock.now()
    leased = yield from jobs.lease_replication("test", now, now + 1, 100, str(EU))
    for one in leased:
        yield from jobs.complete(one, now)
    for image in images:
        job = ReplicateImage(REPOSITORY, image.digest, None, EU, "everything").to_job(Priority.BACKGROUND + 5)
        yield from jobs.enqueue(job, now)


def _all_due(now: float) -> Steps[None]:
    for kind in jobs.REPLICATION:
        yield from jobs.make_due(kind, str(EU), now)
