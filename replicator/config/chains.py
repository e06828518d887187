"""Rules that send an image back to where it was pushed, found by sending sample images through the real decisions.

The revisions of an image end such a round, so it does no harm to data; but it is work for nothing, and seldom meant.
Only a round that renames the image has no end, because it comes back as another one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import islice, product
from typing import TYPE_CHECKING

from replicator.config.rule_samples import covered_names, sample_tags
from replicator.core.names import NodeId
from replicator.core.replication import destinations_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from replicator.core.names import RepositoryName, Tag
    from replicator.core.replication import ReplicationRule

_NAMES_PER_RULE = 8
_MAX_TAGS = 8


@dataclass(frozen=True, slots=True)
class Hop:
    """An image on its way from one node to another; `repository` is its name there."""

    source: NodeId
    rule: ReplicationRule
    destination: NodeId
    repository: RepositoryName


@dataclass(frozen=True, slots=True)
class Round:
    """Hops that bring an image of `repository` back to the node where it was pushed."""

    repository: RepositoryName
    hops: tuple[Hop, ...]

    @property
    def goes_on(self) -> bool:
        """Whether every rule chains, so that the rules alone would let the image go round for ever."""
        return all(hop.rule.chain for hop in self.hops)

    @property
    def returns_as(self) -> RepositoryName:
        """The repository it comes back to."""
        return self.hops[-1].repository

    def __str__(self) -> str:
        way = " -> ".join(f"{hop.source} (rule {hop.rule.name})" for hop in self.hops)
        return f"{way} -> {self.hops[-1].destination}"


def find_rounds(rules: Mapping[NodeId, Sequence[ReplicationRule]]) -> tuple[Round, ...]:
    """Return the rounds among nodes: of those by the same rules one, the worst."""
    every = [rule for one in rules.values() for rule in one]
    if not any(rule.chain for rule in every):
        return ()
    names = dict.fromkeys(name for rule in every for name in islice(covered_names(rule), _NAMES_PER_RULE))
    tags = (*islice(sample_tags(every), _MAX_TAGS), None)
    found: dict[frozenset[tuple[NodeId, str]], Round] = {}
    for name, tag in product(names, tags):
        journey = _Journey(rules, tag)
        for one in (one for start in rules for one in journey.rounds(start, name)):
            key = frozenset((hop.source, hop.rule.name) for hop in one.hops)
            found[key] = max(found.get(key, one), one, key=_badness)
    return tuple(found.values())


def _badness(one: Round) -> tuple[bool, bool]:
    return one.goes_on and one.returns_as != one.repository, one.goes_on


class _Journey:
    """Follows images with one tag, and remembers where each node sends them."""

    def __init__(self, rules: Mapping[NodeId, Sequence[ReplicationRule]], tag: Tag | None) -> None:
        self._rules = rules
        self._tag = tag
        self._hops: dict[tuple[NodeId, RepositoryName, bool], tuple[Hop, ...]] = {}

    def rounds(self, start: NodeId, name: RepositoryName) -> Iterator[Round]:
        """Follow an image from where it is pushed, by the shortest way to each node, until it comes home."""
        waiting: deque[tuple[Hop, ...]] = deque((hop,) for hop in self._from(start, name, is_replica=False))
        seen: set[tuple[NodeId, NodeId, RepositoryName]] = set()
        while waiting:
            way = waiting.popleft()
            last = way[-1]
            if last.destination == start:
                yield Round(name, way)
                continue
            place = (last.destination, last.source, last.repository)
            if place in seen or len(way) > len(self._rules):
                continue
            seen.add(place)
            onward = self._from(last.destination, last.repository, is_replica=True)
            waiting += [(*way, hop) for hop in onward if hop.destination != last.source]

    def _from(self, node: NodeId, name: RepositoryName, *, is_replica: bool) -> tuple[Hop, ...]:
        key = (node, name, is_replica)
        if key not in self._hops:
            rules = [rule for rule in self._rules.get(node, ()) if rule.chain or not is_replica]
            self._hops[key] = tuple(_hops(rules, node, name, self._tag))
        return self._hops[key]


def _hops(rules: Sequence[ReplicationRule], node: NodeId, name: RepositoryName, tag: Tag | None) -> Iterator[Hop]:
    for one in destinations_of(rules, node, name, tag):
        if isinstance(one.id, NodeId):
            yield Hop(node, one.rule, one.id, one.repository)
