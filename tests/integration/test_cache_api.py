"""The operators' API of a cache over HTTP: who is let in, and what becomes of work whose client has left."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import aiohttp

from replicator.cache.space import CacheSpace
from replicator.daemon.cache_operators import cache_use_cases
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.registry.peer_tokens import PeerTokens
from replicator.registry.settings import RegistrySettings
from replicator.registry_api.authentication import OpenAuthenticator, PeerAuthenticator
from replicator.registry_api.cache_api import CacheApi
from tests.support.cached_edge import listening_socket
from tests.support.clock import FakeClock
from tests.support.images import build_image
from tests.support.pull_through_node import ALPINE, HUB, caching_node
from tests.support.single_node import NODE, OTHER_NODE, PEER_SECRET
from tests.support.upstreams import FakeRegistry, Fault, Hold

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from replicator.telemetry.requests import Outcome
    from tests.support.pull_through_node import CachingNode

FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
BASE = "/_replicator/v1/cache/"


class Operated:
    """A caching node whose operators' API is served, and a client of it."""

    def __init__(self, caching: CachingNode, session: aiohttp.ClientSession, warmer: Any, tokens: PeerTokens) -> None:
        self.caching = caching
        self.session = session
        self.warmer = warmer
        self.tokens = tokens
        self.outcomes: list[Outcome] = []

    def observe(self, outcome: Outcome) -> None:
        """Note a finished request."""
        self.outcomes.append(outcome)

    async def post(self, path: str, body: object, headers: dict[str, str] | None = None) -> tuple[int, str]:
        """POST a JSON body."""
        async with self.session.post(BASE + path, json=body, headers=headers) as response:
            return response.status, await response.text()

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """GET a JSON answer."""
        async with self.session.get(BASE + path, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def operated(directory: Path, upstream: FakeRegistry) -> AsyncIterator[Operated]:
    """Serve the API of a caching node without users."""
    clock = FakeClock(auto=True)
    settings = RegistrySettings(NODE, cache_rules=(HUB,))
    async with contextlib.AsyncExitStack() as stack:
        caching = await stack.enter_async_context(
            caching_node(directory, {"hub": upstream}, clock, rules=(HUB,), settings=settings)
        )
        space = CacheSpace(caching.node, (HUB,), caching.cache.uses)
        source = caching.cache.upstreams.find(ALPINE)
        assert source is not None
        cases = cache_use_cases(caching.node, caching.pulls, caching.cache, space, source.sources.clients)
        stack.push_async_callback(cases.warmer.close)
        tokens = PeerTokens(NODE, PEER_SECRET, clock)
        listening = listening_socket()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        session = await stack.enter_async_context(aiohttp.ClientSession(url))
        node = Operated(caching, session, cases.warmer, tokens)
        api = CacheApi(cases, OpenAuthenticator(PeerAuthenticator(tokens)), clock, node.observe)
        server = HttpServer(Listener(listening, "", None), api.handle, api.handle)
        await server.start()
        stack.push_async_callback(server.stop, 1)
        yield node


async def test_an_image_on_its_way_is_followed_line_by_line(tmp_path: Path, upstream: FakeRegistry) -> None:
    image = upstream.add_image("library/alpine", tag="latest", layers=[b"one", b"two"])
    async with operated(tmp_path, upstream) as node:
        status, text = await node.post("warm", {"image": f"{ALPINE}:latest"})
        lines = [json.loads(line) for line in text.splitlines()]
        assert (status, lines[-1]["state"], lines[-1]["digest"]) == (200, "complete", image.digest)
        assert lines[-1]["bytes"] == lines[-1]["bytes_done"] == sum(map(len, image.blobs.values()))
        _, page = await node.get("images")
        assert [(one["tag"], one["complete"]) for one in page["images"]] == [("latest", True)]
        _, space = await node.get("space")
        held = lines[-1]["bytes"] + len(image.manifest)
        assert space["rules"] == [{"prefix": "docker-hub", "bytes": held, "limit": None}]


async def test_the_work_goes_on_when_its_client_has_left(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    hold = Hold()
    upstream.faults.on("*/blobs/*", Fault(hold=hold))
    async with operated(tmp_path, upstream) as node:
        async with node.session.post(f"{BASE}warm", json={"image": f"{ALPINE}:latest"}) as response:
            assert json.loads(await response.content.readline())["state"] == "fetching"
            await hold.reached()
        hold.release()
        await node.warmer.idle()
        _, page = await node.get("images")
        assert [one["complete"] for one in page["images"]] == [True]


async def test_a_failure_is_the_last_line(tmp_path: Path, upstream: FakeRegistry) -> None:
    async with operated(tmp_path, upstream) as node:
        status, text = await node.post("warm", {"repository": ALPINE, "reference": "latest"})
        last = json.loads(text.splitlines()[-1])
        assert (status, last["state"]) == (200, "failed")
        assert "latest" in last["error"]


async def test_peers_and_web_pages_are_refused(tmp_path: Path, upstream: FakeRegistry) -> None:
    upstream.add_image("library/alpine", tag="latest", layers=[b"one"])
    async with operated(tmp_path, upstream) as node:
        peer = {"Authorization": f"Bearer {PeerTokens(OTHER_NODE, PEER_SECRET, FakeClock()).issue(NODE)}"}
        for path in ("images", "space", "upstreams", f"explain?image={ALPINE}"):
            assert (await node.get(path, peer))[0] == 403
        for path in ("warm", "purge", "pin", "unpin", "refresh"):
            body = {"image": f"{ALPINE}:latest"}
            assert (await node.post(path, body, peer))[0] == 403
            assert (await node.post(path, body, {"Origin": "http://evil.test"}))[0] == 403
        assert upstream.count() == 0
        assert (await node.get("images"))[1]["images"] == []
        assert {one.route for one in node.outcomes} >= {"cache_images"}


async def test_layers_that_no_registry_holds_do_not_make_an_image_incomplete(
    tmp_path: Path, upstream: FakeRegistry
) -> None:
    image = build_image([b"here", b"elsewhere"], "docker")
    document = json.loads(image.manifest)
    document["layers"][1] |= {"mediaType": FOREIGN_LAYER, "urls": ["https://elsewhere.test/layer"]}
    upstream.add("library/alpine", image)
    upstream.add_manifest("library/alpine", json.dumps(document).encode(), image.media_type, "latest")
    async with operated(tmp_path, upstream) as node:
        _, text = await node.post("warm", {"image": f"{ALPINE}:latest"})
        assert json.loads(text.splitlines()[-1])["state"] == "complete"
        _, page = await node.get("images")
        assert [(one["complete"], one["blobs"]) for one in page["images"]] == [(True, {"here": 2, "all": 3})]


async def test_a_page_says_where_the_next_one_begins(tmp_path: Path, upstream: FakeRegistry) -> None:
    for tag in ("a", "b", "c"):
        upstream.add_image("library/alpine", tag=tag, layers=[tag.encode()])
    async with operated(tmp_path, upstream) as node:
        async with asyncio.TaskGroup() as group:
            for tag in ("a", "b", "c"):
                group.create_task(node.post("warm", {"image": f"{ALPINE}:{tag}"}))
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            _, page = await node.get(f"images?repository={ALPINE}&limit=1&after={after.replace(' ', '%20')}")
            seen += [one["tag"] for one in page["images"]]
            after = page["next_after"]
        assert seen == ["a", "b", "c"]
