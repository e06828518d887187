"""Images between storage classes: archived, and on their way back (ECR §13.1).

An archived image is kept, and cannot be pulled. Its referrers go and come with it. No index that can be pulled lists
an archived image: one that is listed cannot be archived, and an index that comes back brings what it lists. How long
the way back takes is a row's, so that a restart changes nothing about it; it ends like a push, with everything that
follows from one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import StorageClassRefused, StorageError
from replicator.core.events import StorageClassChange
from replicator.core.image_status import ImageStatus, StorageClass
from replicator.core.jobs import JobKind
from replicator.core.revisions import next_revision
from replicator.registry.events import record_storage_class
from replicator.registry.follow_ups import replicate_again
from replicator.registry.images import get_digest
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import image_states, images
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.image_requests import RequestedImage
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

LOOK_EVERY = 10.0
"""Seconds between two looks for images whose way back is over."""

_AT_ONCE = 100


class StorageClasses:
    """Moves the images of one node. `run` under a supervisor."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def move(
        self, repository: RepositoryName, wanted: RequestedImage, target: StorageClass
    ) -> tuple[Digest, ImageStatus]:
        """Begin to move an image; return its digest, and the status that it has now.

        Raises RepositoryNotFound, ManifestNotFound, InvalidInput, and StorageClassRefused for an image that is there
        already or on its way, and for one that an index lists which can be pulled.
        """
        await self.finish_due()
        return await self._node.commit(repository, partial(self._move, repository, wanted, target))

    def _move(
        self, repository: RepositoryName, wanted: RequestedImage, target: StorageClass
    ) -> Steps[tuple[Digest, ImageStatus]]:
        yield from require_repository(self._node, repository)
        digest = yield from get_digest(self._node, repository, wanted)
        status = yield from image_states.find_status(repository, digest)
        if target is StorageClass.ARCHIVE:
            yield from self._archive(repository, digest, status)
            return digest, ImageStatus.ARCHIVED
        if status is not ImageStatus.ARCHIVED:
            raise self._refusal(repository, digest, f"its status is {status}")
        yield from self._activate(repository, digest)
        return digest, ImageStatus.ACTIVATING

    def _archive(self, repository: RepositoryName, digest: Digest, status: ImageStatus | None) -> Steps[None]:
        if status is not ImageStatus.ACTIVE:
            raise self._refusal(repository, digest, f"its status is {status}")
        if (yield from image_states.is_used(repository, digest)):
            raise self._refusal(repository, digest, "it is referenced by a manifest list that is not archived")
        now = self._node.clock.now()
        archived = StorageClassChange(StorageClass.ARCHIVE.value)
        yield from record_storage_class(self._node, repository, digest, archived, now)
        yield from image_states.archive(repository, digest, now)
        left = yield from image_states.referrers(repository, digest)
        while left:
            referrer = left.pop()
            status = yield from image_states.find_status(repository, referrer)
            if status is ImageStatus.ACTIVE and not (yield from image_states.is_used(repository, referrer)):
                yield from record_storage_class(self._node, repository, referrer, archived, now)
                yield from image_states.archive(repository, referrer, now)
                left += yield from image_states.referrers(repository, referrer)

    def _activate(self, repository: RepositoryName, digest: Digest) -> Steps[None]:
        due = self._node.clock.now() + self._node.settings.activation_time
        left = [digest]
        while left:
            each = left.pop()
            if (yield from image_states.find_status(repository, each)) is ImageStatus.ARCHIVED:
                yield from image_states.begin_activation(repository, each, due)
                left += yield from image_states.referrers(repository, each)
                left += yield from image_states.children(repository, each)

    def _refusal(self, repository: RepositoryName, digest: Digest, why: str) -> StorageClassRefused:
        return StorageClassRefused(
            texts.storage_class_refused(digest, repository, self._node.settings.node.account, why)
        )

    async def finish_due(self) -> None:
        """Make active what is to be active by now; raises StorageError."""
        while due := await self._node.database.read(image_states.due(self._node.clock.now(), _AT_ONCE)):
            # What a repository gets back comes at once: an index with what it lists.
            for repository in dict.fromkeys(image.repository for image in due):
                digests = [image.digest for image in due if image.repository == repository]
                await self._node.commit(repository, partial(self._finish_all, repository, digests))
            self._node.announce_jobs(JobKind.REPLICATE)

    def _finish_all(self, repository: RepositoryName, digests: Sequence[Digest]) -> Steps[None]:
        for digest in digests:
            yield from self._finish(repository, digest)

    def _finish(self, repository: RepositoryName, digest: Digest) -> Steps[None]:
        now, by = self._node.clock.now(), self._node.settings.node
        known = yield from images.find_register(repository, digest)
        # A new one: where the copy is archived, this is what brings it back.
        revision = next_revision(known.revision if known else None, by, now)
        if (yield from image_states.finish_activation(repository, digest, revision)):
            active = StorageClassChange(StorageClass.STANDARD.value, now)
            yield from record_storage_class(self._node, repository, digest, active, now)
            yield from replicate_again(self._node, repository, digest, now)

    async def run(self) -> None:
        """Make active what is due, every so often, until cancelled."""
        while True:
            try:
                await self.finish_due()
            except StorageError as error:
                node = str(self._node.settings.node)
                _log.warning("images could not be made active", node=node, error=str(error))
            await self._node.clock.sleep(LOOK_EVERY)
