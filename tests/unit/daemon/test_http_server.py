"""How a node's port takes in those who come."""

from __future__ import annotations

import socket
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from replicator.daemon.http_server import HttpServer
from replicator.daemon.listener import BACKLOG, Listener

if TYPE_CHECKING:
    from aiohttp import web


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


async def _unasked(_: web.BaseRequest) -> web.StreamResponse:
    raise AssertionError("nobody asks")


def _longest_queue(listening: socket.socket) -> int:
    # Of a listening socket, the field that counts selective acknowledgements of others holds this.
    information = listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return int(struct.unpack_from("=8x6I", information)[5])
