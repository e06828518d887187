"""A node with real stores whose images go to registries in memory."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, overload

import pytest

from replicator.cache.content import PullThroughContent
from replicator.cache.pull_through import PullThrough
from replicator.core.destinations import RegistryRef
from replicator.core.names import AccountId, NodeId, Region, RepositoryName
from replicator.core.principal import UNRESTRICTED
from replicator.core.reference import parse_reference
from replicator.core.replication import ReplicationRule
from replicator.registry.node import RegistryNode
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.replication.status import ReplicationStatusReader
from replicator.replication.worker import ReplicationWorker, WorkerLimits
from replicator.storage.blobs.memory import MemoryBlobStore
from replicator.storage.metadata.sqlite import SqliteDatabase
from tests.support.clock import FakeClock
from tests.support.images import Built, walk
from tests.support.memory_peer import MemoryPeer
from tests.support.nodes import Changes, Recorder

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.replication_status import ReplicationStatus
    from replicator.transfer.push_image import ContentSource

ACCOUNT = AccountId("111111111111")
SOURCE, EU, AP = (NodeId(ACCOUNT, Region(name)) for name in ("us-east-1", "eu-west-1", "ap-south-1"))
REPOSITORY = RepositoryName("team/app")


@dataclass
class Scene:
    """The node, its destinations, and the workers that a test runs."""

    registry: RegistryNode
    database: Database
    clock: FakeClock
    destinations: dict[NodeId, MemoryPeer]
    changes: Changes = field(default_factory=Changes)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.changes)
        self.status = ReplicationStatusReader(self.database, self.clock)
        self.content: ContentSource = PullThroughContent(
            PullThrough(self.registry, Pulls(self.registry), (), {}, self.recorder)
        )

    @overload
    def find(self, destination: NodeId) -> MemoryPeer | None: ...

    @overload
    def find(self, destination: RegistryRef) -> None: ...

    @overload
    def find(self, destination: NodeId | RegistryRef) -> MemoryPeer | None: ...

    def find(self, destination: NodeId | RegistryRef) -> MemoryPeer | None:
        """Return a destination; the scene is what a worker asks for them."""
        return None if isinstance(destination, RegistryRef) else self.destinations.get(destination)

    def replicate_only_to(self, node: NodeId) -> None:
        """Leave one destination of the two."""
        rules = (ReplicationRule("everything", (node,)),)
        self.registry.settings = replace(self.registry.settings, replication_rules=rules)

    @contextlib.asynccontextmanager
    async def working(self, limits: WorkerLimits | None = None) -> AsyncIterator[ReplicationWorker]:
        """Run a worker until the block ends."""
        worker = ReplicationWorker(self.registry, self.content, self, self.recorder, limits, jitter=lambda: 0.0)
        running = asyncio.create_task(worker.run())  # noqa: TID251 - ended below
        try:
            yield worker
            assert not running.done(), "the worker ended by itself"
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def push(self, image: Built, *tags: str) -> None:
        """Push an image to the node."""
        uploads, pushes = Uploads(self.registry), Pushes(self.registry)
        for digest, content in image.blobs.items():
            await uploads.put_blob(UNRESTRICTED, REPOSITORY, digest, _once(content))
        for part in walk(image):
            for reference in (part.digest, *(tags if part is image else ())):
                await pushes.put_manifest(
                    UNRESTRICTED, REPOSITORY, parse_reference(reference), part.manifest, part.media_type
                )

    async def put(self, image: Built, tag: str) -> None:
        """Put the manifest of an image whose content is there, under a tag."""
        await Pushes(self.registry).put_manifest(
            UNRESTRICTED, REPOSITORY, parse_reference(tag), image.manifest, image.media_type
        )

    async def until_attempts(self, count: int) -> None:
        """Wait until so many attempts were made."""

        async def made() -> bool:
            return len(self.recorder.attempts) >= count

        await self.changes.until(made)

    async def state(self, reference: str, destination: NodeId = EU) -> ReplicationStatus:
        """Return the status of an image, pushed with one tag or none, at a destination."""
        found = await self.status.of_image(REPOSITORY, parse_reference(reference))
        return next(one for one in found if one.destination == str(destination))


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    database, store, clock = SqliteDatabase(tmp_path / "metadata.db"), MemoryBlobStore(), FakeClock()
    rules = (ReplicationRule("everything", (EU, AP)),)
    await database.open()
    await store.open()
    registry = RegistryNode(RegistrySettings(SOURCE, replication_rules=rules), database, store, clock)
    yield Scene(registry, database, clock, {EU: MemoryPeer(), AP: MemoryPeer()})
    await store.close()
    await database.close()
