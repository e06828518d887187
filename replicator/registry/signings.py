"""What becomes of the signing of pushed images: an honest no, because nothing here can sign (ECR §13.4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.signing import NO_SIGNER, NO_SIGNER_REASON
from replicator.registry.stored_images import get_image
from replicator.storage.metadata import image_signings
from replicator.storage.metadata.image_signings import ImageSigning

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.replication import Change
    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.statement import Steps

FAILED = "FAILED"


class Signings:
    """The signings of the images of one node."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def of_image(
        self, repository: RepositoryName, digest: Digest | None, tag: Tag | None
    ) -> tuple[Digest, list[ImageSigning]]:
        """Return an image's digest with its signings, by profile; an image is asked for by digest, tag, or both.

        Raises RepositoryNotFound, ManifestNotFound, StorageError.
        """
        account = self._node.settings.node.account
        return await self._node.database.read(_of_image(account, repository, digest, tag))


def record_signings(settings: RegistrySettings, change: Change, now: float) -> Steps[None]:
    """Note in a push's transaction what becomes of the signings that the rules ask for; signatures are not signed."""
    if change.is_referrer:
        return
    for profile in settings.signing.profiles_for(change.repository):
        signing = ImageSigning(profile, FAILED, NO_SIGNER, NO_SIGNER_REASON, now)
        yield from image_signings.put(change.repository, change.digest, signing)


def _of_image(
    account: str, repository: RepositoryName, digest: Digest | None, tag: Tag | None
) -> Steps[tuple[Digest, list[ImageSigning]]]:
    found = yield from get_image(account, repository, digest, tag)
    return found, (yield from image_signings.of_image(repository, found))
