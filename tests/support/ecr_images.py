"""Images pushed into nodes that run in another thread, over their `/v2/`, as nobody in particular."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.ecr_node import EcrNodes
    from tests.support.images import BuiltImage, BuiltIndex


def push(
    ecr: EcrNodes, image: BuiltImage | BuiltIndex, repository: str, *references: str, node: str | None = None
) -> None:
    """Push an image, or an index with its images, under tags; without one under its digest alone."""
    for one in image.images:
        for digest, content in one.blobs.items():
            _push_blob(ecr, repository, digest, content, node)
        if one is not image:
            _put(ecr, repository, one.digest, one.manifest, one.media_type, node)
    for reference in references or (image.digest,):
        _put(ecr, repository, reference, image.manifest, image.media_type, node)


def _push_blob(ecr: EcrNodes, repository: str, digest: str, content: bytes, node: str | None) -> None:
    started = ecr.send("POST", f"/v2/{repository}/blobs/uploads/", b"", node=node)
    assert started.status == 202, started.body
    location = started.headers["Location"].removeprefix(ecr.url(node))
    mark = "&" if "?" in location else "?"
    reply = ecr.send("PUT", f"{location}{mark}digest={digest}", content, node=node)
    assert reply.status == 201, reply.body


def _put(ecr: EcrNodes, repository: str, reference: str, content: bytes, media_type: str, node: str | None) -> None:
    reply = ecr.send("PUT", f"/v2/{repository}/manifests/{reference}", content, {"Content-Type": media_type}, node=node)
    assert reply.status == 201, reply.body
