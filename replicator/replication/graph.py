"""Everything that an image consists of, found at the source before anything is sent.

Children come before the index that lists them. Manifests of an index may be left out, because the rule wants other
platforms or because the source itself lacks them; whether the destination takes such an index is for it to say. The
bytes of an index are never rewritten.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.errors import ManifestNotFound
from replicator.core.manifest import Descriptor, Manifest, parse_manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.replication import ReplicationRule
    from replicator.replication.source import OwnContent
    from replicator.storage.metadata.images import StoredManifest

_KEPT_BYTES = 4 * 1024 * 1024
"""Manifests beyond this are read again when they are sent: neither a huge index nor many referrers fill memory."""


@dataclass(slots=True)
class ImageGraph:
    """One image: its manifests, the image itself last, and the blobs they refer to by digest."""

    manifests: list[Digest] = field(default_factory=list)
    blobs: dict[Digest, Descriptor] = field(default_factory=dict)
    is_sparse: bool = False
    """Whether manifests that an index lists are left out."""
    kept: dict[Digest, StoredManifest] = field(default_factory=dict)
    """Contents of manifests, as far as they are few."""


@dataclass(slots=True)
class _Visit:
    manifest: StoredManifest
    parsed: Manifest
    children: Iterator[Descriptor]


class GraphReader:
    """Walks images of one source, as one rule wants them. One for each attempt, since it bounds what is kept."""

    def __init__(self, content: OwnContent, rule: ReplicationRule) -> None:
        self._content = content
        self._rule = rule
        self._room = _KEPT_BYTES

    async def read(self, repository: RepositoryName, digest: Digest) -> ImageGraph:
        """Return what an image consists of. Raises ManifestNotFound when the source lacks it, StorageError."""
        root = await self._content.find_manifest(repository, digest)
        if root is None:
            raise ManifestNotFound(f"repository {repository} has no manifest {digest}")
        graph = ImageGraph()
        seen = {digest}
        path = [_visit(root)]
        while path:
            visit = path[-1]
            child = next(visit.children, None)
            if child is None:
                path.pop()
                self._add(graph, visit)
            elif child.digest not in seen:
                seen.add(child.digest)
                found = await self._child(repository, child)
                if found is None:
                    graph.is_sparse = True
                else:
                    path.append(_visit(found))
        return graph

    async def _child(self, repository: RepositoryName, child: Descriptor) -> StoredManifest | None:
        if not self._rule.wants_platform(child.platform):
            return None
        return await self._content.find_manifest(repository, child.digest)

    def _add(self, graph: ImageGraph, visit: _Visit) -> None:
        """Add a manifest whose children are there already."""
        manifest = visit.manifest
        graph.manifests.append(manifest.digest)
        for blob in visit.parsed.blobs:
            _prefer_required(graph.blobs, blob)
        size = len(manifest.content)
        if size <= self._room:
            graph.kept[manifest.digest] = manifest
            self._room -= size


def _visit(manifest: StoredManifest) -> _Visit:
    parsed = parse_manifest(manifest.content, manifest.media_type)
    return _Visit(manifest, parsed, iter(parsed.manifests))


def _prefer_required(blobs: dict[Digest, Descriptor], blob: Descriptor) -> None:
    """Remember a blob; where one manifest needs it and another does not, it is needed."""
    if blob.digest not in blobs or blobs[blob.digest].is_foreign:
        blobs[blob.digest] = blob
