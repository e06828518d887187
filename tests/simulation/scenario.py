"""Schedules: who replicates to whom by which rules, what clients do and which faults come, all drawn at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import AccountId, NodeId, Region, RepositoryName
from replicator.core.replication import Origin, Rename, ReplicationRule
from tests.simulation.contents import CONTENTS, IMAGES, INDEXES, REFERRERS, TAGS
from tests.simulation.node import Clock, Node
from tests.simulation.store import Violation
from tests.simulation.world import Network, World

if TYPE_CHECKING:
    from random import Random

    from replicator.core.digest import Digest
    from replicator.core.names import Tag

NODES = tuple(NodeId(AccountId("111111111111"), Region(name)) for name in "abcd")
_A, _B, _C, _D = NODES
_APP = RepositoryName("app")
_MIRROR = RepositoryName("mirror/app")
_BUSY = 120.0
"""Seconds in which clients and faults are at work."""
_ROUND = 400.0
_ROUNDS = 8
_MAX_EVENTS = 4000
_NO_TAG_MOVES = MutabilityRule(TagMutability.IMMUTABLE)


@dataclass(frozen=True, slots=True)
class Topology:
    """Who replicates to whom. `joins` tells that every write reaches every node."""

    name: str
    edges: tuple[tuple[NodeId, NodeId], ...]
    chains: bool = False
    joins: bool = False


_MESH = tuple((one, other) for one in (_A, _B, _C) for other in (_A, _B, _C) if one != other)
TOPOLOGIES = (
    Topology("one-way", ((_A, _B),)),
    Topology("two-way", ((_A, _B), (_B, _A)), joins=True),
    Topology("two-way chained", ((_A, _B), (_B, _A)), chains=True, joins=True),
    Topology("mesh", _MESH, joins=True),
    Topology("mesh chained", _MESH, chains=True, joins=True),
    Topology("ring chained", ((_A, _B), (_B, _C), (_C, _A)), chains=True, joins=True),
    Topology("star", ((_A, _B), (_A, _C), (_A, _D))),
    Topology("one hop", ((_A, _B), (_B, _C))),
    Topology("chain", ((_A, _B), (_B, _C)), chains=True),
)
_WEIGHTS = (3, 5, 2, 3, 1, 3, 1, 2, 2)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a schedule: `violation` is None where everything held."""

    seed: int
    events: int
    violation: str | None
    trace: tuple[str, ...] = ()


def run_schedule(seed: int, *, traced: bool = False) -> Outcome:
    """Run the schedule of a seed to its end, and judge it."""
    world = World(seed, traced=traced)
    violation = None
    try:
        Schedule(world).run()
    except Violation as error:
        violation = str(error)
    return Outcome(seed, world.events, violation, tuple(world.trace or ()))


class Schedule:
    """One world, set up and let loose."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng: Random = world.rng
        self._topology = self._rng.choices(TOPOLOGIES, _WEIGHTS)[0]
        self._set_up()
        self._plan_clients()
        self._plan_faults()

    def run(self) -> None:
        """Let clients, nodes and faults do their work; then comes rest, and judgement."""
        world = self._world
        world.run(_BUSY, _MAX_EVENTS)
        world.calm()
        tried: frozenset[object] = frozenset()
        for _ in range(_ROUNDS):
            if world.run(world.now + _ROUND, _MAX_EVENTS):
                found = self._compare()
                if found == tried:
                    break  # nothing is left, or the destination keeps its own
                tried = found
        world.oracle.judge()

    def _compare(self) -> frozenset[object]:
        """Run a round of anti-entropy; return what it has begun to repair."""
        world = self._world
        world.repairs.clear()
        for source, to in self._topology.edges:
            node = world.nodes[source]
            world.begin(node, node.compare(to), _nothing)
        world.run(world.now + 1.0, _MAX_EVENTS)
        return frozenset(world.repairs)

    # Setting up

    def _set_up(self) -> None:
        world, rng, topology = self._world, self._rng, self._topology
        names = sorted({name for edge in topology.edges for name in edge})
        mutability = _NO_TAG_MOVES if rng.random() < 0.1 else MutabilityRule()
        skew = rng.choice((0.0, 0.0, 5.0, 120.0))
        for name in names:
            clock = Clock((rng.random() - 0.5) * 2 * skew, rng.choice((1.0, 1.0, 1.0, 0.5, 1.5)))
            world.add(name, clock, mutability)
        deletes, filtered = rng.random() < 0.5, rng.random() < 0.15
        is_renamed = rng.random() < 0.1 and not topology.joins
        for name in names:
            to = tuple(other for one, other in topology.edges if one == name)
            world.nodes[name].rules = self._rules(to, deletes=deletes, filtered=filtered, is_renamed=is_renamed)
        world.repositories = (_APP, _MIRROR) if is_renamed else (_APP,)
        is_plain = not filtered and mutability is not _NO_TAG_MOVES
        world.oracle.must_agree = topology.joins and is_plain
        world.note(topology.name, "deletes" if deletes else "", "filtered" if filtered else "", mutability.setting)

    def _rules(
        self, to: tuple[NodeId, ...], *, deletes: bool, filtered: bool, is_renamed: bool
    ) -> tuple[ReplicationRule, ...]:
        if not to:
            return ()
        return (
            ReplicationRule(
                "rule",
                to,
                tags=("v*",) if filtered else (),
                rename=(Rename("app", "mirror/app"),) if is_renamed else (),
                chain=self._topology.chains,
                delete_replication=deletes,
            ),
        )

    # Clients

    def _plan_clients(self) -> None:
        world, rng = self._world, self._rng
        digests = rng.sample(IMAGES, 2) + ([rng.choice(INDEXES)] if rng.random() < 0.6 else [])
        tags = TAGS[: rng.choice((1, 1, 2, 3))]
        names = tuple(world.nodes)
        writers = names if self._topology.joins or rng.random() < 0.3 else (_A, _A, _A, *names)
        for _ in range(rng.randint(3, 7)):
            act = _Act(rng.choice(writers), rng.choice(digests).digest, rng.choice(tags))
            world.at(rng.random() * _BUSY * 0.8, self._act, act, rng.random())
        if rng.random() < 0.1:
            index = _Act(_A, rng.choice(INDEXES).digest, tags[0])
            world.at(rng.random() * 20.0, self._act, index, 0.0)
            world.at(30.0 + rng.random() * 60.0, self._delete, world.nodes[_A], index.digest)
        for name in names:
            if not world.nodes[name].rules and rng.random() < 0.3:
                world.at(rng.random() * _BUSY, self._damage, world.nodes[name])

    def _act(self, act: _Act, chance: float) -> None:
        node = self._world.nodes[act.node]
        if not node.is_up:
            return
        if chance < 0.62:
            self._push(node, act)
        elif chance < 0.74:
            node.delete_tag(_APP, act.tag)
        elif chance < 0.86:
            self._delete(node, act.digest)
        else:
            self._do_else(node, act, chance)

    def _do_else(self, node: Node, act: _Act, chance: float) -> None:
        if chance < 0.90:
            node.push(_APP, self._rng.choice(REFERRERS).digest, ())
        elif chance < 0.94:
            node.clock.offset += (self._rng.random() - 0.5) * 120.0
        else:
            for source, to in self._topology.edges:
                if to == node.name and chance < 0.98:
                    self._world.begin(node, node.read_through(source, _APP, act.digest, act.tag), _nothing)
                elif source == node.name:
                    self._world.begin(node, node.compare(to), _nothing)

    def _push(self, node: Node, act: _Act) -> None:
        """Push an image; an index comes after its children, each in a push of its own."""
        delay = 0.0
        for child in CONTENTS[act.digest].children:
            if (_APP, child) not in node.store.images:
                self._world.at(delay, self._put, node, child, ())
                delay += self._rng.random()
        self._world.at(delay, self._put, node, act.digest, (act.tag,))

    def _delete(self, node: Node, digest: Digest) -> None:
        """Delete an image; after an index goes what it listed."""
        if node.is_up:
            self._world.note(node.store.name, "deletes", digest, node.delete_image(_APP, digest))
            for child in CONTENTS[digest].children:
                self._world.at(self._rng.random(), self._delete, node, child)

    def _put(self, node: Node, digest: Digest, tags: tuple[Tag, ...]) -> None:
        if node.is_up:
            self._world.note(node.store.name, "push", digest, tags, node.push(_APP, digest, tags))

    def _damage(self, node: Node) -> None:
        """Take a blob of a replica away, at a node that nobody replicates from."""
        for (repository, digest), image in node.store.images.items():
            blobs = CONTENTS[digest].blobs
            if image.origin is Origin.REPLICA and blobs and (repository, blobs[0]) in node.store.blobs:
                node.store.blobs.discard((repository, blobs[0]))
                node.store.damaged.add((repository, blobs[0]))
                self._world.note(node.store.name, "loses blob", blobs[0])
                return

    # Faults

    def _plan_faults(self) -> None:
        world, rng = self._world, self._rng
        trouble = rng.random()
        if trouble < 0.1:
            return
        world.network = Network(
            rng.choice((0.0, 0.05, 0.3)),
            rng.choice((0.0, 0.05, 0.2)),
            rng.choice((0.0, 0.05, 0.2)),
            rng.choice((0.1, 0.1, 5.0, 20.0)),
            rng.choice((0.0, 0.0, 0.05)),
            rng.choice((0.0, 0.0, 0.3)),
        )
        names = tuple(world.nodes)
        for _ in range(rng.choice((0, 0, 1, 2))):
            world.at(rng.random() * _BUSY, world.crash, rng.choice(names), rng.random() * 60.0)
        for _ in range(rng.choice((0, 1, 1, 2))):
            self._plan_partition(names)

    def _plan_partition(self, names: tuple[NodeId, ...]) -> None:
        world, rng = self._world, self._rng
        alone = rng.choice(names)
        pairs = {(one, other) for one in names for other in names if one != other}
        kind = rng.random()
        if kind < 0.4:
            pairs = {pair for pair in pairs if alone in pair}
        elif kind < 0.6:
            pairs = {pair for pair in pairs if pair[0] == alone}
        begin, length = rng.random() * _BUSY, rng.random() * _BUSY
        times = 1 if kind < 0.8 else 4
        for number in range(times):
            world.at(begin + number * length / times, world.part, frozenset(pairs), length / times / (1 + (times > 1)))


@dataclass(frozen=True, slots=True)
class _Act:
    """Something a client does."""

    node: NodeId
    digest: Digest
    tag: Tag


def _nothing() -> None:
    """A conversation that nobody repeats."""
