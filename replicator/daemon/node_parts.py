"""The nodes of a process, from closed stores to closed stores."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.cache.shadowed import report_shadowed
from replicator.config.storage import SqliteSettings
from replicator.replication.coverage import report_idle_rules
from replicator.storage.metadata import event_deliveries, jobs
from replicator.storage.metadata.node import claim

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.config.nodes import NodeSettings
    from replicator.core.names import NodeId
    from replicator.daemon.cache_parts import CacheParts
    from replicator.daemon.event_parts import EventParts
    from replicator.daemon.http_server import HttpServer
    from replicator.daemon.replication_parts import ReplicationParts
    from replicator.daemon.supervisor import Service
    from replicator.maintenance.janitor import Janitor
    from replicator.maintenance.strays import StrayBytes
    from replicator.registry.lifecycle_previews import LifecyclePreviews
    from replicator.registry.node import RegistryNode
    from replicator.registry.run_time_settings import RunTimeSettings
    from replicator.registry.storage_classes import StorageClasses


@dataclass(frozen=True, slots=True)
class NodeParts:
    """One node, built but not started."""

    settings: NodeSettings
    registry: RegistryNode
    run_time_settings: RunTimeSettings
    storage_classes: StorageClasses
    lifecycle_previews: LifecyclePreviews
    janitor: Janitor
    strays: StrayBytes
    replication: ReplicationParts
    cache: CacheParts
    events: EventParts
    server: HttpServer

    async def open(self) -> None:
        """Lock and open the store, and reclaim what a crash left. Raises StorageError.

        What was set at run time is in force then.
        """
        await self.registry.store.open()
        await self.registry.database.open()
        await self.registry.database.write(partial(claim, self.settings.id))
        await self.run_time_settings.load()
        await self.registry.policies.load()
        if isinstance(self.settings.storage.metadata, SqliteSettings):
            # The file is ours alone, so whoever leased a job is gone; after a crash nothing need wait for the lease.
            await self.registry.database.write(partial(jobs.free_all, self.registry.clock.now()))
            await self.registry.database.write(event_deliveries.free_all)
        await self.janitor.tidy()
        await report_idle_rules(self.registry)
        await report_shadowed(self.registry)

    async def close(self) -> None:
        """Close fills, then clients, then the store. Safe after an `open` that failed half-way."""
        await self.replication.read_through.close()
        await self.cache.close()
        await self.replication.peers.close()
        await self.events.close()
        await self.registry.pull_times.close()
        await self.registry.database.close()
        await self.registry.store.close()


class Daemon:
    """All nodes of one process. `start`, then run `services`, then `drain`, then `close`."""

    def __init__(
        self, nodes: list[NodeParts], urls: Mapping[NodeId, str], grace: float, draining: asyncio.Event
    ) -> None:
        self.urls = urls
        self.nodes = nodes
        self.grace = grace
        self._draining = draining
        self._opened: list[NodeParts] = []

    async def start(self) -> None:
        """Open every store, then accept connections.

        Needs no upstream and no peer. Raises StorageError when a store is in use, newer, or another node's.
        """
        for node in self.nodes:
            self._opened.append(node)
            await node.open()
        for node in self.nodes:
            await node.server.start()

    def services(self) -> dict[str, Service]:
        """Return the background work of every node by name."""
        found: dict[str, Service] = {}
        for node in self.nodes:
            services = {**node.replication.services(), **node.cache.services(), **node.events.services()}
            for name, service in services.items():
                found[f"{name} {node.settings.id}"] = service
            found[f"storage classes {node.settings.id}"] = node.storage_classes.run
            found[f"lifecycle previews {node.settings.id}"] = node.lifecycle_previews.run
            found[f"pull times {node.settings.id}"] = node.registry.pull_times.run
            found[f"settings {node.settings.id}"] = node.run_time_settings.run
            found[f"policies {node.settings.id}"] = node.registry.policies.run
            found[f"janitor {node.settings.id}"] = node.janitor.run
            found[f"strays {node.settings.id}"] = node.strays.run
        return found

    async def drain(self) -> None:
        """Stop accepting, let requests and copies end within the grace, and break off what is left."""
        self._draining.set()
        async with asyncio.TaskGroup() as group:
            for node in self.nodes:
                group.create_task(node.server.stop(self.grace))
                group.create_task(node.replication.worker.stop(self.grace))

    async def close(self) -> None:
        """Close every node that was opened, the last one first."""
        for node in reversed(self._opened):
            await node.close()
        self._opened.clear()
