"""Tags that two nodes set without knowing of each other: what won, what lost, and when that was found.

The loser stays an image that can be pulled by its digest; only the tag is not its any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.storage.metadata.schema import tag_conflicts
from replicator.storage.metadata.statement import Statement, Steps

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag


@dataclass(frozen=True, slots=True)
class TagConflict:
    """One lost tag. `winner` is None where the tag was deleted; `found_at` is Unix seconds."""

    repository: RepositoryName
    tag: Tag
    loser: Digest
    winner: Digest | None
    winner_revision: str
    found_at: float


_put = insert(tag_conflicts).values(
    repository=sa.bindparam("repository"),
    tag=sa.bindparam("tag"),
    loser=sa.bindparam("loser"),
    winner=sa.bindparam("winner"),
    winner_revision=sa.bindparam("winner_revision"),
    found_at=sa.bindparam("found_at"),
)
_PUT = Statement(
    _put.on_conflict_do_update(
        index_elements=["repository", "tag", "loser"],
        set_={name: _put.excluded[name] for name in ("winner", "winner_revision", "found_at")},
    )
)
_RECENT = Statement(
    sa.select(
        tag_conflicts.c.repository,
        tag_conflicts.c.tag,
        tag_conflicts.c.loser,
        tag_conflicts.c.winner,
        tag_conflicts.c.winner_revision,
        tag_conflicts.c.found_at,
    )
    .order_by(tag_conflicts.c.found_at.desc(), tag_conflicts.c.repository, tag_conflicts.c.tag, tag_conflicts.c.loser)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_COUNT = Statement(sa.select(sa.func.count()).select_from(tag_conflicts))


def put(conflict: TagConflict) -> Steps[None]:
    """Note a conflict; the newest of the same loser counts."""
    yield from _PUT(
        repository=conflict.repository,
        tag=conflict.tag,
        loser=conflict.loser,
        winner=conflict.winner,
        winner_revision=conflict.winner_revision,
        found_at=conflict.found_at,
    )


def recent(limit: int) -> Steps[list[TagConflict]]:
    """Return up to `limit` conflicts, those found last first."""
    rows = yield from _RECENT(limit=limit)
    return [TagConflict(*row) for row in rows]


def count() -> Steps[int]:
    """Return how many conflicts are noted."""
    rows = yield from _COUNT()
    return int(rows[0][0])
