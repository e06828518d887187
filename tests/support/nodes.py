"""Several registry nodes in one loop, joined by wires that a test can cut: real stores, real HTTP, real replication.

    async with cluster(tmp_path, "us-east-1", "eu-west-1") as nodes:
        await nodes["us-east-1"].push(image, "team/app", "v1")
        await nodes.until_quiet()
        await nodes["eu-west-1"].check(image, "team/app", "v1")

The first node replicates to all others unless plans say otherwise. Time stands still until `pass_time`; nothing here
sleeps: whoever waits is woken by what nodes report. When the block ends, every node is checked (`Node.validate`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from aiohttp import web

from replicator.cache.content import PullThroughContent
from replicator.cache.pull_through import PullThrough
from replicator.core.destinations import DestinationId, RegistryRef
from replicator.core.digest import Digest, algorithm_of, digest_of
from replicator.core.jobs import JobState
from replicator.core.mutability import MutabilityRule
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, parse_repository
from replicator.core.reference import parse_reference
from replicator.core.registry_policy import ALL_PERMISSIONS, PolicyStatement, RegistryPolicy
from replicator.core.replication import ReplicationRule
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.registry.listings import Listings
from replicator.registry.node import RegistryNode
from replicator.registry.peer_reads import PeerReads
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.peer_uploads import PeerUploads
from replicator.registry.pulls import Pulls
from replicator.registry.pushes import Pushes
from replicator.registry.replicas import Replicas
from replicator.registry.run_time_settings import RunTimeSettings
from replicator.registry.settings import RegistrySettings
from replicator.registry.uploads import Uploads
from replicator.registry_api.api import RegistryApi
from replicator.registry_api.authentication import (
    Authenticator,
    OpenAuthenticator,
    PeerAuthenticator,
    UserAuthenticator,
)
from replicator.registry_api.call import Services
from replicator.registry_api.peer_api import PeerApi
from replicator.replication.early_images import EarlySource
from replicator.replication.peers import PeerDirectory
from replicator.replication.read_through import ReadThrough
from replicator.replication.status import ReplicationStatusReader
from replicator.replication.worker import ReplicationWorker, WorkerLimits
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.blobs.port import StoredBlob
from replicator.storage.metadata import jobs
from replicator.storage.metadata.sqlite import SqliteDatabase
from replicator.telemetry.system_clock import SystemClock
from replicator.upstream.client import open_client
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.clock import FakeClock
from tests.support.images import Built, BuiltImage, walk
from tests.support.wire_client import WireClient
from tests.support.wires import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from replicator.core.cache_rules import CacheRule
    from replicator.core.clock import Clock
    from replicator.core.templates import CreationTemplate
    from replicator.registry_api.users import User
    from replicator.storage.metadata.replication_status import ReplicationStatus
    from replicator.storage.metadata.tag_conflicts import TagConflict
    from replicator.telemetry.requests import Outcome
    from replicator.transfer.push_image import ContentSource

ACCOUNT = "111111111111"
OTHER_ACCOUNT = "222222222222"
PEER_SECRET = b"a secret that the nodes share"

_DANGLING = """
    select i.repository, r.child from images i join manifest_references r on r.parent = i.digest
    where (r.kind = 'blob' and not exists
        (select 1 from repository_blobs b where b.repository = i.repository and b.digest = r.child))
    or (r.kind = 'manifest' and not exists
        (select 1 from images c where c.repository = i.repository and c.digest = r.child))
"""
_SLEEPERS_OF_A_WORKER = 2  # it waits for what is due next, and for the time to renew its leases


@dataclass(frozen=True)
class NodePlan:
    """One node of a cluster. `destinations` are regions; None: the first node goes to all others, the rest nowhere."""

    region: str
    account: str = ACCOUNT
    destinations: Sequence[str] | None = None
    filters: tuple[str, ...] = ()
    accept_from: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rule: Mapping[str, Any] = field(default_factory=dict)
    """Extensions of the node's one rule, by the names of `ReplicationRule`."""
    rules: Sequence[ReplicationRule] | None = None
    """The node's rules, where one is not enough."""
    templates: Sequence[CreationTemplate] = ()
    registries: Mapping[str, str] = field(default_factory=dict)
    """URLs of registries of somebody else that the rules name."""
    read_from: Sequence[str] = ()
    """Regions that are asked for what they have not replicated here yet."""
    users: Sequence[User] | None = None
    secret: bytes = PEER_SECRET
    mutability: MutabilityRule = field(default_factory=MutabilityRule)
    create_on_push: bool = True
    sparse_indexes: bool = False
    limits: WorkerLimits = field(default_factory=WorkerLimits)
    cache_rules: Sequence[CacheRule] = ()
    upstreams: Mapping[str, str] = field(default_factory=dict)
    """URLs of the upstreams that the cache rules name."""
    patience: float = 30.0
    """Real seconds that the node's requests to others may take without progress."""

    @property
    def id(self) -> NodeId:
        """The node's id."""
        return NodeId(AccountId(self.account), Region(self.region))


class Changes:
    """Wakes whoever waits for something to be true, whenever a node reports anything."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    def notify(self) -> None:
        """Have every waiter look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def until(self, question: Callable[[], Awaitable[bool]]) -> None:
        """Return once the answer is yes."""
        while True:
            changed = self._changed
            if await question():
                return
            await changed.wait()


@dataclass(frozen=True)
class Replicated:
    """An image that a node reported as complete at a destination."""

    rule: str
    destination: str
    lag_seconds: float | None
    sent: int


class Recorder:
    """What one node reported, over all its restarts."""

    def __init__(self, changes: Changes) -> None:
        self.requests: list[Outcome] = []
        self.replications: list[Replicated] = []
        self.bytes_sent = 0
        self.attempts: list[tuple[str, str]] = []
        self.failures: list[tuple[str, str | None]] = []
        self.conflicts: list[TagConflict] = []
        self.pulls: list[tuple[str, str]] = []
        self.findings: list[tuple[str, str]] = []
        self.fetched = 0
        self._changes = changes

    def request(self, outcome: Outcome) -> None:
        self.requests.append(outcome)
        self._changes.notify()

    def replicated(self, rule: str, destination: str, lag_seconds: float | None, sent: int) -> None:
        self.replications.append(Replicated(rule, destination, lag_seconds, sent))
        self._changes.notify()

    def attempt(self, destination: str, outcome: str) -> None:
        self.attempts.append((destination, outcome))
        self._changes.notify()

    def failed(self, destination: str, code: str | None) -> None:
        self.failures.append((destination, code))

    def sent(self, destination: str, size: int) -> None:
        self.bytes_sent += size

    def conflict_found(self, conflict: TagConflict) -> None:
        self.conflicts.append(conflict)
        self._changes.notify()

    def result(self, rule: str, result: str) -> None:
        self.pulls.append((rule, result))
        self._changes.notify()

    def upstream_bytes(self, upstream: str, size: int) -> None:
        self.fetched += size

    def found(self, rule: str, finding: str) -> None:
        self.findings.append((rule, finding))

    def outcomes(self) -> list[str]:
        """The outcomes of all attempts, in order."""
        return [outcome for _, outcome in self.attempts]

    def written(self) -> list[Outcome]:
        """Requests that changed something."""
        return [one for one in self.requests if one.method in {"PUT", "POST", "PATCH", "DELETE"} and one.status < 400]


class Node:
    """One node: its directory lasts, everything else is made anew by each `start`."""

    def __init__(self, plan: NodePlan, directory: Path, clock: Clock, changes: Changes) -> None:
        self.plan = plan
        self.directory = directory
        self.recorder = Recorder(changes)
        self.is_up = False
        self.endpoints: dict[NodeId, UpstreamEndpoint] = {}
        self.rules: tuple[ReplicationRule, ...] = ()
        self.tokens = PeerTokens(plan.id, plan.secret, clock)
        self._clock = clock
        self._changes = changes
        listening = _listening(0)
        self.port: int = listening.getsockname()[1]
        self._listening: socket.socket | None = listening

    @property
    def url(self) -> str:
        """Where the node listens; peers reach it by wires."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Open the stores, clean up, serve, and replicate."""
        plan = self.plan
        settings = RegistrySettings(
            node=plan.id,
            create_on_push=plan.create_on_push,
            sparse_indexes=plan.sparse_indexes,
            mutability=plan.mutability,
            replication_rules=self.rules,
            registry_policy=RegistryPolicy(
                plan.id.account,
                tuple(
                    PolicyStatement(AccountId(account), ALL_PERMISSIONS, tuple(patterns))
                    for account, patterns in plan.accept_from.items()
                ),
            ),
            templates=tuple(plan.templates),
            cache_rules=tuple(plan.cache_rules),
        )
        self.database = SqliteDatabase(self.directory / "metadata.db")
        self.store = FilesystemBlobStore(self.directory / "blobs")
        await self.store.open()
        await self.database.open()
        self.registry = RegistryNode(settings, self.database, self.store, self._clock)
        known: set[DestinationId] = {*self.endpoints, *map(RegistryRef, plan.registries)}
        self.run_time_settings = RunTimeSettings(self.registry, known, "replicator.yaml")
        await self.run_time_settings.load()
        self.pulls, self.uploads = Pulls(self.registry), Uploads(self.registry)
        self.pushes = Pushes(self.registry)
        self.status = ReplicationStatusReader(self.database, self._clock)
        await self.uploads.reclaim()
        # Requests run in real time: only what the node itself waits for stands still.
        registries = {RegistryRef(name): UpstreamEndpoint(name, url) for name, url in plan.registries.items()}
        self.peers = PeerDirectory(self.endpoints, self.tokens, SystemClock(), registries)
        self.worker = ReplicationWorker(
            self.registry, self._content(), self.peers, self.recorder, plan.limits, jitter=lambda: 0.0
        )
        self.peer_uploads = PeerUploads(self.registry)
        self.replicas = Replicas(self.registry, self.peer_uploads, self.recorder)
        self.read_through = ReadThrough(self.registry, self.pull_through, self.replicas, self._early_sources)
        services = Services(
            self.registry,
            self.read_through,
            self.pushes,
            self.uploads,
            Listings(self.registry),
            PeerReads(self.registry),
        )
        authenticator = self._authenticator()
        api = RegistryApi(services, authenticator, self._clock, self.recorder.request)
        api.decide_by(self.registry.policies)
        peer_api = PeerApi(self.replicas, self.peer_uploads, authenticator, self._clock, self.recorder.request)
        listening, self._listening = self._listening or _listening(self.port), None
        self.server = HttpServer(Listener(listening, self.url, None), api.handle, _nothing, peer_api.handle)
        await self.server.start()
        self._replication = asyncio.create_task(self.worker.run())  # noqa: TID251 - owned until stop or crash
        self.is_up = True

    async def stop(self, grace: float = 0.0) -> None:
        """Stop as a daemon does that is asked to."""
        self.is_up = False
        await self.server.stop(0.1)
        if grace:
            await self.worker.stop(grace)
        await self._end_replication()
        await self._close()

    async def crash(self) -> None:
        """Stop without any tidying: nothing is written any more, as after kill -9."""
        self.is_up = False
        await self.database.close()
        await self._end_replication()
        await self.server.stop(0.1)
        await self._close()

    async def restart(self) -> None:
        """Stop and start again on the same directory and port."""
        await self.stop()
        await self.start()

    async def _end_replication(self) -> None:
        assert not self._replication.done(), "replication ended by itself"
        self._replication.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._replication

    def _content(self) -> ContentSource:
        """Return what is replicated from, with the cache in front."""
        plan = self.plan
        self.upstreams = {
            name: open_client(UpstreamEndpoint(name, url), SystemClock()) for name, url in plan.upstreams.items()
        }
        self.pull_through = PullThrough(self.registry, self.pulls, plan.cache_rules, self.upstreams, self.recorder)
        return PullThroughContent(self.pull_through)

    def _early_sources(self) -> list[EarlySource]:
        """Return the nodes that are asked for images before they come."""
        found = []
        for node in self.endpoints:
            peer = self.peers.find(node)
            if node.region in self.plan.read_from and peer is not None:
                found.append(EarlySource(node, peer))
        return found

    async def _close(self) -> None:
        await self.read_through.close()
        await self.pull_through.close()
        for client in self.upstreams.values():
            await client.close()
        await self.peers.close()
        await self.database.close()
        await self.store.close()

    def _authenticator(self) -> Authenticator:
        peers = PeerAuthenticator(self.tokens)
        if self.plan.users is None:
            return OpenAuthenticator(peers)
        return UserAuthenticator(self.plan.users, (), peers, self._clock)

    # What tests do with a node

    def client(self, headers: dict[str, str] | None = None) -> WireClient:
        """Return a client of the node, as a user sees it; close it."""
        return WireClient(self.port, headers)

    async def push(self, built: Built, repository: str, *tags: str, headers: dict[str, str] | None = None) -> None:
        """Push an image with all that belongs to it, under tags if there are any."""
        async with self.client(headers) as client:
            for part in walk(built):
                if isinstance(part, BuiltImage):
                    for digest, content in part.blobs.items():
                        await client.push_blob(repository, content, algorithm_of(digest))
                target = f"/v2/{repository}/manifests/{part.digest}"
                if part is built and tags:
                    target += "?" + "&".join(f"tag={tag}" for tag in tags)
                answer = await client.send("PUT", target, body=part.manifest, headers={"Content-Type": part.media_type})
                assert answer.status == 201, answer

    async def check(self, built: Built, repository: str, *tags: str, headers: dict[str, str] | None = None) -> None:
        """Pull an image by digest and tags, and compare every byte."""
        async with self.client(headers) as client:
            for part in walk(built):
                answer = await client.get(f"/v2/{repository}/manifests/{part.digest}")
                assert (answer.status, answer.body) == (200, part.manifest), answer
                assert answer.headers["Content-Type"] == part.media_type
            for digest, content in built.blobs.items():
                answer = await client.get(f"/v2/{repository}/blobs/{digest}")
                assert (answer.status, answer.body) == (200, content), answer
        for tag in tags:
            assert await self.tag(repository, tag) == built.digest

    async def tag(self, repository: str, tag: str) -> Digest | None:
        """Return what a tag points to on this node."""
        found = await self.pulls.find_manifest(parse_repository(repository), parse_reference(tag))
        return None if found is None else found.digest

    async def holds(self, repository: str, digest: Digest) -> bool:
        """Tell whether the node has a manifest."""
        return await self.pulls.find_manifest(parse_repository(repository), digest) is not None

    async def delete(self, repository: str, reference: str) -> None:
        """Delete a tag or an image."""
        async with self.client() as client:
            answer = await client.delete(f"/v2/{repository}/manifests/{reference}")
            assert answer.status == 202, answer

    @property
    def ingests(self) -> list[str]:
        """The names of the ingests on disk."""
        return sorted(path.name for path in (self.directory / "blobs" / "ingest").iterdir())

    async def pending(self) -> int:
        """Return how many jobs are not done, or not reported as done."""
        return self.worker.running + sum(found.count for found in await self._job_counts())

    async def leased(self) -> int:
        """Return how many jobs are being carried out, or were when their worker was killed."""
        found = await self._job_counts()
        return self.worker.running + sum(one.count for one in found if one.state is JobState.LEASED)

    async def _job_counts(self) -> list[jobs.LaneCount]:
        found: list[jobs.LaneCount] = []
        for kind in jobs.REPLICATION:
            found += await self.database.read(jobs.lane_counts(kind))
        return found

    async def statuses(self, repository: str, reference: str) -> list[ReplicationStatus]:
        """Return the replication status of an image at every destination."""
        return await self.status.of_image(RepositoryName(repository), parse_reference(reference))

    # What must be true after every test

    def dangling(self) -> list[tuple[str, str]]:
        """Return what images of a repository refer to without its being there."""
        with contextlib.closing(sqlite3.connect(self.directory / "metadata.db")) as rows:
            return rows.execute(_DANGLING).fetchall()

    async def validate(self) -> None:
        """Check that nothing is half-done: no lost ingest, no lease, every linked blob whole, every image complete."""
        with contextlib.closing(sqlite3.connect(self.directory / "metadata.db")) as rows:
            # What a sender left without a word stays until its session expires; nothing else may.
            sessions = {row[0] for row in rows.execute("select id from uploads")}
            assert {path.name for path in (self.directory / "blobs" / "ingest").iterdir()} <= sessions
            leased = rows.execute("select key from jobs where state = 'leased'").fetchall()
            assert leased == []
            linked = rows.execute(
                "select distinct b.digest, b.size, b.location, b.state from repository_blobs r"
                " left join blobs b on b.digest = r.digest"
            ).fetchall()
        if not self.plan.sparse_indexes:
            assert self.dangling() == []
        store = FilesystemBlobStore(self.directory / "blobs")
        await store.open()
        try:
            for digest, size, location, state in linked:
                assert state == "stored"
                async with await store.read_blob(StoredBlob(digest, size, location)) as content:
                    read = b"".join([bytes(piece) async for piece in content.read(0, size)])
                assert digest_of(read, algorithm_of(digest)) == digest
        finally:
            await store.close()


class Cluster:
    """The nodes by region, the wires between them, and the time they live in."""

    def __init__(self, nodes: Sequence[Node], clock: FakeClock, changes: Changes) -> None:
        self.nodes = {node.plan.region: node for node in nodes}
        self.clock = clock
        self.changes = changes
        self.wires: dict[tuple[str, str], Wire] = {}

    def __getitem__(self, region: str) -> Node:
        return self.nodes[region]

    def wire(self, source: str, destination: str) -> Wire:
        """Return the wire by which one node reaches another."""
        return self.wires[source, destination]

    async def until(self, question: Callable[[], Awaitable[bool]]) -> None:
        """Wait until something is true that nodes report."""
        await self.changes.until(question)

    async def until_quiet(self) -> None:
        """Wait until no node has a job left."""
        await self.until(self._is_quiet)

    async def until_attempts(self, region: str, count: int, outcome: str | None = None) -> None:
        """Wait until a node has made `count` attempts, of one outcome if given."""
        recorder = self[region].recorder

        async def made() -> bool:
            return sum(outcome in {None, found} for found in recorder.outcomes()) >= count

        await self.until(made)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, once every node that is up waits for it, and until each has started what became due."""
        await self._all_asleep()
        self.clock.advance(seconds)
        await self._all_asleep()

    async def heal_with_time(self, step: float = 60.0) -> None:
        """Let time pass, step by step, until no node has a job left."""
        while True:
            await self.until_resting()
            if await self._is_quiet():
                return
            await self.pass_time(step)

    async def _all_asleep(self) -> None:
        up = sum(node.is_up for node in self.nodes.values())
        await self.clock.sleepers(up * _SLEEPERS_OF_A_WORKER)

    async def _is_resting(self) -> bool:
        return not any([await node.leased() for node in self.nodes.values() if node.is_up])

    async def until_resting(self) -> None:
        """Wait until no node is carrying out a job."""
        await self.until(self._is_resting)

    async def _is_quiet(self) -> bool:
        return not any([await node.pending() for node in self.nodes.values() if node.is_up])


@contextlib.asynccontextmanager
async def cluster(directory: Path, *plans: str | NodePlan) -> AsyncIterator[Cluster]:
    """Run nodes, given by region or by plan, until the block ends; then check each of them."""
    clock, changes = FakeClock(), Changes()
    planned = _with_destinations([NodePlan(plan) if isinstance(plan, str) else plan for plan in plans])
    nodes = Cluster([Node(plan, directory / plan.region, clock, changes) for plan in planned], clock, changes)
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes.nodes.values():
            await _join(stack, nodes, node)
        for node in nodes.nodes.values():
            await node.start()
            stack.push_async_callback(_stop, node)
        yield nodes
    for node in nodes.nodes.values():
        await node.validate()


def _with_destinations(plans: Sequence[NodePlan]) -> list[NodePlan]:
    first, *rest = plans
    if first.destinations is None:
        first = replace(first, destinations=[plan.region for plan in rest])
    return [first, *rest]


async def _join(stack: contextlib.AsyncExitStack, nodes: Cluster, node: Node) -> None:
    """Lay wires from a node to all others, and tell it of its destinations."""
    region = node.plan.region
    for other in nodes.nodes.values():
        if other is node:
            continue
        wire = await stack.enter_async_context(Wire(other.port))
        nodes.wires[region, other.plan.region] = wire
        node.endpoints[other.plan.id] = UpstreamEndpoint(
            str(other.plan.id), wire.url, stall_timeout=node.plan.patience, total_timeout=node.plan.patience
        )
    destinations = tuple(nodes[name].plan.id for name in node.plan.destinations or ())
    if node.plan.rules is not None:
        node.rules = tuple(node.plan.rules)
    elif destinations:
        node.rules = (ReplicationRule(f"from-{region}", destinations, node.plan.filters, **node.plan.rule),)


async def _stop(node: Node) -> None:
    if node.is_up:
        await node.stop()


def _listening(port: int) -> socket.socket:
    listening = socket.create_server(("127.0.0.1", port), backlog=128)
    listening.setblocking(False)
    return listening


async def _nothing(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response(status=404)
