"""Where a destination differs from what the rules say it should hold, and what mends it.

First fingerprints are compared, which costs one line per repository; only where they differ are both sides listed.
Where they are the same, a few images at a time are still offered, to find content that was lost behind its rows.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicator.core.digest import Digest
    from replicator.core.names import Tag
    from replicator.core.peer_messages import HeldImage
    from replicator.core.revisions import Revision


class DriftKind(enum.StrEnum):
    """How a destination differs."""

    MISSING_IMAGE = "missing-image"
    MISSING_TAG = "missing-tag"
    OTHER_DIGEST = "other-digest"
    """The tag points to an older image there."""
    NOT_DELETED = "not-deleted"
    """It was deleted at the source, by a rule that replicates deletions."""
    MISSING_CONTENT = "missing-content"
    """The image is there, but not all of what it refers to."""
    DELETED_THERE = "deleted-there"
    """It was deleted at the destination since; nothing brings it back but a push."""
    NEWER_THERE = "newer-there"
    """The tag was set there since; the destination's own rules say whether it comes back."""
    KEPT_THERE = "kept-there"
    """The tag is immutable there and keeps its image (ECR §9.3)."""


REPAIRABLE = frozenset(DriftKind) - {DriftKind.DELETED_THERE, DriftKind.NEWER_THERE, DriftKind.KEPT_THERE}


@dataclass(frozen=True, slots=True)
class Drift:
    """One difference. `digest` is the source's image; for NOT_DELETED, the destination's."""

    kind: DriftKind
    digest: Digest
    tag: Tag | None
    revision: Revision


class Fingerprint:
    """A hash of a repository's present images, by digest, and then its tags, by name; lines are added in that order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, tag: Tag | None, digest: Digest) -> None:
        """Add an image (`tag` is None), or a tag with what it points to."""
        self._hash.update(f"{tag or ''} {digest}\n".encode())

    def value(self) -> str:
        """Return the fingerprint of what was added so far."""
        return self._hash.hexdigest()


def fingerprint(lines: Iterable[HeldImage]) -> str:
    """Return the fingerprint of present images and tags, in whatever order they come."""
    result = Fingerprint()
    present = [(one.tag, one.digest) for one in lines if one.is_present and one.digest is not None]
    for tag, digest in sorted(present, key=lambda line: (line[0] or "", line[1])):
        result.add(tag, digest)
    return result.value()


def find_drift(
    expected: Iterable[HeldImage], held: Iterable[HeldImage], *, delete_replication: bool
) -> tuple[Drift, ...]:
    """Compare what the source expects at a destination with what it holds; both list deleted ones as well.

    Nothing that the destination holds beyond that is drift: it may have been pushed there.
    """
    images, tags = _by_place(held)
    found = []
    for one in expected:
        drift = _tag_drift(one, tags, images) if one.tag is not None else _image_drift(one, images)
        if drift is not None and (drift.kind is not DriftKind.NOT_DELETED or delete_replication):
            found.append(drift)
    return tuple(found)


def _by_place(held: Iterable[HeldImage]) -> tuple[Mapping[Digest, HeldImage], Mapping[Tag, HeldImage]]:
    images: dict[Digest, HeldImage] = {}
    tags: dict[Tag, HeldImage] = {}
    for one in held:
        if one.tag is not None:
            tags[one.tag] = one
        elif one.digest is not None:
            images[one.digest] = one
    return images, tags


def _image_drift(wanted: HeldImage, images: Mapping[Digest, HeldImage]) -> Drift | None:
    assert wanted.digest is not None  # noqa: S101 - a line without a tag is an image's
    there = images.get(wanted.digest)
    if not wanted.is_present:
        stale = there is not None and there.is_present and there.is_replica and there.revision < wanted.revision
        return Drift(DriftKind.NOT_DELETED, wanted.digest, None, wanted.revision) if stale else None
    if there is None:
        return Drift(DriftKind.MISSING_IMAGE, wanted.digest, None, wanted.revision)
    if there.is_present:
        return None
    kind = DriftKind.DELETED_THERE if there.revision >= wanted.revision else DriftKind.MISSING_IMAGE
    return Drift(kind, wanted.digest, None, wanted.revision)


def _tag_drift(wanted: HeldImage, tags: Mapping[Tag, HeldImage], images: Mapping[Digest, HeldImage]) -> Drift | None:
    there = tags.get(wanted.tag) if wanted.tag is not None else None
    if not wanted.is_present or wanted.digest is None:
        if there is None or there.digest is None or not there.is_replica or there.revision >= wanted.revision:
            return None  # also where it points to an image that was pushed there
        return Drift(DriftKind.NOT_DELETED, there.digest, wanted.tag, wanted.revision)
    if there is not None and there.digest == wanted.digest:
        return None
    return Drift(_missing_tag(wanted, there, images.get(wanted.digest)), wanted.digest, wanted.tag, wanted.revision)


def _missing_tag(wanted: HeldImage, there: HeldImage | None, image: HeldImage | None) -> DriftKind:
    """Return why a tag does not point to the wanted image there; `image` is that image's line."""
    if there is not None and there.revision >= wanted.revision:
        return DriftKind.NEWER_THERE if there.is_present else DriftKind.DELETED_THERE
    if image is not None and not image.is_present and image.revision >= wanted.revision:
        return DriftKind.DELETED_THERE
    if there is None or not there.is_present:
        return DriftKind.MISSING_TAG
    return DriftKind.KEPT_THERE if there.is_immutable else DriftKind.OTHER_DIGEST
