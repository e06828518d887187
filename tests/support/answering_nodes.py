"""Nodes that answer every request in one way, and how a command asks them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from aiohttp import web

from replicator.daemon.asking import Asking

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

ACCOUNT = "111122223333"


@dataclass
class Answering:
    """A node that answers every request in one way, and remembers them."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    asked: list[web.BaseRequest] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.asked.append(request)
        return web.Response(status=self.status, body=self.body, headers=dict(self.headers))


@asynccontextmanager
async def serving(nodes: Sequence[Answering], context: ssl.SSLContext | None = None) -> AsyncIterator[list[int]]:
    """Serve each node on a port of its own."""
    runners, ports = [], []
    for one in nodes:
        runner = web.ServerRunner(web.Server(one.answer))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        ports.append(runner.addresses[0][1])
        runners.append(runner)
    try:
        yield ports
    finally:
        for runner in runners:
            await runner.cleanup()


def asking(tmp_path: Path, ports: Sequence[int], scheme: str = "http", **options: Any) -> Asking:
    """Return how a command asks nodes on these ports."""
    regions = ("us-east-1", "eu-west-1")
    nodes = [
        {
            "account": ACCOUNT,
            "region": region,
            "listen": f"127.0.0.1:{port}",
            "public_url": f"{scheme}://127.0.0.1:{port}",
        }
        for region, port in zip(regions, ports, strict=False)
    ]
    config = tmp_path / "replicator.yaml"
    config.write_text(yaml.safe_dump({"version": 1, "storage_root": str(tmp_path), "nodes": nodes}))
    return Asking(config, {"REPLICATOR_PASSWORD": "secret-pw"}, **options)
