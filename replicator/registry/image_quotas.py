"""How many images a repository takes, and how many tags an image: asked in the transaction of a push."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import LimitExceeded
from replicator.storage.metadata import image_counts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps


def check_quotas(node: RegistryNode, repository: RepositoryName, digest: Digest, tags: Sequence[Tag]) -> Steps[None]:
    """Return if an image may be pushed under `tags`; raise LimitExceeded. Call it before anything is stored."""
    quotas, account = node.settings.quotas, node.settings.node.account
    if (yield from image_counts.is_full(repository, digest, quotas.images_per_repository)):
        raise LimitExceeded(texts.images_exceeded(repository, account, quotas.images_per_repository))
    others = yield from image_counts.other_tags(repository, digest, tags, quotas.tags_per_image)
    if others + len(tags) > quotas.tags_per_image:
        raise LimitExceeded(texts.image_tags_exceeded(digest, repository, account, quotas.tags_per_image))
