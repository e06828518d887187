"""Backfills as operators see them: one, pages of them, and what became of the images of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import BackfillNotFound, InvalidInput
from replicator.storage.metadata import backfills

if TYPE_CHECKING:
    from replicator.core.backfill import BackfillCause, BackfillCounts, BackfillState
    from replicator.core.names import RepositoryName
    from replicator.core.replication import ReplicationState
    from replicator.storage.metadata.backfills import BackfillImage, StoredBackfill
    from replicator.storage.metadata.statement import Steps


TimeCursor = tuple[float, str]
"""When a backfill was created, and its id."""

ImageCursor = tuple[str, str, str, str]
"""Repository, digest, tag and destination of an image."""


@dataclass(frozen=True, slots=True)
class BackfillProgress:
    """How many (image, tag) pairs are in which state, the codes of those that failed, and the bytes sent for them."""

    total: int
    complete: int
    failed: int
    stopped: int
    failure_codes: tuple[str, ...]
    sent_bytes: int

    @property
    def in_progress(self) -> int:
        """Pairs that are not settled."""
        return self.total - self.complete - self.failed - self.stopped


@dataclass(frozen=True, slots=True)
class Backfill:
    """A backfill as operators see it; `destination` is empty for a sync to several. Times are Unix seconds.

    `progress` is None until preparation has ended, and for good when it was stopped before.
    """

    id: str
    cause: BackfillCause
    destination: str
    repository: RepositoryName | None
    state: BackfillState
    created_at: float
    finished_at: float | None
    failure: str | None
    progress: BackfillProgress | None

    @property
    def position(self) -> str:
        """Where a listing goes on after this backfill."""
        return f"{self.created_at!r} {self.id}"


@dataclass(frozen=True, slots=True)
class BackfillPage:
    """Some backfills, the youngest first; `next_after` goes on, None at the end."""

    backfills: tuple[Backfill, ...]
    next_after: str | None


@dataclass(frozen=True, slots=True)
class BackfillImagePage:
    """Some images of a backfill, in order; `next_after` goes on, None at the end."""

    images: tuple[BackfillImage, ...]
    next_after: str | None


def get_stored(backfill_id: str) -> Steps[StoredBackfill]:
    """Return the row of a backfill; raises BackfillNotFound."""
    backfill = yield from backfills.find(backfill_id)
    if backfill is None:
        raise BackfillNotFound(f"there is no backfill {backfill_id[:80]}")
    return backfill


def read_one(backfill_id: str) -> Steps[Backfill]:
    """Return a backfill; raises BackfillNotFound."""
    return (yield from _shown((yield from get_stored(backfill_id))))


def read_page(since: float, size: int, after: TimeCursor, cause: BackfillCause | None = None) -> Steps[BackfillPage]:
    """Return a page of the backfills that are not over or ended after `since`, the youngest first."""
    stored = yield from backfills.recent(since, size, *after, cause)
    shown: list[Backfill] = []
    for one in stored:
        shown += [(yield from _shown(one))]
    last = shown[-1] if len(shown) == size and shown else None
    return BackfillPage(tuple(shown), last.position if last is not None else None)


def read_images(
    backfill_id: str, after: ImageCursor, size: int, status: ReplicationState | None
) -> Steps[BackfillImagePage]:
    """Return a page of the images of a backfill that is over; raises BackfillNotFound."""
    backfill = yield from get_stored(backfill_id)
    if not backfill.state.is_terminal:
        return BackfillImagePage((), None)
    found = yield from backfills.images_after(backfill_id, after, size, status)
    last = found[-1] if len(found) == size and found else None
    return BackfillImagePage(tuple(found), " ".join(last.cursor) if last is not None else None)


def _shown(stored: StoredBackfill) -> Steps[Backfill]:
    progress = None
    if stored.prepared_at is not None:
        counts = yield from backfills.counts(stored.id)
        codes = yield from backfills.failure_codes(stored.id)
        sent = yield from backfills.sent_bytes(stored.id)
        progress = _progress(counts, codes, sent)
    return Backfill(
        stored.id,
        stored.cause,
        stored.destination,
        stored.repository,
        stored.state,
        stored.created_at,
        stored.finished_at,
        stored.failure,
        progress,
    )


def _progress(counts: BackfillCounts, codes: tuple[str, ...], sent: int) -> BackfillProgress:
    return BackfillProgress(counts.total, counts.complete, counts.failed, counts.stopped, codes, sent)


def parse_time_cursor(after: str | None) -> TimeCursor:
    """Return where a page of backfills goes on; raises InvalidInput for what no page ended with."""
    if after is None:
        return float("inf"), ""
    time, _, backfill_id = after.partition(" ")
    try:
        return float(time), backfill_id
    except ValueError as error:
        raise InvalidInput("expected the position that the previous page ended with") from error


def parse_image_cursor(after: str | None) -> ImageCursor:
    """Return where a page of images goes on; raises InvalidInput for what no page ended with."""
    if after is None:
        return "", "", "", ""
    try:
        repository, digest, tag, destination = after.split(" ")
    except ValueError as error:
        raise InvalidInput("expected the position that the previous page ended with") from error
    return repository, digest, tag, destination
