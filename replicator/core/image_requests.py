"""Images as requests of the ECR API name them, and what can be wrong with one of a batch (ECR §5.1)."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.digest import Digest
from replicator.core.names import Tag

if TYPE_CHECKING:
    from replicator.core.reference import Reference

_DIGEST = re.compile(r"[a-zA-Z0-9\-_+.]+:[a-fA-F0-9]+")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


class FailureCode(enum.StrEnum):
    """Why one image of a batch could not be returned or deleted."""

    INVALID_DIGEST = "InvalidImageDigest"
    INVALID_TAG = "InvalidImageTag"
    TAG_MISMATCH = "ImageTagDoesNotMatchDigest"
    NOT_FOUND = "ImageNotFound"
    NO_ID = "MissingDigestAndTag"
    REFERENCED = "ImageReferencedByManifestList"
    UPSTREAM_DENIED = "UpstreamAccessDenied"
    UPSTREAM_THROTTLED = "UpstreamTooManyRequests"
    UPSTREAM_UNAVAILABLE = "UpstreamUnavailable"
    INACCESSIBLE = "ImageInaccessible"


@dataclass(frozen=True, slots=True)
class RequestedImage:
    """An image by digest, by tag, or by both, which must agree; as it was written."""

    digest: str | None = None
    tag: str | None = None

    @property
    def reference(self) -> Reference:
        """What the image is looked up by: its tag, where there is one. Only for one that has a digest or a tag."""
        return Tag(self.tag) if self.tag is not None else Digest(self.digest or "")

    def fail(self, code: FailureCode, reason: str) -> ImageFailure:
        """Return what the answer says of this image."""
        return ImageFailure(self, code, reason)

    def not_found(self) -> ImageFailure:
        """Return that there is no such image."""
        return self.fail(FailureCode.NOT_FOUND, texts.IMAGE_NOT_FOUND)

    def mismatch(self) -> ImageFailure:
        """Return that the tag is another image's."""
        return self.fail(FailureCode.TAG_MISMATCH, texts.TAG_OF_OTHER_IMAGE)

    def check(self) -> ImageFailure | None:
        """Return what is wrong with how the image is named, if anything is."""
        if self.digest is None and self.tag is None:
            return self.fail(FailureCode.NO_ID, texts.NO_IMAGE_ID)
        if self.digest is not None and not _DIGEST.fullmatch(self.digest):
            return self.fail(FailureCode.INVALID_DIGEST, texts.INVALID_IMAGE_DIGEST)
        if self.tag is not None and not _TAG.fullmatch(self.tag):
            return self.fail(FailureCode.INVALID_TAG, texts.INVALID_IMAGE_TAG)
        return None


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """An image of a batch that could not be returned or deleted, and why."""

    image: RequestedImage
    code: FailureCode
    reason: str
