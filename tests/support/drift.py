"""What tests of backfills, syncs and anti-entropy do with a node of a cluster, and damage done behind its back."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.backfill import BackfillState
from replicator.core.names import RepositoryName
from replicator.replication.anti_entropy import AntiEntropy
from replicator.replication.backfill import Backfills
from replicator.replication.sync import Sync
from replicator.storage.metadata.schema import images, jobs, tags
from replicator.storage.metadata.statement import Statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from replicator.core.destinations import DestinationId
    from replicator.core.drift import DriftKind
    from replicator.core.replication import ReplicationRule
    from replicator.replication.backfill_view import Backfill
    from replicator.replication.drift_round import AntiEntropySettings
    from tests.support.nodes import Cluster, Node

_LOSE_IMAGE = Statement(sa.delete(images).where(images.c.digest == sa.bindparam("lost")))
_LOSE_TAG = Statement(sa.delete(tags).where(tags.c.tag == sa.bindparam("lost")))
_LOSE_JOBS = Statement(sa.delete(jobs))


class DriftCounts:
    """A drift observer that counts."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self.repaired: Counter[str] = Counter()

    def drift_found(self, destination: str, kind: str, count: int = 1) -> None:
        self.found[kind] += count

    def drift_repaired(self, destination: str, kind: str, count: int = 1) -> None:
        self.repaired[kind] += count


class Keeper:
    """The backfills, syncs and comparisons of one node, done when a test says so."""

    def __init__(self, nodes: Cluster, node: Node, settings: AntiEntropySettings | None = None) -> None:
        self.nodes, self.node = nodes, node
        self.counts = DriftCounts()
        self.backfills = Backfills(node.registry)
        content = node._content()
        self.anti_entropy = AntiEntropy(node.registry, content, node.peers, self.counts, settings)
        self.sync = Sync(node.registry, content, node.peers, self.backfills)

    async def check(self, destination: DestinationId) -> Mapping[DriftKind, int]:
        """Do one round of anti-entropy, and wait until what it queued is done."""
        self.nodes.clock.advance(1.0)
        found = await self.anti_entropy.check(destination)
        await self.nodes.until_quiet()
        return found

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have both services run by themselves until the block ends."""
        services = (self.anti_entropy.run(), self.backfills.run())
        tasks = [asyncio.create_task(service) for service in services]  # noqa: TID251 - ended below
        try:
            yield
            assert not any(task.done() for task in tasks), "a service ended by itself"
        finally:
            for task in tasks:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def finish(self, backfill: str) -> Backfill:
        """Prepare and finish a backfill, while the node's worker does its jobs."""
        await self.backfills.work()
        await self.nodes.until_quiet()
        await self.backfills.work()
        return await self.backfills.get(backfill)

    async def run(self, destination: DestinationId, repository: str | None = None) -> Backfill:
        """Start a backfill and see it to its end."""
        name = None if repository is None else RepositoryName(repository)
        ended = await self.finish(await self.backfills.start(destination, name))
        assert ended.state in {BackfillState.COMPLETE, BackfillState.FAILED}
        return ended


async def restart_with_rules(node: Node, *rules: ReplicationRule) -> None:
    """Change the node's configuration as an operator does."""
    node.rules = rules
    await node.restart()


async def lose_image(node: Node, repository: str, digest: str) -> None:
    """Remove an image's row as if it had never been there."""
    await node.registry.commit(RepositoryName(repository), lambda: _LOSE_IMAGE(lost=digest))


async def lose_tag(node: Node, repository: str, tag: str) -> None:
    """Remove a tag's row as if it had never been there."""
    await node.registry.commit(RepositoryName(repository), lambda: _LOSE_TAG(lost=tag))


async def lose_jobs(node: Node) -> None:
    """Remove every job, as a database that was restored from an old copy has none of them."""
    await node.database.write(_LOSE_JOBS)
