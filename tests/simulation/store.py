"""What a node has committed. Every change is checked as it is made; `Violation` says what must never be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.delivery import ImageRegister
from replicator.core.replication import Origin, ReplicationState
from replicator.core.revisions import NEVER, Revision, TagRegister
from tests.simulation.contents import CONTENTS, NAMES, PARENTS

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.jobs import JobKind, NewJob
    from replicator.core.names import NodeId, RepositoryName, Tag
    from replicator.core.replication import DeleteReplica, ReplicateImage

ImageKey = tuple["RepositoryName", "Digest"]
TagKey = tuple["RepositoryName", "Tag"]
JobKey = tuple["JobKind", str]


class Violation(AssertionError):
    """An invariant of the protocol does not hold."""


@dataclass(slots=True)
class Image:
    """A row of `images`."""

    origin: Origin
    revision: Revision
    source: NodeId | None


@dataclass(slots=True)
class JobRow:
    """A row of `jobs`."""

    job: NewJob
    work: ReplicateImage | DeleteReplica
    due: float
    generation: int = 1
    attempts: int = 0
    is_leased: bool = False


@dataclass(slots=True)
class Store:
    """The rows of one node, and beside them what the oracle remembers: acknowledgements and deletions."""

    name: str
    images: dict[ImageKey, Image] = field(default_factory=dict)
    deletions: dict[ImageKey, Revision] = field(default_factory=dict)
    tags: dict[TagKey, TagRegister] = field(default_factory=dict)
    blobs: set[ImageKey] = field(default_factory=set)
    conflicts: set[tuple[RepositoryName, Tag, Digest]] = field(default_factory=set)
    jobs: dict[JobKey, JobRow] = field(default_factory=dict)
    status: dict[tuple[RepositoryName, Digest, Tag | None, str], ReplicationState] = field(default_factory=dict)
    is_changed: bool = False

    acknowledged: set[ImageKey] = field(default_factory=set)
    writes: dict[TagKey, TagRegister] = field(default_factory=dict)
    buried: dict[ImageKey, Revision] = field(default_factory=dict)
    damaged: set[ImageKey] = field(default_factory=set)

    def register(self, repository: RepositoryName, digest: Digest) -> ImageRegister | None:
        """Return what is known of an image."""
        key = (repository, digest)
        found = self.images.get(key)
        if found is not None:
            return ImageRegister(found.origin, found.revision)
        deleted = self.deletions.get(key)
        return None if deleted is None else ImageRegister(None, deleted)

    def put_image(self, key: ImageKey, origin: Origin, revision: Revision, source: NodeId | None) -> None:
        """Store an image: never with a revision older than that of its deletion, or than the one it has."""
        if revision < self.buried.get(key, NEVER):
            raise Violation(
                f"{self.name}: {NAMES[key[1]]} was deleted in {self.buried[key]}, came back with {revision}"
            )
        known = self.images.get(key)
        if known is None:
            self.images[key] = Image(origin, revision, source)
        else:
            if revision < known.revision:
                raise Violation(f"{self.name}: {NAMES[key[1]]} went back from {known.revision} to {revision}")
            known.origin = origin if origin is Origin.DIRECT else known.origin
            known.revision = revision
            known.source = source or known.source
        self.deletions.pop(key, None)
        self.is_changed = True

    def bury(self, key: ImageKey, revision: Revision) -> None:
        """Delete an image, and remember since when."""
        if revision < self.deletions.get(key, NEVER):
            raise Violation(f"{self.name}: the deletion of {NAMES[key[1]]} went back to {revision}")
        self.images.pop(key, None)
        self.deletions[key] = revision
        self.buried[key] = max(revision, self.buried.get(key, NEVER))
        self.is_changed = True

    def set_tag(self, key: TagKey, register: TagRegister) -> None:
        """Store a tag's register, which never goes back."""
        known = self.tags.get(key)
        if known is not None and register.rank < known.rank:
            raise Violation(f"{self.name}: tag {key[1]} went back from {known} to {register}")
        self.tags[key] = register
        self.is_changed = True

    def tags_of(self, repository: RepositoryName, digest: Digest) -> list[Tag]:
        """Return the tags that point to an image."""
        return [tag for (name, tag), one in self.tags.items() if one.digest == digest and name == repository]

    def is_child(self, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether an index here lists an image."""
        return any((repository, parent) in self.images for parent in PARENTS[digest])

    def lacking(self, repository: RepositoryName, parts: tuple[Digest, ...]) -> list[Digest]:
        """Return the blobs that manifests need and this repository does not hold."""
        held = self.blobs
        return [blob for part in parts for blob in CONTENTS[part].blobs if (repository, blob) not in held]

    def is_whole(self, repository: RepositoryName, digest: Digest) -> bool:
        """Tell whether an image is here with all blobs, and its children with theirs."""
        content, held = CONTENTS[digest], self.blobs
        if (repository, digest) not in self.images:
            return False
        if any((repository, blob) not in held for blob in content.blobs):
            return False
        return all(self.is_whole(repository, child) for child in content.children)

    def check(self) -> None:
        """Raise Violation when something is visible that is not whole, or something acknowledged is not there."""
        for repository, digest in self.images:
            self._check_image(repository, digest)
        for (repository, tag), register in self.tags.items():
            if register.digest is not None and (repository, register.digest) not in self.images:
                raise Violation(f"{self.name}: tag {tag} points to {NAMES[register.digest]}, which is not there")
        for key in self.acknowledged:
            if key not in self.images:
                raise Violation(f"{self.name}: {NAMES[key[1]]} was acknowledged here and is lost")
        for place, written in self.writes.items():
            found = self.tags.get(place)
            if found is None or found.rank < written.rank:
                raise Violation(f"{self.name}: the write of tag {place[1]} was acknowledged here and is lost")
        self.is_changed = False

    def _check_image(self, repository: RepositoryName, digest: Digest) -> None:
        content = CONTENTS[digest]
        for blob in content.blobs:
            if (repository, blob) not in self.blobs and (repository, blob) not in self.damaged:
                raise Violation(f"{self.name}: {content.name} is visible without blob {NAMES[blob]}")
        for child in content.children:
            if (repository, child) not in self.images:
                raise Violation(f"{self.name}: {content.name} is visible without child {NAMES[child]}")
