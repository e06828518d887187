"""A blob that is still arriving, as one reader has it."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final, Protocol, Self

from replicator.storage.blobs.file_blob import check_range
from replicator.storage.blobs.open_file import FIRST_PIECE, PIECE
from replicator.transfer.fill_source import UnusableBlob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.digest import Digest
    from replicator.transfer.shared_content import SharedContent

HELD_BACK: Final = 64 * 1024
"""Bytes at the end of every read that wait for the verification. A smaller blob waits as a whole."""


class GrowingBlob(Protocol):
    """What readers follow: see `Fill`."""

    readers: int

    @property
    def piece(self) -> int:
        """The most bytes to ask for at a time."""
        ...

    async def read_growing(self, start: int, stop: int, version: int | None) -> tuple[bytes | memoryview, int] | None:
        """Return bytes that have come, with the version they belong to; None once the whole blob is stored."""
        ...

    def share_stored(self) -> SharedContent:
        """Return the stored blob."""
        ...


class FillContent:
    """`BlobContent` of a blob that is still arriving."""

    def __init__(self, fill: GrowingBlob, digest: Digest, size: int) -> None:
        self.digest = digest
        self.size = size
        self._fill = fill
        self._stored = AsyncExitStack()
        fill.readers += 1
        self._stored.callback(self._leave)

    async def read(self, start: int, length: int) -> AsyncIterator[bytes | memoryview]:
        """Yield `length` bytes from `start` as they arrive; the last ones when the blob is verified and stored."""
        check_range(start, length, self.size)
        if not length:
            return
        end = start + length
        held_from = end - min(length, HELD_BACK)
        version, step = None, FIRST_PIECE
        while found := await self._fill.read_growing(start, min(start + step, held_from), version):
            piece, version = found
            # Of many clients that come at once, only those that take what they get hold much.
            step = min(2 * step, PIECE)
            start += len(piece)
            yield piece
        stored = await self._stored.enter_async_context(self._fill.share_stored().opened())
        if stored.size != self.size:
            raise UnusableBlob(f"{self.digest} has {stored.size} bytes, at first {self.size} were announced")
        while start < end:
            async for piece in stored.read(start, min(self._fill.piece, end - start)):
                start += len(piece)
                yield piece

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stored.aclose()

    def _leave(self) -> None:
        self._fill.readers -= 1
