"""Images as ECR's operations name them: by digest, by tag, or by both, which must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.digest import Digest
from replicator.core.errors import InvalidInput, ManifestNotFound, RepositoryNotFound
from replicator.storage.metadata import images, repositories

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName, Tag
    from replicator.storage.metadata.repositories import Repository
    from replicator.storage.metadata.statement import Steps


def get_repository(account: str, name: RepositoryName) -> Steps[Repository]:
    """Return a repository of an account's registry; raises RepositoryNotFound in ECR's words."""
    found = yield from repositories.find(name)
    if found is None:
        raise RepositoryNotFound(texts.repository_not_found(name, account))
    return found


def get_image(account: str, repository: RepositoryName, digest: Digest | None, tag: Tag | None) -> Steps[Digest]:
    """Return the digest of an image of an account's registry.

    Raises InvalidInput without digest and tag, and in ECR's words RepositoryNotFound and ManifestNotFound.
    """
    if digest is None and tag is None:
        raise InvalidInput(texts.NO_IMAGE_ID)
    yield from get_repository(account, repository)
    if tag is not None:
        found = yield from images.find_by_tag(repository, tag)
    else:
        found = yield from images.find(repository, digest or Digest(""))
    if found is None or digest not in {None, found.digest}:
        raise ManifestNotFound(texts.image_not_found(digest, tag, repository, account))
    return found.digest
