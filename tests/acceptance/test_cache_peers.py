"""Three regions of a real daemon that name each other as peers: what all of them want at once is downloaded once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.digest import digest_of
from tests.support.daemon import Daemon, node
from tests.support.http_calls import get
from tests.support.images import build_image, build_index, walk
from tests.support.upstreams import FakeRegistry, Fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.images import Built

pytestmark = pytest.mark.slow

REGIONS = ("us-east-1", "eu-west-1", "ap-south-1")
NAME = "library/app"
IMAGE = build_image([b"layer" * 500_000, b"another" * 100_000], platform=("linux", "amd64"))
OTHER = build_image([b"arm" * 100_000], platform=("linux", "arm64"))
INDEX = build_index([IMAGE, OTHER])


def regions(upstream: FakeRegistry, **rule: Any) -> dict[str, Any]:
    """Return the document of three nodes, of which each has the two others as peers."""
    nodes = []
    for region in REGIONS:
        peers = [{"account": "111122223333", "region": other} for other in REGIONS if other != region]
        rules = [{"prefix": "hub", "upstream": "hub", "peers": peers, **rule}]
        nodes.append(node(region, cache={"rules": rules}))
    return {"upstreams": [{"name": "hub", "url": upstream.url}], "nodes": nodes}


def pull(daemon: Daemon, region: str, built: Built) -> None:
    """Pull an image whole, as a client does; every byte is checked."""
    for manifest in walk(built):
        found = get(daemon.url(f"/v2/hub/{NAME}/manifests/{manifest.digest}", region))
        assert (found.status, found.body) == (200, manifest.manifest)
    for digest in built.blobs:
        blob = get(daemon.url(f"/v2/hub/{NAME}/blobs/{digest}", region))
        assert (blob.status, digest_of(blob.body)) == (200, digest)


async def pull_everywhere(daemon: Daemon, built: Built, *where: str) -> None:
    """Pull in several regions at once."""
    async with asyncio.TaskGroup() as group:
        for region in where or REGIONS:
            group.create_task(asyncio.to_thread(pull, daemon, region, built))


async def started(daemon: Daemon) -> None:
    daemon.directory.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(daemon.start)


async def test_three_regions_download_an_image_once(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        upstream.add(NAME, INDEX, "latest")
        daemon = Daemon(tmp_path / "daemon", regions(upstream))
        try:
            await started(daemon)
            await pull_everywhere(daemon, INDEX)
            for digest in INDEX.blobs:
                assert upstream.count(f"GET */blobs/{digest}") == 1, digest
            # What two of them have, the third gets without the upstream, after a restart too.
            late = build_image([b"late" * 1000])
            upstream.add(NAME, late, "late")
            await pull_everywhere(daemon, late, *REGIONS[:2])
            upstream.faults.on("*", Fault(status=503))
            await asyncio.to_thread(daemon.restart)
            await pull_everywhere(daemon, late)
            assert daemon.terminate() == 0
        finally:
            daemon.kill()


async def test_named_platforms_are_there_before_anybody_asks(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        upstream.add(NAME, INDEX, "latest")
        daemon = Daemon(tmp_path / "daemon", regions(upstream, platforms=["linux/amd64"]))
        try:
            await started(daemon)
            found = await asyncio.to_thread(get, daemon.url(f"/v2/hub/{NAME}/manifests/latest", REGIONS[0]))
            assert found.body == INDEX.manifest
            for digest in IMAGE.blobs:
                await upstream.seen(f"GET */blobs/{digest}")
            listed = await asyncio.to_thread(get, daemon.url(f"/v2/hub/{NAME}/tags/list", REGIONS[1]))
            assert listed.json() == {"name": f"hub/{NAME}", "tags": ["latest"]}
            assert upstream.count(f"*{OTHER.digest}") == 0
        finally:
            daemon.kill()
