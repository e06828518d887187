"""Requests that wait: of clients that stay, that leave, and that come too often."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from replicator.core.errors import ManifestNotFound, ReplicatorError
from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import Listener
from replicator.registry_api.errors import render
from replicator.registry_api.long_polls import LongPolls
from replicator.registry_api.request_body import ClientGone
from replicator.telemetry.system_clock import SystemClock
from tests.support.wire_client import WireClient

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Scene:
    """A server whose requests wait for `release`; `left` says that one was told that its client is gone."""

    def __init__(self) -> None:
        self.polls = LongPolls(SystemClock(), most=2)
        self.release = asyncio.Event()
        self.left = asyncio.Event()
        self.port = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self.polls.run(request, request.path, lambda: self._work(request))
        except ClientGone:
            self.left.set()
            return web.Response(status=499)
        except ReplicatorError as error:
            return web.Response(status=render(error).status)

    async def _work(self, request: web.BaseRequest) -> web.Response:
        await self.release.wait()
        if request.path == "/nothing":
            raise ManifestNotFound
        return web.Response(text="done")


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    scene.port = listening.getsockname()[1]
    server = HttpServer(Listener(listening, "", None), scene.handle, scene.handle)
    await server.start()
    try:
        yield scene
    finally:
        scene.release.set()
        await server.stop(grace=1)


async def until_waiting(scene: Scene, count: int) -> None:
    async with asyncio.timeout(10):
        while scene.polls.count != count:  # noqa: ASYNC110 - each gets its turn
            await asyncio.sleep(0)


async def test_who_stays_is_answered(scene: Scene) -> None:
    async with WireClient(scene.port) as one, WireClient(scene.port) as other, asyncio.TaskGroup() as group:
        found, missing = group.create_task(one.get("/ann")), group.create_task(other.get("/nothing"))
        await until_waiting(scene, 2)
        scene.release.set()
    assert (found.result().status, found.result().body) == (200, b"done")
    assert missing.result().status == 404
    assert scene.polls.count == 0


async def test_who_leaves_waits_no_longer(scene: Scene) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", scene.port)
    writer.write(b"GET /ann HTTP/1.1\r\nHost: x\r\n\r\n")
    await until_waiting(scene, 1)
    writer.close()
    async with asyncio.timeout(10):
        await scene.left.wait()
    assert scene.polls.count == 0


async def test_one_caller_does_not_take_all_places(scene: Scene) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(WireClient(scene.port)) for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            waiting = [group.create_task(client.get("/ann")) for client in clients[:2]]
            await until_waiting(scene, 2)
            assert (await clients[2].get("/ann")).status == 429
            waiting.append(group.create_task(clients[3].get("/bob")))
            await until_waiting(scene, 3)
            scene.release.set()
    assert [task.result().status for task in waiting] == [200, 200, 200]
