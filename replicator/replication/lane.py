"""One destination's lane: how many images go there at once, and whether to wait before trying again.

Lanes do not know each other, so a destination that is down or slow holds up nobody else's images. Within a lane, pushes
and background work (backfills, repairs) have places of their own. A lane whose destination is down lets one image
through at a time, after growing pauses; the first that succeeds opens it for all.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from replicator.replication.blob_slots import BlobSlots, TurnsAtPriority
from replicator.replication.failures import QUICK
from replicator.storage.metadata.jobs import BACKGROUND, PUSHES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.storage.metadata.jobs import Band
    from replicator.transfer.push_image import BlobTurns

PARALLEL_BLOBS = 8


@dataclass(slots=True)
class Track:
    """The places of a lane for jobs of some priorities."""

    band: Band
    width: int
    running: int = 0
    due_at: float | None = None
    """When the next job is due (Unix seconds), where that is known."""


class Lane:
    """The state of one lane in this process; what must last is in the jobs. Times are the monotonic clock's."""

    def __init__(self, width: int, background: int = 2, blobs: int = PARALLEL_BLOBS) -> None:
        self.tracks = (Track(PUSHES, width), Track(BACKGROUND, background))
        self.slots = BlobSlots(blobs)
        self._failures = 0
        self._paused_until = float("-inf")
        self._locks: WeakValueDictionary[tuple[RepositoryName, str], asyncio.Lock] = WeakValueDictionary()

    @property
    def running(self) -> int:
        """How many images are under way."""
        return sum(track.running for track in self.tracks)

    def look_again(self, now: float) -> None:
        """Note that the queue may have changed; `now` is in Unix seconds. A job that is due already needs no look."""
        for track in self.tracks:
            if track.due_at is not None and track.due_at > now:
                track.due_at = None

    def free(self, track: Track) -> int:
        """How many more images may be started."""
        room = track.width - track.running
        return max(0, min(room, 1 - self.running) if self._failures else room)

    def pause_left(self, now: float) -> float:
        """Return for how many seconds nothing is to be started."""
        return max(0.0, self._paused_until - now)

    def reached(self) -> bool:
        """Note that the destination answered, or that it shall be asked again at once; tell whether it was down."""
        was_down = self._failures > 0
        self._failures = 0
        self._paused_until = float("-inf")
        return was_down

    def failed(self, now: float, jitter: float, retry_after: float | None) -> float:
        """Note that the destination is down; return the pause that follows, in seconds.

        Images that were under way together and fail together count as one failure.
        """
        if self.pause_left(now) == 0.0:
            self._failures += 1
        pause = QUICK.delay(self._failures, jitter, retry_after)
        self._paused_until = max(self._paused_until, now + pause)
        return self.pause_left(now)

    def at(self, priority: int) -> LanePass:
        """Return what one job of this priority may use of the lane."""
        return LanePass(self, priority)

    @asynccontextmanager
    async def alone(self, repository: RepositoryName, what: str) -> AsyncIterator[None]:
        """Have an image or a tag of a repository alone."""
        lock = self._locks.setdefault((repository, what), asyncio.Lock())
        async with lock:
            yield


class LanePass:
    """What one attempt uses of its lane: blob slots at the priority of its job, and locks."""

    def __init__(self, lane: Lane, priority: int) -> None:
        self.priority = priority
        self.slots = lane.slots
        self.blobs: BlobTurns = TurnsAtPriority(lane.slots, priority)
        self._lane = lane

    @asynccontextmanager
    async def image(self, repository: RepositoryName, digest: Digest) -> AsyncIterator[None]:
        """Have an image alone: one run at a time copies or deletes it."""
        async with self._lane.alone(repository, f"@{digest}"):
            yield

    @asynccontextmanager
    async def tag(self, repository: RepositoryName, tag: Tag) -> AsyncIterator[None]:
        """Have a tag alone: between looking where it points at the source and setting it at the destination."""
        async with self._lane.alone(repository, f":{tag}"):
            yield
