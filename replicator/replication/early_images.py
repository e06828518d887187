"""Images that a source has shown before replication brought them: what they consist of, and who has it.

Remembered in memory only and for a while, so that the pulls that follow a manifest need not ask again. Nothing here is
a promise: whoever serves an early image checks that it was not deleted here.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.core.manifest import parse_manifest
from replicator.core.mutability import matches_wildcard
from replicator.core.peer_messages import Offer, OfferedBlob
from replicator.storage.metadata.images import StoredManifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.peer_messages import Delivery
    from replicator.upstream.peer_client import PeerClient

_LIFETIME = 900.0
_CAPACITY = 32 * 1024 * 1024
"""Bytes of manifests that are remembered."""
_ROW = 1024


@dataclass(frozen=True, slots=True)
class EarlySource:
    """A node whose rules may send images here, into the repositories that match (`*` is any characters)."""

    node: NodeId
    peer: PeerClient
    repositories: tuple[str, ...] = ("*",)

    def covers(self, repository: RepositoryName) -> bool:
        """Tell whether the node is to be asked about a repository."""
        return any(matches_wildcard(pattern, repository) for pattern in self.repositories)


@dataclass(frozen=True, slots=True)
class EarlyImage:
    """An image of a source, verified by digest. `delivery` is the source's, which may call the repository otherwise."""

    source: EarlySource
    repository: RepositoryName
    digest: Digest
    delivery: Delivery
    manifests: Mapping[Digest, StoredManifest]
    blobs: Mapping[Digest, int]
    """The blobs that must be here before the image can be, with their sizes."""

    @property
    def root(self) -> StoredManifest:
        """The image's own manifest."""
        return self.manifests[self.digest]

    @property
    def is_sparse(self) -> bool:
        """Whether manifests that an index lists are not to come."""
        coming = set(self.delivery.expected_manifests)
        listed = (parse_manifest(one.content, one.media_type).children for one in self.manifests.values())
        return any(child not in coming for children in listed for child in children)

    def offer(self) -> Offer:
        """Return the offer with which the source would begin to bring the image here."""
        blobs = tuple(OfferedBlob(digest, size) for digest, size in self.blobs.items())
        manifests = self.delivery.expected_manifests
        return Offer(self.repository, self.digest, self.delivery.revision, manifests, blobs, self.delivery.tag)

    def arrival(self) -> Delivery:
        """Return the delivery with which the source would end it."""
        return replace(self.delivery, repository=self.repository)


def early_image(source: EarlySource, repository: RepositoryName, digest: Digest, delivery: Delivery) -> EarlyImage:
    """Return a source's image as a value. Raises InvalidManifest."""
    manifests: dict[Digest, StoredManifest] = {}
    sizes: dict[Digest, int] = {}
    for sent in delivery.manifests:
        parsed = parse_manifest(sent.content, sent.media_type)
        manifests[sent.digest] = StoredManifest(sent.digest, parsed.media_type, sent.content)
        sizes.update((blob.digest, blob.size) for blob in parsed.blobs if not blob.is_foreign)
    return EarlyImage(source, repository, digest, delivery, manifests, sizes)


class EarlyImages:
    """The early images of a node; those asked for least recently are forgotten first."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._images: OrderedDict[tuple[RepositoryName, Digest], tuple[EarlyImage, float]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return len(self._images)

    def put(self, image: EarlyImage) -> None:
        """Remember an image, in place of what was known of it."""
        self.forget(image)
        self._images[image.repository, image.digest] = (image, self._clock.monotonic() + _LIFETIME)
        self._size += _size(image)
        while self._size > _CAPACITY and len(self._images) > 1:
            self.forget(next(iter(self._images.values()))[0])

    def forget(self, image: EarlyImage) -> None:
        """Forget an image: it is here, or gone."""
        known = self._images.pop((image.repository, image.digest), None)
        if known is not None:
            self._size -= _size(known[0])

    def find_manifest(self, repository: RepositoryName, digest: Digest) -> EarlyImage | None:
        """Return an image of a repository that has a manifest."""
        return next((one for one in self._of(repository) if digest in one.manifests), None)

    def find_blob(self, repository: RepositoryName, digest: Digest) -> EarlyImage | None:
        """Return an image of a repository that has a blob."""
        return next((one for one in self._of(repository) if digest in one.blobs), None)

    def _of(self, repository: RepositoryName) -> list[EarlyImage]:
        now = self._clock.monotonic()
        found = [(image, until) for (name, _), (image, until) in self._images.items() if name == repository]
        for image, until in found:
            if until <= now:
                self.forget(image)
        return [image for image, until in reversed(found) if until > now]


def _size(image: EarlyImage) -> int:
    return _ROW * (1 + len(image.blobs)) + sum(len(one.content) for one in image.manifests.values())
