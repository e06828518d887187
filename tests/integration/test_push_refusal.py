"""What a cache rule covers is filled by the cache alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.digest import digest_of
from replicator.core.errors import Denied
from replicator.core.names import RepositoryName
from replicator.core.principal import UNRESTRICTED
from replicator.core.rights import ALL_RIGHTS, Grant
from replicator.registry.uploads import Uploads
from replicator.registry_api.users import User
from tests.support.cached_edge import CachedEdge, cached_edge
from tests.support.images import build_image
from tests.support.single_node import Users
from tests.support.upstream_clients import endpoint_of
from tests.support.upstreams import FakeRegistry
from tests.support.wire_client import basic

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.wire_client import Answer

HUB = CacheRule("docker-hub", "hub")
EVERYTHING = CacheRule(ROOT, "hub")
IMAGE = build_image([b"what a user pushes"])
LAYER = b"what a user pushes"
REFUSED = "is filled by cache rule {prefix}; pushes are refused (accept_pushes)"


@pytest.fixture
async def hub() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as upstream:
        yield upstream


async def every_push(edge: CachedEdge, repository: str, source: str = "team/app") -> list[Answer]:
    """Try every way to write into a repository; `source` is one that has the layer already."""
    base, digest = f"/v2/{repository}", digest_of(LAYER)
    octets = {"Content-Type": "application/octet-stream"}
    return [
        await edge.ask("POST", f"{base}/blobs/uploads/"),
        await edge.ask("POST", f"{base}/blobs/uploads/?digest={digest}", body=LAYER, headers=octets),
        await edge.ask("POST", f"{base}/blobs/uploads/?mount={digest}&from={source}"),
        await edge.ask("POST", f"{base}/blobs/uploads/?mount={digest}"),
        await edge.push_manifest(repository, "latest", IMAGE),
        await edge.push_manifest(repository, IMAGE.digest, IMAGE),
    ]


def messages(answers: list[Answer]) -> set[str]:
    return {answer.json()["errors"][0]["message"] for answer in answers}


@pytest.mark.parametrize("repository", ["docker-hub/library/alpine", "docker-hub/mine"])
async def test_nothing_is_pushed_below_a_prefix(tmp_path: Path, hub: FakeRegistry, repository: str) -> None:
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB]) as edge:
        await edge.push("team/app", "1", IMAGE)
        before = await edge.contents()
        answers = await every_push(edge, repository)
        assert [(answer.status, answer.codes) for answer in answers] == [(403, ["DENIED"])] * len(answers)
        assert messages(answers) == {f"repository {repository} {REFUSED.format(prefix='docker-hub')}"}
        assert await edge.contents() == before
    assert hub.asked() == []


async def test_a_user_with_every_right_is_refused_too(tmp_path: Path, hub: FakeRegistry) -> None:
    users = Users([User.with_password("admin", "admin", [Grant(ALL_RIGHTS)])])
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB], users=users) as edge:
        answer = await edge.ask("POST", "/v2/docker-hub/app/blobs/uploads/", basic("admin", "admin"))
        nameless = await edge.ask("POST", "/v2/docker-hub/app/blobs/uploads/")
    assert (answer.status, answer.codes) == (403, ["DENIED"])
    assert nameless.status == 401


async def test_a_rule_may_accept_pushes(tmp_path: Path, hub: FakeRegistry) -> None:
    rule = CacheRule("docker-hub", "hub", accept_pushes=True)
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [rule]) as edge:
        await edge.push("docker-hub/mine", "1", IMAGE)
        assert (await edge.get("/v2/docker-hub/mine/manifests/1")).body == IMAGE.manifest


async def test_the_longest_prefix_says_whether_pushes_are_accepted(tmp_path: Path, hub: FakeRegistry) -> None:
    rules = [HUB, CacheRule("docker-hub/ours", "hub", accept_pushes=True)]
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, rules) as edge:
        await edge.push("docker-hub/ours/app", "1", IMAGE)
        refused = await edge.ask("POST", "/v2/docker-hub/theirs/app/blobs/uploads/")
    assert refused.status == 403


async def test_beside_a_prefix_everything_is_as_before(tmp_path: Path, hub: FakeRegistry) -> None:
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB]) as edge:
        for repository in ("docker-hub", "docker-hub-mine/app", "team/docker-hub"):
            await edge.push(repository, "1", IMAGE)


async def test_under_the_rule_for_all_names_only_what_the_cache_made_is_closed(
    tmp_path: Path, hub: FakeRegistry
) -> None:
    hub.add_image("library/alpine", "latest")
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [EVERYTHING]) as edge:
        await edge.push("team/app", "1", IMAGE)
        await edge.get("/v2/library/alpine/manifests/latest")
        before = await edge.contents()
        answers = await every_push(edge, "library/alpine")
        assert [answer.status for answer in answers] == [403] * len(answers)
        assert messages(answers) == {f"repository library/alpine {REFUSED.format(prefix='ROOT')}"}
        assert await edge.contents() == before
        await edge.push("team/app", "2", IMAGE)


async def test_a_session_begun_first_makes_the_repository_the_user_s(tmp_path: Path, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [EVERYTHING]) as edge:
        started = await edge.ask("POST", "/v2/library/alpine/blobs/uploads/")
        assert (await edge.get("/v2/library/alpine/manifests/latest")).status == 404
        done = await edge.ask("PUT", f"{started.location}?digest={digest_of(LAYER)}", body=LAYER)
        assert done.status == 201
    assert hub.asked() == []


async def test_bytes_on_their_way_when_the_cache_makes_the_repository_come_to_nothing(
    tmp_path: Path, hub: FakeRegistry
) -> None:
    hub.add_image("library/alpine", "latest")
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [EVERYTHING]) as edge:

        async def chunks() -> AsyncIterator[bytes]:
            yield LAYER[:5]
            assert (await edge.get("/v2/library/alpine/manifests/latest")).status == 200
            yield LAYER[5:]

        repository, uploads = RepositoryName("library/alpine"), Uploads(edge.node)
        with pytest.raises(Denied, match="is filled by cache rule ROOT"):
            await uploads.put_blob(UNRESTRICTED, repository, digest_of(LAYER), chunks())
        assert await edge.contents() == {"repositories": {"library/alpine": ["latest"]}, "blobs": [], "ingests": []}


async def test_a_cached_blob_is_mounted_into_an_own_repository(tmp_path: Path, hub: FakeRegistry) -> None:
    image = hub.add_image("library/alpine", "latest", [LAYER])
    digest = image.layers[0]
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB]) as edge:
        await edge.get("/v2/docker-hub/library/alpine/manifests/latest")
        await edge.get(f"/v2/docker-hub/library/alpine/blobs/{digest}")
        await edge.cache.idle()
        mounted = await edge.ask("POST", f"/v2/team/app/blobs/uploads/?mount={digest}&from=docker-hub/library/alpine")
        assert mounted.status == 201
        assert (await edge.get(f"/v2/team/app/blobs/{digest}")).body == LAYER


async def test_a_cached_image_may_be_deleted(tmp_path: Path, hub: FakeRegistry) -> None:
    hub.add_image("library/alpine", "latest")
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB]) as edge:
        image = await edge.get("/v2/docker-hub/library/alpine/manifests/latest")
        deleted = await edge.ask(
            "DELETE", f"/v2/docker-hub/library/alpine/manifests/{image.headers['Docker-Content-Digest']}"
        )
    assert deleted.status == 202


async def test_a_session_from_before_the_rule_brings_nothing_in(tmp_path: Path, hub: FakeRegistry) -> None:
    async with cached_edge(tmp_path, {}, []) as edge:
        started = await edge.ask("POST", "/v2/docker-hub/app/blobs/uploads/")
    async with cached_edge(tmp_path, {"hub": endpoint_of(hub)}, [HUB]) as edge:
        finished = await edge.ask("PUT", f"{started.location}?digest={digest_of(LAYER)}", body=LAYER)
        assert (finished.status, finished.codes) == (403, ["DENIED"])
        assert [one async for one in edge.node.store.iter_locations()] == []
        assert (await edge.ask("DELETE", started.location)).status == 404
