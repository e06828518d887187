"""Queues what nobody pushed just now: backfills, syncs and repairs, behind everything that somebody did.

An image is queued only as it is here at that moment, in the same transaction: a tag that moved since it was looked at
has a job of its own, which must not be replaced by an older image's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.jobs import Priority
from replicator.core.replication import DEFAULT_PRIORITY, DeleteReplica, ReplicateImage
from replicator.storage.metadata import backfills, images, jobs, replication_status, tags

if TYPE_CHECKING:
    from replicator.core.jobs import JobKind
    from replicator.storage.metadata.statement import Steps


@dataclass(frozen=True, slots=True)
class BackgroundWork:
    """An image to be sent, or to be deleted, at a destination; `priority` is its rule's."""

    image: ReplicateImage | DeleteReplica
    priority: int = DEFAULT_PRIORITY

    @property
    def kind(self) -> JobKind:
        """The kind of job that does it."""
        return self.image.to_job().kind


def queue(work: BackgroundWork, now: float, backfill: str | None = None) -> Steps[bool]:
    """Store the job, for a backfill if one is named; return False when things have changed and nothing is to do.

    A job that waits already keeps its urgency and becomes due at once.
    """
    current = yield from _is_current(work.image)
    if not current:
        return False
    if isinstance(work.image, ReplicateImage):
        yield from replication_status.supersede(work.image, now)
        yield from replication_status.start_again(work.image, now)
    yield from jobs.enqueue(work.image.to_job(Priority.BACKGROUND + work.priority), now)
    if backfill is not None:
        yield from backfills.add_image(backfill, work.image)
    return True


def _is_current(image: ReplicateImage | DeleteReplica) -> Steps[bool]:
    if image.tag is not None:
        register = yield from tags.find(image.repository, image.tag)
        wanted = image.digest if isinstance(image, ReplicateImage) else None
        return register is not None and register.digest == wanted
    origin = yield from images.find_origin(image.repository, image.digest)
    return (origin is None) == isinstance(image, DeleteReplica)
