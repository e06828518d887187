"""A receiver of webhooks on loopback, which can be told to fail in every way that real ones do.

It takes what it gets through `behave`, which answers with a status, or breaks the connection, or says nothing for long.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

OK, RESET, SILENT = 200, -1, -2
"""What a receiver may do, besides answering with a status."""


@dataclass(frozen=True)
class Received:
    """A request, with what the receiver did with it."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    answered: int

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    def is_signed_with(self, key: bytes) -> bool:
        """Tell whether one of the signatures is what this key makes of the message, as Standard Webhooks has it."""
        signed = f"{self.id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
        return f"v1,{expected}" in self.headers["webhook-signature"].split(" ")


@dataclass
class WebhookReceiver:
    """What arrived, in order. `behave` decides what is done with a request; it accepts all unless told otherwise."""

    behave: Callable[[Received], int] = lambda _: OK
    headers: Mapping[str, str] = field(default_factory=dict)
    """Headers of answers."""
    received: list[Received] = field(default_factory=list)
    port: int = 0
    most_at_once: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Requests wait for it."""
    _now: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _over: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=in-the-query"

    @property
    def accepted(self) -> list[Received]:
        """What was answered with success."""
        return [one for one in self.received if 200 <= one.answered < 300]

    async def until(self, question: Callable[[WebhookReceiver], bool]) -> None:
        """Return once the answer is yes."""
        async with self._changed:
            await self._changed.wait_for(lambda: question(self))

    async def until_accepted(self, count: int) -> list[Received]:
        """Return what was accepted, once it is so many."""
        await self.until(lambda one: len(one.accepted) >= count)
        return self.accepted

    async def until_received(self, count: int) -> list[Received]:
        """Return everything that came, once it is so much."""
        await self.until(lambda one: len(one.received) >= count)
        return self.received

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._handle(request)
        finally:
            self._now -= 1

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read()
        arrived = Received(request.path_qs, {name.lower(): value for name, value in request.headers.items()}, body, 0)
        async with self._changed:
            self._changed.notify_all()
        await self.gate.wait()
        action = self.behave(arrived)
        self.received.append(Received(arrived.path, arrived.headers, body, action))
        async with self._changed:
            self._changed.notify_all()
        if action == SILENT:
            await self._over.wait()
        if action in {RESET, SILENT}:
            if request.transport is not None:  # the client may have gone first
                request.transport.abort()
            return web.Response()
        return web.Response(status=action, headers=self.headers, text="what a receiver says, a secret even")

    def end(self) -> None:
        """Let go of requests that are held."""
        self._over.set()
        self.gate.set()


@contextlib.asynccontextmanager
async def webhook_receiver() -> AsyncIterator[WebhookReceiver]:
    """Run a receiver on loopback."""
    receiver = WebhookReceiver()
    runner = web.ServerRunner(web.Server(receiver.handle), shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    receiver.port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
    try:
        yield receiver
    finally:
        receiver.end()
        await runner.cleanup()
