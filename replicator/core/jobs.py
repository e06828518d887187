"""Work that must happen later, as a value.

A job is stored in the transaction of the change that causes it (the outbox rule), leased by a worker, and removed
when it is done::

    queued --lease--> leased --complete--> (gone)
       ^                 |
       +---fail/expire---+      failed for good --> dead (kept, with its last error)

A lease that runs out puts the job back: a worker that was killed loses nothing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobKind(enum.StrEnum):
    """What is to be done."""

    REPLICATE = "replicate"
    DELETE_REPLICA = "delete-replica"
    PREFETCH = "prefetch"


class JobState(enum.StrEnum):
    """Where a stored job stands."""

    QUEUED = "queued"
    LEASED = "leased"
    DEAD = "dead"


class Priority(enum.IntEnum):
    """Lower goes first. A rule adds its own priority, 1 to 9; from BACKGROUND on, a job waits for all pushes."""

    PUSH = 10
    BACKGROUND = 50


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to be stored. `key` names the work: at most one queued job of a kind has a given key.

    Jobs of one `lane` wait for the same thing, such as a destination; whoever works on a lane leaves the others alone.
    """

    kind: JobKind
    key: str
    payload: Mapping[str, object] = field(default_factory=dict)
    priority: int = Priority.PUSH
    lane: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """A leased job. `attempts` counts this one; `enqueued_at` is when the cause was committed (Unix seconds)."""

    id: int
    kind: JobKind
    key: str
    payload: Mapping[str, object]
    priority: int
    attempts: int
    enqueued_at: float
    lease_owner: str
