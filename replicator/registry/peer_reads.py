"""An image of ours for a peer that was asked for it before our rules have brought it: the source side of read-through.

Only what a rule sends to that very peer is shown, under the name that the rule gives it there: the same plan that
replicates an image, with its tags and platforms, authorises the early copy of its manifests and of its blobs.
Everything else looks as if it were not here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.cache_rules import ROOT, covering_rule, match_cache_rule
from replicator.core.manifest import parse_manifest
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.peer_messages import MAX_ITEMS, Delivery, OfferedTag, SentManifest
from replicator.core.reference import as_digest
from replicator.core.replication import Change, ReplicationRule, plan_replication
from replicator.registry.deliveries import MAX_SENT_BYTES
from replicator.registry.ownership import is_own
from replicator.storage.metadata import images, replication_status, repositories, tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.digest import Digest
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.database import Database
    from replicator.storage.metadata.images import ListedImage
    from replicator.storage.metadata.statement import Steps

_MAX_PARENTS = 20
_MAX_DEPTH = 3
"""Levels of indexes that are searched for one that a rule sends: a manifest goes where an index that lists it goes."""

_MAX_ASKED = 40
"""Indexes that are looked at for one manifest, however many list it: all of it is one read."""

_PAGE = 50


class PeerReads:
    """What peers may read of one node's content before replication brings it to them."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    def may_pull_through(self, peer: NodeId, repository: RepositoryName) -> bool:
        """Tell whether the cache fills a repository for `peer`, too.

        Not one that users may push into: the peer would take what was pushed here for the upstream's.
        """
        settings = self._node.settings
        match = match_cache_rule(settings.cache_rules, repository)
        if match is None or match.rule.accept_pushes:
            return False
        return peer.account == settings.node.account or peer in settings.serve_to

    async def is_own(self, repository: RepositoryName) -> bool:
        """Tell whether a repository was not made by the cache, although the rule for all names covers it."""
        rule = covering_rule(self._node.settings.cache_rules, repository)
        if rule is None or rule.prefix != ROOT:
            return False
        return is_own(await self._node.database.read(repositories.find(repository)))

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


async def find_image(
    database: Database, settings: RegistrySettings, peer: NodeId, repository: RepositoryName, reference: Reference
) -> Delivery | None:
    """Return the image that a rule sends to `peer`'s repository of this name, or None when none does.

    The delivery names the repository as it is called here, where its blobs are to be had. Of an index it holds the
    manifests that the rule wants.
    """
    for name in sources_of(settings.replication_rules, peer, repository):
        shown = await database.read(_find(settings, peer, name, repository, reference))
        if shown is not None:
            return await _delivery(database, shown)
    return None


@dataclass(frozen=True, slots=True)
class _Shown:
    """An image that a rule sends to whoever asks, in the repository `name` of this node."""

    name: RepositoryName
    image: ListedImage
    tag: OfferedTag | None
    rule: ReplicationRule


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
) -> Steps[_Shown | None]:
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
    return _Shown(name, image, offered, rule)


def _rule_of(
    settings: RegistrySettings,
    peer: NodeId,
    name: RepositoryName,
    target: RepositoryName | None,
    digest: Digest,
    depth: int,
    asked: set[Digest] | None = None,
) -> Steps[ReplicationRule | None]:
    """Return the rule that sends an image: under a tag, without one, or as a part of an index; `asked` were already."""
    asked = set() if asked is None else asked
    asked.add(digest)
    names = yield from tags.of_digest(name, digest)
    rule = yield from _planned(settings, peer, name, target, digest, tuple(names))
    if rule is None:
        rule = yield from _begun(settings, peer, name, target, digest)
    if rule is not None or depth == 0:
        return rule
    for parent in (yield from images.parents(name, digest, _MAX_PARENTS)):
        if parent in asked or len(asked) > _MAX_ASKED:
            continue
        above = yield from _rule_of(settings, peer, name, target, parent, depth - 1, asked)
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
    if not rule.platforms:
        return True
    found = yield from images.find(name, index)
    if found is None:
        return False
    listed = parse_manifest(found.content, found.media_type).manifests
    return any(one.digest == child and rule.wants_platform(one.platform) for one in listed)


async def _delivery(database: Database, shown: _Shown) -> Delivery | None:
    """Return the image with everything below it that the rule wants; of a very large graph, the image alone.

    None for a graph that no message can name.
    """
    graph = _Graph(database, shown)
    if not await graph.read():
        return None
    image = shown.image
    return Delivery(
        shown.name, graph.sent(), image.revision, image.digest, shown.tag, tuple(graph.manifests), tuple(graph.blobs)
    )


class _Graph:
    """What an image consists of, read a manifest at a time: others have their turn after each, however many."""

    def __init__(self, database: Database, shown: _Shown) -> None:
        self.manifests: dict[Digest, None] = {}
        self.blobs: dict[Digest, None] = {}
        self._database = database
        self._shown = shown
        self._contents: dict[Digest, SentManifest] = {}
        self._size = 0

    def sent(self) -> tuple[SentManifest, ...]:
        """Return the manifests that fit into one message, children first."""
        return tuple(self._contents[digest] for digest in self.manifests if digest in self._contents)

    async def read(self) -> bool:
        """Read all of it; return False when it is too much for a message."""
        known: set[Digest] = set()
        path: list[tuple[Digest, bool]] = [(self._shown.image.digest, False)]
        while path:
            digest, is_done = path.pop()
            if is_done:
                self.manifests[digest] = None
            elif digest not in known:
                known.add(digest)
                path += await self._open(digest)
            if max(len(known), len(self.blobs)) > MAX_ITEMS:
                return False
        return True

    async def _open(self, digest: Digest) -> list[tuple[Digest, bool]]:
        """Take a manifest in, and return what is to be visited then: its children, and itself after them."""
        found = await self._database.read(images.find(self._shown.name, digest))
        await asyncio.sleep(0)
        if found is None:
            return []
        parsed = parse_manifest(found.content, found.media_type)
        self.blobs.update(dict.fromkeys(parsed.required_blobs))
        self._keep(SentManifest(found.digest, found.media_type, found.content))
        wanted = [one.digest for one in parsed.manifests if self._shown.rule.wants_platform(one.platform)]
        return [(digest, True), *((child, False) for child in dict.fromkeys(reversed(wanted)))]

    def _keep(self, manifest: SentManifest) -> None:
        """Keep a manifest's content as long as all of them fit, and then that of the image alone."""
        self._size += len(manifest.content)
        root = self._shown.image.digest
        if self._size > MAX_SENT_BYTES:
            self._contents = {one: kept for one, kept in self._contents.items() if one == root}
        if manifest.digest == root or self._size <= MAX_SENT_BYTES:
            self._contents[manifest.digest] = manifest
