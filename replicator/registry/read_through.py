"""An image of ours for a peer that was asked for it before our rules have brought it: the source side of read-through.

Only what a rule sends to that very peer is shown, under the name that the rule gives it there: the same plan that
replicates an image authorises its early copy. Everything else looks as if it were not here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.manifest import parse_manifest
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.peer_messages import Delivery, OfferedTag, SentManifest
from replicator.core.reference import as_digest
from replicator.core.replication import Change, ReplicationRule, plan_replication
from replicator.registry.deliveries import MAX_SENT_BYTES
from replicator.storage.metadata import images, tags

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.digest import Digest
    from replicator.core.reference import Reference
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.images import ListedImage
    from replicator.storage.metadata.statement import Steps

_MAX_PARENTS = 20
_MAX_DEPTH = 3
"""Levels of indexes that are searched for one that a rule sends: a manifest goes where an index that lists it goes."""


def find_image(
    settings: RegistrySettings, peer: NodeId, repository: RepositoryName, reference: Reference
) -> Steps[Delivery | None]:
    """Return the image that a rule sends to `peer`'s repository of this name, or None when none does.

    The delivery names the repository as it is called here, where its blobs are to be had.
    """
    for name in sources_of(settings.replication_rules, peer, repository):
        found = yield from _find(settings, peer, name, repository, reference)
        if found is not None:
            return found
    return None


def may_pull(settings: RegistrySettings, peer: NodeId, repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Tell whether a rule sends an image of this repository, or an index that lists it, to `peer`."""
    return (yield from _may_pull(settings, peer, repository, None, digest, _MAX_DEPTH))


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
        allowed = yield from _is_sent(settings, peer, name, target, digest, (tag,))
    else:
        allowed = yield from _may_pull(settings, peer, name, target, digest, _MAX_DEPTH)
    image = yield from images.find_listed(name, digest)
    if not allowed or image is None:
        return None
    return (yield from _delivery(name, image, None if tag is None or register is None else OfferedTag(tag, register)))


def _may_pull(
    settings: RegistrySettings,
    peer: NodeId,
    name: RepositoryName,
    target: RepositoryName | None,
    digest: Digest,
    depth: int,
) -> Steps[bool]:
    names = yield from tags.of_digest(name, digest)
    for wanted in (tuple(names), ()):
        if (yield from _is_sent(settings, peer, name, target, digest, wanted)):
            return True
    if depth == 0:
        return False
    for parent in (yield from images.parents(name, digest, _MAX_PARENTS)):
        if (yield from _may_pull(settings, peer, name, target, parent, depth - 1)):
            return True
    return False


def _is_sent(
    settings: RegistrySettings,
    peer: NodeId,
    name: RepositoryName,
    target: RepositoryName | None,
    digest: Digest,
    names: tuple[Tag, ...],
) -> Steps[bool]:
    image = yield from images.find_listed(name, digest)
    if image is None:
        return False
    came_from = None if image.source is None else parse_node(image.source)
    change = Change(name, digest, names, image.origin, image.subject is not None, came_from)
    planned = plan_replication(settings.replication_rules, settings.node, change)
    return any(each.destination == peer and target in {None, each.target_repository} for each, _ in planned)


def _delivery(name: RepositoryName, image: ListedImage, tag: OfferedTag | None) -> Steps[Delivery]:
    """Return the image with everything below it; of a very large graph, the image alone."""
    graph: dict[Digest, SentManifest] = {}
    blobs: dict[Digest, None] = {}
    yield from _collect(name, image.digest, graph, blobs)
    sent = tuple(graph.values())
    if sum(len(each.content) for each in sent) > MAX_SENT_BYTES:
        sent = sent[-1:]
    return Delivery(name, sent, image.revision, image.digest, tag, tuple(graph), tuple(blobs))


def _collect(
    name: RepositoryName, digest: Digest, graph: dict[Digest, SentManifest], blobs: dict[Digest, None]
) -> Steps[None]:
    """Add a manifest of this repository after its children; a digest cannot lie below itself."""
    found = yield from images.find(name, digest)
    if found is None or digest in graph:
        return
    parsed = parse_manifest(found.content, found.media_type)
    for child in parsed.children:
        yield from _collect(name, child, graph, blobs)
    blobs.update(dict.fromkeys(parsed.required_blobs))
    graph[digest] = SentManifest(found.digest, found.media_type, found.content)
