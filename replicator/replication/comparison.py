"""Compares what the rules say a destination should hold with what it holds, and says what would mend each difference.

Another node is asked for fingerprints first, one line for each repository, then for the listing of those that differ.
A registry of somebody else has no revisions and no fingerprints: its tags are asked for one by one, and since it is
for the source to say what they point to there, whatever differs is to be mended. What was deleted here stays there.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from replicator.core.delivery import ImageOutcome
from replicator.core.drift import REPAIRABLE, Drift, DriftKind, find_drift, fingerprint
from replicator.core.errors import InvalidInput, ManifestNotFound, UpstreamContent, UpstreamNotFound
from replicator.core.peer_messages import Offer, OfferedBlob
from replicator.core.replication import DeleteReplica
from replicator.replication.attempt import find_state
from replicator.replication.background import BackgroundWork
from replicator.replication.expected import Expectation, ExpectedDeletion, ExpectedImage
from replicator.replication.graph import GraphReader
from replicator.replication.source import OwnContent
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from replicator.core.destinations import DestinationId
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.peer_messages import HeldImage, Lacks, RepositoryHash
    from replicator.core.reference import Reference
    from replicator.core.replication import ReplicateImage, ReplicationRule
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps
    from replicator.transfer.push_image import ContentSource
    from replicator.upstream.client import ManifestHead

T = TypeVar("T")

PAGE = 100
"""Images in one read."""

_LINES = 1000
_NAMES = 1000
MAX_HELD = 500_000
"""Lines that a destination is listened to: more than a repository has, so that none can talk for ever."""

NOTHING = fingerprint(())
"""The fingerprint of a repository that holds nothing of ours, or is not there."""

Place = tuple["Tag | None", "Digest | None"]


class ComparedPeer(Protocol):
    """What a comparison asks of another node; everything raises UpstreamErrors."""

    async def hashes(self, after: str = "", limit: int = 1000) -> list[RepositoryHash]:
        """Return fingerprints of what it holds from us."""
        ...

    async def listing(self, repository: RepositoryName, after: str = "", limit: int = 1000) -> list[HeldImage]:
        """Return lines of a repository's listing."""
        ...

    async def offer(self, offer: Offer) -> Lacks:
        """Return what of an image is missing there."""
        ...


class ComparedRegistry(Protocol):
    """What a comparison asks of a registry of somebody else; everything raises UpstreamErrors."""

    async def head_manifest(self, repository: RepositoryName, reference: Reference) -> ManifestHead:
        """Return what it holds under a reference."""
        ...

    async def find_tag(self, repository: RepositoryName, tag: Tag) -> Digest | None:
        """Return the digest of what a tag gives, read in full."""
        ...


@dataclass(frozen=True, slots=True)
class Finding:
    """One difference. `work` mends it; None where nothing may, because the destination's own later write counts."""

    kind: DriftKind
    repository: RepositoryName
    target: RepositoryName
    digest: Digest
    tag: Tag | None
    rule: ReplicationRule
    work: BackgroundWork | None


@dataclass(slots=True)
class Side:
    """What one repository of a destination should hold, and should hold no longer, by places: tag and digest."""

    target: RepositoryName
    images: dict[Place, ExpectedImage] = field(default_factory=dict)
    lines: dict[Place, HeldImage] = field(default_factory=dict)
    deletions: dict[Place, ExpectedDeletion] = field(default_factory=dict)

    def add(self, images: Iterable[ExpectedImage]) -> None:
        """Take in what is expected there."""
        for image in images:
            if image.target == self.target:
                self.images.setdefault((image.tag, image.digest), image)
                for line in image.lines():
                    self.lines.setdefault((line.tag, line.digest), line)

    def add_deletions(self, deletions: Iterable[ExpectedDeletion]) -> None:
        """Take in what is expected to be gone there."""
        for one in deletions:
            if one.target == self.target:
                self.deletions.setdefault((one.tag, one.digest), one)

    @property
    def fingerprint(self) -> str:
        """The fingerprint that the destination's should be."""
        return fingerprint(self.lines.values())


class Comparison:
    """One comparison of this node with one destination. Methods raise UpstreamErrors and StorageErrors."""

    def __init__(self, node: RegistryNode, source: ContentSource, destination: DestinationId) -> None:
        self.destination = destination
        self.expectation = Expectation(node.settings, destination)
        self._node = node
        self._content = OwnContent(source)

    async def read(self, steps: Steps[T]) -> T:
        """Read one page; reads of SQLite hold up the loop, so that others have their turn after each."""
        found = await self._node.database.read(steps)
        await asyncio.sleep(0)
        return found

    # What should be there

    async def sources(self, only: RepositoryName | None = None) -> dict[RepositoryName, list[RepositoryName]]:
        """Return the destination's repositories with those of this node that go there, in order of name."""
        found: dict[RepositoryName, list[RepositoryName]] = {}
        after: str | None = ""
        while after is not None:
            names = [only] if only else await self.read(repositories.names_after(after, _NAMES))
            after = names[-1] if len(names) == _NAMES else None
            for name in names:
                for target in self.expectation.targets(name):
                    found.setdefault(target, []).append(name)
        return dict(sorted(found.items()))

    async def side(self, target: RepositoryName, sources: Iterable[RepositoryName]) -> Side:
        """Return what `target` should hold of the repositories that go there."""
        side = Side(target)
        for source in sources:
            after: str | None = ""
            while after is not None:
                page = await self.read(self.expectation.page(source, after, PAGE))
                side.add(page.images)
                after = page.after
        return side

    async def image_side(
        self, target: RepositoryName, sources: Iterable[RepositoryName], digest: Digest, tag: Tag | None
    ) -> Side:
        """Return what `target` should hold of one image, under one tag or all that it has."""
        side = Side(target)
        for source in sources:
            found = await self.read(self.expectation.of_image(source, digest, asked_for=True))
            side.add(one for one in found if tag is None or one.tag == tag)
        return side

    async def add_deletions(self, side: Side, sources: Iterable[RepositoryName]) -> None:
        """Add what `sources` deleted and the rules delete there, except what another of them still sends there."""
        for source in sources:
            for list_page in (self.expectation.deletions, self.expectation.tag_deletions):
                after: str | None = ""
                while after is not None:
                    deletions, after = await self.read(list_page(source, after, _LINES))
                    side.add_deletions(deletions)
        kept = {tag for tag, _ in side.lines if tag is not None}, {digest for _, digest in side.lines}
        side.deletions = {
            (tag, digest): one
            for (tag, digest), one in side.deletions.items()
            if tag not in kept[0] and (digest is None or digest not in kept[1])
        }

    # What another node holds

    async def hashes(self, peer: ComparedPeer) -> Mapping[RepositoryName, str]:
        """Return the fingerprints of all repositories that hold something of ours."""
        found: dict[RepositoryName, str] = {}
        after = ""
        while True:
            page = await peer.hashes(after, _NAMES)
            found |= {one.repository: one.fingerprint for one in page}
            _check_count(len(found))
            if len(page) < _NAMES or page[-1].repository <= after:
                return found
            after = page[-1].repository

    async def held(self, peer: ComparedPeer, target: RepositoryName) -> list[HeldImage]:
        """Return the listing of a repository."""
        found: list[HeldImage] = []
        after = ""
        while True:
            page = await peer.listing(target, after, _LINES)
            found += page
            _check_count(len(found))
            if len(page) < _LINES or page[-1].cursor == after:
                return found
            after = page[-1].cursor

    def findings(self, side: Side, held: Sequence[HeldImage]) -> list[Finding]:
        """Return how `held` differs from what should be there, each (image, tag) pair once."""
        deletions = [one.line() for one in side.deletions.values()]
        drifts = find_drift([*side.lines.values(), *deletions], held, delete_replication=True)
        places = {(one.tag, one.digest): one for one in held}
        gone = {one.digest for one in drifts if one.tag is None and one.kind is DriftKind.DELETED_THERE}
        brought = REPAIRABLE - {DriftKind.NOT_DELETED}
        tagged = {one.digest for one in drifts if one.tag is not None and one.kind in brought}
        found: dict[tuple[object, ...], Finding] = {}
        for drift in drifts:
            if drift.kind is DriftKind.NOT_DELETED:
                finding = self._deletion(side, drift, places)
            elif drift.tag is None and drift.digest in tagged:
                continue  # the image comes with its tag
            else:
                finding = _image_finding(side, drift, is_deleted_there=drift.digest in gone)
            if finding is not None:
                found.setdefault(_key(finding), finding)
        return list(found.values())

    def _deletion(self, side: Side, drift: Drift, held: Mapping[Place, HeldImage]) -> Finding | None:
        """Return what deletes a replica. One that came from elsewhere is deleted from there, unless the rule chains."""
        one = side.deletions.get((drift.tag, None if drift.tag is not None else drift.digest))
        there = held.get((drift.tag, drift.digest))
        if one is None or there is None:
            return None
        if there.revision.node != str(self._node.settings.node) and not one.rule.chain:
            return None
        renamed = None if one.target == one.repository else one.target
        task = DeleteReplica(
            one.repository, drift.digest, drift.tag, self.destination, one.rule.name, drift.revision, renamed
        )
        work = BackgroundWork(task, one.rule.priority)
        return Finding(drift.kind, one.repository, one.target, drift.digest, drift.tag, one.rule, work)

    # What is behind the rows

    async def offer_of(self, replication: ReplicateImage, rule: ReplicationRule) -> Offer | None:
        """Return the offer of an image, without blobs that may live elsewhere; None when it is gone here."""
        repository, digest = replication.repository, replication.digest
        try:
            state = await self.read(find_state(repository, digest, replication.tag))
            graph = await GraphReader(self._content, rule).read(repository, digest)
        except ManifestNotFound:
            return None
        blobs = tuple(OfferedBlob(one.digest, one.size) for one in graph.blobs.values() if not one.is_foreign)
        manifests = tuple(graph.manifests)
        return Offer(replication.target_repository, digest, state.revision, manifests, blobs, state.tag)

    async def content_finding(self, peer: ComparedPeer, image: ExpectedImage) -> Finding | None:
        """Return that an image which is there lacks some of what it refers to."""
        offer = await self.offer_of(image.replication, image.rule)
        if offer is None:
            return None
        lacks = await peer.offer(offer)
        is_whole = not lacks.manifests and (not lacks.blobs or lacks.accepts_sparse_image)
        if lacks.image is ImageOutcome.DELETED or is_whole:
            return None
        return _finding(image, DriftKind.MISSING_CONTENT)

    # What a registry of somebody else holds

    async def registry_finding(self, registry: ComparedRegistry, image: ExpectedImage) -> Finding | None:
        """Return how an image's tag, or the image, differs at a registry."""
        reference = image.tag or image.digest
        try:
            digest = (await registry.head_manifest(image.target, reference)).digest
        except UpstreamNotFound:
            return _finding(image, DriftKind.MISSING_TAG if image.tag is not None else DriftKind.MISSING_IMAGE)
        if digest is None and image.tag is not None:
            digest = await registry.find_tag(image.target, image.tag)
        return None if digest in {None, image.digest} else _finding(image, DriftKind.OTHER_DIGEST)


def _check_count(count: int) -> None:
    if count > MAX_HELD:
        raise UpstreamContent(f"the destination lists more than {MAX_HELD} lines")


def _image_finding(side: Side, drift: Drift, *, is_deleted_there: bool) -> Finding | None:
    image = side.images.get((drift.tag, drift.digest))
    if image is None:  # an image whose tags are all there, only it is not
        image = next((one for (_, digest), one in side.images.items() if digest == drift.digest), None)
    if image is None:
        return None
    return _finding(image, DriftKind.DELETED_THERE if is_deleted_there else drift.kind)


def _finding(image: ExpectedImage, kind: DriftKind) -> Finding:
    work = BackgroundWork(image.replication, image.rule.priority) if kind in REPAIRABLE else None
    if image.carrier is None:
        return Finding(kind, image.repository, image.target, image.digest, image.tag, image.rule, work)
    # An image of an index is mended by sending the index once more.
    kind = DriftKind.MISSING_CONTENT if kind is DriftKind.MISSING_IMAGE else kind
    digest, tag = image.carrier
    return Finding(kind, image.repository, image.target, digest, tag, image.rule, work)


def as_list(finding: Finding | None) -> list[Finding]:
    """Return one finding or none as a list."""
    return [] if finding is None else [finding]


def _key(finding: Finding) -> tuple[object, ...]:
    """Return what may be found once only: one piece of work, or one difference that is let be."""
    return finding.repository, finding.tag, finding.tag or finding.digest, finding.work is None


def require_destination(expectation: Expectation) -> None:
    """Raise InvalidInput when no rule names the destination."""
    if not expectation.rules:
        raise InvalidInput(f"expected a destination of the replication configuration, got {expectation.destination}")
