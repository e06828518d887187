"""Every answer of a cached repository says how it came about, in `Cache-Status` and `Age`, and is observed as that."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from replicator.core.cache_rules import CacheRule
from replicator.core.digest import digest_of
from tests.support.cached_edge import CachedEdge, cached_edge
from tests.support.images import build_image
from tests.support.single_node import NODE
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.clock import FakeClock
    from tests.support.wire_client import Answer

HUB = CacheRule("docker-hub", "hub", fresh_for=3600.0, namespaces=("docker.io",))
BASE = "/v2/docker-hub/library/alpine"
LATEST = f"{BASE}/manifests/latest"
LAYER = bytes(range(251)) * 400
WHO = f'"replicator {NODE}"'


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as upstream:
        yield upstream


@pytest.fixture
async def edge(tmp_path: Path, hub: FakeRegistry, clock: FakeClock) -> AsyncIterator[CachedEdge]:
    async with cached_edge(tmp_path, {"hub": replace(endpoint_of(hub), name="hub")}, [HUB], clock=clock) as edge:
        yield edge


def said(answer: Answer) -> tuple[str, str | None]:
    """Return what an answer says of the cache, without who says it, and its age."""
    assert "Warning" not in answer.headers
    [status] = answer.headers.getall("Cache-Status")
    assert status.startswith(f"{WHO}; ")
    return status.removeprefix(f"{WHO}; "), answer.headers.get("Age")


def observed(edge: CachedEdge) -> tuple[str, str]:
    """Return what the last request was observed as."""
    return edge.outcomes[-1].cache, edge.outcomes[-1].upstream


async def test_a_miss(edge: CachedEdge, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    status, age = said(await edge.get(LATEST))
    assert status.startswith("fwd=uri-miss; fwd-status=200")
    assert "; stored" in status
    assert age in {None, "0"}
    assert observed(edge) == ("miss", "hub")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("target", [LATEST, "/v2/library/alpine/manifests/latest?ns=docker.io"])
async def test_a_hit_with_its_age(
    edge: CachedEdge, hub: FakeRegistry, clock: FakeClock, method: str, target: str
) -> None:
    hub.add_image("library/alpine", "latest")
    await edge.get(LATEST)
    clock.advance(600)
    assert said(await edge.ask(method, target)) == ("hit; ttl=3000", "600")
    assert observed(edge)[0] == "hit"


async def test_a_manifest_that_the_client_has(edge: CachedEdge, hub: FakeRegistry, clock: FakeClock) -> None:
    image = hub.add_image("library/alpine", "latest")
    await edge.get(LATEST)
    clock.advance(60)
    answer = await edge.get(LATEST, {"If-None-Match": f'"{image.digest}"'})
    assert (answer.status, *said(answer)) == (304, "hit; ttl=3540", "60")


async def test_a_manifest_too_large_for_one_piece(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = build_image(annotations={"padding": "x" * 400_000})
    hub.add("library/alpine", image, "latest")
    for expected in ("fwd=uri-miss", "hit"):
        answer = await edge.get(LATEST)
        assert answer.body == image.manifest
        assert said(answer)[0].startswith(expected)


async def test_blobs(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest", [LAYER])
    await edge.get(LATEST)
    target = f"{BASE}/blobs/{image.layers[0]}"
    cold = await edge.get(target)
    assert (cold.body == LAYER, said(cold)[0].startswith("fwd=uri-miss")) == (True, True)
    assert observed(edge)[0] == "miss"
    await edge.cache.idle()
    for answer in (await edge.get(target), await edge.head(target), await edge.get(target, {"Range": "bytes=0-1"})):
        assert answer.status in {200, 206}
        assert said(answer)[0].startswith("hit")
        assert observed(edge)[0] == "hit"


async def test_a_blob_that_the_upstream_was_only_asked_about_is_not_stored(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest", [LAYER])
    for _ in range(2):
        answer = await edge.head(f"{BASE}/blobs/{image.layers[0]}")
        assert (answer.status, said(answer)[0]) == (200, "fwd=uri-miss; fwd-status=200")
        await edge.get(LATEST)


async def test_a_failed_blob_names_the_upstream_and_the_reason(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest", [b"small"])
    hub.faults.on("/v2/library/alpine/blobs/*", Fault(body=b"other"))
    answer = await edge.get(f"{BASE}/blobs/{image.layers[0]}")
    assert answer.status == 502
    assert answer.body.count(b"hub: ") == 1
    assert b"other content" in answer.body


async def test_content_that_could_not_be_checked(edge: CachedEdge, hub: FakeRegistry, clock: FakeClock) -> None:
    image = hub.add_image("library/alpine", "latest")
    await edge.get(LATEST)
    await hub.stop()
    clock.advance(HUB.fresh_for + HUB.stale_while_revalidate + 10)
    answer = await edge.get(LATEST)
    assert answer.body == image.manifest
    status, age = said(answer)
    assert re.fullmatch(r'hit; ttl=-\d+; detail="hub: [^"]+"', status)
    assert age == str(int(HUB.fresh_for + HUB.stale_while_revalidate + 10))
    assert observed(edge) == ("stale", "hub")


@pytest.mark.parametrize(
    ("fault", "status", "reason", "retry_after"),
    [
        (Fault(status=500), 503, "answered 500", True),
        (Fault(status=401), 502, "hub: ", False),
        (Fault(status=429, headers={"Retry-After": "17"}), 429, "answered 429", True),
        (Fault(body=b"<html>", content_type="text/html"), 502, "hub: ", False),
    ],
)
async def test_a_failure_names_the_upstream_and_the_reason(
    edge: CachedEdge, hub: FakeRegistry, fault: Fault, status: int, reason: str, retry_after: bool
) -> None:
    hub.add_image("library/alpine", "latest")
    hub.faults.on("*", fault)
    answer = await edge.get(LATEST)
    message = answer.json()["errors"][0]["message"]
    assert (answer.status, "hub" in message, reason in message) == (status, True, True)
    assert ("Retry-After" in answer.headers) == retry_after
    shown, age = said(answer)
    assert shown.startswith("fwd=uri-miss")
    assert 'detail="hub: ' in shown
    assert age is None
    assert observed(edge)[0] == "error"
    head = await edge.head(LATEST)
    assert head.status in {status, 404}
    assert "Cache-Status" in head.headers


async def test_an_upstream_that_is_gone(edge: CachedEdge, hub: FakeRegistry) -> None:
    await hub.stop()
    answer = await edge.get(f"{BASE}/blobs/{digest_of(LAYER)}")
    assert (answer.status, answer.codes, "Retry-After" in answer.headers) == (503, ["UNAVAILABLE"], True)
    assert "hub: " in answer.json()["errors"][0]["message"]
    assert observed(edge)[0] == "error"


async def test_what_is_remembered_as_absent(edge: CachedEdge, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    first, second = await edge.get(f"{BASE}/manifests/absent"), await edge.get(f"{BASE}/manifests/absent")
    assert {first.status, second.status} == {404}
    assert said(second)[0] == 'hit; detail="NEGATIVE"'
    assert observed(edge)[0] == "negative"
    assert hub.count("GET /v2/library/alpine/manifests/absent") <= 1


async def test_an_own_repository_says_nothing_of_a_cache(edge: CachedEdge) -> None:
    await edge.push("team/app", "1", build_image())
    for answer in (await edge.get("/v2/team/app/manifests/1"), await edge.get("/v2/team/app/manifests/2")):
        assert not {"Cache-Status", "Age", "Warning"} & set(answer.headers)
    assert observed(edge) == ("", "")


async def test_what_is_malformed_says_nothing_of_a_cache(edge: CachedEdge) -> None:
    answer = await edge.get(f"{BASE}/blobs/sha256:short")
    assert (answer.status, "Cache-Status" in answer.headers) == (400, False)
