"""Faults of an upstream while tags are pulled, as clients see them over HTTP, by the numbers of the fault list."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.cache.limits import CacheLimits
from replicator.core.digest import digest_of
from replicator.core.freshness import FAILED_CHECK_PAUSE
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.names import AccountId, NodeId, Region, Tag
from replicator.storage.metadata import cache_entries, cache_history, tags
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.cached_edge import cached_edge
from tests.support.images import build_image
from tests.support.pull_through_node import ALPINE, HUB, LATEST
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault, Hold, Tokens

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.core.digest import Digest
    from replicator.storage.metadata.cache_entries import CacheEntry
    from tests.support.cached_edge import CachedEdge
    from tests.support.clock import FakeClock
    from tests.support.images import BuiltImage
    from tests.support.wire_client import Answer

MANIFESTS = "/v2/library/alpine/manifests/*"
HEADS, GETS = f"HEAD {MANIFESTS}", f"GET {MANIFESTS}"
BASE = "/v2/docker-hub/library/alpine"
TAG = f"{BASE}/manifests/latest"
CHECKED_FIRST = replace(HUB, stale_while_revalidate=0.0)
PROMPT = 2.0
"""Seconds within which whatever is cached must be served."""
NOBODY = UpstreamEndpoint("hub", "http://127.0.0.1:1", connect_timeout=1.0)


async def promptly(edge: CachedEdge, path: str = TAG) -> Answer:
    async with asyncio.timeout(PROMPT):
        return await edge.get(path)


async def image_over(edge: CachedEdge, image: BuiltImage) -> None:
    """Pull a whole cached image as a client does; every answer must be prompt and right."""
    manifest = await promptly(edge)
    assert (manifest.status, manifest.body) == (200, image.manifest)
    for digest, content in image.blobs.items():
        blob = await promptly(edge, f"{BASE}/blobs/{digest}")
        assert (blob.status, blob.whole, blob.body) == (200, True, content)


def tasks() -> int:
    """Return how many tasks there are, without those of servers that wait for the next request."""
    return sum("RequestHandler.start" not in repr(task.get_coro()) for task in asyncio.all_tasks())


async def entry_of(edge: CachedEdge) -> CacheEntry:
    entry = await edge.node.database.read(cache_entries.find(ALPINE, LATEST))
    assert entry is not None
    return entry


async def tag_of(edge: CachedEdge) -> Digest | None:
    state = await edge.node.database.read(tags.find(ALPINE, LATEST))
    return None if state is None else state.digest


# REL-09: an upstream that sends something else


OTHER = build_image([b"other"])
WRONG = {
    "another manifest": Fault(body=OTHER.manifest, content_type=OTHER.media_type),
    "an error page": Fault(body=b"<html>error</html>", content_type="text/html"),
    "another type": Fault(content_type="application/octet-stream"),
    "no json": Fault(body=b"{", content_type=OCI_MANIFEST),
    "another length": Fault(length=10_000),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_rel_09_wrong_content_is_refused_remembered_and_not_stored(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, wrong: str
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    path = f"{BASE}/manifests/{image.digest}"
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], clock=clock) as edge:
        upstream.faults.on(MANIFESTS, WRONG[wrong])
        nothing = await edge.contents()
        answer = await edge.get(path)
        assert answer.status == 502
        assert b"hub" in answer.body or b"fake" in answer.body
        assert await edge.contents() == nothing
        if wrong != "another length":  # a connection that ends early says nothing of the content
            asked = upstream.count()
            again = await edge.get(path)
            assert again.status == 502
            assert 'detail="NEGATIVE"' in again.headers["Cache-Status"]
            assert int(again.headers["Retry-After"]) <= HUB.negative_for
            assert upstream.count() == asked
        upstream.faults.clear()
        clock.advance(HUB.negative_for)
        healed = await edge.get(path)
        assert (healed.status, healed.body) == (200, image.manifest)


@pytest.mark.parametrize("wrong", [wrong for wrong in WRONG if wrong != "another manifest"])
async def test_rel_09_wrong_content_moves_no_tag(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, wrong: str
) -> None:
    old = upstream.add_image("library/alpine", "latest", [b"old"])
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [CHECKED_FIRST], clock=clock) as edge:
        assert (await edge.get(TAG)).status == 200
        upstream.add_image("library/alpine", "latest", [b"new"])
        upstream.faults.on(GETS, WRONG[wrong])
        clock.advance(HUB.fresh_for)
        answer = await edge.get(TAG)
        assert (answer.status, answer.body) == (200, old.manifest)
        assert "detail=" in answer.headers["Cache-Status"]
        assert await tag_of(edge) == old.digest


async def test_rel_09_head_that_says_something_else_than_the_get_is_a_reason_to_look_only(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [CHECKED_FIRST], clock=clock) as edge:
        await edge.get(TAG)
        upstream.faults.on(HEADS, Fault(headers={"Docker-Content-Digest": digest_of(b"lie")}, length=17))
        clock.advance(HUB.fresh_for)
        answer = await edge.get(TAG)
        assert (answer.body, answer.headers["Docker-Content-Digest"]) == (image.manifest, image.digest)
        head = await edge.head(TAG)
        assert head.headers["Content-Length"] == str(len(image.manifest))


# REL-14: an upstream that throttles


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "3600"}])
@pytest.mark.parametrize("asked", ["manifests", "token"])
async def test_rel_14_throttled_upstream_is_left_alone_and_nobody_notices(
    tmp_path: Path, clock: FakeClock, headers: dict[str, str], asked: str
) -> None:
    async with FakeRegistry(tokens=Tokens()) as upstream:
        image = upstream.add_image("library/alpine", "latest")
        async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], clock=clock) as edge:
            await image_over(edge, image)
            assert upstream.tokens is not None
            upstream.tokens.expire()
            upstream.faults.on(MANIFESTS if asked == "manifests" else "/token*", Fault(status=429, headers=headers))
            clock.advance(HUB.fresh_for + 300)
            upstream.requests.clear()
            # Twenty clients a minute, for twenty minutes.
            for _ in range(20):
                async with asyncio.TaskGroup() as group:
                    answers = [group.create_task(promptly(edge)) for _ in range(20)]
                for answer in answers:
                    assert (answer.result().status, answer.result().body) == (200, image.manifest)
                    assert int(answer.result().headers["Age"]) >= HUB.fresh_for
                    assert "Warning" not in answer.result().headers
                await edge.cache.idle()
                clock.advance(60)
            throttled = len([one for one in upstream.requests if asked == "manifests" or one.path == "/token"])
            assert throttled <= (4 if headers else 16)
            await image_over(edge, image)


async def test_rel_14_cold_pull_is_told_how_long_to_wait(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.faults.on(MANIFESTS, Fault(status=429, headers={"Retry-After": "3600"}))
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], clock=clock) as edge:
        first = await edge.get(TAG)
        assert (first.status, first.headers["Retry-After"]) == (429, "3600")
        clock.advance(1800)
        second = await edge.get(TAG)
        assert (second.status, second.headers["Retry-After"]) == (429, "1800")
        assert upstream.count() == 1
        clock.advance(1800)
        upstream.faults.clear()
        upstream.add_image("library/alpine", "latest")
        assert (await edge.get(TAG)).status == 200


# REL-15: an upstream that fails for hours


FAILURES = {
    "500": Fault(status=500),
    "503": Fault(status=503, headers={"Retry-After": "60"}),
    "401": Fault(status=401),
    "403": Fault(status=403),
    "404": Fault(status=404),
    "429": Fault(status=429),
    "closed": Fault(drop=True),
    "reset": Fault(drop=True, reset=True),
    "garbage": Fault(body=b"\x00\xff" * 1000, content_type="text/plain"),
    "redirected in a circle": Fault(redirect="/v2/library/alpine/manifests/latest"),
    "cut": Fault(headers={"Docker-Content-Digest": ""}, cut_after=3),
}


@pytest.mark.parametrize("rule", [HUB, CHECKED_FIRST], ids=["behind the back", "checked first"])
@pytest.mark.parametrize("failure", FAILURES)
async def test_rel_15_cached_images_are_served_whatever_the_upstream_does_for_hours(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, failure: str, rule: object
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    rules = [CHECKED_FIRST if rule is CHECKED_FIRST else HUB]
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, rules, clock=clock) as edge:
        await image_over(edge, image)
        upstream.faults.on("*", FAILURES[failure])
        for _ in range(8):
            clock.advance(HUB.fresh_for / 2)
            await image_over(edge, image)
            assert (await promptly(edge, f"{BASE}/manifests/{image.digest}")).body == image.manifest
        await edge.cache.idle()
        entry = await entry_of(edge)
        assert entry.last_error
        assert (entry.gone_at is not None) is (failure == "404")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "https://127.0.0.1:{port}", "http://no-such-host.invalid"])
async def test_rel_15_cached_images_are_served_after_a_restart_without_the_upstream(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, url: str
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], clock=clock) as edge:
        await image_over(edge, image)
    gone = UpstreamEndpoint("hub", url.format(port=upstream.port), connect_timeout=1.0)
    for hours in (2, 24, 24 * 365):
        clock.advance(hours * 3600.0)
        async with cached_edge(tmp_path, {"hub": gone}, [HUB], clock=clock) as edge:
            await image_over(edge, image)
            await edge.cache.idle()
            assert (await entry_of(edge)).last_error


async def test_rel_15_staleness_may_be_bounded(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> None:
    image = upstream.add_image("library/alpine", "latest")
    rules = [replace(HUB, max_stale=24 * 3600.0)]
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, rules, clock=clock) as edge:
        await image_over(edge, image)
        upstream.faults.on("*", Fault(status=500))
        clock.advance(23 * 3600.0)
        await image_over(edge, image)
        await edge.cache.idle()
        clock.advance(3600.0)
        answer = await edge.get(TAG)
        assert answer.status == 503
        for word in (b"86400 s", b"max_stale", b"docker-hub"):
            assert word in answer.body
        assert (await promptly(edge, f"{BASE}/manifests/{image.digest}")).status == 200


# REL-16: a start without any upstream


async def test_rel_16_node_starts_and_serves_while_every_upstream_and_peer_is_down(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    peer = NodeId(AccountId("111111111111"), Region("ap"))
    rules = [replace(HUB, mirrors=("near",), peers=(peer,))]
    endpoints = {"hub": endpoint_of(upstream), "near": NOBODY}
    async with cached_edge(tmp_path, endpoints, rules, clock=clock, peers={HUB.prefix: {peer: NOBODY}}) as edge:
        await image_over(edge, image)
    await upstream.stop()
    clock.advance(100 * HUB.fresh_for)
    begun = asyncio.get_running_loop().time()
    endpoints = {"hub": NOBODY, "near": NOBODY}
    async with cached_edge(tmp_path, endpoints, rules, clock=clock, peers={HUB.prefix: {peer: NOBODY}}) as edge:
        await image_over(edge, image)
        assert asyncio.get_running_loop().time() - begun < PROMPT
        cold = await edge.get(f"{BASE}/manifests/other")
        assert cold.status == 503
        assert b"hub" in cold.body


# REL-17: an upstream that hangs


@pytest.mark.parametrize("after", [None, 0, 20], ids=["no answer", "no body", "drip"])
async def test_rel_17_hung_upstream_delays_no_cached_answer_and_leaks_nothing(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, after: int | None
) -> None:
    image = upstream.add_image("library/alpine", "latest", [b"old"])
    limits = CacheLimits(stale_wait=0.2, cold_wait=1.0)
    async with (
        FakeRegistry() as quay,
        cached_edge(
            tmp_path,
            {"hub": endpoint_of(upstream), "quay": endpoint_of(quay)},
            [CHECKED_FIRST, replace(HUB, prefix="quay", upstream="quay")],
            clock=clock,
            limits=limits,
        ) as edge,
    ):
        other = quay.add_image("org/app", "latest")
        await image_over(edge, image)
        upstream.add_image("library/alpine", "latest", [b"new"])
        baseline = tasks()
        hold = Hold()
        upstream.faults.on(GETS, Fault(hold=hold, hold_after=after))
        clock.advance(HUB.fresh_for)
        async with asyncio.TaskGroup() as group:
            answers = [group.create_task(promptly(edge)) for _ in range(30)]
            # Nobody who pulls from elsewhere notices.
            assert (await promptly(edge, "/v2/quay/org/app/manifests/latest")).body == other.manifest
        assert {answer.result().body for answer in answers} == {image.manifest}
        assert upstream.count(GETS) <= 2
        # A cold pull ends in time, too.
        async with asyncio.timeout(PROMPT):
            cold = await edge.get(f"{BASE}/manifests/{digest_of(b'cold')}")
        assert cold.status in {503, 504}
        assert b"hub" in cold.body or b"fake" in cold.body
        await edge.cache.idle()
        upstream.faults.clear()
        hold.release()
        await upstream.idle()
        assert tasks() <= baseline
        assert await tag_of(edge) == image.digest


async def test_rel_17_hung_upstream_is_asked_again_and_again_by_nobody(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest")
    limits = CacheLimits(stale_wait=0.05, cold_wait=0.2)
    async with cached_edge(
        tmp_path, {"hub": endpoint_of(upstream)}, [CHECKED_FIRST], clock=clock, limits=limits
    ) as edge:
        await image_over(edge, image)
        upstream.faults.on(MANIFESTS, Fault(hold=Hold()))
        clock.advance(HUB.fresh_for)
        for _ in range(5):
            async with asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(promptly(edge))
            await edge.cache.idle()
        assert upstream.count(HEADS) == 1
        clock.advance(FAILED_CHECK_PAUSE)
        await promptly(edge)
        assert upstream.count(HEADS) == 2


# REL-37: an upstream that is a cache, and knows of nothing before it was asked by GET


async def test_rel_37_upstream_that_answers_heads_only_after_a_get(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    image = upstream.add_image("library/alpine", "latest", [b"old"])
    upstream.faults.on(HEADS, Fault(status=404))
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [CHECKED_FIRST], clock=clock) as edge:
        head = await edge.head(TAG)
        assert (head.status, head.headers["Docker-Content-Digest"]) == (200, image.digest)
        clock.advance(HUB.fresh_for)
        assert (await edge.head(TAG)).status == 200
        assert (await entry_of(edge)).gone_at is None
        new = upstream.add_image("library/alpine", "latest", [b"new"])
        clock.advance(HUB.fresh_for)
        assert (await edge.get(TAG)).body == new.manifest


# SEC-36: an upstream that goes back


async def test_sec_36_rollback_is_followed_reported_and_harms_no_digest(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    old = upstream.add_image("library/alpine", "latest", [b"vulnerable"])
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [CHECKED_FIRST], clock=clock) as edge:
        await image_over(edge, old)
        new = upstream.add_image("library/alpine", "latest", [b"mended"])
        clock.advance(HUB.fresh_for)
        await image_over(edge, new)
        assert (await entry_of(edge)).rolled_back_at is None
        assert "worth a look" not in caplog.text
        upstream.repository("library/alpine").tags["latest"] = old.digest
        clock.advance(HUB.fresh_for)
        rolled_back_at = clock.now()
        await image_over(edge, old)
        assert (await entry_of(edge)).rolled_back_at == rolled_back_at
        assert "worth a look" in caplog.text
        assert (await promptly(edge, f"{BASE}/manifests/{new.digest}")).body == new.manifest
        history = await edge.node.database.read(cache_history.newest(ALPINE, LATEST))
        assert [seen.digest for seen in history] == [old.digest, new.digest]
        # It stays known when the tag goes on.
        upstream.repository("library/alpine").tags["latest"] = new.digest
        clock.advance(HUB.fresh_for)
        await image_over(edge, new)
        assert (await entry_of(edge)).rolled_back_at == clock.now()


async def test_sec_36_a_tag_of_an_immutable_kind_does_not_go_back(
    tmp_path: Path, upstream: FakeRegistry, clock: FakeClock
) -> None:
    rules = [replace(CHECKED_FIRST, cool_down=24 * 3600.0)]
    old = upstream.add_image("library/alpine", "latest", [b"known"])
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, rules, clock=clock) as edge:
        await image_over(edge, old)
        # An older image that was never served here is as suspicious as a new one.
        upstream.add_image("library/alpine", "latest", [b"older"])
        clock.advance(HUB.fresh_for)
        await image_over(edge, old)
        assert (await edge.get(f"{BASE}/manifests/{Tag('latest')}")).headers["Docker-Content-Digest"] == old.digest
