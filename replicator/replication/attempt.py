"""What the worker asks of one attempt, whatever the destination is.

An attempt may be cancelled or fail anywhere: the next one goes on with what has arrived.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from replicator.core.errors import ManifestNotFound
from replicator.core.peer_messages import OfferedTag
from replicator.storage.metadata import images, tags

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.revisions import Revision
    from replicator.storage.metadata.statement import Steps


@dataclass(frozen=True, slots=True)
class Delivered:
    """The image is at the destination, unless `stays_deleted`: it was deleted there by a later write.

    `left_stale_tag`: the tag points to it there, but no longer at the source.
    """

    left_stale_tag: bool = False
    stays_deleted: bool = False


class Attempt(Protocol):
    """One attempt to bring one image, or one deletion, to one destination."""

    @property
    def sent(self) -> int:
        """Blob bytes sent so far."""
        ...

    async def run(self) -> Delivered:
        """Do it, and have it confirmed.

        Raises ManifestNotFound when there is nothing to bring any more, an UpstreamError when the destination fails,
        and NotFound, CorruptBlob, SizeMismatch or a StorageError when the source does.
        """
        ...


@dataclass(frozen=True, slots=True)
class SourceState:
    """What the source knows at this moment: the image's revision, and its tag while that points to the image."""

    revision: Revision
    tag: OfferedTag | None


def find_state(repository: RepositoryName, digest: Digest, tag: Tag | None) -> Steps[SourceState]:
    """Return the state of an image; raises ManifestNotFound when the repository does not have it any more."""
    image = yield from images.find_register(repository, digest)
    if image is None or not image.is_present:
        raise ManifestNotFound(f"repository {repository} has no manifest {digest}")
    register = (yield from tags.find(repository, tag)) if tag is not None else None
    if tag is None or register is None or register.digest != digest:
        return SourceState(image.revision, None)
    return SourceState(image.revision, OfferedTag(tag, register))
