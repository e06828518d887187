"""A real image made of this machine's static busybox: a layer with the program, a layer with a greeting.

It is written as an OCI layout, which skopeo pushes as it is, so its digest is known before it is pushed.
"""
# ruff: noqa: INP001 - beside a script, not in a package

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

APPLETS = ("sh", "ls", "cat", "echo", "ps", "wget")
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


@dataclass(frozen=True)
class LayoutImage:
    """An image in an OCI layout: what to tell skopeo, and what to expect of it."""

    source: str
    digest: str
    size: int


def write_image(directory: Path, busybox: Path, name: str, greeting: str) -> LayoutImage:
    """Write the image into a new directory."""
    layers = [_archive(_program_entries(busybox)), _archive(_greeting_entries(greeting))]
    config = {
        "os": "linux",
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "config": {"Cmd": ["/bin/cat", "/greeting"]},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer) for layer in layers]},
        "history": [{"created_by": "demo: busybox"}, {"created_by": "demo: greeting"}],
    }
    layout = _Layout(directory)
    config_descriptor = layout.put("application/vnd.oci.image.config.v1+json", _encoded(config))
    layer_type = "application/vnd.oci.image.layer.v1.tar+gzip"
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config_descriptor,
        "layers": [layout.put(layer_type, gzip.compress(layer, 6, mtime=0)) for layer in layers],
    }
    descriptor = layout.put("application/vnd.oci.image.manifest.v1+json", _encoded(manifest))
    layout.finish({**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}})
    return LayoutImage(f"oci:{directory}:{name}", str(descriptor["digest"]), layout.size)


def read_file(directory: Path, path: str) -> bytes:
    """Return a file out of the layers of the only image in an OCI layout."""
    manifest = json.loads(_blob(directory, json.loads((directory / "index.json").read_text())["manifests"][0]))
    for layer in reversed(manifest["layers"]):
        with tarfile.open(fileobj=io.BytesIO(_blob(directory, layer))) as archive:
            if path in archive.getnames():
                entry = archive.extractfile(path)
                if entry is not None:
                    return entry.read()
    raise FileNotFoundError(path)


class _Layout:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.size = 0
        (directory / "blobs" / "sha256").mkdir(parents=True)

    def put(self, media_type: str, content: bytes) -> dict[str, object]:
        """Store a blob and return its descriptor."""
        digest = _digest(content)
        (self._directory / "blobs" / "sha256" / digest.partition(":")[2]).write_bytes(content)
        self.size += len(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def finish(self, descriptor: dict[str, object]) -> None:
        """Name the image of the layout."""
        (self._directory / "index.json").write_bytes(_encoded({"schemaVersion": 2, "manifests": [descriptor]}))
        (self._directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def _program_entries(busybox: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    program = tarfile.TarInfo("bin/busybox")
    program.mode = 0o755
    entries = [(program, busybox.read_bytes())]
    for applet in APPLETS:
        link = tarfile.TarInfo(f"bin/{applet}")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        entries.append((link, b""))
    return entries


def _greeting_entries(greeting: str) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(tarfile.TarInfo("greeting"), f"{greeting}\n".encode())]


def _archive(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for entry, content in entries:
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _blob(directory: Path, descriptor: Mapping[str, str]) -> bytes:
    return (directory / "blobs" / "sha256" / descriptor["digest"].partition(":")[2]).read_bytes()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _encoded(document: Mapping[str, object]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()
