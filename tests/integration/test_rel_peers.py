"""Nodes as earlier sources of each other: one download from the upstream for all, and nobody's word but its own.

Named tests are the faults of the same number: chained caches (REL-37), images of which a part is missing (REL-38).
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from replicator.cache.check_outcome import CheckOutcome
from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.digest import digest_of
from replicator.core.manifest import parse_manifest
from replicator.core.names import NodeId, RepositoryName, Tag, parse_node
from replicator.core.platforms import parse_platform
from replicator.registry.peer_tokens import PeerTokens
from replicator.storage.metadata import cache_entries
from replicator.upstream.endpoint import UpstreamEndpoint
from tests.support.cached_edge import CachedEdge, cached_edge, listening_socket
from tests.support.clock import FakeClock
from tests.support.images import build_image, build_index
from tests.support.single_node import PEER_SECRET
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault, Hold
from tests.support.wire_client import bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from replicator.core.digest import Digest

NAME = "library/alpine"
HUB = CacheRule("hub", "hub", namespaces=("docker.io",), fresh_for=3600.0)
US, EU, AP = (parse_node(f"111122223333/{region}") for region in ("us-east-1", "eu-west-1", "ap-south-1"))
STRANGER = parse_node("444455556666/us-east-1")
MESH = {US: (EU, AP), EU: (US, AP), AP: (US, EU)}
LAYERS = [b"one" * 200_000, b"two" * 100_000, b"three"]


@contextlib.asynccontextmanager
async def regions(
    directory: Path,
    upstream: FakeRegistry,
    plan: Mapping[NodeId, Sequence[NodeId]],
    *,
    clock: FakeClock | None = None,
    rule: CacheRule = HUB,
    serve_to: tuple[NodeId, ...] = (),
) -> AsyncIterator[dict[NodeId, CachedEdge]]:
    """Serve nodes with one rule, each asking the nodes that `plan` names before the upstream."""
    clock = clock or FakeClock(auto=True)
    sockets = {node: listening_socket() for node in plan}
    async with contextlib.AsyncExitStack() as stack:
        served = {}
        for number, (node, asked) in enumerate(plan.items()):
            (directory / str(number)).mkdir()
            via = f"1.1 replicator-{number}"
            peers = {
                peer: UpstreamEndpoint(
                    str(peer),
                    f"http://127.0.0.1:{sockets[peer].getsockname()[1]}",
                    namespace="docker.io",
                    via=via,
                    connect_timeout=2.0,
                    total_timeout=20.0,
                )
                for peer in asked
            }
            edge = cached_edge(
                directory / str(number),
                {"hub": endpoint_of(upstream, via=via)},
                [rule],
                clock=clock,
                identity=node,
                listening=sockets[node],
                via=via,
                peers={rule.prefix: peers},
                serve_to=serve_to,
            )
            served[node] = await stack.enter_async_context(edge)
        yield served


async def pull(edge: CachedEdge, reference: str = "latest", name: str = f"hub/{NAME}") -> dict[Digest, bytes]:
    """Pull an image whole, as a client does, and return its blobs; every byte is checked."""
    answer = await edge.get(f"/v2/{name}/manifests/{reference}")
    assert answer.status == 200, answer
    parsed = parse_manifest(answer.body, answer.headers["Content-Type"])
    assert answer.headers["Docker-Content-Digest"] == digest_of(answer.body)

    async def fetch(digest: Digest) -> bytes:
        blob = await edge.get(f"/v2/{name}/blobs/{digest}")
        assert (blob.status, blob.whole, digest_of(blob.body)) == (200, True, digest)
        return blob.body

    async with asyncio.TaskGroup() as group:
        tasks = {blob.digest: group.create_task(fetch(blob.digest)) for blob in parsed.blobs}
    return {digest: task.result() for digest, task in tasks.items()}


async def pull_all(edges: Mapping[NodeId, CachedEdge]) -> list[dict[Digest, bytes]]:
    """Pull in every region at once."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(pull(edge)) for edge in edges.values()]
    return [task.result() for task in tasks]


def downloads(upstream: FakeRegistry) -> dict[str, int]:
    """How often the upstream was asked for each content."""
    asked = [request.path.rpartition("/")[2] for request in upstream.asked(f"GET /v2/{NAME}/*")]
    return {name: asked.count(name) for name in asked}


def given_up(edges: Mapping[NodeId, CachedEdge]) -> list[str]:
    """The requests whose client left because no answer came in time: somebody waited for somebody in vain."""
    return [outcome.path for edge in edges.values() for outcome in edge.outcomes if outcome.status == 499]


def token(node: NodeId, to: NodeId) -> dict[str, str]:
    """The proof that a node shows to another."""
    return bearer(PeerTokens(node, PEER_SECRET, FakeClock()).issue(to))


# One download


@pytest.mark.parametrize("plan", [{US: (), EU: (US,), AP: (US,)}, MESH], ids=["hub", "mesh"])
async def test_regions_that_are_cold_at_once_download_an_image_once(
    tmp_path: Path, upstream: FakeRegistry, plan: Mapping[NodeId, Sequence[NodeId]]
) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    async with regions(tmp_path, upstream, plan) as edges:
        pulled = await pull_all(edges)
        assert not given_up(edges)
    assert pulled == [image.blobs] * 3
    blobs = {name: count for name, count in downloads(upstream).items() if name != "latest"}
    assert set(blobs) == set(image.blobs)
    assert set(blobs.values()) == {1}


async def test_regions_in_a_ring_do_not_wait_for_each_other(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    ring = {US: (AP,), EU: (US,), AP: (EU,)}
    async with regions(tmp_path, upstream, ring) as edges:
        assert await pull_all(edges) == [image.blobs] * 3
        assert not given_up(edges)
    assert max(downloads(upstream).values()) < 3  # who must not wait for its one peer asks the upstream


async def test_a_region_follows_a_download_of_its_peer_as_it_arrives(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    layer, hold = image.layers[0], Hold()
    async with regions(tmp_path, upstream, {US: (), EU: (US,)}) as edges:
        for edge in edges.values():
            await edge.get(f"/v2/hub/{NAME}/manifests/latest")
        upstream.faults.on(f"GET *{layer}", Fault(hold=hold, hold_after=300_000))
        async with await edges[EU].cache.open_blob_for_engine(RepositoryName(f"hub/{NAME}"), layer) as content:
            pieces = []
            async for piece in content.read(0, content.size):
                pieces.append(bytes(piece))
                hold.release()  # the upstream sends the rest only now
    assert hold.waiting == 0
    assert digest_of(b"".join(pieces)) == layer
    assert upstream.count(f"GET *{layer}") == 1


async def test_a_region_that_comes_later_asks_its_peer_alone(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    async with regions(tmp_path, upstream, {US: (), EU: (US,)}) as edges:
        await pull(edges[US])
        await upstream.stop()
        assert await pull(edges[EU]) == image.blobs


async def test_peers_that_are_gone_are_passed_over(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    with contextlib.closing(listening_socket()) as unused:
        port = unused.getsockname()[1]
    gone = UpstreamEndpoint(str(US), f"http://127.0.0.1:{port}", namespace="docker.io", connect_timeout=2.0)
    peers = {HUB.prefix: {US: gone, AP: gone}}
    async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], identity=EU, peers=peers) as edge:
        assert await pull(edge) == image.blobs


async def test_a_peer_that_breaks_off_is_followed_by_the_upstream(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    async with FakeRegistry() as peer:
        peer.add(NAME, image, "latest")
        hold = Hold()
        peer.faults.on(f"*/blobs/{image.layers[0]}", Fault(hold=hold, hold_after=300_000, cut_after=300_000))
        peers = {HUB.prefix: {US: endpoint_of(peer, namespace="docker.io")}}
        async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], identity=EU, peers=peers) as edge:
            await edge.get(f"/v2/hub/{NAME}/manifests/latest")
            repository = RepositoryName(f"hub/{NAME}")
            async with await edge.cache.open_blob_for_engine(repository, image.layers[0]) as content:
                pieces = []
                async for piece in content.read(0, content.size):
                    pieces.append(bytes(piece))
                    hold.release()
        asked = peer.asked(f"GET */blobs/{image.layers[0]}")
    assert digest_of(b"".join(pieces)) == image.layers[0]
    assert [request.query["ns"] for request in asked] == ["docker.io"]
    resumed = upstream.asked(f"GET */blobs/{image.layers[0]}")
    assert [request.headers["range"] for request in resumed] == ["bytes=300000-"]


async def test_a_peer_that_sends_wrong_bytes_harms_nobody(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    async with FakeRegistry() as peer:
        peer.add(NAME, image, "latest")
        peer.faults.on("*", Fault(flip=2))
        peers = {HUB.prefix: {US: endpoint_of(peer, namespace="docker.io")}}
        async with cached_edge(tmp_path, {"hub": endpoint_of(upstream)}, [HUB], identity=EU, peers=peers) as edge:
            manifest = await edge.get(f"/v2/hub/{NAME}/manifests/{image.digest}")
            assert manifest.body == image.manifest
            repository = RepositoryName(f"hub/{NAME}")
            async with await edge.cache.open_blob_for_engine(repository, image.layers[2]) as content:
                read = b"".join([bytes(piece) async for piece in content.read(0, content.size)])
    assert digest_of(read) == image.layers[2]


async def test_that_a_peer_lacks_it_means_nothing(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest", LAYERS)
    elsewhere = CacheRule("hub", "hub", namespaces=("quay.io",))
    async with FakeRegistry() as empty:
        (tmp_path / "us").mkdir()
        us = cached_edge(tmp_path / "us", {"hub": endpoint_of(empty)}, [elsewhere], identity=US)
        async with us as peer:
            url = f"http://127.0.0.1:{peer.port}"
            for number, namespace in enumerate(("docker.io", "quay.io")):
                peers = {HUB.prefix: {US: UpstreamEndpoint(str(US), url, namespace=namespace)}}
                (tmp_path / str(number)).mkdir()
                eu = cached_edge(
                    tmp_path / str(number), {"hub": endpoint_of(upstream)}, [HUB], identity=EU, peers=peers
                )
                async with eu as edge:
                    assert await pull(edge) == image.blobs
            assert {outcome.status for outcome in peer.outcomes} == {404}


# Honest about age


async def test_staleness_adds_up(tmp_path: Path, upstream: FakeRegistry) -> None:
    clock = FakeClock()
    upstream.add_image(NAME, "latest", LAYERS)
    async with regions(tmp_path, upstream, {US: (), EU: (US,)}, clock=clock) as edges:
        fetched = clock.now()
        await edges[US].get(f"/v2/hub/{NAME}/manifests/latest")
        clock.advance(1000.0)
        first = await edges[EU].get(f"/v2/hub/{NAME}/manifests/latest")
        clock.advance(500.0)
        second = await edges[EU].get(f"/v2/hub/{NAME}/manifests/latest")
        entry = await edges[EU].node.database.read(cache_entries.find(RepositoryName(f"hub/{NAME}"), Tag("latest")))
    assert entry is not None
    assert entry.checked_at == pytest.approx(fetched, abs=1.0)
    assert (int(first.headers["Age"]), int(second.headers["Age"])) == (1000, 1500)
    assert upstream.count("GET */manifests/latest") == 1


async def test_a_peer_that_knows_less_than_we_do_takes_no_tag_back(tmp_path: Path, upstream: FakeRegistry) -> None:
    clock = FakeClock()
    old = upstream.add_image(NAME, "latest", [b"old"])
    async with regions(tmp_path, upstream, {US: (), EU: (US,)}, clock=clock) as edges:
        repository, latest = RepositoryName(f"hub/{NAME}"), Tag("latest")
        await edges[US].get(f"/v2/hub/{NAME}/manifests/latest")
        clock.advance(600.0)
        assert (await edges[EU].get(f"/v2/hub/{NAME}/manifests/latest")).body == old.manifest
        new = upstream.add_image(NAME, "latest", [b"new"])
        # For an operator who asks, what the peer knows from ten minutes ago is no news, and then it is old.
        assert await edges[EU].cache.refresh(repository, latest) is CheckOutcome.CHANGED
        clock.advance(5.0)
        assert await edges[EU].cache.refresh(repository, latest) is CheckOutcome.CONFIRMED
        upstream.faults.on("*", Fault(status=503))
        assert await edges[EU].cache.refresh(repository, latest) is CheckOutcome.FAILED
        assert (await edges[EU].get(f"/v2/hub/{NAME}/manifests/latest")).body == new.manifest


async def test_what_a_peer_kept_for_too_long_is_served_only_when_nobody_else_answers(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    clock = FakeClock()
    old = upstream.add_image(NAME, "latest", [b"old"])
    upstream.add(NAME, old, "other")
    async with regions(tmp_path, upstream, {US: (), EU: (US,)}, clock=clock) as edges:
        for tag in ("latest", "other"):
            await edges[US].get(f"/v2/hub/{NAME}/manifests/{tag}")
        clock.advance(7200.0)
        new = upstream.add_image(NAME, "latest", [b"new"])
        assert (await edges[EU].get(f"/v2/hub/{NAME}/manifests/latest")).body == new.manifest
        await upstream.stop()
        answer = await edges[EU].get(f"/v2/hub/{NAME}/manifests/other")
    assert (answer.body, answer.headers["Age"]) == (old.manifest, "7200")


# What a node may have


async def test_a_node_of_another_account_is_served_when_it_is_named(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest")
    target = f"/v2/{NAME}/manifests/latest?ns=docker.io"
    for number, (serve_to, status) in enumerate((((), 403), ((STRANGER,), 200))):
        (tmp_path / str(number)).mkdir()
        async with regions(tmp_path / str(number), upstream, {US: ()}, serve_to=serve_to) as edges:
            assert (await edges[US].get(target, token(STRANGER, US))).status == status
            assert (await edges[US].get(target, token(EU, US))).body == image.manifest
            # Only by the registry's name, and to read.
            assert (await edges[US].get(f"/v2/hub/{NAME}/manifests/latest", token(EU, US))).status == 403
            for method in ("PUT", "DELETE", "POST"):
                assert (await edges[US].ask(method, target, token(EU, US))).status in {403, 405}


async def test_what_users_may_push_into_is_not_served_as_the_upstream_s(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.add_image(NAME, "latest")
    rule = CacheRule("hub", "hub", namespaces=("docker.io",), accept_pushes=True)
    async with regions(tmp_path, upstream, {US: ()}, rule=rule) as edges:
        refused = await edges[US].get(f"/v2/{NAME}/manifests/latest?ns=docker.io", token(EU, US))
    assert refused.status == 403
    assert upstream.count() == 0


async def test_a_node_s_own_repositories_are_not_the_upstream_s(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image(NAME, "latest")
    own = build_image([b"our own"])
    rule = CacheRule(ROOT, "hub", namespaces=("docker.io",))
    async with regions(tmp_path, upstream, {US: ()}, rule=rule) as edges:
        await edges[US].push("team/app", "latest", own)
        for what in ("manifests/latest", f"manifests/{own.digest}", f"blobs/{own.config}", "tags/list"):
            answer = await edges[US].get(f"/v2/team/app/{what}?ns=docker.io", token(EU, US))
            assert answer.status == 404, what
        shown = await edges[US].get(f"/v2/{NAME}/manifests/latest?ns=docker.io", token(EU, US))
    assert shown.body == image.manifest


async def test_a_node_sees_the_tags_that_are_here_and_no_upstream_is_asked(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    upstream.add_image(NAME, "latest")
    upstream.add_image(NAME, "3.20", [b"other"])
    async with regions(tmp_path, upstream, {US: ()}) as edges:
        await edges[US].get(f"/v2/hub/{NAME}/manifests/latest")
        listed = await edges[US].get(f"/v2/{NAME}/tags/list?ns=docker.io", token(EU, US))
    assert listed.json() == {"name": NAME, "tags": ["latest"]}
    assert upstream.count("*/tags/list") == 0


# REL-37, REL-38


async def test_rel_37_a_cache_of_a_cache(tmp_path: Path, upstream: FakeRegistry) -> None:
    """Ours in front of ours in front of an upstream whose HEAD knows nothing before its GET."""
    image = upstream.add_image(NAME, "latest", LAYERS)
    upstream.faults.on("HEAD */manifests/*", Fault(status=404))
    (tmp_path / "near").mkdir()
    (tmp_path / "far").mkdir()
    clock = FakeClock()
    async with cached_edge(tmp_path / "far", {"hub": endpoint_of(upstream)}, [HUB], clock=clock, identity=US) as far:
        rule = CacheRule("near", "far", upstream_prefix="hub", fresh_for=60.0, stale_while_revalidate=0.0)
        url = f"http://127.0.0.1:{far.port}"
        endpoint = UpstreamEndpoint("far", url, total_timeout=10.0)
        async with cached_edge(tmp_path / "near", {"far": endpoint}, [rule], clock=clock, identity=EU) as near:
            target = f"/v2/near/{NAME}/manifests/latest"
            head = await near.head(target)
            assert (head.status, head.headers["Docker-Content-Digest"]) == (200, image.digest)
            assert await pull(near, name=f"near/{NAME}") == image.blobs
            # Later on, when both have to check, a HEAD that knows nothing is not believed.
            clock.advance(7200.0)
            for method in ("HEAD", "GET"):
                answer = await near.ask(method, target)
                assert (answer.status, answer.headers["Docker-Content-Digest"]) == (200, image.digest)
    assert set(downloads(upstream).values()) <= {1, 2}
    assert upstream.count("GET */blobs/*") == len(image.blobs)


async def test_rel_38_an_index_of_which_a_part_cannot_be_had(tmp_path: Path, upstream: FakeRegistry) -> None:
    here = build_image([b"amd64"], platform=("linux", "amd64"))
    missing = build_image([b"arm64"], platform=("linux", "arm64"))
    index = build_index([here, missing])
    upstream.add(NAME, index, "latest")
    repository = RepositoryName(f"hub/{NAME}")
    amd64 = (parse_platform("linux/amd64"),)
    async with regions(tmp_path, upstream, {US: ()}) as edges:
        edge = edges[US]
        assert (await edge.get(f"/v2/hub/{NAME}/manifests/latest")).body == index.manifest
        await pull(edge, here.digest)
        await upstream.stop()
        assert (await edge.get(f"/v2/hub/{NAME}/manifests/latest")).body == index.manifest
        assert await pull(edge, here.digest) == here.blobs
        refused = await edge.get(f"/v2/hub/{NAME}/manifests/{missing.digest}")
        lack = await edge.cache.completion.find_lack(repository, index.digest)
        lack_here = await edge.cache.completion.find_lack(repository, index.digest, amd64)
    assert refused.status in {502, 503, 504}
    assert "fake" in refused.body.decode()  # which upstream
    assert (lack.manifests, lack.is_nothing) == ((missing.digest,), False)
    assert lack_here.is_nothing


async def test_rel_38_an_index_whose_part_the_upstream_has_removed(tmp_path: Path, upstream: FakeRegistry) -> None:
    gone = build_image([b"arm64"], platform=("linux", "arm64"))
    index = build_index([build_image([b"amd64"]), gone])
    upstream.add(NAME, index, "latest")
    del upstream.repository(NAME).manifests[gone.digest]
    async with regions(tmp_path, upstream, {US: ()}) as edges:
        assert (await edges[US].get(f"/v2/hub/{NAME}/manifests/latest")).body == index.manifest
        refused = await edges[US].get(f"/v2/hub/{NAME}/manifests/{gone.digest}")
        assert (await edges[US].get(f"/v2/hub/{NAME}/manifests/latest")).body == index.manifest
    assert (refused.status, refused.codes) == (404, ["MANIFEST_UNKNOWN"])
