"""An image as people write it on the command line: `repository:tag` or `repository@digest`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.digest import parse_digest
from replicator.core.errors import InvalidInput
from replicator.core.names import parse_repository, parse_tag
from replicator.core.reference import image_text

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference


@dataclass(frozen=True, slots=True)
class ImageReference:
    """A repository with a tag or a digest."""

    repository: RepositoryName
    reference: Reference

    def __str__(self) -> str:
        return image_text(self.repository, self.reference)


def parse_image(text: str) -> ImageReference:
    """Read `repository:tag` or `repository@digest`; raise InvalidInput for anything else."""
    repository, at, digest = text.partition("@")
    if at:
        return ImageReference(parse_repository(repository), parse_digest(digest))
    repository, colon, tag = text.rpartition(":")
    if not colon:
        raise InvalidInput(f"expected repository:tag or repository@digest, got {text[:80]!r}")
    return ImageReference(parse_repository(repository), parse_tag(tag))
