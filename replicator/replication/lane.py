"""One destination's lane: how many images go there at once, and whether to wait before trying again.

Lanes do not know each other, so a destination that is down or slow holds up nobody else's images. A lane whose
destination is down lets one image through at a time, after growing pauses; the first that succeeds opens it for all.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from replicator.replication.failures import QUICK
from replicator.transfer.push_image import BlobTurns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.names import RepositoryName, Tag


class Lane:
    """The state of one lane in this process; what must last is in the jobs. Times are the monotonic clock's."""

    def __init__(self, width: int) -> None:
        self.running = 0
        self.due_at: float | None = None
        """When the next job is due (Unix seconds), where that is known."""
        self.blobs = BlobTurns()
        self._width = width
        self._failures = 0
        self._paused_until = float("-inf")
        self._tags: WeakValueDictionary[tuple[RepositoryName, Tag], asyncio.Lock] = WeakValueDictionary()

    def look_again(self, now: float) -> None:
        """Note that the queue may have changed; `now` is in Unix seconds. A job that is due already needs no look."""
        if self.due_at is not None and self.due_at > now:
            self.due_at = None

    @property
    def free(self) -> int:
        """How many more images may be started."""
        return max(0, (1 if self._failures else self._width) - self.running)

    def pause_left(self, now: float) -> float:
        """Return for how many seconds nothing is to be started."""
        return max(0.0, self._paused_until - now)

    def reached(self) -> None:
        """Note that the destination answered."""
        self._failures = 0
        self._paused_until = float("-inf")

    def failed(self, now: float, jitter: float, retry_after: float | None) -> float:
        """Note that the destination is down; return the pause that follows, in seconds.

        Images that were under way together and fail together count as one failure.
        """
        if self.pause_left(now) == 0.0:
            self._failures += 1
        pause = QUICK.delay(self._failures, jitter, retry_after)
        self._paused_until = max(self._paused_until, now + pause)
        return self.pause_left(now)

    @asynccontextmanager
    async def tag(self, repository: RepositoryName, tag: Tag) -> AsyncIterator[None]:
        """Have a tag alone: between looking where it points at the source and setting it at the destination."""
        lock = self._tags.setdefault((repository, tag), asyncio.Lock())
        async with lock:
            yield
