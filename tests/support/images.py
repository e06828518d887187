"""Small images with known bytes: Docker and OCI images, artifacts with a subject, and indexes of them.

A built image is a value: the exact manifest bytes and the exact blobs, so that a test can serve it, push it, damage a
byte of it, and compare what came back.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from replicator.core.digest import CANONICAL_ALGORITHM, Digest, digest_of
from replicator.core.media_types import (
    DOCKER_MANIFEST,
    DOCKER_MANIFEST_LIST,
    OCI_EMPTY,
    OCI_INDEX,
    OCI_MANIFEST,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Media = Literal["oci", "docker"]
Platform = tuple[str, str]

_MANIFEST: Mapping[Media, str] = {"oci": OCI_MANIFEST, "docker": DOCKER_MANIFEST}
_INDEX: Mapping[Media, str] = {"oci": OCI_INDEX, "docker": DOCKER_MANIFEST_LIST}
_CONFIG: Mapping[Media, str] = {
    "oci": "application/vnd.oci.image.config.v1+json",
    "docker": "application/vnd.docker.container.image.v1+json",
}
_LAYER: Mapping[Media, str] = {
    "oci": "application/vnd.oci.image.layer.v1.tar",
    "docker": "application/vnd.docker.image.rootfs.diff.tar.gzip",
}
EMPTY_CONFIG = b"{}"


@dataclass(frozen=True)
class BuiltImage:
    """An image manifest with all its blobs; `layers` are digests in order, `config` is one of `blobs` too."""

    manifest: bytes
    media_type: str
    digest: Digest
    blobs: Mapping[Digest, bytes]
    config: Digest
    layers: tuple[Digest, ...] = ()
    platform: Platform | None = None

    @property
    def size(self) -> int:
        """Bytes of the manifest and its blobs together."""
        return len(self.manifest) + sum(map(len, self.blobs.values()))

    @property
    def images(self) -> tuple[BuiltImage, ...]:
        """The image itself, so that images and indexes can be walked alike."""
        return (self,)

    def descriptor(self) -> dict[str, object]:
        """Return the descriptor that an index or a referrer points to this image with."""
        return _descriptor(self.media_type, self.manifest, self.digest, self.platform)


@dataclass(frozen=True)
class BuiltIndex:
    """An index (or Docker manifest list) with its images; `children` may be indexes as well."""

    manifest: bytes
    media_type: str
    digest: Digest
    children: tuple[BuiltImage | BuiltIndex, ...] = ()

    @property
    def images(self) -> tuple[BuiltImage, ...]:
        """Every image below, depth first."""
        return tuple(image for child in self.children for image in child.images)

    @property
    def blobs(self) -> Mapping[Digest, bytes]:
        """The blobs of every image below."""
        return {digest: content for image in self.images for digest, content in image.blobs.items()}

    @property
    def size(self) -> int:
        """Bytes of all manifests and blobs together, shared blobs counted once."""
        manifests = {node.digest: node.manifest for node in walk(self)}
        return sum(map(len, manifests.values())) + sum(map(len, self.blobs.values()))

    def descriptor(self) -> dict[str, object]:
        """Return the descriptor that an outer index or a referrer points to this index with."""
        return _descriptor(self.media_type, self.manifest, self.digest, None)


Built = BuiltImage | BuiltIndex


@dataclass(frozen=True)
class _Blob:
    media_type: str
    content: bytes
    digest: Digest = field(compare=False)

    def descriptor(self) -> dict[str, object]:
        return _descriptor(self.media_type, self.content, self.digest, None)


def build_image(
    layers: Sequence[bytes] = (b"layer",),
    media: Media = "oci",
    platform: Platform | None = ("linux", "amd64"),
    annotations: Mapping[str, str] | None = None,
    subject: Built | None = None,
    *,
    config: bytes | None = None,
    artifact_type: str | None = None,
    algorithm: str = CANONICAL_ALGORITHM,
) -> BuiltImage:
    """Build an image of `layers`; the same arguments always give the same bytes.

    With `artifact_type` the config is the empty descriptor's and there is no platform: an OCI artifact.
    """
    if artifact_type is not None:
        platform = None
    config_blob = _config(layers, media, platform, config, artifact_type, algorithm)
    layer_blobs = [_Blob(_LAYER[media], content, digest_of(content, algorithm)) for content in layers]
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST[media],
        "config": config_blob.descriptor(),
        "layers": [blob.descriptor() for blob in layer_blobs],
    }
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    if subject is not None:
        document["subject"] = _descriptor(subject.media_type, subject.manifest, subject.digest, None)
    if annotations is not None:
        document["annotations"] = dict(annotations)
    manifest = _encoded(document)
    return BuiltImage(
        manifest=manifest,
        media_type=_MANIFEST[media],
        digest=digest_of(manifest, algorithm),
        blobs={blob.digest: blob.content for blob in (config_blob, *layer_blobs)},
        config=config_blob.digest,
        layers=tuple(blob.digest for blob in layer_blobs),
        platform=platform,
    )


def build_index(
    images: Sequence[Built],
    media: Media = "oci",
    annotations: Mapping[str, str] | None = None,
    subject: Built | None = None,
    *,
    algorithm: str = CANONICAL_ALGORITHM,
) -> BuiltIndex:
    """Build an index of `images` (with `media="docker"` a manifest list), each listed with its platform."""
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": _INDEX[media],
        "manifests": [image.descriptor() for image in images],
    }
    if subject is not None:
        document["subject"] = _descriptor(subject.media_type, subject.manifest, subject.digest, None)
    if annotations is not None:
        document["annotations"] = dict(annotations)
    manifest = _encoded(document)
    return BuiltIndex(manifest, _INDEX[media], digest_of(manifest, algorithm), tuple(images))


def walk(built: Built) -> tuple[Built, ...]:
    """Return every manifest of `built`, children before the index that lists them."""
    if isinstance(built, BuiltImage):
        return (built,)
    return (*(node for child in built.children for node in walk(child)), built)


def _config(
    layers: Sequence[bytes],
    media: Media,
    platform: Platform | None,
    config: bytes | None,
    artifact_type: str | None,
    algorithm: str,
) -> _Blob:
    if artifact_type is not None:
        content = EMPTY_CONFIG if config is None else config
        return _Blob(OCI_EMPTY, content, digest_of(content, algorithm))
    system, architecture = platform or ("linux", "amd64")
    content = config or _encoded(
        {
            "architecture": architecture,
            "os": system,
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(layer) for layer in layers]},
        }
    )
    return _Blob(_CONFIG[media], content, digest_of(content, algorithm))


def _descriptor(media_type: str, content: bytes, digest: Digest, platform: Platform | None) -> dict[str, object]:
    descriptor: dict[str, object] = {"mediaType": media_type, "digest": digest, "size": len(content)}
    if platform is not None:
        descriptor["platform"] = {"os": platform[0], "architecture": platform[1]}
    return descriptor


def _encoded(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
