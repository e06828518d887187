"""An upstream blob that arrives as a test says: chunk by chunk, with breaks, from any offset."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from replicator.core.errors import UpstreamUnavailable
from replicator.upstream.body import BlobStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from replicator.core.errors import ReplicatorError


class ScriptedBlob:
    """Sends `content` in chunks; `allow` says how much of it may have left, so that a test can look in between.

    `breaks` maps an offset to the error that ends a connection there, once each. `refusals` are raised by the next
    openings, one each.
    """

    def __init__(self, content: bytes, *, chunk: int = 1000, states_size: bool = True) -> None:
        self.content = content
        self.states_size = states_size
        self.stated: int | None = None
        """Announced instead of the true size when set."""
        self.serves_ranges = True
        self.breaks: dict[int, ReplicatorError] = {}
        self.refusals: list[ReplicatorError] = []
        self.opened: list[int] = []
        """The offset of every opening."""
        self.open = 0
        self.at_chunk: Callable[[int], None] = lambda _: None
        """Called with the offset before each chunk."""
        self._chunk = chunk
        self._allowed = len(content)
        self._changed = asyncio.Event()
        self._holding = asyncio.Event()

    async def held(self) -> None:
        """Wait until the blob stands where it is held."""
        await self._holding.wait()

    def hold_at(self, offset: int) -> None:
        """Let nothing from `offset` on leave before the next `allow`."""
        self._allowed = offset

    def allow(self, offset: int | None = None) -> None:
        """Let everything below `offset` leave (None: everything)."""
        self._allowed = len(self.content) if offset is None else offset
        self._changed.set()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def open_from(self, start: int) -> AsyncIterator[BlobStream]:
        """Open the blob at an offset, or at its beginning where ranges are not served."""
        self.opened.append(start)
        if self.refusals:
            raise self.refusals.pop(0)
        begins = start if self.serves_ranges else 0
        size = (self.stated or len(self.content)) if self.states_size else None
        self.open += 1
        try:
            yield BlobStream(size, begins, self._chunks(begins))
        finally:
            self.open -= 1

    async def _chunks(self, offset: int) -> AsyncIterator[bytes]:
        while offset < len(self.content):
            while offset >= self._allowed:
                self._holding.set()
                await self._changed.wait()
            error = next((error for at, error in self.breaks.items() if at <= offset), None)
            if error is not None:
                self.breaks = {at: other for at, other in self.breaks.items() if other is not error}
                raise error
            self.at_chunk(offset)
            end = min(
                offset + self._chunk, self._allowed, *(at for at in self.breaks if at > offset), len(self.content)
            )
            yield self.content[offset:end]
            offset = end
        # A broken connection at the very end is still a broken connection.
        if self.breaks:
            raise self.breaks.pop(min(self.breaks))


def lost() -> UpstreamUnavailable:
    """Return the error of a connection that broke."""
    return UpstreamUnavailable("the connection was lost")
