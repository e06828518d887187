"""Lag objectives of a node with real rows: what is late, what burns, and what metrics and status show of it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.backfill import BackfillCause, BackfillState
from replicator.core.digest import Digest, digest_of
from replicator.core.jobs import Priority
from replicator.core.names import RepositoryName, parse_node, parse_tag
from replicator.core.replication import ReplicateImage, ReplicationRule
from replicator.daemon.gauges import NodeGauges
from replicator.daemon.lag_watch import LagWatch
from replicator.daemon.observers import ReplicationRecorder
from replicator.daemon.upstream_gauges import UpstreamGauges
from replicator.registry.node import RegistryNode
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata import backfills, jobs, replication_status
from replicator.storage.metadata.backfills import StoredBackfill
from replicator.storage.metadata.sqlite import SqliteDatabase
from replicator.storage.metadata.tag_conflicts import TagConflict
from replicator.telemetry.metrics import Metrics
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SOURCE, EU, AP = (parse_node(f"111111111111/{region}") for region in ("us-east-1", "eu-west-1", "ap-south-1"))
QUICK = ReplicationRule("quick", (EU,), ("quick/",), lag_objective=10.0)
SLOW = ReplicationRule("slow", (EU, AP), ("slow/",), lag_objective=100.0, lag_target=0.9)
FREE = ReplicationRule("free", (AP,), ("free/",))
RULES = (QUICK, SLOW, FREE)


class Scene:
    """A node with jobs, and what watches them."""

    def __init__(self, node: RegistryNode, clock: FakeClock) -> None:
        self.clock = clock
        self.database = node.database
        self.metrics = Metrics("1")
        counted = self.metrics.replication(str(SOURCE))
        self.lag = LagWatch(SOURCE, RULES, counted, clock)
        self.recorder = ReplicationRecorder(counted, clock, self.lag)
        storage = self.metrics.storage(str(SOURCE))
        upstreams = UpstreamGauges((), partial(self.metrics.upstream_health, str(SOURCE)))
        self.gauges = NodeGauges(node, clock, storage, counted, self.lag, upstreams)

    async def enqueue(self, rule: ReplicationRule, number: int = 1, priority: int = Priority.PUSH) -> None:
        """Store a job of a rule for each of its destinations, caused now."""
        digest: Digest = digest_of(f"{number}".encode())
        for destination in rule.destinations:
            repository = RepositoryName(f"{rule.name}/app")
            image = ReplicateImage(repository, digest, parse_tag(f"t{number}"), destination, rule.name)
            await self.database.write(partial(jobs.enqueue, image.to_job(priority), self.clock.now()))

    async def burn(self, rule: str, destination: object, window: str = "5m") -> float:
        """Return a burn rate as it is reported now."""
        self.clock.advance(5.0)  # totals are remembered for so long
        reports = await self.gauges.objectives()
        (found,) = [one for one in reports if (one.rule, one.destination) == (rule, str(destination))]
        return found.burn_rates[window]

    def shown(self, name: str, **labels: str) -> float | None:
        """Return what metrics show."""
        full = {"node": str(SOURCE), **labels}
        return self.metrics.registry.get_sample_value(f"replicator_replication_{name}", full)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    database, store, clock = SqliteDatabase(tmp_path / "metadata.db"), MemoryBlobStore(), FakeClock()
    await database.open()
    await store.open()
    yield Scene(RegistryNode(RegistrySettings(SOURCE, replication_rules=RULES), database, store, clock), clock)
    await store.close()
    await database.close()


async def test_rules_with_an_objective_are_reported_for_each_destination(scene: Scene) -> None:
    reports = await scene.gauges.objectives()
    assert [(one.rule, one.destination, one.objective_seconds, one.target) for one in reports] == [
        ("quick", str(EU), 10.0, 0.99),
        ("slow", str(EU), 100.0, 0.9),
        ("slow", str(AP), 100.0, 0.9),
    ]
    assert scene.shown("lag_objective_seconds", rule="slow", destination=str(AP)) == 100


async def test_images_in_time_burn_nothing_and_late_ones_do(scene: Scene) -> None:
    for lag in (1.0, 9.0, 10.0):
        scene.recorder.replicated("quick", str(EU), lag, 1)
    assert await scene.burn("quick", EU) == 0
    scene.recorder.replicated("quick", str(EU), 11.0, 1)
    assert await scene.burn("quick", EU) == pytest.approx(25.0)
    assert scene.shown("lag_burn_rate", rule="quick", destination=str(EU), window="5m") == pytest.approx(25.0)
    assert await scene.burn("slow", EU) == 0


async def test_the_target_of_a_rule_says_what_is_allowed(scene: Scene) -> None:
    scene.recorder.replicated("slow", str(EU), 500.0, 1)
    assert await scene.burn("slow", EU) == pytest.approx(10.0)


async def test_a_job_that_waits_too_long_burns_before_it_is_done(scene: Scene) -> None:
    await scene.enqueue(QUICK)
    await scene.enqueue(SLOW)
    assert await scene.burn("quick", EU) == 0
    scene.clock.advance(6.0)
    assert await scene.burn("quick", EU) == pytest.approx(100.0)
    assert await scene.burn("slow", EU) == 0
    assert scene.shown("overdue_jobs", rule="quick", destination=str(EU)) == 1
    assert scene.shown("overdue_jobs", rule="slow", destination=str(EU)) == 0
    scene.clock.advance(100.0)
    assert await scene.burn("slow", AP) == pytest.approx(10.0)


async def test_background_work_is_no_push_and_has_no_lag(scene: Scene) -> None:
    await scene.enqueue(QUICK, priority=Priority.BACKGROUND + 5)
    scene.clock.advance(1000.0)
    scene.recorder.replicated("quick", str(EU), None, 7)
    scene.recorder.sent(str(EU), 7)
    assert await scene.burn("quick", EU) == 0
    assert scene.shown("lag_seconds_count", rule="quick", destination=str(EU)) is None
    assert scene.shown("bytes_total", destination=str(EU)) == 7


async def test_a_late_image_stops_to_burn_once_it_is_out_of_the_window(scene: Scene) -> None:
    scene.recorder.replicated("quick", str(EU), 11.0, 1)
    scene.clock.advance(320.0)
    assert await scene.burn("quick", EU) == 0
    assert await scene.burn("quick", EU, "1h") == pytest.approx(100.0)


async def test_queues_are_shown_by_destination_and_class(scene: Scene) -> None:
    await scene.enqueue(SLOW, 1)
    scene.clock.advance(30.0)
    await scene.enqueue(SLOW, 2)
    await scene.enqueue(SLOW, 3, Priority.BACKGROUND + 5)
    await scene.enqueue(SLOW, 4, Priority.BACKGROUND + 6)
    totals = await scene.gauges.refresh()
    assert dict(totals.jobs) == {"queued": 8, "leased": 0, "dead": 0}
    assert totals.oldest_job_seconds == 30.0
    for destination in (str(EU), str(AP)):
        for name in ("push", "background"):
            assert scene.shown("jobs", destination=destination, priority_class=name, state="queued") == 2
        assert scene.shown("oldest_pending_seconds", destination=destination) == 30


async def test_a_destination_without_jobs_is_shown_as_empty(scene: Scene) -> None:
    await scene.gauges.refresh()
    assert scene.shown("oldest_pending_seconds", destination=str(AP)) == 0


async def test_failures_conflicts_and_drift_are_kept_for_the_status(scene: Scene) -> None:
    recorder = scene.recorder
    recorder.failed(str(EU), "AccessDenied:ecr:ReplicateImage")
    recorder.failed(str(EU), None)
    recorder.drift_found(str(EU), "missing-tag", 3)
    recorder.drift_repaired(str(EU), "missing-tag", 2)
    conflict = TagConflict(
        RepositoryName("quick/app"), parse_tag("1"), digest_of(b"a"), digest_of(b"b"), f"1.5.{AP}", 0.0
    )
    recorder.conflict_found(conflict)
    tally = recorder.destinations[str(EU)]
    assert dict(tally.failures) == {"AccessDenied:ecr:ReplicateImage": 1, "passing": 1}
    assert (tally.drift_found["missing-tag"], tally.drift_repaired["missing-tag"]) == (3, 2)
    assert scene.shown("failures_total", destination=str(EU), code="passing") == 1
    assert scene.shown("retries_total", destination=str(EU)) == 2
    assert scene.shown("conflicts_total", source=str(AP)) == 1


async def test_superseded_images_and_backfills_are_counted_in_the_rows(scene: Scene) -> None:
    older, newer = (
        ReplicateImage(RepositoryName("quick/app"), digest_of(text), parse_tag("1"), EU, "quick")
        for text in (b"older", b"newer")
    )
    backfill = StoredBackfill("one", BackfillCause.BACKFILL, str(EU), None, BackfillState.PREPARING, scene.clock.now())
    for body in (
        partial(replication_status.start, older, 1.0),
        partial(replication_status.supersede, newer, 2.0),
        partial(backfills.create, backfill),
    ):
        await scene.database.write(body)
    totals = await scene.gauges.refresh()
    assert (dict(totals.superseded), dict(totals.backfills)) == ({str(EU): 1}, {"PREPARING": 1})
    assert scene.shown("superseded_images", destination=str(EU)) == 1
    assert scene.shown("backfills", state="PREPARING") == 1
