"""A stored blob that many readers have open at the same moment, for the price of one open file."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.content import BlobContent
    from replicator.storage.blobs.port import BlobStore, StoredBlob


class SharedContent:
    """Opens a blob for the first reader and closes it after the last one."""

    def __init__(self, store: BlobStore, blob: StoredBlob) -> None:
        self._store = store
        self._blob = blob
        self._content: BlobContent | None = None
        self._readers = 0
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[BlobContent]:
        """Have the blob open; raises CorruptBlob or StorageError."""
        self._readers += 1
        try:
            yield await self._open()
        finally:
            self._readers -= 1
            if not self._readers and self._content is not None:
                content, self._content = self._content, None
                await content.__aexit__(None, None, None)

    async def _open(self) -> BlobContent:
        async with self._lock:
            if self._content is None:
                self._content = await (await self._store.read_blob(self._blob)).__aenter__()
            return self._content
