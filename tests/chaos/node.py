"""The daemon of the campaign, wired as `replicator serve` wires it, in this process and with a hurried clock."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from replicator import __version__
from replicator.config.loader import load_with_warnings
from replicator.daemon.listener import bind
from replicator.daemon.secrets import SecretStore
from replicator.daemon.supervisor import Supervisor
from replicator.daemon.wiring import Shared, build_daemon
from replicator.telemetry.metrics import Metrics
from tests.chaos.world import HUB, NAMESPACES, PREFIXES, QUAY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from replicator.config.model import Settings
    from replicator.core.clock import Clock

ACCOUNT, REGION = "111122223333", "us-east-1"
COLD_WAIT = 2.0
_PATIENCE = {"connect_timeout": "500ms", "stall_timeout": "500ms", "total_timeout": "1s", "networks": ["loopback"]}


@dataclass(frozen=True)
class Served:
    """A running node."""

    port: int
    directory: Path

    @property
    def ingests(self) -> list[str]:
        """What lies in the ingest directory."""
        return sorted(path.name for path in (self.directory / "blobs" / "ingest").iterdir())


def document(root: Path, urls: Mapping[str, str], max_size: int | None) -> dict[str, Any]:
    """Return the configuration. The clock hurries through some of the times: four minutes to a second."""
    rules = [
        {
            "prefix": PREFIXES[HUB],
            "upstream": HUB,
            "mirrors": ["mirror"],
            "namespaces": [NAMESPACES[HUB]],
            "fresh_for": "4m",
            "stale_while_revalidate": "8m",
        },
        {
            "prefix": PREFIXES[QUAY],
            "upstream": QUAY,
            "namespaces": [NAMESPACES[QUAY]],
            "fresh_for": "1m",
            "stale_while_revalidate": "off",
            "on_not_found": "follow",
            "platforms": ["linux/arm64"],
        },
    ]
    cache: dict[str, Any] = {"rules": rules, "stale_wait": "300ms", "cold_wait": f"{COLD_WAIT:g}s"}
    if max_size is not None:
        cache["max_size"] = max_size
    node = {"account": ACCOUNT, "region": REGION, "listen": "127.0.0.1:0", "cache": cache}
    return {
        "version": 1,
        "storage_root": str(root),
        "shutdown_grace": "1s",
        "upstreams": [{"name": name, "url": url, **_PATIENCE} for name, url in urls.items()],
        "nodes": [node],
    }


def _loaded(root: Path, settings: Mapping[str, Any]) -> tuple[Path, Settings]:
    root.mkdir(parents=True, exist_ok=True)
    config = root / "replicator.yaml"
    config.write_text(yaml.safe_dump(dict(settings)))
    return config, load_with_warnings(config, {})[0]


@contextlib.asynccontextmanager
async def served(root: Path, clock: Clock, settings: Mapping[str, Any]) -> AsyncIterator[Served]:
    """Run a node on a directory until the block ends; then it drains, closes its stores, and leaves no task."""
    config, loaded = _loaded(root, settings)
    async with AsyncExitStack() as cleanup:
        listener = bind(loaded.nodes[0])
        cleanup.callback(listener.socket.close)
        port, secrets = listener.socket.getsockname()[1], SecretStore({})
        shared = Shared(
            settings=loaded,
            file=str(config),
            secrets=secrets,
            environ={},
            clock=clock,
            metrics=Metrics(__version__),
            access_log=None,
            draining=asyncio.Event(),
            peer_secret=secrets.peer_secret(loaded),
            urls={loaded.nodes[0].id: listener.url},
        )
        daemon = build_daemon(shared, {loaded.nodes[0].id: listener})
        cleanup.push_async_callback(daemon.close)
        await daemon.start()
        async with asyncio.TaskGroup() as group:
            background = group.create_task(Supervisor(clock).run(daemon.services()))
            try:
                yield Served(port, Path(settings["storage_root"]) / ACCOUNT / REGION)
            finally:
                await daemon.drain()
                background.cancel()
