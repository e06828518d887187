"""The pull-through cache of one node: its clients of upstreams and peers, what it fills, and its background work.

The rules in force may change while it works. A peer is asked as the registry that a rule stands for, so it has a client
for each of those.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from replicator.cache.limits import CacheLimits
from replicator.cache.listings import CachedListings
from replicator.cache.prefetch import Prefetch
from replicator.cache.pull_through import PullThrough
from replicator.cache.space import CacheSpace, SpaceLimits
from replicator.cache.sweep import FreshnessSweep, SweepSettings
from replicator.daemon.cache_operators import cache_use_cases
from replicator.daemon.observers import CacheRecorder
from replicator.daemon.upstream_clients import UpstreamClients
from replicator.daemon.upstream_gauges import UpstreamGauges
from replicator.registry.listings import Listings
from replicator.storage.metadata.ballast import BallastFile
from replicator.storage.metadata.sqlite import SqliteDatabase
from replicator.transfer.fill_source import FillLimits
from replicator.upstream.auth import BearerAuthorizer
from replicator.upstream.client import UpstreamClient, open_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from replicator.config.nodes import NodeSettings
    from replicator.core.cache_rules import CacheRule
    from replicator.core.names import NodeId
    from replicator.daemon.endpoints import Endpoints
    from replicator.daemon.supervisor import Service
    from replicator.registry.node import RegistryNode
    from replicator.registry.peer_tokens import PeerTokens
    from replicator.registry.pulls import Pulls
    from replicator.registry_api.cache_api import CacheUseCases
    from replicator.telemetry.metrics import Metrics, UpstreamMetrics


def new_via() -> str:
    """Return a node's entry in the Via of what it asks for: a name of its own, which tells nobody where it is."""
    return f"1.1 replicator-{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class CacheParts:
    """The cache of one node, built but not started. `clients` are those of all upstreams and peers in use."""

    recorder: CacheRecorder
    pull_through: PullThrough
    listings: CachedListings
    sweep: FreshnessSweep
    prefetch: Prefetch
    space: CacheSpace
    gauges: UpstreamGauges
    clients: UpstreamClients
    use_cases: CacheUseCases

    def services(self) -> dict[str, Service]:
        """Return the background work by name."""
        return {
            "freshness": self.sweep.run,
            "prefetch": self.prefetch.run,
            "space": self.space.run,
            "upstreams": self.clients.run,
        }

    async def close(self) -> None:
        """Give up what is under way, then close the clients."""
        await self.listings.close()
        await self.use_cases.warmer.close()
        await self.pull_through.close()
        await self.space.close()
        await self.clients.close()


class CacheBuilder:
    """Builds the cache of one node. `ballast` is where its rows keep space, where they share the disk of the blobs."""

    def __init__(
        self,
        node: NodeSettings,
        registry: RegistryNode,
        endpoints: Endpoints,
        metrics: Metrics,
        ballast: Path | None = None,
    ) -> None:
        self._ballast = ballast
        self._node = node
        self._registry = registry
        self._rules = registry.settings.cache_rules
        self._endpoints = endpoints
        self._metrics = metrics

    def build(self, pulls: Pulls, tokens: PeerTokens, via: str) -> CacheParts:
        """Return the parts; nothing is opened or started. Raises ConfigurationError."""
        registry, settings = self._registry, self._node.cache
        used = _Used(partial(self._metrics.upstream, str(self._node.id)))
        recorder = CacheRecorder(self._metrics.cache(str(self._node.id)), used)
        peers = self._peers(tokens, used, via)
        of_peers = dict.fromkeys(one for some in peers.values() for one in some)
        every_client = UpstreamClients(partial(self._client, used, via), registry.clock, of_peers)
        clients = every_client.use(_sources(self._rules))
        limits = CacheLimits(settings.stale_wait, settings.cold_wait)
        pull_through = PullThrough(
            registry,
            pulls,
            self._rules,
            clients,
            recorder,
            limits,
            # A blob that the whole cache has no space for would only drive out all others.
            FillLimits(max_blob_size=_least(registry.settings.max_blob_size, settings.max_size)),
            peers=peers,
        )
        space = self._space(pull_through)
        registry.on_settings(_Follower(registry, every_client, pull_through, space).follow)
        return CacheParts(
            recorder=recorder,
            pull_through=pull_through,
            listings=CachedListings(registry, Listings(registry), pull_through.upstreams, limits),
            sweep=FreshnessSweep(
                pull_through, registry.clock, SweepSettings(settings.sweep.interval, settings.sweep.used_within)
            ),
            prefetch=Prefetch(registry, pull_through.completion),
            space=space,
            gauges=UpstreamGauges(every_client, partial(self._metrics.upstream_health, str(self._node.id))),
            clients=every_client,
            use_cases=cache_use_cases(registry, pulls, pull_through, space, every_client),
        )

    def _space(self, pull_through: PullThrough) -> CacheSpace:
        """Return what keeps the cache within its limits, and is asked for room where the disk is full."""
        registry, limits = self._registry, self._node.cache
        space = CacheSpace(
            registry,
            self._rules,
            pull_through.uses,
            self._metrics.cache_space(str(self._node.id)),
            SpaceLimits(limits.max_size, limits.keep_free),
            None if self._ballast is None else BallastFile(self._ballast),
            pull_through.fills.drop_kept,
        )
        registry.store.on_full(space.make_room)
        pull_through.fills.spare = space.spare
        if self._ballast is not None and isinstance(registry.database, SqliteDatabase):
            registry.database.on_full(space.make_room)
        return space

    def _client(self, used: Mapping[str, UpstreamMetrics], via: str, name: str) -> UpstreamClient:
        clock, endpoints = self._registry.clock, self._endpoints
        return open_client(
            endpoints.client_endpoint(name, via),
            clock,
            used[name].request,
            credentials=endpoints.client_credentials(name, clock),
        )

    def _peers(
        self, tokens: PeerTokens, used: Mapping[str, UpstreamMetrics], via: str
    ) -> dict[str, tuple[UpstreamClient, ...]]:
        """Return the clients of the nodes that rules name, by the rules' prefixes."""
        known: dict[tuple[NodeId, str], UpstreamClient] = {}
        found: dict[str, tuple[UpstreamClient, ...]] = {}
        for rule in self._rules:
            for peer in rule.peers:
                key = (peer, _namespace(rule))
                if key not in known:
                    endpoint = self._endpoints.cache_peer(peer, key[1], via)
                    authorizer = BearerAuthorizer(partial(tokens.issue, peer))
                    known[key] = UpstreamClient(endpoint, authorizer, self._registry.clock, used[str(peer)].request)
                found[rule.prefix] = (*found.get(rule.prefix, ()), known[key])
        return found


class _Used(dict[str, "UpstreamMetrics"]):
    """What counts the use of each upstream, by name, made when it is used first."""

    def __init__(self, make: Callable[[str], UpstreamMetrics]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, name: str) -> UpstreamMetrics:
        self[name] = made = self._make(name)
        return made


class _Follower:
    """Has a cache work by the rules in force, whenever the settings were replaced."""

    def __init__(
        self, registry: RegistryNode, clients: UpstreamClients, pull_through: PullThrough, space: CacheSpace
    ) -> None:
        self._registry = registry
        self._clients = clients
        self._pull_through = pull_through
        self._space = space

    def follow(self) -> None:
        """Take over the rules of the settings. Raises ConfigurationError when one leads where there is nothing."""
        rules = self._registry.settings.cache_rules
        if rules != self._pull_through.upstreams.rules:
            self._pull_through.change_rules(rules, self._clients.use(_sources(rules)))
            self._space.change_rules(rules)


def _sources(rules: Iterable[CacheRule]) -> Iterator[str]:
    for rule in rules:
        yield from rule.sources


def _namespace(rule: CacheRule) -> str:
    """Return the registry that a peer is asked for: its own rules say where it keeps what that one has."""
    return rule.namespaces[0]


def _least(*limits: int | None) -> int | None:
    """Return the smallest of the limits that there are."""
    return min((limit for limit in limits if limit is not None), default=None)
