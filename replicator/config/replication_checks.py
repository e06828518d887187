"""What is wrong with replication rules as a whole: where they lead, what they cover, and what becomes of it there.

Whoever reads a finding sees the name of the rule in front of it: the loader puts it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.config.chains import find_rounds
from replicator.config.nodes import Sparse
from replicator.config.problems import Finding, KeyPath, Severity, repeated
from replicator.config.rule_samples import covered_names, covers, name_below, name_of, sample_names, sample_tags, tag_of
from replicator.core.destinations import DestinationId, RegistryRef
from replicator.core.errors import InvalidInput
from replicator.core.names import MAX_REPOSITORY_LENGTH, NodeId
from replicator.core.quotas import DEFAULT_QUOTAS
from replicator.core.replication import destinations_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.config.replication import ReplicationRuleSettings
    from replicator.core.names import RepositoryName
    from replicator.core.registry_policy import Permission

_MAX_DESTINATIONS = DEFAULT_QUOTAS.replication_destinations
_FEW = 64
"""Characters of a name that a renaming should leave room for."""


def _rules(settings: Settings) -> Iterator[tuple[KeyPath, NodeSettings, ReplicationRuleSettings]]:
    for i, node in enumerate(settings.nodes):
        for j, rule in enumerate(node.replication.rules):
            yield ("nodes", i, "replication", "rules", j), node, rule


def _destinations(settings: Settings) -> Iterator[Finding]:
    known = _known(settings)
    for path, node, rule in _rules(settings):
        places: list[tuple[KeyPath, DestinationId]] = [
            ((*path, "destinations", k), one.id) for k, one in enumerate(rule.destinations)
        ]
        for place, destination in places:
            message = _wrong_destination(destination, node.id, known)
            if message is not None:
                yield Finding(place, message)
        yield from repeated(places)


def _known(settings: Settings) -> set[DestinationId]:
    nodes = {one.id for one in (*settings.nodes, *settings.peers)}
    return {*nodes, *(RegistryRef(one.name) for one in settings.registries)}


def _wrong_destination(destination: DestinationId, source: NodeId, known: set[DestinationId]) -> str | None:
    if destination == source:
        return f"{destination} is this node itself; expected another one"
    if destination in known:
        return None
    if isinstance(destination, RegistryRef):
        return f"expected the name of a registry of this file, got {destination.name!r}"
    return f"{destination} is neither a node nor a peer of this file"


def _number_of_destinations(settings: Settings) -> Iterator[Finding]:
    for i, node in enumerate(settings.nodes):
        distinct: set[DestinationId] = set()
        for j, rule in enumerate(node.replication.rules):
            before = len(distinct)
            distinct.update(one.id for one in rule.destinations)
            if before <= _MAX_DESTINATIONS < len(distinct):
                message = (
                    f"expected at most {_MAX_DESTINATIONS} different destinations over all rules, got {len(distinct)}"
                )
                yield Finding(("nodes", i, "replication", "rules", j, "destinations"), message)


# What a rule covers


def _patterns(settings: Settings) -> Iterator[Finding]:
    """Yield patterns that no name and no tag can match."""
    for path, _, rule in _rules(settings):
        for key, values in (("repositories", rule.repositories), ("exclude_repositories", rule.exclude_repositories)):
            for k, pattern in enumerate(values):
                if name_of(pattern) is None:
                    yield Finding((*path, key, k), f"matches nothing: {pattern!r} is the pattern of no repository name")
        for k, prefix in enumerate(rule.filters):
            if name_below(prefix) is None:
                yield Finding((*path, "filters", k), f"matches nothing: no repository name starts with {prefix!r}")
        for key, values in (("tags", rule.tags), ("exclude_tags", rule.exclude_tags)):
            for k, pattern in enumerate(values):
                if tag_of(pattern) is None:
                    yield Finding((*path, key, k), f"matches nothing: {pattern!r} is the pattern of no tag")


def _exclusions(settings: Settings) -> Iterator[Finding]:
    """Yield what a rule includes and excludes again: an error where nothing is left."""
    for path, _, rule in _rules(settings):
        wanted: list[tuple[str, int, str]] = [("filters", k, f"{one}*") for k, one in enumerate(rule.filters)]
        wanted += [("repositories", k, one) for k, one in enumerate(rule.repositories)]
        yield from _excluded(path, wanted or [("exclude_repositories", 0, "*")], rule.exclude_repositories)
        if rule.tags:
            yield from _excluded(path, [("tags", k, one) for k, one in enumerate(rule.tags)], rule.exclude_tags)
        elif "*" in rule.exclude_tags:
            message = "excludes every tag: only images without a tag are replicated"
            yield Finding((*path, "exclude_tags"), message, Severity.WARNING)


def _excluded(path: KeyPath, wanted: Sequence[tuple[str, int, str]], excluded: Sequence[str]) -> Iterator[Finding]:
    hits = [(key, k, next((one for one in excluded if covers(one, text)), None)) for key, k, text in wanted]
    if all(by is not None for _, _, by in hits):
        yield Finding(path, f"matches nothing: {hits[0][2]!r} excludes everything that it includes")
        return
    for key, k, by in hits:
        if by is not None:
            yield Finding((*path, key, k), f"matches nothing, because {by!r} is excluded", Severity.WARNING)


# What it is called there


def _renaming(settings: Settings) -> Iterator[Finding]:
    for path, _, one in _rules(settings):
        rule = one.to_rule()
        names = covered_names(rule)
        for k, rename in enumerate(rule.rename):
            mine = [name for name in names if _first_fitting(one, name) == k]
            yield from _bad_names((*path, "rename", k), one, mine)
            room = MAX_REPOSITORY_LENGTH - len(rename.to) + len(rename.prefix)
            if room < _FEW:
                message = f"repositories with names longer than {room} characters cannot be renamed like this"
                yield Finding((*path, "rename", k, "to"), message, Severity.WARNING)


def _first_fitting(rule: ReplicationRuleSettings, name: RepositoryName) -> int | None:
    return next((k for k, one in enumerate(rule.rename) if name.startswith(one.prefix)), None)


def _bad_names(path: KeyPath, rule: ReplicationRuleSettings, names: Sequence[RepositoryName]) -> Iterator[Finding]:
    if not names:
        yield Finding(path, "renames nothing: no repository that the rule covers gets to it", Severity.WARNING)
        return
    rename = rule.rename[int(path[-1])]
    bad = []
    for name in names:
        try:
            rename.to_rename().apply(name)
        except InvalidInput:
            bad.append(name)
    if bad:
        result = rename.to + bad[0].removeprefix(rename.prefix)
        shown = result if len(result) <= _FEW else f"{result[:_FEW]}…"
        what = f"a name of {len(result)} characters" if len(result) > MAX_REPOSITORY_LENGTH else repr(shown)
        message = f"turns {bad[0]!r} into {what}, which is no repository name"
        yield Finding(path, message, Severity.ERROR if len(bad) == len(names) else Severity.WARNING)


def _collisions(settings: Settings) -> Iterator[Finding]:
    """Yield destinations where two repositories of one node would become one."""
    for i, node in enumerate(settings.nodes):
        rules = node.replication_rules()
        if not any(rule.rename for rule in rules):
            continue
        taken: dict[tuple[DestinationId, RepositoryName], RepositoryName] = {}
        reported: set[tuple[DestinationId, str]] = set()
        for name in sample_names(rules):
            for destination, rule_name, target in _targets(node, name):
                other = taken.setdefault((destination, target), name)
                if other != name and (destination, rule_name) not in reported:
                    reported.add((destination, rule_name))
                    j = next(j for j, rule in enumerate(rules) if rule.name == rule_name)
                    message = f"{other!r} and {name!r} would both be {target!r} at {destination}"
                    yield Finding(("nodes", i, "replication", "rules", j), message, Severity.WARNING)


def _targets(node: NodeSettings, name: RepositoryName) -> list[tuple[DestinationId, str, RepositoryName]]:
    rules = node.replication_rules()
    found: dict[tuple[DestinationId, RepositoryName], str] = {}
    for tag in (*sample_tags(rules), None):
        for one in destinations_of(rules, node.id, name, tag):
            found.setdefault((one.id, one.repository), one.rule.name)
    return [(destination, rule, target) for (destination, target), rule in found.items()]


# What becomes of it there


def _acceptance(settings: Settings) -> Iterator[Finding]:
    """Warn where a node of this file sends images to another that will refuse them."""
    targets: dict[DestinationId, NodeSettings] = {node.id: node for node in settings.nodes}
    for path, node, rule in _rules(settings):
        for k, destination in enumerate(rule.destinations):
            target = targets.get(destination.id)
            if target is None or target is node:
                continue
            refusal = _refusal(node, rule, target)
            if refusal is not None:
                message = (
                    f"{target.id} does not accept images from {node.account}: {refusal[0]} is missing for"
                    f" {refusal[1]!r}, see its replication.accept_from"
                )
                yield Finding((*path, "destinations", k), message, Severity.WARNING)
            if rule.platforms and target.repositories.sparse_indexes is Sparse.REFUSE:
                message = f"{target.id} refuses indexes of some platforms only, see its repositories.sparse_indexes"
                yield Finding((*path, "destinations", k), message, Severity.WARNING)


def _refusal(
    node: NodeSettings, rule: ReplicationRuleSettings, target: NodeSettings
) -> tuple[Permission, RepositoryName] | None:
    policy, one = target.registry_policy(), rule.to_rule()
    for name in filter(one.matches, covered_names(one)):
        there = one.renamed(name)
        missing = policy.missing(target.id, node.id, there, exists=False)
        if missing is not None:
            return missing, there
    return None


def _rounds(settings: Settings) -> Iterator[Finding]:
    """Yield chains of rules that send an image back to where it was pushed."""
    indexes = {node.id: i for i, node in enumerate(settings.nodes)}
    for one in find_rounds({node.id: node.replication_rules() for node in settings.nodes}):
        hop = min((hop for hop in one.hops if hop.rule.chain), key=lambda hop: indexes[hop.source])
        i = indexes[hop.source]
        names = [rule.name for rule in settings.nodes[i].replication.rules]
        path = ("nodes", i, "replication", "rules", names.index(hop.rule.name), "chain")
        message = f"sends {one.repository!r} round in a circle: {one}"
        if one.returns_as != one.repository:
            message += f", where it comes back as {one.returns_as!r}"
        yield Finding(path, message, Severity.ERROR if one.goes_on else Severity.WARNING)


def _limits(settings: Settings) -> Iterator[Finding]:
    for i, node in enumerate(settings.nodes):
        used = {one.id for rule in node.replication.rules for one in rule.destinations}
        places: list[tuple[KeyPath, DestinationId]] = [
            (("nodes", i, "replication", "limits", k), one.id) for k, one in enumerate(node.replication.limits)
        ]
        yield from repeated(places)
        for place, destination in places:
            if destination not in used:
                yield Finding(place, f"{destination} is not a destination of any rule of this node", Severity.WARNING)


def _read_through(settings: Settings) -> Iterator[Finding]:
    known = _known(settings)
    nodes = {node.id: node for node in settings.nodes}
    for i, node in enumerate(settings.nodes):
        base: KeyPath = ("nodes", i, "replication", "read_through", "sources")
        for k, source in enumerate(node.replication.read_through.sources):
            message = _wrong_destination(source.id, node.id, known)
            if message is not None:
                yield Finding((*base, k), message)
                continue
            sender = nodes.get(source.id)
            if sender is not None and node.id not in {
                one.id for rule in sender.replication.rules for one in rule.destinations
            }:
                yield Finding((*base, k), f"no rule of {source.id} sends images here; it will refuse", Severity.WARNING)
        sources = node.replication.read_through.sources
        yield from repeated(((*base, k), one.id) for k, one in enumerate(sources))


REPLICATION_CHECKS = (
    _destinations,
    _number_of_destinations,
    _patterns,
    _exclusions,
    _renaming,
    _collisions,
    _acceptance,
    _rounds,
    _limits,
    _read_through,
)
