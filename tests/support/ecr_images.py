"""Images pushed to a node of the ECR API, as a client of the registry pushes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.ecr_node import EcrNodes, Reply
    from tests.support.images import Built


def upload(ecr: EcrNodes, repository: str, built: Built, node: str | None = None) -> None:
    """Push the blobs of an image."""
    for digest, content in built.blobs.items():
        answer = ecr.send("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}", content, node=node)
        assert answer.status == 201


def put_manifest(
    ecr: EcrNodes, repository: str, built: Built, reference: str | None = None, node: str | None = None
) -> Reply:
    """Push a manifest whose blobs are there, under a tag or by its digest."""
    path = f"/v2/{repository}/manifests/{reference or built.digest}"
    return ecr.send("PUT", path, built.manifest, {"Content-Type": built.media_type}, node)


def push(ecr: EcrNodes, repository: str, built: Built, tag: str | None = None, node: str | None = None) -> None:
    """Push an image, each at a time of its own."""
    upload(ecr, repository, built, node)
    ecr.advance(1)
    assert put_manifest(ecr, repository, built, tag, node).status == 201
