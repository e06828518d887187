"""How a node's port takes in those who come."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
import sys
from contextlib import ExitStack
from itertools import count

import pytest
import uvloop
from aiohttp import web

from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import BACKLOG, Listener

CROWD = 160


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long the queue of a port may be")
async def test_crowd_that_comes_at_once_waits_in_the_queue_of_the_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        server = HttpServer(Listener(listening, "", None), _unasked, _unasked)
        await server.start()
        try:
            assert _longest_queue(listening) == BACKLOG
        finally:
            await server.stop(grace=1)


def test_crowd_is_let_in_many_at_a_time() -> None:
    assert uvloop.run(_turns_until_all_are_in(CROWD)) < CROWD / 2


async def test_nobody_is_let_in_while_the_last_ones_are_served() -> None:
    asked, release = asyncio.Event(), asyncio.Event()

    async def hear(_: web.BaseRequest) -> web.StreamResponse:
        asked.set()
        await release.wait()
        return web.Response()

    listening = socket.create_server(("127.0.0.1", 0))
    address = listening.getsockname()
    server = HttpServer(Listener(listening, "", None), hear, hear)
    await server.start()
    with socket.create_connection(address) as client:
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asked.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(server.stop(grace=10))
            async with asyncio.timeout(5):
                while _is_open(address):  # noqa: ASYNC110 - nothing tells when a port is closed
                    await asyncio.sleep(0)
            release.set()


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", "TLS on a port without it"), (b"@ hunter2\r\n\r\n", "Bad")],
)
async def test_what_is_no_http_is_one_line_that_quotes_nothing(
    sent: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = HttpServer(Listener(listening, "", None), _unasked, _unasked)
        await server.start()
        try:
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(sent)
            await asyncio.wait_for(reader.read(), 5)
            writer.close()
            await writer.wait_closed()
        finally:
            await server.stop(grace=1)
    told = [one for one in caplog.records if "request is malformed" in one.getMessage()]
    assert len(told) == 1
    assert reason in str(told[0].__dict__)
    assert "hunter2" not in caplog.text


def _is_open(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address).close()
    except ConnectionError:
        return False
    return True


async def _turns_until_all_are_in(clients: int) -> int:
    """Return how often the loop turned before so many clients, who all stood at the door, were heard."""
    heard = 0

    async def hear(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal heard
        heard += 1
        return web.Response()

    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=clients))
        listening.setblocking(False)
        server = HttpServer(Listener(listening, "", None), hear, hear)
        await server.start()
        try:
            for _ in range(clients):
                client = stack.enter_context(socket.create_connection(listening.getsockname()))
                client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            async with asyncio.timeout(10):
                for turns in count():
                    if heard == clients:
                        return turns
                    await asyncio.sleep(0)
        finally:
            await server.stop(grace=1)
    raise AssertionError("not all were heard")


async def _unasked(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("nobody asks")


def _longest_queue(listening: socket.socket) -> int:
    # Of a listening socket, the field that counts selective acknowledgements of others holds this.
    information = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=8x6I", information)[5])
