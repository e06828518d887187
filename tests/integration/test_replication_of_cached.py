"""Images that the cache imported replicate like pushed ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.cache_rules import CacheRule
from replicator.core.replication import ReplicationState
from tests.support.images import build_image, build_index
from tests.support.nodes import NodePlan, cluster
from tests.support.upstreams import FakeRegistry

if TYPE_CHECKING:
    from pathlib import Path

EU, US = "eu-west-1", "us-east-1"
REPOSITORY = "hub/library/alpine"
RULE = CacheRule("hub", "hub")


async def test_an_imported_image_is_replicated_with_blobs_that_nobody_has_pulled_yet(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        image = upstream.add_image("library/alpine", "3.20", [b"x" * 100_000, b"second"])
        caching = NodePlan(US, cache_rules=[RULE], upstreams={"hub": upstream.url})
        async with cluster(tmp_path, caching, EU) as nodes:
            async with nodes[US].client() as client:
                answer = await client.get(f"/v2/{REPOSITORY}/manifests/3.20")
                assert answer.status == 200
            await nodes.until_quiet()
            await nodes[EU].check(image, REPOSITORY, "3.20")


async def test_an_imported_index_is_replicated_with_all_its_images(tmp_path: Path) -> None:
    index = build_index([build_image([b"amd64"]), build_image([b"arm64"], platform=("linux", "arm64"))])
    async with FakeRegistry() as upstream:
        upstream.add("library/alpine", index, "3.20")
        caching = NodePlan(US, cache_rules=[RULE], upstreams={"hub": upstream.url})
        async with cluster(tmp_path, caching, EU) as nodes:
            async with nodes[US].client() as client:
                assert (await client.get(f"/v2/{REPOSITORY}/manifests/3.20")).status == 200
            await nodes.until_quiet()
            await nodes[EU].check(index, REPOSITORY, "3.20")


async def test_a_destination_with_the_same_cache_rule_says_truly_what_it_holds(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        image = upstream.add_image("library/alpine", "3.20", [b"x" * 1000])
        rules, upstreams = [RULE], {"hub": upstream.url}
        caching = NodePlan(US, cache_rules=rules, upstreams=upstreams)
        also_caching = NodePlan(EU, cache_rules=rules, upstreams=upstreams)
        async with cluster(tmp_path, caching, also_caching) as nodes:
            async with nodes[US].client() as client:
                assert (await client.get(f"/v2/{REPOSITORY}/manifests/3.20")).status == 200
            await nodes.until_attempts(US, 1)
            (status,) = await nodes[US].statuses(REPOSITORY, "3.20")
            assert status.status is ReplicationState.COMPLETE
            asked = len(upstream.requests)
            await nodes[EU].check(image, REPOSITORY, "3.20")
            assert len(upstream.requests) == asked


async def test_an_imported_image_deleted_before_it_was_sent_is_not_fetched_again(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        image = upstream.add_image("library/alpine", "3.20")
        caching = NodePlan(US, cache_rules=[RULE], upstreams={"hub": upstream.url})
        async with cluster(tmp_path, caching, EU) as nodes:
            await nodes.wire(US, EU).refuse()
            async with nodes[US].client() as client:
                assert (await client.get(f"/v2/{REPOSITORY}/manifests/3.20")).status == 200
            await nodes.until_attempts(US, 1)
            await nodes[US].delete(REPOSITORY, image.digest)
            await nodes.pass_time(60)
            await nodes.until_quiet()
            assert nodes[US].recorder.outcomes()[-1] == "dropped"
            assert not await nodes[US].holds(REPOSITORY, image.digest)


async def test_an_upstream_that_fails_is_not_taken_for_the_destination(tmp_path: Path) -> None:
    async with FakeRegistry() as upstream:
        image = upstream.add_image("library/alpine", "3.20", [b"x" * 1000])
        caching = NodePlan(US, cache_rules=[RULE], upstreams={"hub": upstream.url})
        async with cluster(tmp_path, caching, EU) as nodes:
            upstream.repository("library/alpine").blobs.clear()
            async with nodes[US].client() as client:
                assert (await client.get(f"/v2/{REPOSITORY}/manifests/3.20")).status == 200
            await nodes.until_attempts(US, 1)
            (error,) = await nodes[US].status.recent_errors()
            assert "blob" in error.error
            upstream.add("library/alpine", image)
            await nodes.heal_with_time(900)
            await nodes[EU].check(image, REPOSITORY, "3.20")
