"""Fills into a store, from blobs that arrive as a test says."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, digest_of
from replicator.core.errors import ReplicatorError
from replicator.transfer.fill_content import HELD_BACK
from replicator.transfer.fill_registry import FillRegistry
from replicator.transfer.fill_source import FillLimits, FillSource
from tests.support.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.content import BlobContent
    from replicator.storage.blobs.port import BlobStore, StoredBlob
    from replicator.transfer.fill import Fill
    from tests.support.blob_source import ScriptedBlob

SIZE = 5 * HELD_BACK
CONTENT = bytes(range(256)) * (SIZE // 256)
DIGEST = digest_of(CONTENT)
HUB = "hub"


class Bench:
    """A store with fills into it."""

    def __init__(self, store: BlobStore, *, limits: FillLimits | None = None, clock: FakeClock | None = None) -> None:
        self.store = store
        self.clock = clock or FakeClock(auto=True)
        self.fills = FillRegistry(store, self.clock, limits, jitter=lambda: 0.0)
        self.published: list[StoredBlob] = []
        self.received = 0

    def start(
        self, *registries: ScriptedBlob, digest: Digest = DIGEST, size: int | None = None, upstream: str = HUB
    ) -> Fill:
        """Start a fill, or join the one under way; the last registry is the authority."""
        source = FillSource(tuple(blob.open_from for blob in registries), size, self._count)
        return self.fills.start(upstream, digest, source, self._publish)

    async def locations(self) -> list[str]:
        """Return the committed blobs."""
        return [location async for location in self.store.iter_locations()]

    def _count(self, size: int) -> None:
        self.received += size

    async def _publish(self, blob: StoredBlob) -> StoredBlob:
        self.published.append(blob)
        return blob


@contextlib.asynccontextmanager
async def opened(
    store: BlobStore, *, limits: FillLimits | None = None, clock: FakeClock | None = None
) -> AsyncIterator[Bench]:
    """Open a store with fills into it, and check at the end that nothing of them is left."""
    await store.open()
    bench = Bench(store, limits=limits, clock=clock)
    try:
        yield bench
        await bench.fills.close()
        assert len(bench.fills) == 0
    finally:
        await store.close()


async def read_all(content: BlobContent, start: int = 0, length: int | None = None) -> bytes:
    """Read a part of a blob to its end."""
    async with content:
        wanted = content.size - start if length is None else length
        return b"".join([bytes(piece) async for piece in content.read(start, wanted)])


async def pull(fill: Fill, start: int = 0, length: int | None = None) -> bytes:
    """Open a fill and read it as one client does."""
    return await read_all(await fill.open(), start, length)


class Reader:
    """Reads a blob in a task and keeps what it got."""

    def __init__(self, fill: Fill, start: int = 0, length: int | None = None) -> None:
        self.got = bytearray()
        self._fill, self._start, self._length = fill, start, length
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Read to the end."""
        async with await self._fill.open() as content:
            length = content.size - self._start if self._length is None else self._length
            async for piece in content.read(self._start, length):
                self.got += piece
                self._changed.set()

    async def has(self, count: int) -> None:
        """Wait until `count` bytes have come."""
        while len(self.got) < count:
            self._changed.clear()
            await self._changed.wait()


async def gathered(*coroutines: object) -> list[object]:
    """Run all and return what each returned or raised."""
    results: list[object] = [None] * len(coroutines)

    async def settle(at: int, coroutine: object) -> None:
        try:
            results[at] = await coroutine  # type: ignore[misc]
        except ReplicatorError as error:
            results[at] = error

    async with asyncio.TaskGroup() as group:
        for at, coroutine in enumerate(coroutines):
            group.create_task(settle(at, coroutine))
    return results
