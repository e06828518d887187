"""What is wrong with cache rules as a whole: where they lead, what they let through, and what names they stand for.

Whoever reads a finding sees the rule's prefix in front of it: the loader puts it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.config.base import url_endpoint
from replicator.config.problems import Finding, KeyPath, Severity, repeated
from replicator.config.rule_samples import covers, name_of, tag_of
from replicator.core.cache_rules import ROOT
from replicator.core.upstream_presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from replicator.config.base import NodeRef
    from replicator.config.cache import CacheRuleSettings, RepositorySelectionSettings, TagSelectionSettings
    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.core.names import NodeId

    Sample = Callable[[str], object | None]
    SelectionSettings = RepositorySelectionSettings | TagSelectionSettings

_NEEDS_NO_CREDENTIALS = {"ecr-public", "quay", "k8s"}
"""Presets for which ECR takes no credentials: everything there that is public is everybody's."""


def _rules(settings: Settings) -> Iterator[tuple[KeyPath, NodeSettings, CacheRuleSettings]]:
    for i, node in enumerate(settings.nodes):
        for j, rule in enumerate(node.cache.rules):
            yield ("nodes", i, "cache", "rules", j), node, rule


# Where a rule leads


def _upstreams(settings: Settings) -> Iterator[Finding]:
    """Yield upstreams that are not there. One that no rule uses is for rules that are made at run time."""
    names = {one.name for one in settings.upstreams}
    for path, _, rule in _rules(settings):
        places: list[tuple[KeyPath, str]] = [((*path, "upstream"), rule.upstream)]
        places += [((*path, "mirrors", k), name) for k, name in enumerate(rule.mirrors)]
        for place, name in places:
            if name not in names:
                yield Finding(place, f"expected the name of an upstream of this file, got {name!r}")
        yield from repeated(places)


def _peers(settings: Settings) -> Iterator[Finding]:
    known = {one.id for one in (*settings.nodes, *settings.peers)}
    nodes = {node.id: node for node in settings.nodes}
    namespaces = {one.name: one.namespaces for one in settings.upstreams}
    for path, node, rule in _rules(settings):
        if rule.peers and not rule.to_rule(namespaces.get(rule.upstream, ("unknown",))).namespaces:
            message = "peers are asked by the first of the rule's namespaces: expected at least one"
            yield Finding((*path, "namespaces"), message)
        yield from repeated(((*path, "peers", k), peer.id) for k, peer in enumerate(rule.peers))
        for k, peer in enumerate(rule.peers):
            yield from _peer((*path, "peers", k), node, peer, known, nodes)


def _peer(
    place: KeyPath, node: NodeSettings, peer: NodeRef, known: Collection[NodeId], nodes: Mapping[NodeId, NodeSettings]
) -> Iterator[Finding]:
    """Yield what is wrong with one peer of a rule; `known` are all that the file names, `nodes` those it describes."""
    if peer.id == node.id:
        yield Finding(place, f"{peer.id} is this node itself; expected another one")
    elif peer.id not in known:
        yield Finding(place, f"{peer.id} is neither a node nor a peer of this file")
    elif peer.account != node.account:
        yield from _other_account(place, node, nodes.get(peer.id), str(peer.id))


def _other_account(place: KeyPath, node: NodeSettings, peer: NodeSettings | None, name: str) -> Iterator[Finding]:
    """Warn of a peer of another account that does not serve this node, as far as this file says."""
    if peer is None:
        message = f"{name} is of another account: it refuses unless its cache.serve_to names {node.id}"
        yield Finding(place, message, Severity.WARNING)
    elif node.id not in {one.id for one in peer.cache.serve_to}:
        message = f"{name} will refuse: its cache.serve_to does not name {node.id}"
        yield Finding(place, message, Severity.WARNING)


def _serve_to(settings: Settings) -> Iterator[Finding]:
    for i, node in enumerate(settings.nodes):
        base: KeyPath = ("nodes", i, "cache", "serve_to")
        yield from repeated(((*base, k), one.id) for k, one in enumerate(node.cache.serve_to))
        for k, one in enumerate(node.cache.serve_to):
            if one.account == node.account:
                message = f"{one.id} is of the same account: it may pull anyway"
                yield Finding((*base, k), message, Severity.WARNING)


def _peers_as_upstreams(settings: Settings) -> Iterator[Finding]:
    """Warn of upstreams that are peers: nothing keeps their rules from leading back here, until somebody pulls."""
    places = {url_endpoint(peer.url): peer.id for peer in settings.peers}
    for i, upstream in enumerate(settings.upstreams):
        peer = places.get(url_endpoint(upstream.url))
        if peer is not None:
            message = f"is peer {peer}, whose rules may lead back here: expected it under the peers of a cache rule"
            yield Finding(("upstreams", i, "url"), message, Severity.WARNING)


def _credentials(settings: Settings) -> Iterator[Finding]:
    for i, upstream in enumerate(settings.upstreams):
        known = next((name for name, one in PRESETS.items() if one is upstream.known_as), None)
        if upstream.credentials is not None and known in _NEEDS_NO_CREDENTIALS:
            message = f"{known} needs no credentials for what is public there"
            yield Finding(("upstreams", i, "credentials"), message, Severity.WARNING)
        if upstream.preset is not None and (wrong := _wrong_host(upstream.preset, upstream.url)):
            yield Finding(("upstreams", i, "url"), wrong, Severity.WARNING)


def _wrong_host(preset: str, url: str) -> str | None:
    """Return what is odd about an address that a preset knows otherwise; a stand-in for tests may be meant."""
    known, host = PRESETS[preset], url_endpoint(url)[0]
    if known.url is not None and url_endpoint(known.url)[0] != host:
        return f"{host} is not where {preset} is: expected {known.url}, or no preset"
    if known.host_suffix is not None and not host.endswith(known.host_suffix):
        return f"expected a host that ends with {known.host_suffix}, got {host}"
    return None


# What a rule lets through


def _patterns(settings: Settings) -> Iterator[Finding]:
    for path, _, rule in _rules(settings):
        yield from _selection((*path, "repositories"), rule.repositories, name_of)
        yield from _selection((*path, "tags"), rule.tags, tag_of)
        yield from _unreachable(path, rule)
        for k, profile in enumerate(rule.freshness or ()):
            yield from _impossible((*path, "freshness", k, "tags"), profile.tags, tag_of, "tag")


def _selection(path: KeyPath, selection: SelectionSettings, sample: Sample) -> Iterator[Finding]:
    yield from _impossible((*path, "allow"), selection.allow, sample, "name")
    yield from _impossible((*path, "deny"), selection.deny, sample, "name")
    yield from _denied(path, selection.allow, selection.deny)


def _impossible(path: KeyPath, patterns: Sequence[str], sample: Sample, what: str) -> Iterator[Finding]:
    """Yield the patterns of which there is no sample."""
    for k, pattern in enumerate(patterns):
        if sample(pattern) is None:
            yield Finding((*path, k), f"matches nothing: no {what} fits {pattern!r}")


def _denied(path: KeyPath, allow: Sequence[str], deny: Sequence[str]) -> Iterator[Finding]:
    """Yield what is allowed and denied again: an error where nothing is left."""
    hits = [next((one for one in deny if covers(one, pattern)), None) for pattern in (allow or ("*",))]
    if hits and all(hits):
        yield Finding(path, f"lets nothing through: {hits[0]!r} denies everything that it allows")
        return
    for k, by in enumerate(hits):
        if by is not None:
            yield Finding((*path, "allow", k), f"matches nothing, because {by!r} is denied", Severity.WARNING)


def _unreachable(path: KeyPath, rule: CacheRuleSettings) -> Iterator[Finding]:
    """Yield patterns of upstream names that lie outside the rule's upstream prefix."""
    if rule.upstream_prefix == ROOT:
        return
    start = f"{rule.upstream_prefix}/"
    for side, patterns in (("allow", rule.repositories.allow), ("deny", rule.repositories.deny)):
        for k, pattern in enumerate(patterns):
            literal = pattern.split("*", 1)[0]
            possible = _may_start(literal, start) if "*" in pattern else pattern.startswith(start)
            if not possible:
                message = f"matches nothing: the rule's names at the upstream start with {start!r}"
                yield Finding((*path, "repositories", side, k), message)


def _may_start(literal: str, start: str) -> bool:
    """Tell whether a name that begins with `literal` can begin with `start`."""
    return literal.startswith(start) or start.startswith(literal)


def _times(settings: Settings) -> Iterator[Finding]:
    """Yield rules that would refuse a tag while it is still fresh."""
    for path, _, one in _rules(settings):
        rule = one.to_rule()
        longest = max((rule.fresh_for, *(profile.fresh_for for profile in rule.freshness)))
        if rule.max_stale is not None and rule.max_stale < rule.fresh_for:
            yield Finding((*path, "max_stale"), "is shorter than fresh_for: expected a longer time")
        elif rule.max_stale is not None and rule.max_stale < longest and one.freshness is not None:
            yield Finding((*path, "max_stale"), "is shorter than a fresh_for of its freshness", Severity.WARNING)


# What a rule stands for


def _namespaces(settings: Settings) -> Iterator[Finding]:
    """Yield hosts that two rules of a node answer for with the same names: only the first of them is ever asked."""
    for i, node in enumerate(settings.nodes):
        taken: dict[tuple[str, str], int] = {}
        for j, rule in enumerate(settings.cache_rules(node)):
            for host in rule.namespaces:
                first = taken.setdefault((host, rule.upstream_prefix), j)
                if first != j:
                    both = [node.cache.rules[k].namespaces for k in (first, j)]
                    other = node.cache.rules[first].prefix
                    message = f"{host} is already answered for by cache rule {other}: expected others, or []"
                    severity = Severity.WARNING if None in both else Severity.ERROR
                    yield Finding(("nodes", i, "cache", "rules", j, "namespaces"), message, severity)
                    break


def _sizes(settings: Settings) -> Iterator[Finding]:
    for i, node in enumerate(settings.nodes):
        for j, rule in enumerate(node.cache.rules):
            if rule.max_size is not None and node.cache.max_size is not None and rule.max_size > node.cache.max_size:
                message = "is larger than the node's cache.max_size, which holds first"
                yield Finding(("nodes", i, "cache", "rules", j, "max_size"), message, Severity.WARNING)


CACHE_CHECKS = (
    _upstreams,
    _peers,
    _serve_to,
    _peers_as_upstreams,
    _credentials,
    _patterns,
    _times,
    _namespaces,
    _sizes,
)
