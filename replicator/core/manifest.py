"""A manifest, parsed strictly from the exact bytes that are stored.

A document that two programs could read in two ways is refused here: both `layers` and `manifests`, a `mediaType` that
contradicts the Content-Type, a key given twice or in another case, a number that is none, text that is no Unicode
(image-spec, manifest.md and image-index.md; the advisories GHSA-qq97-vm5h-rrhg and GHSA-5j5w-g665-5m35). The bytes are
never rewritten.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from replicator.core.digest import Digest, parse_digest
from replicator.core.errors import InvalidDigest, InvalidManifest, ManifestSyntax, UnsupportedManifest
from replicator.core.media_types import (
    DOCKER_MANIFEST_LIST,
    DOCKER_TYPES,
    IMAGE_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    OCI_INDEX,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
    is_nondistributable,
    without_parameters,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_MANIFEST_BYTES = 8 * 1024 * 1024
"""The largest manifest accepted; the specification asks for at least 4 MiB."""

_MAX_SIZE = 2**63 - 1
_MAX_PARTS = 400_000
"""Members and elements of a document: more would hold the event loop for long, and fill memory many times its size."""

_DOCUMENT_KEYS = {
    key.casefold(): key
    for key in (
        *("schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"),
        *("fsLayers", "history", "signatures"),
    )
}
_DESCRIPTOR_KEYS = {
    key.casefold(): key
    for key in ("mediaType", "digest", "size", "urls", "annotations", "data", "platform", "artifactType")
}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A typed pointer to content: media type, digest, size in bytes (image-spec, descriptor.md)."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform: Mapping[str, object] | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the content may live outside every registry (non-distributable layer)."""
        return is_nondistributable(self.media_type)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a manifest document points to. `media_type` is the one it is stored and served under."""

    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    manifests: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        """Whether this is an OCI index or a Docker manifest list."""
        return self.media_type in INDEX_TYPES

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Config and layers, in document order, non-distributable layers included."""
        return ((self.config,) if self.config else ()) + self.layers

    @property
    def descriptor_count(self) -> int:
        """How many blobs and manifests this one names, its subject aside."""
        return len(self.blobs) + len(self.manifests)

    @property
    def required_blobs(self) -> tuple[Digest, ...]:
        """The blobs without which the image cannot be used, each once."""
        return tuple(dict.fromkeys(blob.digest for blob in self.blobs if not blob.is_foreign))

    @property
    def children(self) -> tuple[Digest, ...]:
        """The digests of an index's manifests, each once."""
        return tuple(dict.fromkeys(child.digest for child in self.manifests))

    @property
    def referrer_type(self) -> str | None:
        """The artifact type listed for this manifest by the referrers API (distribution-spec, "Listing Referrers")."""
        if self.artifact_type:
            return self.artifact_type
        return self.config.media_type if self.config else None


def parse_manifest(content: bytes, content_type: str | None = None) -> Manifest:
    """Parse a manifest of one of the four supported types.

    `content_type` is the Content-Type it came with, if any; it must agree with the document's own `mediaType`. Raises
    InvalidManifest for anything malformed or ambiguous, UnsupportedManifest (one of these) for other media types and
    for Docker schema 1, InvalidDigest for a malformed digest inside.
    """
    document = _load(content)
    media_type = _media_type(document, content_type)
    if media_type in IMAGE_TYPES:
        return _image(document, media_type)
    return _index(document, media_type)


def own_media_type(content: bytes) -> str | None:
    """Return the media type that a document states of itself; raises InvalidManifest, ManifestSyntax for no JSON."""
    return _optional_text(_load(content), "mediaType")


def check_states_type(content: bytes, media_type: str) -> None:
    """Raise InvalidManifest for a document of Docker that does not state its type; those of OCI need not.

    The same bytes then never come over the registry's HTTP with two types.
    """
    if media_type in DOCKER_TYPES and own_media_type(content) is None:
        raise InvalidManifest(f"expected a manifest of {media_type} to state its mediaType")


def agreed_media_type(own: str | None, stated: str | None) -> str | None:
    """Return the type under which ECR's PutImage stores a document: its own, or else the one stated beside it.

    Two images' types, or two indexes', say the same of a document, and its own counts. Other contradictions are left
    for `parse_manifest` to refuse: such a document could be read in two ways.
    """
    if own is None or stated is None:
        return own or stated
    same_kind = any(own in kind and without_parameters(stated) in kind for kind in (IMAGE_TYPES, INDEX_TYPES))
    return own if same_kind else stated


def _load(content: bytes) -> Mapping[str, object]:
    if sum(map(content.count, (b",", b"{", b"["))) > _MAX_PARTS:
        raise InvalidManifest(f"expected a manifest of at most {_MAX_PARTS} members and elements")
    try:
        document = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
        )
        if b"\\u" in content:
            # Only an escape can smuggle in half of a surrogate pair, which nothing can store or send again.
            json.dumps(document, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ManifestSyntax("the manifest is nested too deeply") from error
    except UnicodeError as error:
        raise ManifestSyntax("the manifest is not UTF-8 text") from error
    except ValueError as error:
        raise ManifestSyntax(f"the manifest is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ManifestSyntax(f"expected a JSON object, got {type(document).__name__}")
    _check_spelling(document, _DOCUMENT_KEYS)
    return document


def _unique_keys(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return members


def _check_spelling(members: Mapping[str, object], known: Mapping[str, str]) -> None:
    """Refuse `Layers` beside `layers`, or for it: a program that folds case reads it, another one does not."""
    for key in members:
        if known.get(key.casefold(), key) != key:
            raise InvalidManifest(f"expected the key {known[key.casefold()]!r}, got {key[:40]!r}")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _media_type(document: Mapping[str, object], content_type: str | None) -> str:
    version = document.get("schemaVersion")
    if version == 1:
        raise UnsupportedManifest("Docker schema 1 is not supported; push it as schema 2 or as an OCI image")
    if version != 2 or not isinstance(version, int):
        raise InvalidManifest(f"expected schemaVersion 2, got {version!r:.40}")
    own = _optional_text(document, "mediaType")
    stated = without_parameters(content_type) if content_type else None
    if stated and own and stated != own:
        raise InvalidManifest(f"Content-Type {stated[:100]!r} contradicts the manifest's mediaType {own[:100]!r}")
    media_type = stated or own or _deduced(document)
    if media_type in SCHEMA1_TYPES:
        raise UnsupportedManifest("Docker schema 1 is not supported; push it as schema 2 or as an OCI image")
    if media_type not in MANIFEST_TYPES:
        raise UnsupportedManifest(
            f"expected one of {', '.join(sorted(MANIFEST_TYPES))}, got media type {media_type[:100]!r}"
        )
    return media_type


def _deduced(document: Mapping[str, object]) -> str:
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def _image(document: Mapping[str, object], media_type: str) -> Manifest:
    if "manifests" in document:
        raise InvalidManifest("an image manifest must not have 'manifests'; expected 'config' and 'layers'")
    if "config" not in document:
        raise InvalidManifest("expected a 'config' descriptor")
    return Manifest(
        media_type=media_type,
        config=_descriptor(document["config"], "config"),
        layers=_descriptors(document.get("layers", []), "layers"),
        subject=_optional_descriptor(document, "subject"),
        artifact_type=_optional_text(document, "artifactType"),
        annotations=_annotations(document, "annotations"),
    )


def _index(document: Mapping[str, object], media_type: str) -> Manifest:
    for key in ("layers", "config", "fsLayers"):
        if key in document:
            raise InvalidManifest(f"an index must not have {key!r}; expected 'manifests'")
    if "manifests" not in document:
        raise InvalidManifest("expected a 'manifests' list")
    return Manifest(
        media_type=media_type,
        manifests=_descriptors(document["manifests"], "manifests"),
        subject=None if media_type == DOCKER_MANIFEST_LIST else _optional_descriptor(document, "subject"),
        artifact_type=_optional_text(document, "artifactType"),
        annotations=_annotations(document, "annotations"),
    )


def _descriptors(value: object, where: str) -> tuple[Descriptor, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise InvalidManifest(f"expected {where!r} to be a list of descriptors")
    return tuple(_descriptor(item, f"{where}[{position}]") for position, item in enumerate(value))


def _optional_descriptor(document: Mapping[str, object], key: str) -> Descriptor | None:
    value = document.get(key)
    return None if value is None else _descriptor(value, key)


def _descriptor(value: object, where: str) -> Descriptor:
    if not isinstance(value, dict):
        raise InvalidManifest(f"expected {where} to be a descriptor object")
    _check_spelling(value, _DESCRIPTOR_KEYS)
    media_type, digest, size = (
        value.get("mediaType"),
        value.get("digest"),
        value.get("size"),
    )
    if not isinstance(media_type, str) or not media_type or not media_type.isprintable():
        raise InvalidManifest(f"expected {where}.mediaType to be a media type")
    if not isinstance(digest, str):
        raise InvalidManifest(f"expected {where}.digest to be a digest")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= _MAX_SIZE:
        raise InvalidManifest(f"expected {where}.size to be a number of bytes")
    try:
        parsed = parse_digest(digest)
    except InvalidDigest as error:
        raise InvalidDigest(f"{where}.digest: {error}") from error
    platform = value.get("platform")
    return Descriptor(
        media_type=media_type,
        digest=parsed,
        size=size,
        artifact_type=_optional_text(value, "artifactType"),
        annotations=_annotations(value, f"{where}.annotations"),
        platform=platform if isinstance(platform, dict) else None,
    )


def _optional_text(document: Mapping[str, object], key: str) -> str | None:
    value = document.get(key)
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isprintable():
        raise InvalidManifest(f"expected {key!r} to be printable text")
    return value


def _annotations(document: Mapping[str, object], where: str) -> Mapping[str, str]:
    value = document.get("annotations")
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise InvalidManifest(f"expected {where} to map strings to strings")
    return value
