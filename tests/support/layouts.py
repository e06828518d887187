"""Container images on disk, as skopeo reads them: real tar layers, in an OCI layout or a `dir:` directory.

Layers are compressed, so that a client pushes them as they are and the digests stay.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, digest_of
from replicator.core.media_types import DOCKER_MANIFEST, OCI_MANIFEST
from tests.support.images import Built, BuiltImage, Media, Platform, walk

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_REF_NAME = "org.opencontainers.image.ref.name"
_TYPES: Mapping[Media, tuple[str, str, str]] = {
    "oci": (
        OCI_MANIFEST,
        "application/vnd.oci.image.config.v1+json",
        "application/vnd.oci.image.layer.v1.tar+gzip",
    ),
    "docker": (
        DOCKER_MANIFEST,
        "application/vnd.docker.container.image.v1+json",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
    ),
}

Files = dict[str, bytes]


def container_image(
    layers: Sequence[Mapping[str, bytes]],
    media: Media = "oci",
    platform: Platform = ("linux", "amd64"),
    command: Sequence[str] = (),
) -> BuiltImage:
    """Build an image whose layers hold these files; the same arguments always give the same bytes.

    Files below `bin/` are executable.
    """
    manifest_type, config_type, layer_type = _TYPES[media]
    archives = [_tar(files) for files in layers]
    config = _encoded(
        {
            "os": platform[0],
            "architecture": platform[1],
            "config": {"Cmd": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [digest_of(archive) for archive in archives]},
            "history": [{"created_by": "a test"} for _ in archives],
        }
    )
    blobs = [gzip.compress(archive, 6, mtime=0) for archive in archives]
    manifest = _encoded(
        {
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": _descriptor(config_type, config),
            "layers": [_descriptor(layer_type, blob) for blob in blobs],
        }
    )
    return BuiltImage(
        manifest=manifest,
        media_type=manifest_type,
        digest=digest_of(manifest),
        blobs={digest_of(blob): blob for blob in (config, *blobs)},
        config=digest_of(config),
        layers=tuple(digest_of(blob) for blob in blobs),
        platform=platform,
    )


def write_oci_layout(directory: Path, images: Mapping[str, Built]) -> None:
    """Write an OCI layout; its images are read as `oci:<directory>:<name>`."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for built in images.values():
        for manifest in walk(built):
            (blobs / _hex(manifest.digest)).write_bytes(manifest.manifest)
        for digest, content in built.blobs.items():
            (blobs / _hex(digest)).write_bytes(content)
    entries = [{**built.descriptor(), "annotations": {_REF_NAME: name}} for name, built in images.items()]
    (directory / "index.json").write_bytes(_encoded({"schemaVersion": 2, "manifests": entries}))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def write_directory(directory: Path, built: Built) -> None:
    """Write one image or index as skopeo's `dir:<directory>`, which keeps Docker's media types as they are."""
    directory.mkdir(parents=True)
    (directory / "version").write_text("Directory Transport Version: 1.1\n")
    (directory / "manifest.json").write_bytes(built.manifest)
    for child in walk(built)[:-1]:
        (directory / f"{_hex(child.digest)}.manifest.json").write_bytes(child.manifest)
    for digest, content in built.blobs.items():
        (directory / _hex(digest)).write_bytes(content)


def _tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o755 if name.startswith("bin/") else 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content)}


def _hex(digest: Digest) -> str:
    return digest.partition(":")[2]


def _encoded(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
