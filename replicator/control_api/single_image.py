"""The image that a request is about, where it is about one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.core.digest import Digest
from replicator.core.names import Tag

if TYPE_CHECKING:
    from replicator.control_api.call import Call, Document


@dataclass(frozen=True, slots=True)
class SingleImage:
    """An image by digest, by tag, or by both. A malformed one names no image, so it is simply not found."""

    digest: Digest | None
    tag: Tag | None

    def document(self, digest: Digest | None = None) -> Document:
        """Return how the answer names it: as it was asked for, and by its digest."""
        return present(imageDigest=digest or self.digest, imageTag=self.tag)


def single_image(call: Call) -> SingleImage:
    """Return the image that `imageId` names."""
    image_id = call.input.structure("imageId")
    digest, tag = image_id.find_text("imageDigest"), image_id.find_text("imageTag")
    return SingleImage(None if digest is None else Digest(digest), None if tag is None else Tag(tag))
