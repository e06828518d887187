"""The media types of manifests, and which layers are stored elsewhere."""

from __future__ import annotations

from typing import Final

OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_MANIFEST_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_EMPTY: Final = "application/vnd.oci.empty.v1+json"

IMAGE_TYPES: Final = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({OCI_INDEX, DOCKER_MANIFEST_LIST})
DOCKER_TYPES: Final = frozenset({DOCKER_MANIFEST, DOCKER_MANIFEST_LIST})
MANIFEST_TYPES: Final = IMAGE_TYPES | INDEX_TYPES
ACCEPT_MANIFESTS: Final = ", ".join(sorted(MANIFEST_TYPES))
"""The Accept header that asks an upstream for every manifest form we store."""

SCHEMA1_TYPES: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)

_FOREIGN_DOCKER_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar"
_FOREIGN_OCI_LAYER = "application/vnd.oci.image.layer.nondistributable."


def is_nondistributable(media_type: str) -> bool:
    """Tell whether a layer of this type lives outside the registry (image-spec, "Non-Distributable Layers")."""
    return media_type.startswith((_FOREIGN_OCI_LAYER, _FOREIGN_DOCKER_LAYER))


def without_parameters(content_type: str) -> str:
    """Return a Content-Type value in lower case without its parameters."""
    return content_type.partition(";")[0].strip().lower()
