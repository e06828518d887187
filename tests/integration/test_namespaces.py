"""A node as a transparent mirror: clients name the registry they mean with `ns`, and keep their own names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.digest import digest_of
from replicator.core.names import RepositoryName
from replicator.core.rights import Grant, Right
from replicator.registry_api.users import User
from replicator.storage.metadata import repositories
from tests.support.cached_edge import CachedEdge, cached_edge
from tests.support.images import build_image
from tests.support.single_node import Users
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry
from tests.support.wire_client import basic, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LAYER = bytes(range(251)) * 40
HUB = CacheRule("docker-hub", "hub", namespaces=("docker.io",))
QUAY = CacheRule("quay", "quay", upstream_prefix="org", namespaces=("quay.io",))
PULL = frozenset({Right.PULL})


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as upstream:
        yield upstream


@pytest.fixture
async def edge(tmp_path: Path, hub: FakeRegistry) -> AsyncIterator[CachedEdge]:
    endpoints = {"hub": endpoint_of(hub), "quay": endpoint_of(hub)}
    async with cached_edge(tmp_path, endpoints, [HUB, QUAY], public_url="https://mirror.example.com:5001") as edge:
        yield edge


async def test_an_image_of_another_registry_under_its_own_name(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest", [LAYER])
    target = "/v2/library/alpine/manifests/latest?ns=docker.io"
    head, manifest = await edge.head(target), await edge.get(target)
    assert {one.headers["Docker-Content-Digest"] for one in (head, manifest)} == {image.digest}
    assert {one.headers["OCI-Namespace"] for one in (head, manifest)} == {"docker.io"}
    assert manifest.body == image.manifest
    for digest, content in image.blobs.items():
        target = f"/v2/library/alpine/blobs/{digest}?ns=docker.io"
        assert (await edge.head(target)).headers["OCI-Namespace"] == "docker.io"
        blob = await edge.get(target)
        assert (blob.body, blob.headers["OCI-Namespace"]) == (content, "docker.io")
        part = await edge.get(target, {"Range": "bytes=1-1"})
        assert (part.status, part.body, part.headers["OCI-Namespace"]) == (206, content[1:2], "docker.io")
    assert (await edge.get("/v2/docker-hub/library/alpine/manifests/latest")).body == image.manifest
    assert hub.count("GET /v2/library/alpine/blobs/*") == len(image.blobs)


async def test_what_is_stored_has_our_name(edge: CachedEdge, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io")
    assert await edge.node.database.read(repositories.names_after("", 10)) == ["docker-hub/library/alpine"]


@pytest.mark.parametrize("namespace", ["docker.io", "DOCKER.IO", "Docker.Io"])
async def test_the_namespace_is_echoed_as_it_was_given(edge: CachedEdge, hub: FakeRegistry, namespace: str) -> None:
    hub.add_image("library/alpine", "latest")
    answer = await edge.get(f"/v2/library/alpine/manifests/latest?ns={namespace}")
    assert (answer.status, answer.headers["OCI-Namespace"]) == (200, namespace)


async def test_a_name_that_has_our_prefix_already(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest")
    answer = await edge.get("/v2/docker-hub/library/alpine/manifests/latest?ns=docker.io")
    assert answer.body == image.manifest


async def test_a_manifest_that_the_client_has(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest")
    answer = await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io", {"If-None-Match": f'"{image.digest}"'})
    assert (answer.status, answer.headers["OCI-Namespace"]) == (304, "docker.io")


async def test_a_tag_that_the_other_registry_does_not_have(edge: CachedEdge, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    answer = await edge.get("/v2/library/alpine/manifests/absent?ns=docker.io")
    assert (answer.status, answer.codes, answer.headers["OCI-Namespace"]) == (404, ["MANIFEST_UNKNOWN"], "docker.io")


async def test_tags_are_listed_under_the_client_s_name(edge: CachedEdge, hub: FakeRegistry) -> None:
    for tag in ("1", "2", "3"):
        hub.add_image("library/alpine", tag)
        await edge.get(f"/v2/library/alpine/manifests/{tag}?ns=docker.io")
    first = await edge.get("/v2/library/alpine/tags/list?n=2&ns=docker.io")
    assert first.json() == {"name": "library/alpine", "tags": ["1", "2"]}
    link = first.headers["Link"].partition(">")[0].removeprefix("<")
    assert link == "/v2/library/alpine/tags/list?n=2&ns=docker.io&last=2"
    second = await edge.get(link)
    assert (second.json()["tags"], second.headers["OCI-Namespace"]) == (["3"], "docker.io")


async def test_referrers_are_listed_under_the_client_s_name(edge: CachedEdge, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io")
    answer = await edge.get(f"/v2/library/alpine/referrers/{digest_of(b'subject')}?ns=docker.io")
    assert (answer.status, answer.json()["manifests"]) == (200, [])
    assert answer.headers["OCI-Namespace"] == "docker.io"


@pytest.mark.parametrize("target", ["/v2/library/alpine/manifests/latest", "/v2/"])
async def test_an_unknown_namespace_is_unknown(edge: CachedEdge, hub: FakeRegistry, target: str) -> None:
    hub.add_image("library/alpine", "latest")
    answer = await edge.get(f"{target}?ns=registry.example.org")
    assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])
    assert answer.json()["errors"][0]["message"] == (
        "this node does not stand for registry registry.example.org; expected ns to be one of docker.io, quay.io"
    )
    assert "OCI-Namespace" not in answer.headers
    assert hub.asked() == []


async def test_a_repository_that_no_rule_reaches_is_unknown(edge: CachedEdge, hub: FakeRegistry) -> None:
    hub.add_image("other/app", "latest")
    answer = await edge.get("/v2/other/app/manifests/latest?ns=quay.io")
    assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])
    assert "no cache rule for registry quay.io reaches repository other/app" in answer.body.decode()
    assert hub.asked() == []


@pytest.mark.parametrize(
    "query",
    [
        "ns=",
        "ns=docker.io&ns=quay.io",
        "ns=docker.io&ns=docker.io",
        "ns=docker.io%0d%0aX-Evil:%20yes",
        "ns=http://docker.io",
        "ns=docker.io/library",
        "ns=user@docker.io",
        "ns=..",
        "ns=-a",
        "ns=docker.io:",
        "ns=docker.io:123456",
        "ns=%C3%BC.example",
        "ns=" + "a" * 5000,
    ],
)
async def test_a_malformed_namespace_is_refused(edge: CachedEdge, hub: FakeRegistry, query: str) -> None:
    answer = await edge.get(f"/v2/library/alpine/manifests/latest?{query}")
    assert (answer.status, answer.codes) == (400, ["UNSUPPORTED"])
    assert "X-Evil" not in answer.headers
    assert hub.asked() == []


@pytest.mark.parametrize("host", ["mirror.example.com:5001", "MIRROR.example.com:5001"])
async def test_our_own_host_is_as_if_nothing_were_said(edge: CachedEdge, hub: FakeRegistry, host: str) -> None:
    image = hub.add_image("library/alpine", "latest")
    answer = await edge.get(f"/v2/docker-hub/library/alpine/manifests/latest?ns={host}")
    assert (answer.body, "OCI-Namespace" in answer.headers) == (image.manifest, False)


async def test_the_host_that_the_client_calls_us_is_ours(edge: CachedEdge, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest")
    answer = await edge.get(
        "/v2/docker-hub/library/alpine/manifests/latest?ns=node.local:5001", {"Host": "node.local:5001"}
    )
    assert answer.body == image.manifest


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("PUT", "/v2/library/alpine/manifests/latest"),
        ("DELETE", "/v2/library/alpine/manifests/latest"),
        ("POST", "/v2/library/alpine/blobs/uploads/"),
        ("PATCH", "/v2/library/alpine/blobs/uploads/session"),
        ("DELETE", f"/v2/library/alpine/blobs/{digest_of(b'blob')}"),
    ],
)
async def test_nothing_is_written_into_another_registry(
    edge: CachedEdge, hub: FakeRegistry, method: str, target: str
) -> None:
    answer = await edge.ask(method, f"{target}?ns=docker.io")
    assert (answer.status, answer.codes, answer.headers["Allow"]) == (405, ["UNSUPPORTED"], "GET, HEAD")
    assert hub.asked() == []


@pytest.mark.parametrize("target", ["/v2/_catalog", "/v2/library/alpine/blobs/uploads/session"])
async def test_only_what_is_pulled_is_there_of_another_registry(
    edge: CachedEdge, hub: FakeRegistry, target: str
) -> None:
    answer = await edge.get(f"{target}?ns=docker.io")
    assert (answer.status, answer.codes) == (404, ["UNSUPPORTED"])
    assert hub.asked() == []


async def test_the_entrance(edge: CachedEdge) -> None:
    answer = await edge.get("/v2/?ns=docker.io")
    assert (answer.status, answer.headers["OCI-Namespace"]) == (200, "docker.io")
    assert "OCI-Namespace" not in (await edge.get("/v2/")).headers


async def test_a_rule_for_all_names(tmp_path: Path, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest")
    rule = CacheRule(ROOT, "hub", namespaces=("docker.io",))
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [rule]) as edge:
        for query in ("?ns=docker.io", ""):
            assert (await edge.get(f"/v2/library/alpine/manifests/latest{query}")).body == image.manifest


async def test_what_was_pushed_here_is_not_another_registry_s(tmp_path: Path, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    ours = build_image([b"pushed here"])
    rule = CacheRule(ROOT, "hub", namespaces=("docker.io",))
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [rule]) as edge:
        await edge.push("library/alpine", "latest", ours)
        assert (await edge.get("/v2/library/alpine/manifests/latest")).body == ours.manifest
        targets = [
            "manifests/latest",
            f"manifests/{ours.digest}",
            f"blobs/{ours.config}",
            "tags/list",
            f"referrers/{ours.digest}",
        ]
        for target in targets:
            answer = await edge.get(f"/v2/library/alpine/{target}?ns=docker.io")
            assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])
    assert hub.asked() == []


async def test_a_node_without_rules_stands_for_nobody(tmp_path: Path) -> None:
    async with cached_edge(tmp_path, {}, []) as edge:
        answer = await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io")
    assert (answer.status, "no cache rule has namespaces" in answer.body.decode()) == (404, True)


# Access


def users(*anonymous: Grant) -> Users:
    return Users(
        [
            User.with_password("puller", "puller", [Grant(PULL, ("docker-hub/*",))]),
            User.with_password("other", "other", [Grant(PULL, ("library/*",))]),
        ],
        anonymous,
    )


async def test_access_is_decided_by_our_name(tmp_path: Path, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest")
    target = "/v2/library/alpine/manifests/latest?ns=docker.io"
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB], users=users()) as edge:
        assert (await edge.get(target, basic("puller", "puller"))).body == image.manifest
        refused = await edge.get(target, basic("other", "other"))
        assert (refused.status, refused.codes) == (403, ["DENIED"])


@pytest.mark.parametrize("namespace", ["docker.io", "registry.example.org"])
async def test_which_registries_a_node_stands_for_is_not_for_everybody(tmp_path: Path, namespace: str) -> None:
    async with cached_edge(tmp_path, {}, [], users=users()) as edge:
        answer = await edge.get(f"/v2/library/alpine/manifests/latest?ns={namespace}")
    assert (answer.status, answer.codes) == (401, ["UNAUTHORIZED"])
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_anonymous_pulls_with_the_token_that_clients_ask_for(tmp_path: Path, hub: FakeRegistry) -> None:
    """containerd asks for a token for the name in the path, which is not ours; a token says who, not what."""
    image = hub.add_image("library/alpine", "latest")
    target = "/v2/library/alpine/manifests/latest?ns=docker.io"
    granted = users(Grant(PULL, ("docker-hub/*",)))
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB], users=granted) as edge:
        assert (await edge.get(target)).body == image.manifest
        refused = await edge.get("/v2/private/app/manifests/latest")
        assert refused.headers["WWW-Authenticate"].startswith("Bearer ")
        token = json.loads((await edge.get("/v2/token?service=replicator&scope=repository:library/alpine:pull")).body)
        assert (await edge.get(target, bearer(token["token"]))).body == image.manifest
        assert (await edge.get("/v2/private/app/manifests/latest", bearer(token["token"]))).status == 401


async def test_the_token_of_a_user_is_good_for_every_name(tmp_path: Path, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest")
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB], users=users(Grant(PULL, ("public/*",)))) as edge:
        scope = "service=replicator&scope=repository:library/alpine:pull"
        token = json.loads((await edge.get(f"/v2/token?{scope}", basic("puller", "puller"))).body)["token"]
        answer = await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io", bearer(token))
        assert answer.body == image.manifest


async def test_a_cached_repository_keeps_its_name_in_the_catalog(edge: CachedEdge, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    await edge.get("/v2/library/alpine/manifests/latest?ns=docker.io")
    assert (await edge.get("/v2/_catalog")).json() == {"repositories": [RepositoryName("docker-hub/library/alpine")]}
