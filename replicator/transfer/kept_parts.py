"""What failed fills had received: kept for a while, so that the next fill of the same blob goes on where they stopped.

A part lies in the store as a suspended ingest. It belongs to one upstream and one digest, since another upstream might
have sent other bytes; whoever takes it up verifies the whole. Parts are forgotten when they are old, when there are too
many, and at the end of the process; the bytes of a forgotten one are dropped at once or, where that fails, by the
node's next round of cleaning up.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.digest import algorithm_of
from replicator.core.errors import Conflict, StorageError, UploadNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.storage.blobs.port import BlobStore, Ingest
    from replicator.transfer.fill_source import FillLimits

_SMALLEST = 64 * 1024
"""Bytes below which a part is not worth a file."""

_Key = tuple[str, "Digest"]


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    size: int
    expires_at: float


class KeptParts:
    """The parts that the fills of one node left behind."""

    def __init__(self, store: BlobStore, clock: Clock, limits: FillLimits) -> None:
        self._store = store
        self._clock = clock
        self._limits = limits
        self._parts: OrderedDict[_Key, _Part] = OrderedDict()

    def names(self) -> frozenset[str]:
        """Return the ingests that are still wanted: whoever clears away what nobody wants spares them."""
        now = self._clock.monotonic()
        return frozenset(part.name for part in self._parts.values() if part.expires_at > now)

    async def take(self, upstream: str, digest: Digest) -> Ingest | None:
        """Return what is left of an earlier fill, to go on with; None when there is nothing. Raises StorageError."""
        part = self._parts.pop((upstream, digest), None)
        if part is None:
            return None
        try:
            ingest = await self._store.resume_ingest(part.name, algorithm_of(digest))
        except (UploadNotFound, Conflict):
            return None  # cleared away meanwhile
        if part.expires_at > self._clock.monotonic():
            return ingest
        await ingest.abort()
        return None

    async def keep(self, upstream: str, digest: Digest, ingest: Ingest) -> None:
        """Keep what an ingest holds, or drop it where it cannot be kept or is too little. The ingest is spent."""
        if not _SMALLEST <= ingest.offset <= self._limits.kept_bytes or not self._limits.kept_count:
            await ingest.abort()
            return
        expires_at = self._clock.monotonic() + self._limits.kept_age
        # Known before it is suspended: whoever is cancelled here leaves nothing that `close` would not find.
        replaced = self._parts.pop((upstream, digest), None)
        self._parts[upstream, digest] = _Part(ingest.name, ingest.offset, expires_at)
        try:
            await ingest.suspend()
        except StorageError:
            replaced, broken = self._parts.pop((upstream, digest)), replaced
            await self._drop(broken)
        await self._drop(replaced)
        for part in list(self._surplus()):
            await self._drop(part)

    async def close(self) -> None:
        """Drop everything."""
        await self.drop()

    async def drop(self) -> int:
        """Drop everything that nobody has taken up; return how many bytes that was."""
        dropped = 0
        while self._parts:
            _, part = self._parts.popitem()
            await self._drop(part)
            dropped += part.size
        return dropped

    def _surplus(self) -> Iterator[_Part]:
        """Forget and yield the parts that are too old or too many, the oldest first."""
        now = self._clock.monotonic()
        while self._parts:
            oldest = next(iter(self._parts))
            total = sum(part.size for part in self._parts.values())
            too_many = len(self._parts) > self._limits.kept_count or total > self._limits.kept_bytes
            if not too_many and self._parts[oldest].expires_at > now:
                return
            yield self._parts.pop(oldest)

    async def _drop(self, part: _Part | None) -> None:
        if part is None:
            return
        with suppress(UploadNotFound, Conflict, StorageError):
            ingest = await self._store.resume_ingest(part.name)
            await ingest.abort()
