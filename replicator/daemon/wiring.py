"""The composition root: the only module that knows which concrete class stands behind each port.

Read from the end: `build_daemon` makes what all nodes share, `_NodeBuilder.build` shows what one node is made of.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.config.nodes import Sparse
from replicator.config.replication import UnknownDestinations
from replicator.control_api.callers import OpenCallers, SignedCallers
from replicator.control_api.edge import ControlApi
from replicator.core.account_settings import AccountSettings
from replicator.core.principal import UNRESTRICTED, Principal
from replicator.core.rate_limit import RateLimit
from replicator.daemon.cache_parts import CacheBuilder, new_via
from replicator.daemon.control_parts import ControlBuilder
from replicator.daemon.endpoints import Endpoints
from replicator.daemon.event_parts import EventBuilder
from replicator.daemon.gauges import NodeGauges
from replicator.daemon.http_server import HttpServer
from replicator.daemon.lag_watch import LagWatch
from replicator.daemon.node_parts import Daemon, NodeParts
from replicator.daemon.observers import ReplicationRecorder, RequestRecorder
from replicator.daemon.readiness import ReadinessProbe
from replicator.daemon.replication_parts import ReplicationBuilder
from replicator.daemon.rule_upstreams import DaemonUpstreams
from replicator.daemon.status import NodeStatus
from replicator.daemon.store_factory import ballast_path, make_blob_store, make_database
from replicator.maintenance.janitor import Janitor
from replicator.maintenance.strays import StrayBytes
from replicator.registry.authorization_tokens import AuthorizationTokens
from replicator.registry.identities import IdentityDirectory
from replicator.registry.layer_urls import LayerUrls
from replicator.registry.node import RegistryNode
from replicator.registry.peer_reads import PeerReads
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.run_time_settings import RunTimeSettings
from replicator.registry.settings import RegistrySettings
from replicator.registry.storage_classes import StorageClasses
from replicator.registry.uploads import Uploads
from replicator.registry_api.api import RegistryApi
from replicator.registry_api.authentication import OpenAuthenticator, PeerAuthenticator, UserAuthenticator
from replicator.registry_api.cache_api import CacheApi
from replicator.registry_api.call import Services
from replicator.registry_api.events_api import EventsApi
from replicator.registry_api.layer_downloads import LayerDownloads
from replicator.registry_api.operations import Operations
from replicator.registry_api.peer_api import PeerApi
from replicator.registry_api.policy_api import PolicyApi
from replicator.registry_api.public_logos import PublicLogos
from replicator.registry_api.replication_api import ReplicationApi
from replicator.registry_api.users import UserDirectory

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Mapping

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.control_api.callers import Callers
    from replicator.control_api.services import EcrRegistry
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.daemon.cache_parts import CacheParts
    from replicator.daemon.event_parts import EventGauges, EventParts
    from replicator.daemon.listener import Listener
    from replicator.daemon.replication_parts import ReplicationParts
    from replicator.daemon.secrets import SecretStore
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.access_log import AccessLog
    from replicator.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Shared:
    """What all nodes of a process have in common."""

    settings: Settings
    file: str
    secrets: SecretStore
    environ: Mapping[str, str]
    clock: Clock
    metrics: Metrics
    access_log: AccessLog | None
    draining: asyncio.Event
    peer_secret: bytes
    urls: Mapping[NodeId, str]
    identities: IdentityDirectory = field(default_factory=IdentityDirectory)
    users: dict[NodeId, UserDirectory] = field(default_factory=dict)
    """Filled while the nodes are built, by those that were started with users or anonymous grants."""


def build_daemon(shared: Shared, listeners: Mapping[NodeId, Listener]) -> Daemon:
    """Build every node of a configuration; nothing is opened or started. Raises ConfigurationError."""
    gauges: list[NodeGauges | EventGauges] = []
    registries = {node.id: _registry(shared, node) for node in shared.settings.nodes}
    control: dict[NodeId, EcrRegistry] = {}
    nodes = [
        _NodeBuilder(shared, node, listeners[node.id], registries, gauges, control).build()
        for node in shared.settings.nodes
    ]
    return Daemon(nodes, shared.urls, shared.settings.shutdown_grace, shared.draining)


def _registry(shared: Shared, settings: NodeSettings) -> RegistryNode:
    registry_settings = RegistrySettings(
        node=settings.id,
        create_on_push=settings.repositories.create_on_push,
        protect_immutable_tags=settings.repositories.protect_immutable_tags,
        activation_time=settings.repositories.activation_time,
        sparse_indexes=settings.repositories.sparse_indexes is Sparse.ALLOW,
        sparse_images=settings.repositories.sparse_images is Sparse.ALLOW,
        mutability=settings.mutability(),
        upload_expiry=settings.uploads.expire_after,
        max_blob_size=settings.uploads.max_blob_size,
        max_manifest_size=settings.limits.max_manifest_size,
        replication_rules=settings.replication_rules(),
        registry_policy=settings.registry_policy(),
        templates=settings.templates(),
        cache_rules=shared.settings.cache_rules(settings),
        serve_to=tuple(one.id for one in settings.cache.serve_to),
        event_sinks=settings.events.to_sinks(),
        quotas=settings.quotas.to_quotas(),
        public_registry=settings.ecr_public.to_registry(),
        # Where nobody has an identity, mounting stays what it was before there was a setting: on.
        account_settings=AccountSettings(is_mounting=not shared.settings.identities),
    )
    database = make_database(shared.settings, settings, shared.environ)
    store = make_blob_store(shared.settings, settings, shared.environ)
    return RegistryNode(registry_settings, database, store, shared.clock)


class _NodeBuilder:
    """Builds one node of `registries`.

    `gauges` collects those of all nodes, because each serves the whole process's metrics; `control` their registries,
    because the API of each serves those of its whole region.
    """

    def __init__(
        self,
        shared: Shared,
        settings: NodeSettings,
        listener: Listener,
        registries: Mapping[NodeId, RegistryNode],
        gauges: list[NodeGauges | EventGauges],
        control: dict[NodeId, EcrRegistry],
    ) -> None:
        self._shared = shared
        self._settings = settings
        self._listener = listener
        self._registries = registries
        self._gauges = gauges
        self._control = control
        self._name = str(settings.id)
        self._authorizations = AuthorizationTokens(shared.identities, settings.region)
        self._layer_urls = LayerUrls(registries[settings.id], settings.public_url, shared.urls[settings.id])

    def build(self) -> NodeParts:
        shared, clock, metrics = self._shared, self._shared.clock, self._shared.metrics
        registry = self._registries[self._settings.id]
        endpoints = Endpoints(shared.settings, self._settings, shared.secrets, shared.urls)
        tokens = PeerTokens(self._settings.id, shared.peer_secret, clock, shared.secrets.pair_secrets(shared.settings))
        pulls, uploads = Pulls(registry), Uploads(registry)
        counted = metrics.replication(self._name)
        # Rules that are put at run time have no lag objective.
        lag = LagWatch(self._settings.id, registry.settings.replication_rules, counted, clock)
        recorder = ReplicationRecorder(counted, clock, lag)
        via = new_via()
        ballast = ballast_path(shared.settings, self._settings)
        cache = CacheBuilder(self._settings, registry, endpoints, metrics, ballast).build(pulls, tokens, via)
        builder = ReplicationBuilder(shared.settings, self._settings, self._registries, cache.pull_through)
        replication = builder.build(endpoints, tokens, recorder, shared.draining)
        events = EventBuilder(self._settings, registry, shared.secrets, metrics).build()
        self._gauges.append(events.gauges)
        gauges = NodeGauges(registry, clock, metrics.storage(self._name), counted, lag, cache.gauges)
        self._gauges.append(gauges)
        readiness = ReadinessProbe(registry, clock, shared.draining)
        status = NodeStatus(
            self._name,
            shared.urls[self._settings.id],
            clock,
            gauges,
            readiness,
            cache.recorder,
            recorder,
            replication.use_cases.status,
            replication.use_cases.conflicts,
            cache.clients,
        )
        pushes = Pushes(registry)
        run_time_settings = RunTimeSettings(
            registry,
            {*endpoints.nodes(), *endpoints.registries()},
            shared.file,
            accepts_unknown=self._settings.replication.unknown_destinations is UnknownDestinations.ACCEPT,
            upstreams=DaemonUpstreams(shared.settings, endpoints, shared.secrets, clock),
        )
        storage_classes = StorageClasses(registry)
        self._control[self._settings.id] = ControlBuilder(
            self._settings,
            registry,
            self._authorizations,
            pushes,
            uploads,
            storage_classes,
            self._layer_urls,
            run_time_settings,
            replication,
            cache.listings,
        ).build()
        services = Services(
            registry,
            replication.read_through,
            pushes,
            uploads,
            cache.listings,
            PeerReads(registry),
            registry.pull_times,
        )
        return NodeParts(
            settings=self._settings,
            registry=registry,
            run_time_settings=run_time_settings,
            storage_classes=storage_classes,
            lifecycle_previews=self._control[self._settings.id].lifecycle_previews,
            janitor=Janitor(uploads, clock, self._name),
            strays=StrayBytes(registry, self._name),
            replication=replication,
            cache=cache,
            events=events,
            server=self._server(
                services, replication, cache, events, self._authenticator(tokens), readiness, status, via
            ),
        )

    def _server(
        self,
        services: Services,
        replication: ReplicationParts,
        cache: CacheParts,
        events: EventParts,
        authenticator: Authenticator,
        readiness: ReadinessProbe,
        status: NodeStatus,
        via: str,
    ) -> HttpServer:
        """Return the node's edges behind its listener. All of them count requests and callers together."""
        clock, limit, metrics = self._shared.clock, self._rate_limit(), self._shared.metrics
        observe = RequestRecorder(self._name, metrics.request_observer(self._name), self._shared.access_log)
        policies = self._registries[self._settings.id].policies
        registry = RegistryApi(services, authenticator, clock, observe, limit, self._settings.public_url, via)
        peers = PeerApi(replication.replicas, replication.uploads, authenticator, clock, observe, limit)
        operators = ReplicationApi(replication.use_cases, authenticator, clock, observe, limit)
        caching = CacheApi(cache.use_cases, authenticator, clock, observe, limit, self._settings.public_url)
        telling = EventsApi(events.operators, authenticator, clock, observe, limit)
        explaining = PolicyApi(self._find_principal, policies, authenticator, clock, observe, limit)
        operations = Operations(
            authenticator,
            readiness.check,
            self._render_metrics,
            status.get,
            limit,
            operators.handle,
            caching.handle,
            telling.handle,
            explaining.handle,
        )
        operations.decide_by(policies, clock)
        for edge in (registry, operators, caching, telling):
            edge.decide_by(policies)
        control = ControlApi(self._settings.id, self._control, self._callers(), clock, observe, limit)
        found = self._control[self._settings.id].layers
        layers = LayerDownloads(self._layer_urls, found, authenticator, clock, observe, limit)
        catalogs = self._control[self._settings.id].catalogs
        logos = PublicLogos(catalogs, authenticator, clock, observe, limit)
        return HttpServer(
            self._listener,
            registry.handle,
            operations.handle,
            peers.handle,
            control.handle,
            layers.handle,
            logos.handle,
        )

    def _find_principal(self, name: str) -> Principal | None:
        """Return somebody whom this node knows, for explanations."""
        if self._settings.auth is None and not self._shared.settings.identities:
            return None if name.startswith("arn:") else UNRESTRICTED
        users = self._shared.users.get(self._settings.id, UserDirectory())
        if name == "anonymous":
            return users.anonymous
        return users.find_principal(name) or self._shared.identities.find_principal(name)

    def _authenticator(self, tokens: PeerTokens) -> Authenticator:
        settings = self._settings
        peers = PeerAuthenticator(tokens)
        authorizations = self._authorizations if self._shared.settings.identities else None
        if authorizations is None and settings.auth is None:
            return OpenAuthenticator(peers)
        users = self._shared.secrets.users(settings)
        authenticator = UserAuthenticator(users, settings.anonymous_grants(), peers, self._shared.clock, authorizations)
        if settings.auth is not None:
            self._shared.users[settings.id] = authenticator.users
        return authenticator

    def _callers(self) -> Callers:
        """Return who may call the ECR API: on a node with users only, nobody has a key to sign with."""
        shared, settings = self._shared, self._settings
        if settings.auth is None and not shared.settings.identities:
            return OpenCallers(settings.region)
        return SignedCallers(shared.identities, settings.region, shared.clock)

    def _rate_limit(self) -> RateLimit | None:
        limits = self._settings.limits
        if limits.requests_per_second is None:
            return None
        return RateLimit(limits.requests_per_second, limits.burst, self._shared.clock)

    async def _render_metrics(self) -> tuple[bytes, str]:
        for gauges in self._gauges:
            await gauges.refresh()
        return self._shared.metrics.render()
