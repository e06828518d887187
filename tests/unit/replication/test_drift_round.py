"""Rounds of anti-entropy with a destination that does as a test says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.delivery import ImageOutcome
from replicator.core.drift import DriftKind
from replicator.core.errors import PermissionMissing, UpstreamTimeout
from replicator.core.jobs import JobKind
from replicator.core.peer_messages import Lacks, RepositoryHash
from replicator.core.replication import ReplicateImage, ReplicationState
from replicator.replication.comparison import Comparison
from replicator.replication.drift_round import AntiEntropySettings, DriftRound, RoundMemory
from replicator.storage.metadata import jobs, replication_status
from tests.support.images import build_image
from tests.unit.replication.conftest import EU, REPOSITORY

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.core.peer_messages import HeldImage, Offer
    from replicator.storage.metadata.statement import Steps
    from tests.unit.replication.conftest import Scene

IMAGE = build_image([b"layer"])
SETTINGS = AntiEntropySettings(offers=0)


class Peer:
    """A node that holds what it is given, and counts what it is asked."""

    def __init__(self, *held: HeldImage, hash_of: str = "something") -> None:
        self.lines, self.hash = list(held), hash_of
        self.listed = 0
        self.refusal: Exception | None = None

    async def hashes(self, after: str = "", limit: int = 1000) -> list[RepositoryHash]:
        return [RepositoryHash(REPOSITORY, self.hash)] if after < REPOSITORY and limit else []

    async def listing(self, repository: RepositoryName, after: str = "", limit: int = 1000) -> list[HeldImage]:
        assert repository == REPOSITORY
        assert (after, limit) == ("", 1000)
        self.listed += 1
        if self.refusal is not None:
            raise self.refusal
        return self.lines

    async def offer(self, offer: Offer) -> Lacks:
        return Lacks((), (), ImageOutcome.PRESENT)


async def _finish_jobs(scene: Scene) -> int:
    """Do what is queued as a destination does that confirms it and changes nothing; return how much it was."""
    now = scene.clock.now()

    def steps() -> Steps[int]:
        leased = yield from jobs.lease(JobKind.REPLICATE, "worker", now, now + 60, 100)
        for one in leased:
            yield from jobs.complete(one, now)
            done = ReplicateImage.from_payload(one.job.payload)
            yield from replication_status.settle(done, ReplicationState.COMPLETE, now)
        return len(leased)

    return await scene.database.write(steps)


async def _round(scene: Scene, peer: Peer, memory: RoundMemory) -> DriftRound:
    scene.clock.advance(900)
    comparison = Comparison(scene.registry, scene.content, EU)
    done = DriftRound(scene.registry, comparison, memory, SETTINGS)
    await done.compare_peer(peer)
    return done


@pytest.fixture
async def pushed(scene: Scene) -> Scene:
    """A node that pushed an image, which its destination confirmed."""
    scene.replicate_only_to(EU)
    await scene.push(IMAGE, "v1")
    await _finish_jobs(scene)
    return scene


async def test_a_difference_that_a_repair_does_not_change_is_listed_again_after_a_day_only(pushed: Scene) -> None:
    peer, memory = Peer(), RoundMemory()
    assert (await _round(pushed, peer, memory)).found == {DriftKind.MISSING_TAG: 1}
    assert await _finish_jobs(pushed) == 1
    for _ in range(3):
        assert (await _round(pushed, peer, memory)).found == {}
    assert await _finish_jobs(pushed) == 0
    assert peer.listed == 2
    pushed.clock.advance(SETTINGS.remember)
    await _round(pushed, peer, memory)
    assert peer.listed == 3


async def test_damage_that_comes_back_is_repaired_again(pushed: Scene) -> None:
    peer, memory = Peer(), RoundMemory()
    whole = Comparison(pushed.registry, pushed.content, EU)
    side = await whole.side(REPOSITORY, [REPOSITORY])
    for _ in range(3):
        peer.hash = "damaged"
        assert (await _round(pushed, peer, memory)).repaired == {DriftKind.MISSING_TAG: 1}
        assert await _finish_jobs(pushed) == 1
        peer.hash = side.fingerprint
        assert (await _round(pushed, peer, memory)).found == {}


async def test_a_repair_that_is_not_done_yet_is_not_queued_twice(pushed: Scene) -> None:
    peer, memory = Peer(), RoundMemory()
    assert (await _round(pushed, peer, memory)).repaired == {DriftKind.MISSING_TAG: 1}
    assert (await _round(pushed, peer, memory)).found == {}
    assert await _finish_jobs(pushed) == 1
    assert (await _round(pushed, peer, memory)).found == {DriftKind.MISSING_TAG: 1}


async def test_a_repository_that_is_refused_does_not_end_the_round(pushed: Scene) -> None:
    peer = Peer()
    peer.refusal = PermissionMissing("not allowed", permission="ecr:ReplicateImage")
    done = await _round(pushed, peer, RoundMemory())
    assert (done.found, list(done.refused)) == ({}, [REPOSITORY])
    peer.refusal = UpstreamTimeout()
    with pytest.raises(UpstreamTimeout):
        await _round(pushed, peer, RoundMemory())
