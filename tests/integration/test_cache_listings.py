"""Tags and referrers of cached repositories: the upstream's, merged with what lies here, which stays when it fails."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from replicator.cache.limits import CacheLimits
from replicator.core.cache_rules import ROOT, CacheRule, Selection
from replicator.core.media_types import OCI_INDEX
from replicator.core.rights import Grant, Right
from tests.support.cached_edge import cached_edge
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.single_node import Users
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from replicator.core.digest import Digest
    from tests.support.cached_edge import CachedEdge
    from tests.support.images import BuiltImage

NAME = "library/alpine"
HUB = CacheRule("hub", "hub", fresh_for=3600.0)
TAGS = f"/v2/hub/{NAME}/tags/list"
ASKED = f"GET /v2/{NAME}/tags/list"
IMAGE = build_image([b"the image"])
LIMITS = CacheLimits(stale_wait=1.0, cold_wait=1.0)
SBOM, SIGNATURE = "application/spdx+json", "application/vnd.dev.cosign"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def edge(tmp_path: Path, upstream: FakeRegistry, clock: FakeClock) -> AsyncIterator[CachedEdge]:
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], clock=clock, limits=LIMITS) as edge:
        yield edge


async def listed(edge: CachedEdge, target: str = TAGS) -> list[str]:
    answer = await edge.get(target)
    assert answer.status == 200, answer
    tags: list[str] = answer.json()["tags"]
    return tags


async def pull(edge: CachedEdge, tag: str) -> None:
    assert (await edge.get(f"/v2/hub/{NAME}/manifests/{tag}")).status == 200


# Tags


async def test_tags_of_the_upstream_are_listed_with_those_of_here(edge: CachedEdge, upstream: FakeRegistry) -> None:
    for tag in ("latest", "3.9", "3.20", "_a"):
        upstream.add(NAME, IMAGE, tag)
    await pull(edge, "3.9")
    await pull(edge, "latest")
    del upstream.repository(NAME).tags["3.9"]
    answer = await edge.get(TAGS)
    assert answer.json() == {"name": f"hub/{NAME}", "tags": ["3.20", "3.9", "_a", "latest"]}
    assert "fwd=uri-miss" in answer.headers["Cache-Status"]


async def test_tags_are_listed_page_by_page(edge: CachedEdge, upstream: FakeRegistry) -> None:
    for number in range(7):
        upstream.add(NAME, IMAGE, f"v{number}")
    for tag in ("v1", "v4", "v6"):
        await pull(edge, tag)
    del upstream.repository(NAME).tags["v4"]
    found, target = [], f"{TAGS}?n=2"
    while target:
        answer = await edge.get(target)
        page = answer.json()["tags"]
        assert len(page) <= 2
        found.extend(page)
        link = answer.headers.get("Link", "")
        target = link.partition(">")[0].removeprefix("<")
    assert found == [f"v{number}" for number in range(7)]
    assert await listed(edge, f"{TAGS}?n=0") == []
    assert await listed(edge, f"{TAGS}?last=v5") == ["v6"]
    assert upstream.count(ASKED) == 1


async def test_a_repository_that_was_never_pulled_lists_its_tags(edge: CachedEdge, upstream: FakeRegistry) -> None:
    upstream.add(NAME, IMAGE, "latest")
    assert await listed(edge) == ["latest"]
    assert (await edge.get("/v2/_catalog")).json() == {"repositories": []}


async def test_a_repository_that_nobody_has_is_not_found(edge: CachedEdge, upstream: FakeRegistry) -> None:
    for _ in range(2):
        answer = await edge.get(TAGS)
        assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])
    assert upstream.count(ASKED) == 1


async def test_a_repository_that_the_upstream_lost_lists_what_is_here(edge: CachedEdge, upstream: FakeRegistry) -> None:
    upstream.add(NAME, IMAGE, "latest")
    await pull(edge, "latest")
    upstream.repositories.clear()
    assert await listed(edge) == ["latest"]


async def test_a_list_is_remembered_for_minutes(edge: CachedEdge, upstream: FakeRegistry, clock: FakeClock) -> None:
    upstream.add(NAME, IMAGE, "one")
    await listed(edge)
    upstream.add(NAME, IMAGE, "two")
    clock.advance(290.0)
    again = await edge.get(TAGS)
    assert (again.json()["tags"], again.headers["Age"]) == (["one"], "290")
    assert "; hit" in again.headers["Cache-Status"]
    clock.advance(11.0)
    assert await listed(edge) == ["one", "two"]
    assert upstream.count(ASKED) == 2


async def test_many_who_ask_at_once_cause_one_request(edge: CachedEdge, upstream: FakeRegistry) -> None:
    upstream.add(NAME, IMAGE, "latest")
    hold = Hold()
    upstream.faults.on(ASKED, Fault(hold=hold))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(listed(edge)) for _ in range(20)]
        await hold.reached()
        hold.release()
    assert [task.result() for task in tasks] == [["latest"]] * 20
    assert upstream.count(ASKED) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500),
        Fault(status=429, headers={"Retry-After": "7"}),
        Fault(status=403),
        Fault(drop=True),
        Fault(body=b"<html>", content_type="text/html"),
        Fault(body=b'{"tags": 7}'),
    ],
    ids=["500", "429", "403", "drop", "html", "no list"],
)
async def test_what_is_known_stays_when_the_upstream_fails(
    edge: CachedEdge, upstream: FakeRegistry, clock: FakeClock, fault: Fault
) -> None:
    upstream.add(NAME, IMAGE, "latest")
    upstream.add(NAME, IMAGE, "other")
    await pull(edge, "latest")
    await listed(edge)
    clock.advance(301.0)
    upstream.faults.on(ASKED, fault)
    answer = await edge.get(TAGS)
    assert answer.json()["tags"] == ["latest", "other"]
    assert "detail=" in answer.headers["Cache-Status"]
    assert answer.headers["Age"] == "301"
    asked = upstream.count(ASKED)
    assert await listed(edge) == ["latest", "other"]
    assert upstream.count(ASKED) == asked  # it is left alone for a moment
    upstream.faults.clear()
    clock.advance(31.0)
    upstream.add(NAME, IMAGE, "new")
    while "new" not in await listed(edge):
        clock.advance(60.0)


async def test_what_lies_here_is_listed_when_nothing_is_remembered(edge: CachedEdge, upstream: FakeRegistry) -> None:
    upstream.add(NAME, IMAGE, "latest")
    upstream.add(NAME, IMAGE, "other")
    await pull(edge, "latest")
    await upstream.stop()
    assert await listed(edge) == ["latest"]


async def test_who_knows_nothing_says_so_and_why(edge: CachedEdge, upstream: FakeRegistry) -> None:
    await upstream.stop()
    for _ in range(2):
        answer = await edge.get(TAGS)
        assert answer.status == 503
        assert "fake" in answer.body.decode()


async def test_an_upstream_that_hangs_is_not_waited_for_long(edge: CachedEdge, upstream: FakeRegistry) -> None:
    upstream.add(NAME, IMAGE, "latest")
    await pull(edge, "latest")
    hold = Hold()
    upstream.faults.on("*/tags/list", Fault(hold=hold))
    assert await listed(edge) == ["latest"]
    async with asyncio.timeout(0.9):  # less than anybody waits: it was waited for in vain already
        assert await listed(edge) == ["latest"]
    cold = await edge.get("/v2/hub/library/busybox/tags/list")
    assert cold.status == 504
    assert "hub" in cold.body.decode()
    assert upstream.count(ASKED) == 1
    hold.release()


async def test_rel_39_a_shorter_list_takes_nothing_away(
    edge: CachedEdge, upstream: FakeRegistry, clock: FakeClock
) -> None:
    for tag in ("a", "b", "c"):
        upstream.add(NAME, IMAGE, tag)
        await pull(edge, tag)
    assert await listed(edge) == ["a", "b", "c"]
    clock.advance(301.0)
    page = {"name": NAME, "tags": ["b"]}
    more = {"Link": f'<{TAGS.replace("/hub", "")}?n=1&last=b>; rel="next"'}
    upstream.faults.on(ASKED, Fault(status=500))
    upstream.faults.on(ASKED, Fault(body=json.dumps(page).encode(), headers=more), times=1)
    assert await listed(edge) == ["a", "b", "c"]
    clock.advance(301.0)
    upstream.faults.clear()
    upstream.repository(NAME).tags = {"b": IMAGE.digest}
    assert await listed(edge) == ["a", "b", "c"]
    for tag in ("a", "b", "c"):
        await pull(edge, tag)


# What may be seen


async def test_only_what_a_rule_selects_is_listed(tmp_path: Path, upstream: FakeRegistry) -> None:
    for tag in ("v1", "v2", "nightly"):
        upstream.add(NAME, IMAGE, tag)
    rule = CacheRule("hub", "hub", tags=Selection(allow=("v*",)), repositories=Selection(deny=("library/secret",)))
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [rule]) as edge:
        assert await listed(edge) == ["v1", "v2"]
        refused = await edge.get("/v2/hub/library/secret/tags/list")
    assert (refused.status, refused.codes) == (403, ["DENIED"])
    assert upstream.count("*/secret/*") == 0


async def test_own_repositories_are_listed_from_here_alone(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.add("team/app", build_image([b"somebody else's"]), "evil")
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [CacheRule(ROOT, "hub")]) as edge:
        await edge.push("team/app", "v1", IMAGE)
        assert await listed(edge, "/v2/team/app/tags/list") == ["v1"]
        referrers = await edge.get(f"/v2/team/app/referrers/{IMAGE.digest}")
    assert referrers.json()["manifests"] == []
    assert upstream.count() == 0


async def test_access_is_checked_before_anybody_is_asked(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.add(NAME, IMAGE, "latest")
    users = Users(anonymous=(Grant(frozenset({Right.PULL}), ("other/*",)),))
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], users=users) as edge:
        assert (await edge.get(TAGS)).status == 401
        assert (await edge.get(f"/v2/hub/{NAME}/referrers/{IMAGE.digest}")).status == 401
    assert upstream.count() == 0


# Referrers


def refer(upstream: FakeRegistry, *referrers: BuiltImage) -> None:
    """Have the upstream list referrers of the image."""
    for one in referrers:
        upstream.add(NAME, one)
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {**one.descriptor(), "artifactType": SBOM if index == 0 else SIGNATURE}
            for index, one in enumerate(referrers)
        ],
    }
    fault = Fault(body=json.dumps(document).encode(), content_type=OCI_INDEX)
    upstream.faults.on(f"GET /v2/{NAME}/referrers/*", fault)


def referrers_of(answer: Mapping[str, object]) -> list[Digest]:
    """The digests in an answer."""
    found: list[Digest] = [one["digest"] for one in answer["manifests"]]  # type: ignore[attr-defined]
    return found


SBOMS = build_image([b"sbom"], artifact_type=SBOM, subject=IMAGE)
SIGNATURES = build_image([b"signature"], artifact_type=SIGNATURE, subject=IMAGE)
REFERRERS = f"/v2/hub/{NAME}/referrers/{IMAGE.digest}"


async def test_referrers_of_the_upstream_are_listed_and_can_be_pulled(edge: CachedEdge, upstream: FakeRegistry) -> None:
    upstream.add(NAME, IMAGE, "latest")
    refer(upstream, SBOMS, SIGNATURES)
    answer = await edge.get(REFERRERS)
    assert answer.headers["Content-Type"] == OCI_INDEX
    assert referrers_of(answer.json()) == sorted((SBOMS.digest, SIGNATURES.digest))
    one = await edge.get(f"{REFERRERS}?artifactType={SBOM.replace('+', '%2B')}")
    assert (referrers_of(one.json()), one.headers["OCI-Filters-Applied"]) == ([SBOMS.digest], "artifactType")
    assert (await edge.get(f"/v2/hub/{NAME}/manifests/{SBOMS.digest}")).body == SBOMS.manifest
    # Now that it is here as well, it is listed once.
    assert referrers_of((await edge.get(REFERRERS)).json()) == sorted((SBOMS.digest, SIGNATURES.digest))
    paged = await edge.get(f"{REFERRERS}?n=1")
    first = referrers_of(paged.json())
    rest = await edge.get(paged.headers["Link"].partition(">")[0].removeprefix("<"))
    assert first + referrers_of(rest.json()) == sorted((SBOMS.digest, SIGNATURES.digest))
    assert upstream.count("GET */referrers/*") == 1


async def test_referrers_of_here_stay_when_the_upstream_fails(
    edge: CachedEdge, upstream: FakeRegistry, clock: FakeClock
) -> None:
    upstream.add(NAME, IMAGE, "latest")
    refer(upstream, SBOMS, SIGNATURES)
    await pull(edge, "latest")
    await pull(edge, SBOMS.digest)
    await upstream.stop()
    answer = await edge.get(REFERRERS)
    assert referrers_of(answer.json()) == [SBOMS.digest]
    assert "detail=" in answer.headers["Cache-Status"]
    await upstream.start()
    clock.advance(301.0)
    assert len(referrers_of((await edge.get(REFERRERS)).json())) == 2


async def test_that_nothing_is_known_of_referrers_is_an_error_and_not_an_empty_list(
    edge: CachedEdge, upstream: FakeRegistry
) -> None:
    upstream.add(NAME, IMAGE, "latest")
    upstream.faults.on("*/referrers/*", Fault(status=500))
    unknown = await edge.get(REFERRERS)
    assert unknown.status == 503
    assert "fake" in unknown.body.decode()
    await pull(edge, "latest")
    known = await edge.get(REFERRERS)
    assert (known.status, referrers_of(known.json())) == (200, [])
