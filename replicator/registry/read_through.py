"""An image of ours for a peer that was asked for it before our rules have brought it: the source side of read-through.

Only what a rule sends to that very peer is shown, under the name that the rule gives it there: the same plan that
replicates an image, with its tags and platforms, authorises the early copy of its manifests and of its blobs.
Everything else looks as if it were not here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.manifest import parse_manifest
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.peer_messages import Delivery, OfferedTag, SentManifest
from replicator.core.reference import as_digest
from replicator.core.replication import Change, ReplicationRule, plan_replication
from replicator.registry.deliveries import MAX_SENT_BYTES
from replicator.storage.metadata import images, replication_status, tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.digest import Digest
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.images import ListedImage
    from replicator.storage.metadata.statement import Steps

_MAX_PARENTS = 20
_MAX_DEPTH = 3
"""Levels of indexes that are searched for one that a rule sends: a manifest goes where an index that lists it goes."""

_PAGE = 50


class PeerReads:
    """What peers may read of one node's content before replication brings it to them."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def may_read_blob(self, peer: NodeId, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether a rule sends an image of `repository`, its name here, that refers to this blob to `peer`."""
        settings, after = self._node.settings, ""
        if not any(peer in rule.destinations and rule.matches(repository) for rule in settings.replication_rules):
            return False
        while True:
            found = await self._node.database.read(_holders(settings, peer, repository, digest, after))
            if found is None or found.is_sent:
                return found is not None
            after = found.last
            await asyncio.sleep(0)  # reads of SQLite hold up the loop, and a base layer may have many holders


@dataclass(frozen=True, slots=True)
class _Holders:
    """Some images that refer to a blob: whether a rule sends one of them, and which was the last."""

    is_sent: bool
    last: str


def _holders(
    settings: RegistrySettings, peer: NodeId, repository: RepositoryName, digest: Digest, after: str
) -> Steps[_Holders | None]:
    """Look at the next images that refer to a blob; None when there are no more."""
    found = yield from images.with_blob(repository, digest, after, _PAGE)
    for image in found:
        rule = yield from _rule_of(settings, peer, repository, None, image, _MAX_DEPTH)
        if rule is not None:
            return _Holders(True, image)
    return _Holders(False, found[-1]) if found else None


def find_image(
    settings: RegistrySettings, peer: NodeId, repository: RepositoryName, reference: Reference
) -> Steps[Delivery | None]:
    """Return the image that a rule sends to `peer`'s repository of this name, or None when none does.

    The delivery names the repository as it is called here, where its blobs are to be had. Of an index it holds the
    manifests that the rule wants.
    """
    for name in sources_of(settings.replication_rules, peer, repository):
        found = yield from _find(settings, peer, name, repository, reference)
        if found is not None:
            return found
    return None


def sources_of(
    rules: Iterable[ReplicationRule], peer: NodeId, repository: RepositoryName
) -> tuple[RepositoryName, ...]:
    """Return the repositories here that rules call `repository` at `peer`."""
    found: dict[RepositoryName, None] = {}
    for rule in rules:
        if peer in rule.destinations:
            candidates = [repository]
            candidates += [
                RepositoryName(rename.prefix + repository.removeprefix(rename.to))
                for rename in rule.rename
                if repository.startswith(rename.to)
            ]
            found.update(
                dict.fromkeys(name for name in candidates if rule.matches(name) and rule.renamed(name) == repository)
            )
    return tuple(found)


def _find(
    settings: RegistrySettings, peer: NodeId, name: RepositoryName, target: RepositoryName, reference: Reference
) -> Steps[Delivery | None]:
    digest, tag, register = as_digest(reference), None, None
    if digest is None:
        tag = Tag(reference)
        register = yield from tags.find(name, tag)
        if register is None or register.digest is None:
            return None
        digest = register.digest
        rule = yield from _planned(settings, peer, name, target, digest, (tag,))
    else:
        rule = yield from _rule_of(settings, peer, name, target, digest, _MAX_DEPTH)
    image = yield from images.find_listed(name, digest)
    if rule is None or image is None:
        return None
    offered = None if tag is None or register is None else OfferedTag(tag, register)
    return (yield from _delivery(name, image, offered, rule))


def _rule_of(
    settings: RegistrySettings,
    peer: NodeId,
    name: RepositoryName,
    target: RepositoryName | None,
    digest: Digest,
    depth: int,
) -> Steps[ReplicationRule | None]:
    """Return the rule that sends an image: under a tag, without one, or as a part of an index."""
    names = yield from tags.of_digest(name, digest)
    rule = yield from _planned(settings, peer, name, target, digest, tuple(names))
    if rule is None:
        rule = yield from _begun(settings, peer, name, target, digest)
    if rule is not None or depth == 0:
        return rule
    for parent in (yield from images.parents(name, digest, _MAX_PARENTS)):
        above = yield from _rule_of(settings, peer, name, target, parent, depth - 1)
        if above is not None and (yield from _wants(above, name, parent, digest)):
            return above
    return None


def _planned(
    settings: RegistrySettings,
    peer: NodeId,
    name: RepositoryName,
    target: RepositoryName | None,
    digest: Digest,
    names: tuple[Tag, ...],
) -> Steps[ReplicationRule | None]:
    """Return the rule that sends an image under one of these tags, or without a tag where there are none.

    One that may have lost a tag which the rule leaves out is not among these: whether it goes is for `_begun` to tell.
    """
    image = yield from images.find_listed(name, digest)
    if image is None:
        return None
    came_from = None if image.source is None else parse_node(image.source)
    change = Change(name, digest, names, image.origin, image.subject is not None, came_from)
    for each, _ in plan_replication(settings.replication_rules, settings.node, change):
        rule = _named(settings, each.rule) if each.destination == peer else None
        is_plain = names or change.is_referrer or (rule is not None and not rule.excluded_tags)
        if rule is not None and is_plain and target in {None, each.target_repository}:
            return rule
    return None


def _begun(
    settings: RegistrySettings, peer: NodeId, name: RepositoryName, target: RepositoryName | None, digest: Digest
) -> Steps[ReplicationRule | None]:
    """Return the rule by which an image was sent before, under a tag or none, if that rule still says so."""
    for row in (yield from replication_status.of_image(name, digest)):
        rule = _named(settings, row.rule)
        is_there = row.destination == str(peer) and target in {None, row.target or row.repository}
        if rule is not None and is_there and peer in rule.destinations and rule.matches(name):
            image = yield from images.find_listed(name, digest)
            if image is not None and rule.matches_tag(row.tag, is_referrer=image.subject is not None):
                return rule
    return None


def _named(settings: RegistrySettings, name: str) -> ReplicationRule | None:
    return next((rule for rule in settings.replication_rules if rule.name == name), None)


def _wants(rule: ReplicationRule, name: RepositoryName, index: Digest, child: Digest) -> Steps[bool]:
    """Tell whether a rule that sends an index sends this manifest of it along."""
    found = yield from images.find(name, index)
    if found is None:
        return False
    listed = parse_manifest(found.content, found.media_type).manifests
    return any(one.digest == child and rule.wants_platform(one.platform) for one in listed)


def _delivery(
    name: RepositoryName, image: ListedImage, tag: OfferedTag | None, rule: ReplicationRule
) -> Steps[Delivery]:
    """Return the image with everything below it that the rule wants; of a very large graph, the image alone."""
    graph: dict[Digest, SentManifest] = {}
    blobs: dict[Digest, None] = {}
    yield from _collect(name, image.digest, rule, graph, blobs)
    sent = tuple(graph.values())
    if sum(len(each.content) for each in sent) > MAX_SENT_BYTES:
        sent = sent[-1:]
    return Delivery(name, sent, image.revision, image.digest, tag, tuple(graph), tuple(blobs))


def _collect(
    name: RepositoryName,
    digest: Digest,
    rule: ReplicationRule,
    graph: dict[Digest, SentManifest],
    blobs: dict[Digest, None],
) -> Steps[None]:
    """Add a manifest of this repository after its children; a digest cannot lie below itself."""
    found = yield from images.find(name, digest)
    if found is None or digest in graph:
        return
    parsed = parse_manifest(found.content, found.media_type)
    for child in parsed.manifests:
        if rule.wants_platform(child.platform):
            yield from _collect(name, child.digest, rule, graph, blobs)
    blobs.update(dict.fromkeys(parsed.required_blobs))
    graph[digest] = SentManifest(found.digest, found.media_type, found.content)
