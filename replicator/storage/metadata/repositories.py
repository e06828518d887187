"""Repository rows."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName
from replicator.storage.metadata.schema import repositories
from replicator.storage.metadata.statement import Statement, Steps


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository with its settings. `created_by` is what made it: a push, a replication or the cache."""

    name: RepositoryName
    created_at: float
    created_by: str
    mutability: MutabilityRule


_FIND = Statement(sa.select(repositories).where(repositories.c.name == sa.bindparam("name")))
_CREATE = Statement(
    insert(repositories)
    .values(
        name=sa.bindparam("name"),
        created_at=sa.bindparam("created_at"),
        created_by=sa.bindparam("created_by"),
        tag_mutability=sa.bindparam("tag_mutability"),
        mutability_exclusions=sa.bindparam("mutability_exclusions"),
    )
    .on_conflict_do_nothing(index_elements=["name"])
)
_NAMES = Statement(
    sa.select(repositories.c.name)
    .where(repositories.c.name > sa.bindparam("after"))
    .order_by(repositories.c.name)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_CREATED_BY = Statement(
    sa.select(repositories.c.name)
    .where(repositories.c.created_by == sa.bindparam("cause"), repositories.c.name > sa.bindparam("after"))
    .order_by(repositories.c.name)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_COUNT = Statement(sa.select(sa.func.count()).select_from(repositories))


def find(name: RepositoryName) -> Steps[Repository | None]:
    """Return the repository, if it exists."""
    rows = yield from _FIND(name=name)
    if not rows:
        return None
    _, created_at, created_by, setting, exclusions = rows[0]
    rule = MutabilityRule(TagMutability(setting), tuple(json.loads(exclusions)))
    return Repository(name, created_at, created_by, rule)


def create(repository: Repository) -> Steps[None]:
    """Store a repository unless one of this name exists."""
    yield from _CREATE(
        name=repository.name,
        created_at=repository.created_at,
        created_by=repository.created_by,
        tag_mutability=repository.mutability.setting.value,
        mutability_exclusions=json.dumps(repository.mutability.exclusions),
    )


def names_after(after: str, limit: int) -> Steps[list[RepositoryName]]:
    """Return up to `limit` names that sort after `after`, in order."""
    rows = yield from _NAMES(after=after, limit=limit)
    return [RepositoryName(row[0]) for row in rows]


def created_by(cause: str, after: str, limit: int) -> Steps[list[RepositoryName]]:
    """Return up to `limit` names that sort after `after`, in order, of repositories that `cause` made."""
    rows = yield from _CREATED_BY(cause=cause, after=after, limit=limit)
    return [RepositoryName(row[0]) for row in rows]


def count() -> Steps[int]:
    """Return how many repositories there are."""
    rows = yield from _COUNT()
    return int(rows[0][0])
