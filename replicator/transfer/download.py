"""Receiving one blob, from as many registries and over as many connections as it takes.

    registry 1 --breaks--> registry 2 --breaks--> ... authority --breaks--> pause --> registry 1 ...

Every connection goes on where the one before it stopped. Nothing is waited for before each registry was asked; one that
says no for good is not asked again, and only when the authority says that it does not have the blob is that the end.
Nothing here is verified: bytes of several connections may not belong together, and the owner of the ingest finds out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from replicator.core.errors import UpstreamContent, UpstreamError, UpstreamNotFound, UpstreamTimeout
from replicator.core.retry import Backoff
from replicator.transfer.fill_source import UnusableBlob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from replicator.core.clock import Clock
    from replicator.storage.blobs.port import Ingest
    from replicator.transfer.fill_source import FillLimits, FillSource

_TRIES: Final = 4
_PROGRESS: Final = 1024 * 1024
"""Bytes after which connections that break count as the first to break."""
_BACKOFF: Final = Backoff(initial=0.25, maximum=4.0)
_LONGEST_PAUSE: Final = 30.0
"""Seconds. Readers wait meanwhile: an upstream that wants a longer pause gets no second try."""


class Download:
    """One attempt to receive a whole blob. `progress` is called whenever more is known or there are more bytes.

    `what` names the blob and where it comes from, for errors. `check_room` raises UnusableBlob where so many bytes
    can never be stored.
    """

    def __init__(
        self,
        what: str,
        source: FillSource,
        limits: FillLimits,
        clock: Clock,
        jitter: Callable[[], float],
        progress: Callable[[], None],
        check_room: Callable[[int], Awaitable[None]],
    ) -> None:
        self.size = source.size
        """The blob's size, once it is known."""
        self.is_opened = False
        """Whether a registry has begun to send."""
        self._what = what
        self._source = source
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._progress = progress
        self._check_room = check_room
        self._deadline = clock.monotonic() + limits.total
        self._senders: list[int] = []
        """The registries that sent bytes, one entry for each connection."""

    @property
    def is_patched(self) -> bool:
        """Whether bytes came over anything else than one connection from the authority."""
        return bool(self._senders) and self._senders != [self._authority]

    @property
    def _limit(self) -> int | None:
        limits = (self._limits.max_blob_size, self._source.max_size)
        return min((limit for limit in limits if limit is not None), default=None)

    @property
    def _longest(self) -> int:
        """The bytes after which no more are accepted."""
        if self.size is not None:
            return self.size
        unstated = self._limits.max_unstated
        return unstated if self._limit is None else min(self._limit, unstated)

    @property
    def _authority(self) -> int:
        return len(self._source.registries) - 1

    async def receive(self, ingest: Ingest) -> None:
        """Write what is missing into the ingest; return when the blob is whole, as far as its length tells.

        Raises UpstreamError, UnusableBlob when no registry sends what was asked for, and StorageError.
        """
        left = list(range(len(self._source.registries)))
        refused: dict[int, UpstreamError] = {}
        rounds = 0
        while True:
            begun = ingest.offset
            failed = await self._ask_each(left, ingest)
            if failed is None:
                return
            rounds = 1 if ingest.offset - begun >= _PROGRESS else rounds + 1
            refused.update((at, error) for at, error in failed.items() if not error.retryable)
            left = [at for at in left if at not in refused]
            worst = failed.get(self._authority) or refused.get(self._authority) or failed[max(failed)]
            await self._pause(worst, [failed[at] for at in left], rounds)

    async def _ask_each(self, left: list[int], ingest: Ingest) -> dict[int, UpstreamError] | None:
        """Ask each registry once; return how each failed, or None once the blob is whole."""
        failed: dict[int, UpstreamError] = {}
        for at in left:
            try:
                await self._receive_from(at, ingest)
            except UpstreamError as error:
                if self._is_whole(ingest) and error.retryable:
                    return None  # it broke after the last byte
                if self._clock.monotonic() >= self._deadline:
                    raise
                if at == self._authority and isinstance(error, UpstreamNotFound):
                    raise
                failed[at] = error
            else:
                return None
        return failed

    async def _pause(self, worst: UpstreamError, passing: list[UpstreamError], rounds: int) -> None:
        """Wait before the registries that failed with `passing` are asked again; raise `worst` if that is no use."""
        if not self.is_opened or not passing or rounds >= _TRIES:
            raise worst
        asked = min(error.retry_after or 0.0 for error in passing)
        pause = _BACKOFF.delay(rounds, self._jitter(), asked)
        if pause > _LONGEST_PAUSE or self._clock.monotonic() + pause >= self._deadline:
            raise worst
        await self._clock.sleep(pause)

    def _is_whole(self, ingest: Ingest) -> bool:
        return self.is_opened and ingest.offset == self.size

    async def _receive_from(self, at: int, ingest: Ingest) -> None:
        async with self._source.registries[at](ingest.offset) as stream:
            size = self.size if stream.size is None else stream.size
            if size is not None:
                await self._check_room(size - ingest.offset)
            self._learn_size(stream.size)
            skip = ingest.offset - stream.start
            if skip < 0:
                raise UnusableBlob(f"{self._what} was sent from a later byte than asked for")
            self._senders.append(at)
            async for chunk in stream.chunks:
                self._source.received(len(chunk))
                fresh, skip = chunk[skip:] if skip else chunk, max(0, skip - len(chunk))
                self._check(ingest.offset + len(fresh))
                if fresh:
                    await ingest.write(fresh)
                    self._progress()
        if self.size is not None and ingest.offset < self.size:
            raise UpstreamContent(f"{self._what} ended after {ingest.offset} of {self.size} bytes")

    def _learn_size(self, stated: int | None) -> None:
        if stated is not None:
            if self.size not in {None, stated}:
                raise UnusableBlob(f"{self._what} has {self.size} bytes, the upstream announces {stated}")
            self._check_limit(stated)
        elif self.size is not None:
            self._check_limit(self.size)
        self.size = self.size if stated is None else stated
        self.is_opened = True
        self._progress()

    def _check_limit(self, size: int) -> None:
        limit = self._limit
        if limit is not None and size > limit:
            raise UnusableBlob(f"{self._what} has {size} bytes, this registry accepts up to {limit}")

    def _check(self, length: int) -> None:
        if length > self._longest:
            raise UnusableBlob(f"{self._what} is longer than {self._longest} bytes")
        if self._clock.monotonic() >= self._deadline:
            raise UpstreamTimeout(f"{self._what} took longer than {self._limits.total:.0f} seconds")
