"""Everything of one node that replicates: what it sends, what it takes in, and what it looks after."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.cache.content import PullThroughContent
from replicator.daemon.destination_check import DestinationCheck
from replicator.daemon.early_sources import early_sources
from replicator.registry.peer_uploads import PeerUploads
from replicator.registry.replicas import Replicas
from replicator.registry_api.replication_api import ReplicationUseCases
from replicator.replication.anti_entropy import AntiEntropy
from replicator.replication.backfill import Backfills
from replicator.replication.conflicts import ConflictReader
from replicator.replication.drift_round import AntiEntropySettings
from replicator.replication.early_images import EarlySource
from replicator.replication.peers import PeerDirectory
from replicator.replication.read_through import ReadThrough
from replicator.replication.retries import Retries
from replicator.replication.status import ReplicationStatusReader
from replicator.replication.sync import Sync
from replicator.replication.sync_request import SyncRequests
from replicator.replication.wait import ReplicationWaiter
from replicator.replication.worker import ReplicationWorker

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from replicator.cache.pull_through import PullThrough
    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.core.names import NodeId
    from replicator.core.replication import ReplicationRule
    from replicator.daemon.endpoints import Endpoints
    from replicator.daemon.observers import ReplicationRecorder
    from replicator.daemon.supervisor import Service
    from replicator.registry.node import RegistryNode
    from replicator.registry.peer_tokens import PeerTokens


@dataclass(frozen=True, slots=True)
class ReplicationParts:
    """The replication of one node, built but not started."""

    peers: PeerDirectory
    worker: ReplicationWorker
    replicas: Replicas
    uploads: PeerUploads
    read_through: ReadThrough
    backfills: Backfills
    anti_entropy: AntiEntropy | None
    destination_check: DestinationCheck
    use_cases: ReplicationUseCases

    def services(self) -> dict[str, Service]:
        """Return the background work by name."""
        found: dict[str, Service] = {
            "replication": self.worker.run,
            "backfills": self.backfills.run,
            "destinations": self.destination_check.run,
        }
        if self.anti_entropy is not None:
            found["comparison"] = self.anti_entropy.run
        return found


class ReplicationBuilder:
    """Builds the replication of one node; `source` has its images, also those that its cache is still fetching.

    `registries` are the nodes of this process, whose rules at the moment say whom to ask for early images.
    """

    def __init__(
        self, settings: Settings, node: NodeSettings, registries: Mapping[NodeId, RegistryNode], source: PullThrough
    ) -> None:
        self._settings = settings
        self._node = node
        self._registries = registries
        self._registry = registries[node.id]
        self._source = source
        self._content = PullThroughContent(source)

    def build(
        self, endpoints: Endpoints, tokens: PeerTokens, recorder: ReplicationRecorder, draining: asyncio.Event
    ) -> ReplicationParts:
        """Return the parts; nothing is opened or started."""
        registry, clock = self._registry, self._registry.clock
        peers = PeerDirectory(
            endpoints.nodes(), tokens, clock, endpoints.registries(), endpoints.registry_credentials(clock)
        )
        worker = ReplicationWorker(registry, self._content, peers, recorder, shares=endpoints.worker_shares())
        uploads = PeerUploads(registry)
        replicas = Replicas(registry, uploads, recorder)
        backfills = Backfills(registry)
        return ReplicationParts(
            peers=peers,
            worker=worker,
            replicas=replicas,
            uploads=uploads,
            read_through=ReadThrough(registry, self._source, replicas, partial(self._early_sources, peers)),
            backfills=backfills,
            anti_entropy=self._anti_entropy(peers, recorder),
            destination_check=DestinationCheck(self._node.id, partial(self._rules_of, self._node.id), peers, clock),
            use_cases=ReplicationUseCases(
                waiter=ReplicationWaiter(registry, draining),
                status=ReplicationStatusReader(registry.database, clock),
                conflicts=ConflictReader(registry.database),
                retries=Retries(registry, worker.reopen),
                backfills=backfills,
                syncs=SyncRequests(registry, Sync(registry, self._content, peers, backfills)),
            ),
        )

    def _early_sources(self, peers: PeerDirectory) -> tuple[EarlySource, ...]:
        """Return the nodes that are asked for what they are about to send here."""
        found = early_sources(self._settings, self._node, self._rules_of)
        return tuple(
            EarlySource(node, peer, repositories)
            for node, repositories in found.items()
            if (peer := peers.find(node)) is not None
        )

    def _rules_of(self, node: NodeId) -> tuple[ReplicationRule, ...]:
        return self._registries[node].settings.replication_rules

    def _anti_entropy(self, peers: PeerDirectory, recorder: ReplicationRecorder) -> AntiEntropy | None:
        """Return the comparison with the destinations, where it is wanted: there may be some at any time."""
        every = self._node.replication.anti_entropy.every
        if every is None:
            return None
        return AntiEntropy(self._registry, self._content, peers, recorder, AntiEntropySettings(interval=every))
