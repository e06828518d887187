"""A backfill: bringing what a repository holds already to a destination that a rule added later (ECR §9.5).

    PREPARING --all queued--> IN_PROGRESS --all settled--> COMPLETE, or FAILED
        |                          |
        `-------- stop ------------+--> STOPPED, or STOPPING --running ones settled--> STOPPED

Each (image, tag) pair counts once. ECR does not say when a backfill as a whole has failed. Ours has when half of its
replications or more failed for good, or when its destination left the configuration before it was prepared; single
failures do not end it and do not hold up the rest.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

RETENTION = 90 * 24 * 3600.0
"""Seconds for which a backfill that is over is listed."""

TOO_MANY_FAILURES = "TooManyFailures"
"""Failure code: half of the replications or more failed."""

DESTINATION_NOT_FOUND = "DestinationNotFound"
"""Failure code: no rule names the destination any more."""

INTERRUPTED = "Interrupted"
"""Failure code: whoever chose the images did not live to name them all; those named were replicated."""


class BackfillState(enum.StrEnum):
    """Where a backfill stands, in ECR's words."""

    PREPARING = "PREPARING"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETE = "COMPLETE"
    FAILED = "FAILED"
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing changes any more."""
        return self in {BackfillState.COMPLETE, BackfillState.FAILED, BackfillState.STOPPED}


class BackfillCause(enum.StrEnum):
    """Why there is one."""

    BACKFILL = "backfill"
    """Somebody wants everything that the rules say at one destination; one at a time for each."""
    SYNC = "sync"
    """Somebody chose the images; several destinations and several syncs at a time are possible."""


@dataclass(frozen=True, slots=True)
class BackfillCounts:
    """How many of a backfill's replications are in which state. `stopped` are those that a stop left undone."""

    in_progress: int = 0
    complete: int = 0
    failed: int = 0
    stopped: int = 0

    @property
    def total(self) -> int:
        """All (image, tag) pairs of the backfill."""
        return self.in_progress + self.complete + self.failed + self.stopped


def settled(state: BackfillState, counts: BackfillCounts, *, failed: bool = False) -> BackfillState:
    """Return the state after replications were settled; a backfill that is still being prepared goes on.

    `failed` says that it has failed whatever became of its images.
    """
    if counts.in_progress or state is BackfillState.PREPARING or state.is_terminal:
        return state
    if state is BackfillState.STOPPING:
        return BackfillState.STOPPED
    return BackfillState.FAILED if failed or has_failed(counts) else BackfillState.COMPLETE


def has_failed(counts: BackfillCounts) -> bool:
    """Tell whether so many replications failed that the backfill has: half of them or more."""
    return counts.failed > 0 and 2 * counts.failed >= counts.total
