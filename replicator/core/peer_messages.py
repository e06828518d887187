"""What nodes say to each other about replication, as values with one JSON form each.

    source --Offer--> destination --Lacks--> source --blobs--> destination
    source --Delivery--> destination --Receipt--> source

One Offer costs one round trip and tells everything an image lacks at the destination; where it lacks nothing, a final
Offer is a Delivery as well. One Delivery puts all manifests,
the image and its tag in one transaction, and its Receipt says, by digest and read back from the store, what is there.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.delivery import ImageOutcome
from replicator.core.digest import Digest, parse_digest
from replicator.core.errors import InvalidInput
from replicator.core.message_json import object_of, text_of
from replicator.core.names import RepositoryName, Tag, parse_node, parse_repository, parse_tag
from replicator.core.revisions import MAX_SEEN, MergeOutcome, Revision, TagRegister, parse_revision

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ITEMS = 20_000
"""Manifests or blobs in one message."""

MAX_DELIVERY_BYTES = 16 * 1024 * 1024
"""JSON bytes of one Delivery; a larger graph of manifests goes in several, the image itself in the last."""

CLOCK_SKEW = "ClockSkew"
"""The reason in a refusal's detail that a revision lies too far in the future."""

_MAX_SIZE = 2**63 - 1

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class OfferedTag:
    """A tag with what it points to at the source."""

    name: Tag
    register: TagRegister


@dataclass(frozen=True, slots=True)
class OfferedBlob:
    """A blob of the image, with its size in bytes."""

    digest: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Offer:
    """An image that is to be sent: everything it consists of, by digest. `manifests` ends with the image itself."""

    repository: RepositoryName
    digest: Digest
    revision: Revision
    manifests: tuple[Digest, ...]
    blobs: tuple[OfferedBlob, ...]
    tag: OfferedTag | None = None
    is_final: bool = False
    """Whether the destination is to take the image and its tag in at once where it lacks nothing of it."""

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {
            "repository": self.repository,
            "digest": self.digest,
            "revision": str(self.revision),
            "manifests": list(self.manifests),
            "blobs": [{"digest": blob.digest, "size": blob.size} for blob in self.blobs],
            "tag": _tag_json(self.tag),
            "isFinal": self.is_final,
        }

    @classmethod
    def from_json(cls, value: object) -> Offer:
        """Read the JSON form; raises InvalidInput."""
        fields = object_of(value, "an offer")
        blobs = (object_of(item, "a blob") for item in _items(fields, "blobs"))
        return cls(
            parse_repository(text_of(fields, "repository")),
            parse_digest(text_of(fields, "digest")),
            parse_revision(text_of(fields, "revision")),
            _digests(fields, "manifests"),
            tuple(OfferedBlob(parse_digest(text_of(blob, "digest")), _size(blob, "size")) for blob in blobs),
            _tag(fields.get("tag")),
            fields.get("isFinal") is True,
        )


@dataclass(frozen=True, slots=True)
class LackedBlob:
    """A blob that the destination lacks; it holds the first `offset` bytes of it already, from a copy that broke."""

    digest: Digest
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Lacks:
    """The answer to an Offer: what is missing, what the destination accepts, and what it knows of image and tag."""

    manifests: tuple[Digest, ...]
    blobs: tuple[LackedBlob, ...]
    image: ImageOutcome | None
    """PRESENT, DELETED (by a later write, so that nothing need be sent), or None where it is not there."""
    tag: TagRegister | None = None
    accepts_sparse_index: bool = False
    accepts_sparse_image: bool = False
    receipt: Receipt | None = None
    """What came of a final offer that lacked nothing: there is nothing left to deliver."""

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {
            "manifests": list(self.manifests),
            "blobs": [{"digest": blob.digest, "offset": blob.offset} for blob in self.blobs],
            "image": None if self.image is None else self.image.value,
            "tag": _register_json(self.tag),
            "acceptsSparseIndex": self.accepts_sparse_index,
            "acceptsSparseImage": self.accepts_sparse_image,
            "receipt": None if self.receipt is None else self.receipt.to_json(),
        }

    @classmethod
    def from_json(cls, value: object) -> Lacks:
        """Read the JSON form; raises InvalidInput."""
        fields = object_of(value, "an answer to an offer")
        blobs = (object_of(item, "a blob") for item in _items(fields, "blobs"))
        image, receipt = fields.get("image"), fields.get("receipt")
        return cls(
            _digests(fields, "manifests"),
            tuple(LackedBlob(parse_digest(text_of(blob, "digest")), _size(blob, "offset")) for blob in blobs),
            None if image is None else _outcome(image),
            _register(fields.get("tag")),
            fields.get("acceptsSparseIndex") is True,
            fields.get("acceptsSparseImage") is True,
            None if receipt is None else Receipt.from_json(receipt),
        )


@dataclass(frozen=True, slots=True)
class BlobProgress:
    """How much of a blob the destination holds: its first `offset` bytes, or all of it, verified and readable there."""

    offset: int
    is_complete: bool = False

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {"offset": self.offset, "isComplete": self.is_complete}

    @classmethod
    def from_json(cls, value: object) -> BlobProgress:
        """Read the JSON form; raises InvalidInput."""
        fields = object_of(value, "the progress of a blob")
        return cls(_size(fields, "offset"), fields.get("isComplete") is True)


@dataclass(frozen=True, slots=True)
class SentManifest:
    """A manifest with its exact bytes."""

    digest: Digest
    media_type: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """Manifests, children before their index, to be stored in one transaction with the image's register and its tag.

    Without `digest` it brings children only, of a graph too large for one message. `manifests` leaves out what the
    destination has; `expected` names every manifest and blob that the receipt must confirm.
    """

    repository: RepositoryName
    manifests: tuple[SentManifest, ...]
    revision: Revision
    digest: Digest | None = None
    tag: OfferedTag | None = None
    expected_manifests: tuple[Digest, ...] = ()
    expected_blobs: tuple[Digest, ...] = ()

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {
            "repository": self.repository,
            "manifests": [
                {
                    "digest": one.digest,
                    "mediaType": one.media_type,
                    "content": base64.b64encode(one.content).decode(),
                }
                for one in self.manifests
            ],
            "revision": str(self.revision),
            "digest": self.digest,
            "tag": _tag_json(self.tag),
            "expectedManifests": list(self.expected_manifests),
            "expectedBlobs": list(self.expected_blobs),
        }

    @classmethod
    def from_json(cls, value: object) -> Delivery:
        """Read the JSON form; raises InvalidInput. Whether a content has its digest is for the receiver to check."""
        fields = object_of(value, "a delivery")
        sent = (object_of(item, "a manifest") for item in _items(fields, "manifests"))
        digest = fields.get("digest")
        return cls(
            parse_repository(text_of(fields, "repository")),
            tuple(
                SentManifest(parse_digest(text_of(one, "digest")), text_of(one, "mediaType"), _content(one))
                for one in sent
            ),
            parse_revision(text_of(fields, "revision")),
            None if digest is None else parse_digest(str(digest)),
            _tag(fields.get("tag")),
            _digests(fields, "expectedManifests"),
            _digests(fields, "expectedBlobs"),
        )


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is at the destination after a Delivery, read back by digest.

    `lacking_*` are what was expected and is not there. `tag_outcome` is None where no tag was sent, or where the image
    is deleted there; `tag` is what the destination's tag is now.
    """

    image: ImageOutcome
    tag_outcome: MergeOutcome | None = None
    tag: TagRegister | None = None
    lacking_manifests: tuple[Digest, ...] = ()
    lacking_blobs: tuple[Digest, ...] = ()
    loser: Digest | None = None
    """The image that lost the tag, where this brought a conflict to light: both sides report it."""

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {
            "image": self.image.value,
            "tagOutcome": None if self.tag_outcome is None else self.tag_outcome.value,
            "tag": _register_json(self.tag),
            "lackingManifests": list(self.lacking_manifests),
            "lackingBlobs": list(self.lacking_blobs),
            "loser": self.loser,
        }

    @classmethod
    def from_json(cls, value: object) -> Receipt:
        """Read the JSON form; raises InvalidInput."""
        fields = object_of(value, "a receipt")
        outcome, loser = fields.get("tagOutcome"), fields.get("loser")
        return cls(
            _outcome(fields.get("image")),
            None if outcome is None else _merge_outcome(outcome),
            _register(fields.get("tag")),
            _digests(fields, "lackingManifests"),
            _digests(fields, "lackingBlobs"),
            None if loser is None else parse_digest(str(loser)),
        )


@dataclass(frozen=True, slots=True)
class Deletion:
    """A tag, or an image (`tag` is None), that was deleted at the source in `revision`."""

    repository: RepositoryName
    digest: Digest
    revision: Revision
    tag: OfferedTag | None = None

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {
            "repository": self.repository,
            "digest": self.digest,
            "revision": str(self.revision),
            "tag": _tag_json(self.tag),
        }

    @classmethod
    def from_json(cls, value: object) -> Deletion:
        """Read the JSON form; raises InvalidInput."""
        fields = object_of(value, "a deletion")
        return cls(
            parse_repository(text_of(fields, "repository")),
            parse_digest(text_of(fields, "digest")),
            parse_revision(text_of(fields, "revision")),
            _tag(fields.get("tag")),
        )


@dataclass(frozen=True, slots=True)
class RepositoryHash:
    """A fingerprint of what a repository holds of one source (`core.drift.fingerprint`)."""

    repository: RepositoryName
    fingerprint: str

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {"repository": self.repository, "fingerprint": self.fingerprint}

    @classmethod
    def from_json(cls, value: object) -> RepositoryHash:
        """Read the JSON form; raises InvalidInput."""
        fields = object_of(value, "a repository hash")
        return cls(parse_repository(text_of(fields, "repository")), text_of(fields, "fingerprint"))


@dataclass(frozen=True, slots=True)
class HeldImage:
    """One line of a repository's listing: an image with its register, or a tag with its own (`tag` is not None).

    A deleted image or tag is listed, too: `is_present` is False then, and a tag has no digest. `is_replica` says how
    the image came, of a tag's line the one that it points to; `is_immutable` that a tag may not move.
    """

    digest: Digest | None
    revision: Revision
    tag: Tag | None = None
    is_present: bool = True
    is_replica: bool = False
    is_immutable: bool = False

    @property
    def cursor(self) -> str:
        """Where a listing goes on after this line: images come before tags."""
        return f":{self.tag}" if self.tag is not None else f"@{self.digest}"

    def to_json(self) -> Json:
        """Return the JSON form."""
        return {
            "digest": self.digest,
            "revision": str(self.revision),
            "tag": self.tag,
            "isPresent": self.is_present,
            "isReplica": self.is_replica,
            "isImmutable": self.is_immutable,
        }

    @classmethod
    def from_json(cls, value: object) -> HeldImage:
        """Read the JSON form; raises InvalidInput."""
        fields = object_of(value, "a line of a listing")
        digest, tag = fields.get("digest"), fields.get("tag")
        return cls(
            None if digest is None else parse_digest(str(digest)),
            parse_revision(text_of(fields, "revision")),
            None if tag is None else parse_tag(str(tag)),
            fields.get("isPresent") is True,
            fields.get("isReplica") is True,
            fields.get("isImmutable") is True,
        )


# Parts


def _items(fields: Mapping[str, object], name: str) -> Sequence[object]:
    value = fields.get(name)
    if not isinstance(value, list) or len(value) > MAX_ITEMS:
        raise InvalidInput(f"expected {name!r} to be a list of at most {MAX_ITEMS} items")
    return value


def _size(fields: Mapping[str, object], name: str) -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SIZE:
        raise InvalidInput(f"expected {name!r} to be a number of bytes")
    return value


def _digests(fields: Mapping[str, object], name: str) -> tuple[Digest, ...]:
    return tuple(parse_digest(str(item)) for item in _items(fields, name))


def _content(fields: Mapping[str, object]) -> bytes:
    try:
        return base64.b64decode(text_of(fields, "content"), validate=True)
    except binascii.Error as error:
        raise InvalidInput("expected 'content' to be Base64") from error


def _outcome(value: object) -> ImageOutcome:
    try:
        return ImageOutcome(str(value))
    except ValueError as error:
        raise InvalidInput(f"expected an outcome of an image, got {str(value)[:40]!r}") from error


def _merge_outcome(value: object) -> MergeOutcome:
    try:
        return MergeOutcome(str(value))
    except ValueError as error:
        raise InvalidInput(f"expected an outcome of a tag, got {str(value)[:40]!r}") from error


def _tag_json(tag: OfferedTag | None) -> Json | None:
    return None if tag is None else {"name": tag.name, "register": _register_json(tag.register)}


def _tag(value: object) -> OfferedTag | None:
    if value is None:
        return None
    fields = object_of(value, "a tag")
    register = _register(fields.get("register"))
    if register is None:
        raise InvalidInput("expected a tag to have a register")
    return OfferedTag(parse_tag(text_of(fields, "name")), register)


def _register_json(register: TagRegister | None) -> Json | None:
    if register is None:
        return None
    return {"digest": register.digest, "revision": str(register.revision), "seen": dict(register.seen)}


def _register(value: object) -> TagRegister | None:
    if value is None:
        return None
    fields = object_of(value, "a tag's register")
    digest = fields.get("digest")
    seen = object_of(fields.get("seen"), "a version vector")
    if len(seen) > MAX_SEEN:
        raise InvalidInput(f"expected a version vector of at most {MAX_SEEN} nodes")
    for node in filter(None, seen):
        parse_node(node)
    return TagRegister(
        None if digest is None else parse_digest(str(digest)),
        parse_revision(text_of(fields, "revision")),
        {node: _size(seen, node) for node in seen},
    )
