"""Virtual time, and a network that delays, drops, repeats, reorders and parts; nodes that crash at any step.

Everything random comes from one generator, so a seed is a schedule. Writing a trace changes nothing of it.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation.contents import shown
from tests.simulation.node import Call, Clock, Lost, Node
from tests.simulation.oracle import Oracle
from tests.simulation.store import Violation

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from replicator.core.digest import Digest
    from replicator.core.drift import Drift
    from replicator.core.mutability import MutabilityRule
    from replicator.core.names import NodeId, RepositoryName
    from tests.simulation.store import JobKey

_TIMEOUT = 30.0
_LATEST = 300.0
"""Seconds after which a message that is late has arrived at last."""


@dataclass(slots=True)
class Network:
    """How messages fare: shares that are lost, late or repeated, and seconds on the way."""

    loss: float = 0.0
    late: float = 0.0
    repeated: float = 0.0
    latency: float = 0.1
    crash: float = 0.0
    """Share of messages whose receiver is killed between its commit and its answer."""
    meddling: float = 0.0
    """Share of offers after which a client deletes something of the image at the destination."""


@dataclass(slots=True, eq=False)
class Attempt:
    """A conversation of one node, which ends with the process that leads it."""

    node: Node
    steps: Generator[Call, object, None]
    failed: Callable[[], None]
    incarnation: int
    awaits: int = 0
    was_held: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether the process that began it still runs."""
        return self.incarnation == self.node.incarnation and self.node.is_up


class World:
    """All nodes, the messages between them, and what happens next."""

    start = 1_700_000_000.0

    def __init__(self, seed: int, *, traced: bool = False) -> None:
        self.rng = random.Random(seed)  # noqa: S311 - a schedule, not a secret
        self.now = 0.0
        self.events = 0
        self.repairs: set[tuple[NodeId, NodeId, RepositoryName, Drift]] = set()
        self.nodes: dict[NodeId, Node] = {}
        self.network = Network()
        self.parted: set[tuple[NodeId, NodeId]] = set()
        self.oracle = Oracle(self)
        self.repositories: tuple[RepositoryName, ...] = ()
        self.trace: list[str] | None = [] if traced else None
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._attempt: Attempt | None = None

    def add(self, name: NodeId, clock: Clock, mutability: MutabilityRule) -> Node:
        """Start a node."""
        node = self.nodes[name] = Node(self, name, clock, mutability)
        return node

    def note(self, *parts: object) -> None:
        """Write a line of the trace, where one is wanted."""
        if self.trace is not None:
            self.trace.append(f"{self.now:8.2f}  {shown(' '.join(str(part) for part in parts))}")

    # Time

    def at(self, delay: float, action: Callable[..., None], *arguments: object) -> None:
        """Have something happen after `delay` seconds."""
        self._sequence += 1
        heapq.heappush(self._heap, (self.now + delay, self._sequence, action, arguments))

    def run(self, until: float, limit: int) -> bool:
        """Let events happen, checking after each; return whether nothing more is to come. At most `limit` events."""
        heap, nodes = self._heap, tuple(self.nodes.values())
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            action(*arguments)
            self.events += 1
            if self.events > limit:
                raise Violation("it does not come to rest: jobs or messages go round")
            for node in nodes:
                if node.store.is_changed:
                    node.store.check()
        if heap:
            self.now = until
        return not heap

    # Conversations

    def enqueued(self, node: Node, key: JobKey) -> None:
        """Have the worker look at a job when it is due."""
        self.at(max(0.0, node.store.jobs[key].due - self.now) + self.rng.random() * 0.5, node.run, key)

    def begin(self, node: Node, steps: Generator[Call, object, None], failed: Callable[[], None]) -> None:
        """Let a node lead a conversation; `failed` is called when an answer does not come."""
        self._advance(Attempt(node, steps, failed, node.incarnation), None, is_lost=False)

    def _advance(self, attempt: Attempt, answer: object, *, is_lost: bool) -> None:
        self._attempt = attempt
        attempt.awaits += 1
        try:
            call = attempt.steps.throw(Lost()) if is_lost else attempt.steps.send(answer)
        except StopIteration:
            return
        except Lost:
            self.note(attempt.node.store.name, "gives up an attempt")
            attempt.failed()
            return
        self._send(attempt, call)

    @property
    def was_held(self) -> bool:
        """Whether what the present attempt delivered was at its destination, when it was answered."""
        return self._attempt is not None and self._attempt.was_held

    # Messages

    def _send(self, attempt: Attempt, call: Call) -> None:
        network, chance = self.network, self.rng.random()
        if chance < network.loss or (attempt.node.name, call.to) in self.parted:
            self.at(_TIMEOUT, self._lost, attempt, attempt.awaits)
        elif chance < network.loss + network.late:
            self.at(self.rng.random() * _LATEST, self._arrive, attempt, attempt.awaits, call)
            self.at(_TIMEOUT, self._lost, attempt, attempt.awaits)
        else:
            self.at(self.rng.random() * network.latency, self._arrive, attempt, attempt.awaits, call)
        if chance > 1.0 - network.repeated:
            self.at(self.rng.random() * _LATEST, self._arrive, attempt, 0, call)

    def _arrive(self, attempt: Attempt, awaits: int, call: Call) -> None:
        sender, receiver = attempt.node, self.nodes[call.to]
        if not receiver.is_up or (sender.name, call.to) in self.parted:
            self.at(_TIMEOUT, self._lost, attempt, awaits)
            return
        answer = call.handle(receiver)
        if self.trace is not None:
            self.note(sender.store.name, "->", receiver.store.name, call.what, "" if awaits else "(again)", answer)
        if call.offer is not None and self.rng.random() < self.network.meddling:
            part = self.rng.choice(call.offer.manifests)
            self.at(self.rng.random() * self.network.latency, self._meddle, receiver, call.offer.repository, part)
        was_held = call.sent is not None and self.oracle.holds(receiver, call.sent)
        chance = self.rng.random()
        if chance < self.network.crash:
            self.crash(call.to, self.rng.random() * 60.0)
        elif awaits and chance > self.network.loss and (call.to, sender.name) not in self.parted:
            self.at(self.rng.random() * self.network.latency, self._answered, attempt, awaits, answer, was_held)
            return
        if awaits:
            self.at(_TIMEOUT, self._lost, attempt, awaits)

    def _meddle(self, node: Node, repository: RepositoryName, digest: Digest) -> None:
        if node.is_up and node.delete_image(repository, digest):
            self.note(node.store.name, "deletes", digest)

    def _answered(self, attempt: Attempt, awaits: int, answer: object, was_held: bool) -> None:
        if attempt.awaits == awaits and attempt.is_alive:
            attempt.was_held = was_held
            self._advance(attempt, answer, is_lost=False)

    def _lost(self, attempt: Attempt, awaits: int) -> None:
        if attempt.awaits == awaits and attempt.is_alive:
            self._advance(attempt, None, is_lost=True)

    # Faults

    def crash(self, name: NodeId, seconds: float) -> None:
        """Kill a node: what it has not committed is lost. It is started again after `seconds`."""
        node = self.nodes[name]
        if node.is_up:
            node.is_up = False
            node.incarnation += 1
            self.note(node.store.name, "is killed")
            self.at(seconds, self.restart, name)

    def restart(self, name: NodeId) -> None:
        """Start a node; the leases that its last process held are free."""
        node = self.nodes[name]
        node.is_up = True
        self.note(node.store.name, "starts")
        for key, row in node.store.jobs.items():
            row.is_leased, row.due = False, self.now
            self.enqueued(node, key)

    def part(self, cut: frozenset[tuple[NodeId, NodeId]], seconds: float) -> None:
        """Let nothing pass between pairs of nodes for a while."""
        self.parted |= cut
        self.note("parted:", ", ".join(f"{one.region}|{other.region}" for one, other in sorted(cut)))
        self.at(seconds, self._heal, cut)

    def _heal(self, cut: frozenset[tuple[NodeId, NodeId]]) -> None:
        self.parted -= cut
        self.note("healed:", ", ".join(f"{one.region}|{other.region}" for one, other in sorted(cut)))

    def calm(self) -> None:
        """Let the network work from here on; what was sent before may still arrive."""
        self.network = Network()
        self.parted.clear()
        self.note("-- quiet --")

    def repositories_for(self, node: Node, to: NodeId) -> Iterator[tuple[RepositoryName, RepositoryName]]:
        """Yield the repositories that `node` replicates to another, with their names there."""
        for rule in node.rules:
            if to in rule.destinations:
                for repository in self.repositories:
                    yield repository, rule.renamed(repository)
                return
