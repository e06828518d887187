"""What a sync would bring to the destinations, and why, before it is done; and doing exactly that.

A plan is made by comparing both sides, so it costs nothing where nothing differs, and says of each image by which rule
it goes, how many bytes would be sent after what is there already, and which permission is missing. Carrying it out is
a backfill of these images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput, ManifestNotFound, PermissionMissing
from replicator.core.names import NodeId, Tag
from replicator.core.reference import as_digest, as_tag
from replicator.core.replication import ReplicateImage
from replicator.registry.stored_repositories import require_repository
from replicator.replication.comparison import NOTHING, Comparison, as_list, require_destination
from replicator.replication.failures import DestinationUnknown
from replicator.storage.metadata import images, tags
from replicator.transfer.push_image import for_each

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from replicator.core.destinations import DestinationId
    from replicator.core.digest import Digest
    from replicator.core.drift import DriftKind
    from replicator.core.names import RepositoryName
    from replicator.core.peer_messages import HeldImage
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.replication.backfill import Backfills
    from replicator.replication.background import BackgroundWork
    from replicator.replication.comparison import ComparedPeer, ComparedRegistry, Finding, Side
    from replicator.replication.expected import ExpectedImage
    from replicator.replication.peers import PeerDirectory
    from replicator.storage.metadata.statement import Steps
    from replicator.transfer.push_image import ContentSource

_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class SyncItem:
    """One image, under one tag or none, that differs at a destination.

    `bytes` are those that would have to be sent, each blob counted once for a destination; None where the destination
    cannot say. `missing_permission` is what the destination's registry policy would have to allow. What is not
    `repairable` was deleted or moved at the destination since, and stays so.
    """

    kind: DriftKind
    repository: RepositoryName
    target: RepositoryName
    digest: Digest
    tag: Tag | None
    destination: DestinationId
    rule: str
    bytes: int | None
    missing_permission: str | None
    repairable: bool
    work: BackgroundWork | None


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked for: everything, one repository, or one image of it with one tag or all of them."""

    repository: RepositoryName | None = None
    digest: Digest | None = None
    tag: Tag | None = None


class Sync:
    """The syncs of one node."""

    def __init__(
        self, node: RegistryNode, source: ContentSource, destinations: PeerDirectory, backfills: Backfills
    ) -> None:
        self._node = node
        self._source = source
        self._destinations = destinations
        self._backfills = backfills

    async def plan(
        self,
        repository: RepositoryName | None = None,
        reference: Reference | None = None,
        destination: DestinationId | None = None,
    ) -> list[SyncItem]:
        """Return what differs at one destination or all of them, of everything, one repository, or one image of it.

        Raises RepositoryNotFound, ManifestNotFound, InvalidInput when no rule names the destination, and an
        UpstreamError when a destination cannot be asked: what it lacks is not known then.
        """
        wanted = await self._node.database.read(_wanted(self._node, repository, reference))
        if destination is not None:
            require_destination(Comparison(self._node, self._source, destination).expectation)
        chosen = [destination] if destination is not None else self._all_destinations()
        return [item for one in chosen for item in await self._plan(one, wanted)]

    async def execute(self, items: Sequence[SyncItem]) -> str:
        """Have everything that can be mended mended; return the id of the backfill that does. Raises BackfillLimit."""
        work = [item.work for item in items if item.work is not None]
        destinations = {str(item.destination) for item in items}
        repositories = {item.repository for item in items}
        return await self._backfills.start_sync(
            work,
            destinations.pop() if len(destinations) == 1 else "",
            repositories.pop() if len(repositories) == 1 else None,
        )

    def _all_destinations(self) -> list[DestinationId]:
        rules = self._node.settings.replication_rules
        found = dict.fromkeys(one for rule in rules for one in rule.destinations)
        return [one for one in found if one != self._node.settings.node]

    async def _plan(self, destination: DestinationId, wanted: _Wanted) -> list[SyncItem]:
        comparison = Comparison(self._node, self._source, destination)
        if isinstance(destination, NodeId):
            peer = self._destinations.find(destination)
            if peer is not None:
                return await _PeerPlan(comparison, peer, wanted).items()
        else:
            registry = self._destinations.find(destination)
            if registry is not None:
                return await _registry_items(comparison, registry, wanted)
        raise DestinationUnknown


def _wanted(node: RegistryNode, repository: RepositoryName | None, reference: Reference | None) -> Steps[_Wanted]:
    if repository is None:
        if reference is not None:
            raise InvalidInput("expected a repository with the reference")
        return _Wanted()
    yield from require_repository(node, repository)
    if reference is None:
        return _Wanted(repository)
    digest, tag = as_digest(reference), as_tag(reference)
    if digest is None:
        register = yield from tags.find(repository, Tag(reference))
        digest = register.digest if register is not None else None
    if digest is None or (yield from images.find_origin(repository, digest)) is None:
        raise ManifestNotFound(f"repository {repository} has no manifest {reference}")
    return _Wanted(repository, digest, tag)


async def _side(
    comparison: Comparison, wanted: _Wanted, target: RepositoryName, sources: Iterable[RepositoryName]
) -> Side:
    if wanted.digest is not None:
        return await comparison.image_side(target, sources, wanted.digest, wanted.tag)
    return await comparison.side(target, sources)


class _PeerPlan:
    """What one sync would bring to another node."""

    def __init__(self, comparison: Comparison, peer: ComparedPeer, wanted: _Wanted) -> None:
        self._comparison = comparison
        self._peer = peer
        self._wanted = wanted
        self._missing: dict[str, str] = {}
        """Permissions that are missing, by repository at the destination."""
        self._lacking: dict[int, Mapping[Digest, int]] = {}
        """Blobs that are lacking there with the bytes to send, by the position of the finding."""

    async def items(self) -> list[SyncItem]:
        """Return what differs."""
        hashes = await self._comparison.hashes(self._peer) if self._wanted.repository is None else None
        findings: list[Finding] = []
        for target, sources in (await self._comparison.sources(self._wanted.repository)).items():
            side = await _side(self._comparison, self._wanted, target, sources)
            if hashes is None or hashes.get(target, NOTHING) != side.fingerprint:
                findings += await self._findings(side, sources)
        await for_each(list(enumerate(findings)), _AT_ONCE, self._measure)
        counted: set[Digest] = set()
        return [self._item(position, one, counted) for position, one in enumerate(findings)]

    async def _findings(self, side: Side, sources: Sequence[RepositoryName]) -> list[Finding]:
        if self._wanted.digest is None:
            await self._comparison.add_deletions(side, sources)
        found = self._comparison.findings(side, await self._held(side))
        if found or self._wanted.digest is None or side.target in self._missing:
            return found
        for image in side.images.values():
            found += as_list(await self._comparison.content_finding(self._peer, image))
        return found

    async def _held(self, side: Side) -> list[HeldImage]:
        try:
            return await self._comparison.held(self._peer, side.target)
        except PermissionMissing as error:
            self._missing[side.target] = error.permission
            return []

    async def _measure(self, numbered: tuple[int, Finding]) -> None:
        position, finding = numbered
        if finding.work is None or not isinstance(finding.work.image, ReplicateImage):
            return
        offer = await self._comparison.offer_of(finding.work.image, finding.rule)
        if offer is None:
            return
        sizes = {blob.digest: blob.size for blob in offer.blobs}
        try:
            lacks = await self._peer.offer(offer)
        except PermissionMissing as error:
            self._missing[finding.target] = error.permission
            self._lacking[position] = sizes
            return
        self._lacking[position] = {one.digest: max(0, sizes.get(one.digest, 0) - one.offset) for one in lacks.blobs}

    def _item(self, position: int, finding: Finding, counted: set[Digest]) -> SyncItem:
        lacking = self._lacking.get(position, {})
        size = sum(size for digest, size in lacking.items() if digest not in counted)
        counted.update(lacking)
        missing = self._missing.get(finding.target) if finding.work is not None else None
        return _as_item(finding, self._comparison.destination, size, missing)


async def _registry_items(comparison: Comparison, registry: ComparedRegistry, wanted: _Wanted) -> list[SyncItem]:
    findings: list[Finding] = []

    async def look(image: ExpectedImage) -> None:
        findings.extend(as_list(await comparison.registry_finding(registry, image)))

    for target, sources in (await comparison.sources(wanted.repository)).items():
        side = await _side(comparison, wanted, target, sources)
        await for_each([one for one in side.images.values() if one.carrier is None], _AT_ONCE, look)
    findings.sort(key=lambda one: (one.repository, one.tag or "", one.digest))
    return [_as_item(finding, comparison.destination, None, None) for finding in findings]


def _as_item(finding: Finding, destination: DestinationId, size: int | None, missing: str | None) -> SyncItem:
    return SyncItem(
        finding.kind,
        finding.repository,
        finding.target,
        finding.digest,
        finding.tag,
        destination,
        finding.rule.name,
        size,
        missing,
        finding.work is not None,
        finding.work,
    )
