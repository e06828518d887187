"""Images pushed to one node arrive at others: whole, once, and no further."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.replication import ReplicationState
from tests.support.images import Built, build_image, build_index
from tests.support.nodes import cluster

if TYPE_CHECKING:
    from pathlib import Path

_BASE = build_image([b"base layer" * 1000, b"second layer"])
_IMAGES: dict[str, Built] = {
    "image": _BASE,
    "docker image": build_image([b"layer"], "docker"),
    "image without layers": build_image([]),
    "image of a large layer": build_image([bytes(range(256)) * 12_000]),
    "index": build_index([build_image([b"amd64"]), build_image([b"arm64"], platform=("linux", "arm64"))]),
    "manifest list": build_index([build_image([b"a"], "docker"), build_image([b"b"], "docker")], "docker"),
    "index in an index": build_index([build_index([build_image([b"deep"])]), build_image([b"flat"])]),
    "sha512 image": build_image([b"a long digest"], algorithm="sha512"),
}


@pytest.mark.parametrize("kind", _IMAGES)
async def test_a_pushed_image_arrives_at_every_destination(tmp_path: Path, kind: str) -> None:
    built = _IMAGES[kind]
    async with cluster(tmp_path, "us-east-1", "eu-west-1", "ap-south-1") as nodes:
        await nodes["us-east-1"].push(built, "team/app", "v1")
        await nodes.until_quiet()
        for region in ("eu-west-1", "ap-south-1"):
            await nodes[region].check(built, "team/app", "v1")
        statuses = await nodes["us-east-1"].statuses("team/app", "v1")
        assert [one.status for one in statuses] == [ReplicationState.COMPLETE] * len(statuses)
        assert {one.destination for one in statuses} == {"111111111111/eu-west-1", "111111111111/ap-south-1"}
