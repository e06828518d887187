"""A fake upstream in a thread of its own, for tests that are not coroutines."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Self

from tests.support.upstreams import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType


class ThreadedUpstream:
    """Runs `registry` while the block lasts. What it holds is set before, what it was asked is looked at after."""

    def __init__(self) -> None:
        self.registry = FakeRegistry()
        self._ready = threading.Event()
        self._over: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="upstream", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._loop is not None
        assert self._over is not None
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(20)

    @property
    def url(self) -> str:
        """Its address."""
        return self.registry.url

    def downloads(self, digest: str) -> int:
        """Return how often a blob was asked for."""
        return self.registry.count(f"GET /v2/*/blobs/{digest}")

    def call(self, change: Callable[[], object]) -> None:
        """Have something done in the upstream's thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(change)

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self.registry:
            self._ready.set()
            await self._over.wait()
