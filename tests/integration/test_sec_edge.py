"""Attacks on the edge of a node with a cache, each known from another registry; by the numbers of our catalogue."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.digest import digest_of
from replicator.core.media_types import OCI_MANIFEST
from replicator.core.rights import ALL_RIGHTS, Grant, Right
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry_api.users import User
from replicator.storage.metadata import blobs
from tests.support.cached_edge import CachedEdge, cached_edge
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.single_node import NODE, OTHER_NODE, PEER_SECRET, Users
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry, Fault
from tests.support.wire_client import basic, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.support.wire_client import Answer

PULL = frozenset({Right.PULL})
HUB = CacheRule("docker-hub", "hub", namespaces=("docker.io",))
EVERYTHING = CacheRule(ROOT, "hub", namespaces=("docker.io",))
A, B, OWN = "docker-hub/team/a", "docker-hub/team/b", "own/b"
LAYER = b"a layer of one repository alone"
BLOB = digest_of(LAYER)
ADMIN, READER = basic("admin", "admin"), basic("reader", "reader")
USERS = Users(
    [
        User.with_password("admin", "admin", [Grant(ALL_RIGHTS)]),
        User.with_password("reader", "reader", [Grant(PULL, (B,)), Grant(ALL_RIGHTS, ("own/*",))]),
    ]
)


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as upstream:
        yield upstream


@contextlib.asynccontextmanager
async def node_of(directory: Path, hub: FakeRegistry, rule: CacheRule = HUB, **more: Any) -> AsyncIterator[CachedEdge]:
    async with cached_edge(directory, {"hub": endpoint_of(hub)}, [rule], **more) as edge:
        yield edge


async def holders(edge: CachedEdge) -> list[str]:
    """Return the repositories that hold the layer."""
    return list(await edge.node.database.read(blobs.holders(BLOB, "", 100)))


async def fill(edge: CachedEdge, hub: FakeRegistry, headers: Mapping[str, str] | None = None) -> None:
    """Have the cache fetch A's layer, which B does not have, and let B be a repository that is cached as well."""
    image = hub.add_image("team/a", "latest", [LAYER])
    hub.add_image("team/b", "latest", [b"another layer"])
    for repository in (A, B):
        assert (await edge.get(f"/v2/{repository}/manifests/latest", headers)).status == 200
    assert (await edge.get(f"/v2/{A}/blobs/{image.layers[0]}", headers)).body == LAYER
    await edge.cache.idle()
    assert await holders(edge) == [A]


async def test_sec_10_a_blob_of_another_repository_does_not_show(tmp_path: Path, hub: FakeRegistry) -> None:
    async with node_of(tmp_path, hub, users=USERS) as edge:
        await fill(edge, hub, ADMIN)
        for repository in (B, OWN):
            for method, headers in (("HEAD", {}), ("GET", {}), ("GET", {"Range": "bytes=0-3"})):
                answer = await edge.ask(method, f"/v2/{repository}/blobs/{BLOB}", {**READER, **headers})
                assert (answer.status, LAYER[:4] in answer.body) == (404, False)
        by_namespace = await edge.get(f"/v2/team/b/blobs/{BLOB}?ns=docker.io", READER)
        assert by_namespace.status == 404
        referrers = await edge.get(f"/v2/{B}/referrers/{BLOB}", READER)
        assert referrers.json()["manifests"] == []
        mounted = await edge.ask("POST", f"/v2/{OWN}/blobs/uploads/?mount={BLOB}&from={A}", READER)
        assert mounted.status == 202
        assert await holders(edge) == [A]


async def test_sec_11_what_was_deleted_stays_deleted_when_another_repository_has_it(
    tmp_path: Path, hub: FakeRegistry
) -> None:
    one, other = "own/one", "own/other"
    async with node_of(tmp_path, hub) as edge:
        for repository in (one, other):
            async with edge.client() as client:
                await client.push_blob(repository, LAYER)
        assert (await edge.ask("DELETE", f"/v2/{one}/blobs/{BLOB}")).status == 202
        async with edge.client() as client:
            await client.push_blob(other, LAYER)
        assert (await edge.head(f"/v2/{other}/blobs/{BLOB}")).status == 200
        assert (await edge.get(f"/v2/{one}/blobs/{BLOB}")).status == 404
    async with node_of(tmp_path, hub) as edge:
        hub.add_image("team/a", "latest", [LAYER])
        await edge.get(f"/v2/{A}/manifests/latest")
        assert (await edge.get(f"/v2/{A}/blobs/{BLOB}")).body == LAYER
        await edge.cache.idle()
        assert (await edge.get(f"/v2/{one}/blobs/{BLOB}")).status == 404
        assert sorted(await holders(edge)) == [A, other]


@pytest.mark.parametrize("source", [f"&from={A}", ""])
async def test_sec_12_a_mount_gives_only_what_one_may_read(tmp_path: Path, hub: FakeRegistry, source: str) -> None:
    async with node_of(tmp_path, hub, users=USERS) as edge:
        await fill(edge, hub, ADMIN)
        target = f"/v2/{OWN}/blobs/uploads/?mount={BLOB}{source}"
        assert (await edge.ask("POST", target, READER)).status == 202
        assert await holders(edge) == [A]
        assert (await edge.ask("POST", target, ADMIN)).status == 201
        assert sorted(await holders(edge)) == [A, OWN]


IDENTITIES = ("scanner-1", "cache", "replicator", "peer", "node", "robot$cache", str(NODE), "anonymous")


@pytest.mark.parametrize("rule", [HUB, EVERYTHING], ids=["prefix", "ROOT"])
async def test_sec_16_nobody_but_the_cache_fills_a_cached_repository(
    tmp_path: Path, hub: FakeRegistry, rule: CacheRule
) -> None:
    users = Users([User.with_password(name, "p", [Grant(ALL_RIGHTS)]) for name in IDENTITIES])
    forged = build_image([b"poison"])
    repository = A if rule is HUB else "team/a"
    hub.add_image("team/a", "latest", [LAYER])
    async with node_of(tmp_path, hub, rule, users=users) as edge:
        image = await edge.get(f"/v2/{repository}/manifests/latest", basic("cache", "p"))
        before = await edge.contents()
        peer = bearer(PeerTokens(OTHER_NODE, PEER_SECRET, FakeClock(), {}).issue(NODE))
        callers = [*(basic(name, "p") for name in IDENTITIES), peer]
        for headers in callers:
            answers = await attempts(edge, repository, forged.manifest, headers)
            assert {answer.status for answer in answers} == {403, 405}
        assert await edge.contents() == before
        again = await edge.get(f"/v2/{repository}/manifests/latest", basic("cache", "p"))
        assert again.body == image.body


async def attempts(edge: CachedEdge, repository: str, manifest: bytes, headers: Mapping[str, str]) -> list[Answer]:
    """Try to get something into a repository, also by the name that it has at its registry."""
    typed = {**headers, "Content-Type": OCI_MANIFEST}
    poison = digest_of(b"poison")
    return [
        await edge.ask("POST", f"/v2/{repository}/blobs/uploads/", headers),
        await edge.ask("POST", f"/v2/{repository}/blobs/uploads/?digest={poison}", headers, body=b"poison"),
        await edge.ask("POST", f"/v2/{repository}/blobs/uploads/?mount={BLOB}", headers),
        await edge.ask("PUT", f"/v2/{repository}/manifests/latest", typed, body=manifest),
        await edge.ask("PUT", f"/v2/{repository}/manifests/{digest_of(manifest)}?tag=latest", typed, body=manifest),
        await edge.ask("PUT", "/v2/team/a/manifests/latest?ns=docker.io", typed, body=manifest),
    ]


DIGESTS = (
    "sha256:../../../../etc/passwd",
    "sha256:..%2f..%2fetc%2fpasswd",
    "sha256:%2e%2e",
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "A" * 64,
    "sha256:zz" + "a" * 62,
    "md5:" + "a" * 32,
    "sha256:",
    ":" + "a" * 64,
    "sha256:" + "a" * 63 + "%00",
)


@pytest.mark.parametrize("digest", DIGESTS)
async def test_sec_21_a_malformed_digest_reaches_nothing(tmp_path: Path, hub: FakeRegistry, digest: str) -> None:
    async with node_of(tmp_path, hub) as edge:
        for kind in ("blobs", "manifests", "referrers"):
            for target in (f"/v2/{A}/{kind}/{digest}", f"/v2/team/a/{kind}/{digest}?ns=docker.io"):
                answer = await edge.get(target)
                assert answer.status in {400, 404}, (target, answer)
        mount = await edge.ask("POST", f"/v2/{OWN}/blobs/uploads/?mount={digest}")
        assert mount.status == 400
    assert hub.asked() == []


@pytest.mark.parametrize("field", ["config", "layers", "subject"])
async def test_sec_21_a_malformed_digest_in_a_manifest_is_refused(
    tmp_path: Path, hub: FakeRegistry, field: str
) -> None:
    document = json.loads(build_image([LAYER]).manifest)
    bad = {"mediaType": "application/octet-stream", "size": 1, "digest": "sha256:../../../etc/passwd"}
    document[field] = [bad] if field == "layers" else bad
    content = json.dumps(document).encode()
    hub.add_manifest("team/a", content, OCI_MANIFEST, "latest")
    async with node_of(tmp_path, hub) as edge:
        pulled = await edge.get(f"/v2/{A}/manifests/latest")
        assert (pulled.status, pulled.codes) == (502, ["UNAVAILABLE"])
        assert field in pulled.json()["errors"][0]["message"]
        async with edge.client() as client:
            pushed = await client.push_manifest(OWN, "latest", content, OCI_MANIFEST)
        assert (pushed.status, pushed.codes) == (400, ["DIGEST_INVALID"])
        assert (await edge.contents())["blobs"] == []


NAMES = (
    "..",
    "../etc",
    "a/../b",
    "a/%2e%2e/b",
    "a%2fb",
    "a//b",
    "a%00b",
    "a\\b",
    "UPPER",
    "\u00fc",
    "a" * 257,
    "_blobs",
    ".hidden",
    "a/_uploads/b",
)


@pytest.mark.parametrize("name", NAMES)
async def test_sec_22_a_name_leads_nowhere_else(tmp_path: Path, hub: FakeRegistry, name: str) -> None:
    home = tmp_path / "root"
    home.mkdir()
    async with node_of(home, hub) as edge:
        for target in (f"docker-hub/{name}", name):
            raw = target.encode().decode("latin-1")
            for path in ("manifests/latest", f"blobs/{BLOB}", "tags/list"):
                for query in ("", "?ns=docker.io"):
                    answer = await edge.get(f"/v2/{raw}/{path}{query}")
                    assert answer.status in {400, 404}, (target, path, answer)
            pushed = await edge.ask("POST", f"/v2/{raw}/blobs/uploads/")
            assert pushed.status in {400, 403, 404}
        assert (await edge.contents())["repositories"] == {}
    assert hub.asked() == []
    assert files_of(tmp_path) == [home]


@pytest.mark.parametrize("size", ["-1", "0", str(2**31), str(2**63), "abc", "1e9", "%00"])
async def test_sec_23_a_page_of_any_size_costs_little(tmp_path: Path, hub: FakeRegistry, size: str) -> None:
    hub.add_image("team/a", "latest", [LAYER])
    async with node_of(tmp_path, hub) as edge:
        await edge.get(f"/v2/{A}/manifests/latest")
        before = resident_bytes()
        for target in ("/v2/_catalog", f"/v2/{A}/tags/list", f"/v2/{A}/referrers/{BLOB}"):
            answer = await edge.get(f"{target}?n={size}")
            assert answer.status in {200, 400}, answer
            if answer.status == 200:
                assert len(answer.body) < 1000
        by_namespace = await edge.get(f"/v2/team/a/tags/list?n={size}&ns=docker.io")
        assert by_namespace.status in {200, 400}
        assert resident_bytes() - before < 5 * 2**20


def files_of(directory: Path) -> list[Path]:
    return list(directory.iterdir())


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "[::1]:1", "127.0.0.1:1"])
async def test_sec_34_no_header_moves_a_location(tmp_path: Path, hub: FakeRegistry, host: str) -> None:
    hostile = {
        "Host": host,
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "gopher",
        "Forwarded": "host=evil.example;proto=gopher",
    }
    for tag in ("1", "2"):
        hub.add_image("team/a", tag, [LAYER])
    async with node_of(tmp_path, hub) as edge:
        for tag in ("1", "2"):
            await edge.get(f"/v2/team/a/manifests/{tag}?ns=docker.io", hostile)
        started = await edge.ask("POST", f"/v2/{OWN}/blobs/uploads/", hostile)
        assert started.location.startswith(f"/v2/{OWN}/blobs/uploads/")
        page = await edge.get("/v2/team/a/tags/list?n=1&ns=docker.io", hostile)
        assert page.headers["Link"].startswith("</v2/team/a/tags/list?")
        for answer in (started, page):
            assert "evil.example" not in str(answer.headers) + answer.body.decode()


async def test_sec_35_a_private_repository_is_never_looked_for_elsewhere(tmp_path: Path, hub: FakeRegistry) -> None:
    ours = build_image([b"private"])
    hub.add_image("team/app", "2", [b"what somebody published under the private name"])
    async with node_of(tmp_path, hub, EVERYTHING) as edge:
        await edge.push("team/app", "1", ours)
        assert (await edge.get("/v2/team/app/manifests/1")).body == ours.manifest
        assert (await edge.get("/v2/team/app/manifests/2")).status == 404
        # Nor does it pass for the other registry's repository of that name.
        assert (await edge.get("/v2/team/app/manifests/1?ns=docker.io")).status == 404
        assert (await edge.get("/v2/team/app/manifests/2?ns=docker.io")).status == 404
    assert hub.asked() == []


@pytest.mark.parametrize(
    "namespace", ["169.254.169.254", "127.0.0.1:80", "localhost", "[::1]", "internal.example", "docker.io.evil.example"]
)
async def test_sec_35_only_registries_of_rules_are_asked(tmp_path: Path, hub: FakeRegistry, namespace: str) -> None:
    hub.add_image("team/a", "latest", [LAYER])
    async with node_of(tmp_path, hub) as edge:
        answer = await edge.get(f"/v2/team/a/manifests/latest?ns={namespace}")
    assert (answer.status, answer.codes, hub.asked()) == (404, ["NAME_UNKNOWN"], [])


async def test_sec_35_a_namespace_gets_what_its_own_registry_has(tmp_path: Path, hub: FakeRegistry) -> None:
    async with FakeRegistry() as quay:
        theirs, other = hub.add_image("team/app", "1", [b"hub"]), quay.add_image("team/app", "1", [b"quay"])
        rules = [HUB, CacheRule("quay", "quay", namespaces=("quay.io",))]
        endpoints = {"hub": endpoint_of(hub), "quay": endpoint_of(quay)}
        async with cached_edge(tmp_path, endpoints, rules) as edge:
            for namespace, image in (("docker.io", theirs), ("quay.io", other)):
                answer = await edge.get(f"/v2/team/app/manifests/1?ns={namespace}")
                assert (answer.body, answer.headers["OCI-Namespace"]) == (image.manifest, namespace)
            hub.faults.on("*", Fault(status=503))
            refused = await edge.get("/v2/team/app/manifests/2?ns=docker.io")
            assert refused.status == 503
        assert quay.count("GET /v2/team/app/manifests/2") == 0
