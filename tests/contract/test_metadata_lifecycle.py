"""Previews of lifecycle policies on every database: evaluated in pieces, left by one process, taken up by the next."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from replicator.core.digest import Digest
from replicator.core.errors import LifecyclePreviewInProgress, LifecyclePreviewNotFound
from replicator.core.image_status import ImageStatus
from replicator.core.mutability import MutabilityRule
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.registry.lifecycle_policies import LifecyclePolicies
from replicator.registry.lifecycle_previews import LifecyclePreviews, Wanted
from replicator.registry.node import RegistryNode
from replicator.registry.settings import RegistrySettings
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata import image_states, lifecycle_previews, repositories, tags
from replicator.storage.metadata.lifecycle_previews import Preview, PreviewStatus
from replicator.storage.metadata.repositories import Repository
from replicator.storage.metadata.repository_removal import remove
from replicator.storage.metadata.schema import images
from replicator.storage.metadata.statement import Statement
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.statement import Steps

HERE = NodeId(AccountId("123456789012"), Region("us-east-1"))
APP, OTHER = RepositoryName("team/app"), RepositoryName("team/other")
DAY = 24 * 60 * 60


def digest(number: int) -> Digest:
    return Digest(f"sha256:{number:064x}")


def policy(**selection: object) -> str:
    chosen = {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 1, **selection}
    return json.dumps({"rules": [{"rulePriority": 7, "selection": chosen, "action": {"type": "expire"}}]}, indent=1)


_COLUMNS = ("repository", "digest", "origin", "pushed_at", "revision", "status")
_INSERT = Statement(sa.insert(images).values({name: sa.bindparam(name) for name in _COLUMNS}))


def fill(repository: RepositoryName, count: int, now: float) -> Steps[None]:
    """Store a repository of `count` images, the last one the youngest; every second one has a tag."""
    yield from repositories.create(Repository(repository, now, "push", MutabilityRule()))
    for number in range(count):
        yield from _image(repository, digest(number), now - count + number)
        if number % 2:
            yield from tags.put(repository, Tag(f"v{number}"), digest(number), HERE, now)


def _image(repository: RepositoryName, name: Digest, pushed_at: float) -> Steps[None]:
    yield from _INSERT(
        repository=repository, digest=name, origin="direct", pushed_at=pushed_at, revision="", status="ACTIVE"
    )


@pytest.fixture
def node(database: Database) -> RegistryNode:
    return RegistryNode(RegistrySettings(HERE), database, MemoryBlobStore(), FakeClock())


@pytest.fixture
async def app(node: RegistryNode) -> RepositoryName:
    await node.database.write(partial(fill, APP, 6, node.clock.now()))
    return APP


async def test_snapshots_are_images_with_their_tags(node: RegistryNode, app: RepositoryName) -> None:
    now = node.clock.now()
    await node.database.write(partial(image_states.archive, app, digest(1), now))
    await node.database.write(partial(image_states.touch, app, digest(2), now - 1))
    await node.database.write(partial(tags.put, app, Tag("v3"), None, HERE, now))
    await node.database.write(partial(tags.put, app, Tag("a3"), digest(5), HERE, now))
    found = await node.database.read(lifecycle_previews.snapshots_after(app, digest(0), 3))
    assert [one.digest for one in found] == [digest(1), digest(2), digest(3)]
    assert [one.tags for one in found] == [("v1",), (), ()]
    assert [one.status for one in found] == [ImageStatus.ARCHIVED, ImageStatus.ACTIVE, ImageStatus.ACTIVE]
    assert (found[0].archived_at, found[1].pulled_at, found[2].pushed_at) == (now, now - 1, now - 3)
    (_, last) = await node.database.read(lifecycle_previews.snapshots_after(app, digest(3), 3))
    assert last.tags == ("a3", "v5")
    assert await node.database.read(lifecycle_previews.snapshots_after(app, digest(5), 3)) == []


async def test_a_preview_is_evaluated_as_of_its_start_and_kept(node: RegistryNode, app: RepositoryName) -> None:
    previews = LifecyclePreviews(node)
    await previews.start(app, policy())
    with pytest.raises(LifecyclePreviewInProgress):
        await previews.start(app, policy(countNumber=2))
    assert (await previews.get(app, Wanted())).preview.status is PreviewStatus.IN_PROGRESS
    assert await previews.settle() == 1
    found = await previews.get(app, Wanted(size=3))
    assert found.preview == Preview(app, policy(), PreviewStatus.COMPLETE, node.clock.now(), 5, 0)
    assert [(one.digest, one.tags, one.priority) for one in found.results] == [
        (digest(0), (), 7),
        (digest(1), ("v1",), 7),
        (digest(2), (), 7),
    ]
    assert found.next_after == 2
    rest = await previews.get(app, Wanted(after=2, size=3))
    assert ([one.digest for one in rest.results], rest.next_after) == ([digest(3), digest(4)], None)
    tagged = await previews.get(app, Wanted(tagged=True, size=3))
    assert [one.digest for one in tagged.results] == [digest(1), digest(3)]
    named = await previews.get(app, Wanted(images=((digest(4), None), (None, Tag("v1"))), tagged=False))
    assert [one.digest for one in named.results] == [digest(4)]


async def test_a_newer_preview_takes_the_results_of_the_former_one_away(
    node: RegistryNode, app: RepositoryName
) -> None:
    previews = LifecyclePreviews(node)
    for count, left in ((1, 5), (4, 2)):
        await previews.start(app, policy(countNumber=count))
        await previews.settle()
        found = await previews.get(app, Wanted())
        assert (len(found.results), found.preview.expiring) == (left, left)


async def test_what_a_process_left_is_evaluated_by_the_next_one(node: RegistryNode, app: RepositoryName) -> None:
    left = await LifecyclePreviews(node).start(app, policy())
    half = lifecycle_previews.PreviewImage(3, digest(5), (), 1.0, "EXPIRE", None, 1, "STANDARD")
    await node.database.write(partial(lifecycle_previews.add, app, [half]))
    after = LifecyclePreviews(node)
    assert await after.settle() == 1
    found = await after.get(app, Wanted())
    assert found.preview.started_at == left.started_at
    assert [one.digest for one in found.results] == [digest(number) for number in range(5)]


async def test_what_another_process_works_on_is_left_to_it_for_a_while(node: RegistryNode, app: RepositoryName) -> None:
    ours, others = LifecyclePreviews(node), LifecyclePreviews(node)
    assert await ours.settle() == 0
    await others.start(app, policy())
    assert await ours.settle() == 0
    assert isinstance(node.clock, FakeClock)
    node.clock.advance(16 * 60)
    assert await ours.settle() == 1


async def test_a_repository_that_goes_takes_its_preview_along(node: RegistryNode, app: RepositoryName) -> None:
    previews = LifecyclePreviews(node)
    await previews.start(app, policy())
    await previews.settle()
    await previews.start(app, policy())
    await node.database.write(partial(remove, app))
    await node.database.write(partial(fill, app, 2, node.clock.now()))
    with pytest.raises(LifecyclePreviewNotFound):
        await previews.get(app, Wanted())
    assert await node.database.read(lifecycle_previews.results_after(app, -1, 10)) == []


async def test_the_policy_of_a_repository(node: RegistryNode, app: RepositoryName) -> None:
    policies, previews = LifecyclePolicies(node), LifecyclePreviews(node)
    put = await policies.put(app, policy())
    assert await policies.get(app) == put
    started = await previews.start(app, None)
    assert started.policy == put.text
    assert await policies.delete(app) == put


async def test_a_large_repository_does_not_hold_up_others(node: RegistryNode) -> None:
    """The event loop gets its turn while a preview is evaluated, again and again."""
    await node.database.write(partial(fill, OTHER, 3_000, node.clock.now()))
    previews = LifecyclePreviews(node)
    await previews.start(OTHER, policy(countNumber=10))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        await previews.settle()
        counting.cancel()
    found = await previews.get(OTHER, Wanted(size=1))
    assert (found.preview.expiring, found.results[0].digest) == (2_990, digest(0))
    assert turns > 20
