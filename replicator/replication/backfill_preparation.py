"""The preparation of a backfill: its images are named, page by page, in an order that survives a restart."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from replicator.core import backfill as core
from replicator.core.backfill import BackfillState
from replicator.core.names import RepositoryName
from replicator.replication.background import BackgroundWork, queue
from replicator.storage.metadata import backfills, repositories

if TYPE_CHECKING:
    from replicator.replication.expected import Expectation
    from replicator.storage.metadata.backfills import StoredBackfill
    from replicator.storage.metadata.statement import Steps


def prepare_page(
    expectation: Expectation, backfill: StoredBackfill, now: float, size: int
) -> Steps[StoredBackfill | None]:
    """Queue the next images and note how far that came; None when the backfill was stopped or is somebody else's."""
    if not (yield from backfills.advance(backfill, backfill.position)):
        return None
    if not expectation.rules:
        return (yield from prepared(backfill, now, core.DESTINATION_NOT_FOUND))
    left = size
    position: _Position | None = _Position.parse(backfill.position)
    while left > 0:
        position = yield from _next_position(position, backfill.repository)
        if position is None:
            return (yield from prepared(backfill, now))
        page = yield from expectation.page(position.repository, position.after, left)
        for image in page.images:
            if image.carrier is None:
                yield from queue(BackgroundWork(image.replication, image.rule.priority), now, backfill.id)
        position = _Position(position.repository, page.after or "", is_done=page.after is None)
        left -= max(1, page.seen)
    yield from backfills.advance(backfill, str(position))
    return replace(backfill, position=str(position))


@dataclass(frozen=True, slots=True)
class _Position:
    """How far a preparation has come: after an image of a repository, or with all of the repository."""

    repository: RepositoryName
    after: str = ""
    is_done: bool = False

    def __str__(self) -> str:
        return json.dumps([self.repository, self.after, self.is_done])

    @classmethod
    def parse(cls, text: str) -> _Position | None:
        """Read the stored form; None at the start."""
        if not text:
            return None
        repository, after, is_done = json.loads(text)
        return cls(RepositoryName(repository), after, is_done)


def _next_position(position: _Position | None, only: RepositoryName | None) -> Steps[_Position | None]:
    """Return where to go on; None when there is nothing left."""
    if position is not None and not position.is_done:
        return position
    if only is not None:
        return _Position(only) if position is None else None
    names = yield from repositories.names_after(position.repository if position is not None else "", 1)
    return _Position(names[0]) if names else None


def prepared(backfill: StoredBackfill, now: float, failure: str | None = None) -> Steps[StoredBackfill | None]:
    """Note that all images are named; None when the backfill was stopped or is somebody else's."""
    state = BackfillState.IN_PROGRESS
    if not (yield from backfills.change_state(backfill, state, now, is_prepared=True, failure=failure)):
        return None
    return replace(backfill, state=state, failure=backfill.failure or failure)
