"""The composition root: the only module that knows which concrete class stands behind each port.

Read from the end: `build_daemon` makes what all nodes share, `_NodeBuilder.build` shows what one node is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.cache.content import PullThroughContent
from replicator.cache.pull_through import PullThrough
from replicator.cache.sweep import FreshnessSweep
from replicator.config.nodes import Sparse
from replicator.daemon.destination_check import DestinationCheck
from replicator.daemon.early_sources import early_sources
from replicator.daemon.endpoints import Endpoints
from replicator.daemon.gauges import NodeGauges
from replicator.daemon.http_server import HttpServer
from replicator.daemon.lag_watch import LagWatch
from replicator.daemon.node_parts import Daemon, NodeParts
from replicator.daemon.observers import CacheRecorder, ReplicationRecorder, RequestRecorder
from replicator.daemon.readiness import ReadinessProbe
from replicator.daemon.status import NodeStatus
from replicator.daemon.store_factory import make_blob_store, make_database
from replicator.maintenance.janitor import Janitor
from replicator.registry.listings import Listings
from replicator.registry.node import RegistryNode
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.peer_uploads import PeerUploads
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.replicas import Replicas
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.registry_api.api import RegistryApi
from replicator.registry_api.authentication import OpenAuthenticator, PeerAuthenticator, UserAuthenticator
from replicator.registry_api.call import Services
from replicator.registry_api.operations import Operations
from replicator.registry_api.peer_api import PeerApi
from replicator.registry_api.rate_limit import RateLimit
from replicator.registry_api.replication_api import ReplicationApi, ReplicationUseCases
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
from replicator.upstream.client import open_client

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.daemon.listener import Listener
    from replicator.daemon.secrets import SecretStore
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.access_log import AccessLog
    from replicator.telemetry.metrics import Metrics, UpstreamMetrics


@dataclass(frozen=True, slots=True)
class Shared:
    """What all nodes of a process have in common."""

    settings: Settings
    secrets: SecretStore
    environ: Mapping[str, str]
    clock: Clock
    metrics: Metrics
    access_log: AccessLog | None
    draining: asyncio.Event
    peer_secret: bytes
    urls: Mapping[NodeId, str]


def build_daemon(shared: Shared, listeners: Mapping[NodeId, Listener]) -> Daemon:
    """Build every node of a configuration; nothing is opened or started. Raises ConfigurationError."""
    gauges: list[NodeGauges] = []
    nodes = [_NodeBuilder(shared, node, listeners[node.id], gauges).build() for node in shared.settings.nodes]
    return Daemon(nodes, shared.urls, shared.settings.shutdown_grace, shared.draining)


class _NodeBuilder:
    """Builds one node. `gauges` collects those of all nodes, because each serves the whole process's metrics."""

    def __init__(self, shared: Shared, settings: NodeSettings, listener: Listener, gauges: list[NodeGauges]) -> None:
        self._shared = shared
        self._settings = settings
        self._listener = listener
        self._gauges = gauges
        self._name = str(settings.id)

    def build(self) -> NodeParts:
        shared, clock, metrics = self._shared, self._shared.clock, self._shared.metrics
        registry = self._registry()
        endpoints = Endpoints(shared.settings, self._settings, shared.secrets, shared.urls)
        tokens = PeerTokens(self._settings.id, shared.peer_secret, clock, shared.secrets.pair_secrets(shared.settings))
        pulls, uploads = Pulls(registry), Uploads(registry)
        counted = metrics.replication(self._name)
        lag = LagWatch(self._settings.id, registry.settings.replication_rules, counted, clock)
        replication = ReplicationRecorder(counted, clock, lag)
        upstreams = self._upstream_metrics()
        cache = CacheRecorder(metrics.cache(self._name), upstreams)
        peers = PeerDirectory(endpoints.nodes(), tokens, clock, endpoints.registries())
        clients = {name: open_client(endpoints.upstream(name), clock, used.request) for name, used in upstreams.items()}
        pull_through = PullThrough(registry, pulls, self._settings.cache_rules(), clients, cache)
        worker = ReplicationWorker(
            registry, PullThroughContent(pull_through), peers, replication, shares=endpoints.worker_shares()
        )
        peer_uploads = PeerUploads(registry)
        replicas = Replicas(registry, peer_uploads, replication)
        read_through = ReadThrough(registry, pull_through, replicas, self._early_sources(peers))
        gauges = NodeGauges(registry, clock, metrics.storage(self._name), counted, lag)
        self._gauges.append(gauges)
        readiness = ReadinessProbe(registry, clock, shared.draining)
        reader = ReplicationStatusReader(registry.database, clock)
        conflicts = ConflictReader(registry.database)
        status = NodeStatus(
            self._name,
            shared.urls[self._settings.id],
            clock,
            gauges,
            readiness,
            cache,
            replication,
            reader,
            conflicts,
        )
        authenticator = self._authenticator(tokens)
        services = Services(registry.settings, read_through, Pushes(registry), uploads, Listings(registry))
        rate_limit = self._rate_limit()
        requests = RequestRecorder(self._name, metrics.request_observer(self._name), shared.access_log)
        api = RegistryApi(
            services,
            authenticator,
            clock,
            requests,
            rate_limit,
            self._settings.public_url,
        )
        peer_api = PeerApi(replicas, peer_uploads, authenticator, clock, requests, rate_limit)
        backfills = Backfills(registry)
        replication_api = ReplicationApi(
            ReplicationUseCases(
                waiter=ReplicationWaiter(registry, shared.draining),
                status=reader,
                conflicts=conflicts,
                retries=Retries(registry, worker.reopen),
                backfills=backfills,
                syncs=SyncRequests(registry, Sync(registry, PullThroughContent(pull_through), peers, backfills)),
            ),
            authenticator,
            clock,
            requests,
            rate_limit,
        )
        operations = Operations(
            authenticator, readiness.check, self._render_metrics, status.get, rate_limit, replication_api.handle
        )
        return NodeParts(
            settings=self._settings,
            registry=registry,
            janitor=Janitor(uploads, clock, self._name),
            worker=worker,
            backfills=backfills,
            pull_through=pull_through,
            read_through=read_through,
            anti_entropy=self._anti_entropy(registry, pull_through, peers, replication),
            sweep=FreshnessSweep(pull_through, clock),
            clients=tuple(clients.values()),
            server=HttpServer(self._listener, api.handle, operations.handle, peer_api.handle),
            peers=peers,
            destination_check=DestinationCheck(self._settings.id, registry.settings.replication_rules, peers, clock),
        )

    def _registry(self) -> RegistryNode:
        shared, settings = self._shared, self._settings
        registry_settings = RegistrySettings(
            node=settings.id,
            create_on_push=settings.repositories.create_on_push,
            sparse_indexes=settings.repositories.sparse_indexes is Sparse.ALLOW,
            sparse_images=settings.repositories.sparse_images is Sparse.ALLOW,
            mutability=settings.mutability(),
            upload_expiry=settings.uploads.expire_after,
            max_blob_size=settings.uploads.max_blob_size,
            max_manifest_size=settings.limits.max_manifest_size,
            replication_rules=settings.replication_rules(),
            registry_policy=settings.registry_policy(),
            templates=settings.templates(),
        )
        database = make_database(shared.settings, settings, shared.environ)
        store = make_blob_store(shared.settings, settings, shared.environ)
        return RegistryNode(registry_settings, database, store, shared.clock)

    def _early_sources(self, peers: PeerDirectory) -> tuple[EarlySource, ...]:
        """Return the nodes that are asked for what they are about to send here."""
        found = early_sources(self._shared.settings, self._settings)
        return tuple(
            EarlySource(node, peer, repositories)
            for node, repositories in found.items()
            if (peer := peers.find(node)) is not None
        )

    def _anti_entropy(
        self, registry: RegistryNode, source: PullThrough, peers: PeerDirectory, observer: ReplicationRecorder
    ) -> AntiEntropy | None:
        """Return the comparison with the destinations, where it is wanted."""
        every = self._settings.replication.anti_entropy.every
        if every is None or not registry.settings.replication_rules:
            return None
        return AntiEntropy(registry, PullThroughContent(source), peers, observer, AntiEntropySettings(interval=every))

    def _upstream_metrics(self) -> dict[str, UpstreamMetrics]:
        """Return what counts the use of each upstream that this node's rules name."""
        names = dict.fromkeys(rule.upstream for rule in self._settings.cache_rules())
        return {name: self._shared.metrics.upstream(self._name, name) for name in names}

    def _authenticator(self, tokens: PeerTokens) -> Authenticator:
        settings = self._settings
        peers = PeerAuthenticator(tokens)
        if settings.auth is None:
            return OpenAuthenticator(peers)
        users = self._shared.secrets.users(settings)
        return UserAuthenticator(users, settings.anonymous_grants(), peers, self._shared.clock)

    def _rate_limit(self) -> RateLimit | None:
        limits = self._settings.limits
        if limits.requests_per_second is None:
            return None
        return RateLimit(limits.requests_per_second, limits.burst, self._shared.clock)

    async def _render_metrics(self) -> tuple[bytes, str]:
        for gauges in self._gauges:
            await gauges.refresh()
        return self._shared.metrics.render()
