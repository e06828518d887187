"""Ten thousand images: a backfill of them, and the comparison with a destination, take bounded memory and little time.

A push goes on meanwhile: what waits for the database waits for one page.
"""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from functools import partial
from typing import TYPE_CHECKING

import pytest

from replicator.core.backfill import BackfillState
from replicator.core.digest import digest_of
from replicator.core.jobs import JobKind, Priority
from replicator.core.manifest import parse_manifest
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.mutability import MutabilityRule
from replicator.core.names import Tag
from replicator.core.replication import Origin
from replicator.replication.backfill import Backfills
from replicator.replication.comparison import PAGE, Comparison
from replicator.storage.metadata import images, jobs, repositories, tags
from replicator.storage.metadata.images import StoredImage, StoredManifest
from replicator.storage.metadata.repositories import Repository
from tests.support.images import build_image
from tests.unit.replication.conftest import EU, REPOSITORY, SOURCE

if TYPE_CHECKING:
    from replicator.storage.metadata.statement import Steps
    from tests.unit.replication.conftest import Scene

COUNT = 10_000
CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest_of(b"{}"), "size": 2}


def _put(first: int, count: int, now: float) -> Steps[None]:
    yield from repositories.create(Repository(REPOSITORY, now, "push", MutabilityRule()))
    for number in range(first, first + count):
        document = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [], "annotations": {}}
        content = json.dumps({**document, "annotations": {"number": str(number)}}).encode()
        stored = StoredManifest(digest_of(content), OCI_MANIFEST, content)
        image = StoredImage(stored, parse_manifest(content, OCI_MANIFEST), Origin.DIRECT)
        yield from images.put(REPOSITORY, image, SOURCE, now)
        yield from tags.put(REPOSITORY, Tag(f"v{number}"), stored.digest, SOURCE, now)


@pytest.fixture
async def filled(scene: Scene) -> Scene:
    scene.replicate_only_to(EU)
    for first in range(0, COUNT, 1000):
        await scene.database.write(partial(_put, first, 1000, scene.clock.now()))
    return scene


@pytest.mark.slow
async def test_a_backfill_is_prepared_in_bounded_memory_while_pushes_go_on(filled: Scene) -> None:
    backfills = Backfills(filled.registry)
    backfill = await backfills.start(EU)
    pushed = 0
    tracemalloc.start()
    async with asyncio.TaskGroup() as group:
        working = group.create_task(backfills.work())
        while not working.done():
            await filled.push(build_image([b"%d" % pushed]), "pushed")
            pushed += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    shown = await backfills.get(backfill)
    assert shown.state is BackfillState.IN_PROGRESS
    assert shown.progress is not None
    assert shown.progress.total >= COUNT
    assert peak < 32 * 1024 * 1024
    assert pushed > 10
    now = filled.clock.now()
    (first,) = await filled.database.write(lambda: jobs.lease(JobKind.REPLICATE, "worker", now, now + 60, 1))
    assert first.job.priority < Priority.BACKGROUND


@pytest.mark.slow
async def test_a_comparison_leaves_the_loop_to_others(filled: Scene) -> None:
    comparison = Comparison(filled.registry, filled.content, EU)
    turns = 0
    async with asyncio.TaskGroup() as group:
        working = group.create_task(comparison.side(REPOSITORY, [REPOSITORY]))
        while not working.done():
            await asyncio.sleep(0)
            turns += 1
    assert len(working.result().images) == COUNT
    assert turns >= COUNT / PAGE
