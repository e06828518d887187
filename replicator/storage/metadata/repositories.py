"""Repository rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName
from replicator.storage.metadata.schema import repositories
from replicator.storage.metadata.statement import Row, Statement, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository with its settings. `created_by` is what made it: a push, a replication or the cache."""

    name: RepositoryName
    created_at: float
    created_by: str
    mutability: MutabilityRule
    scan_on_push: bool = False
    encryption: str = "AES256"
    kms_key: str | None = None
    policy: str | None = None
    """The repository policy, as text."""
    lifecycle_policy: str | None = None
    lifecycle_evaluated_at: float | None = None
    resource_tags: Mapping[str, str] = field(default_factory=dict)
    is_public: bool = False
    catalog: str | None = None
    """The catalog data of a public repository, as JSON."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What access to a repository depends on."""

    name: RepositoryName
    policy: str | None
    resource_tags: Mapping[str, str]


_FIND = Statement(sa.select(repositories).where(repositories.c.name == sa.bindparam("name")))
_CREATE = Statement(
    insert(repositories)
    .values(
        name=sa.bindparam("name"),
        created_at=sa.bindparam("created_at"),
        created_by=sa.bindparam("created_by"),
        tag_mutability=sa.bindparam("tag_mutability"),
        mutability_exclusions=sa.bindparam("mutability_exclusions"),
        scan_on_push=sa.bindparam("scan_on_push"),
        encryption=sa.bindparam("encryption"),
        kms_key=sa.bindparam("kms_key"),
        policy=sa.bindparam("policy"),
        lifecycle_policy=sa.bindparam("lifecycle_policy"),
        resource_tags=sa.bindparam("resource_tags"),
        is_public=sa.bindparam("is_public"),
        catalog=sa.bindparam("catalog"),
    )
    .on_conflict_do_nothing(index_elements=["name"])
)
_NAMES = Statement(
    sa.select(repositories.c.name)
    .where(repositories.c.name > sa.bindparam("after"), repositories.c.is_public == 0)
    .order_by(repositories.c.name)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_CREATED_BY = Statement(
    sa.select(repositories.c.name)
    .where(repositories.c.created_by == sa.bindparam("cause"), repositories.c.name > sa.bindparam("after"))
    .order_by(repositories.c.name)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_PAGE = Statement(
    sa.select(repositories)
    .where(
        repositories.c.name > sa.bindparam("after"),
        repositories.c.is_public == sa.bindparam("public", type_=sa.Integer),
    )
    .order_by(repositories.c.name)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_NTH = Statement(
    sa.select(repositories.c.name)
    .where(repositories.c.is_public == sa.bindparam("public", type_=sa.Integer))
    .order_by(repositories.c.name)
    .limit(1)
    .offset(sa.bindparam("number", type_=sa.Integer))
)


def _setting(*columns: str) -> Statement:
    values: dict[str, sa.BindParameter[object]] = {column: sa.bindparam(f"new_{column}") for column in columns}
    return Statement(sa.update(repositories).where(repositories.c.name == sa.bindparam("of")).values(values))


_SET_MUTABILITY = _setting("tag_mutability", "mutability_exclusions")
_SET_SCAN_ON_PUSH = _setting("scan_on_push")
_SET_RESOURCE_TAGS = _setting("resource_tags")
_SET_POLICY = _setting("policy")
_SET_CATALOG = _setting("catalog")
_SET_LIFECYCLE_POLICY = _setting("lifecycle_policy", "lifecycle_evaluated_at")
_ATTRIBUTES = Statement(
    sa.select(repositories.c.name, repositories.c.policy, repositories.c.resource_tags)
    .where(
        repositories.c.name > sa.bindparam("after"),
        sa.or_(repositories.c.policy.is_not(None), repositories.c.resource_tags != "{}"),
    )
    .order_by(repositories.c.name)
    .limit(sa.bindparam("limit", type_=sa.Integer))
)
_COUNT = Statement(sa.select(sa.func.count()).select_from(repositories))


def find(name: RepositoryName) -> Steps[Repository | None]:
    """Return the repository, if it exists."""
    rows = yield from _FIND(name=name)
    return _repository(rows[0]) if rows else None


def _repository(row: Row) -> Repository:
    name, created_at, created_by, setting, exclusions, scan_on_push, encryption, kms_key, *rest = row
    policy, lifecycle_policy, lifecycle_evaluated_at, resource_tags, is_public, catalog = rest
    return Repository(
        name=RepositoryName(name),
        created_at=created_at,
        created_by=created_by,
        mutability=MutabilityRule(TagMutability(setting), tuple(json.loads(exclusions))),
        scan_on_push=bool(scan_on_push),
        encryption=encryption,
        kms_key=kms_key,
        policy=policy,
        lifecycle_policy=lifecycle_policy,
        lifecycle_evaluated_at=lifecycle_evaluated_at,
        resource_tags=json.loads(resource_tags),
        is_public=bool(is_public),
        catalog=catalog,
    )


def create(repository: Repository) -> Steps[None]:
    """Store a repository unless one of this name exists."""
    yield from _CREATE(
        name=repository.name,
        created_at=repository.created_at,
        created_by=repository.created_by,
        tag_mutability=repository.mutability.setting.value,
        mutability_exclusions=json.dumps(repository.mutability.exclusions),
        scan_on_push=int(repository.scan_on_push),
        encryption=repository.encryption,
        kms_key=repository.kms_key,
        policy=repository.policy,
        lifecycle_policy=repository.lifecycle_policy,
        resource_tags=json.dumps(dict(repository.resource_tags)),
        is_public=int(repository.is_public),
        catalog=repository.catalog,
    )


def names_after(after: str, limit: int) -> Steps[list[RepositoryName]]:
    """Return up to `limit` names of private repositories that sort after `after`, in order."""
    rows = yield from _NAMES(after=after, limit=limit)
    return [RepositoryName(row[0]) for row in rows]


def created_by(cause: str, after: str, limit: int) -> Steps[list[RepositoryName]]:
    """Return up to `limit` names that sort after `after`, in order, of repositories that `cause` made."""
    rows = yield from _CREATED_BY(cause=cause, after=after, limit=limit)
    return [RepositoryName(row[0]) for row in rows]


def attributes_after(after: str, limit: int) -> Steps[list[Attributes]]:
    """Return what access depends on of up to `limit` repositories that sort after `after`, in order.

    Repositories with neither a policy nor tags are left out.
    """
    rows = yield from _ATTRIBUTES(after=after, limit=limit)
    return [Attributes(RepositoryName(name), policy, json.loads(tags)) for name, policy, tags in rows]


def count() -> Steps[int]:
    """Return how many repositories there are."""
    rows = yield from _COUNT()
    return int(rows[0][0])


def page(after: str, limit: int, *, is_public: bool = False) -> Steps[list[Repository]]:
    """Return up to `limit` repositories whose names sort after `after`, in order, private ones or public ones."""
    rows = yield from _PAGE(after=after, limit=limit, public=int(is_public))
    return [_repository(row) for row in rows]


def has_private_below(prefix: str) -> Steps[bool]:
    """Tell whether a private repository's name begins with `prefix`, which ends in a slash."""
    names = yield from names_after(prefix, 1)
    return bool(names) and names[0].startswith(prefix)


def find_public() -> Steps[RepositoryName | None]:
    """Return a public repository, if there is one."""
    rows = yield from _NTH(number=0, public=1)
    return RepositoryName(rows[0][0]) if rows else None


def has_at_least(number: int, *, is_public: bool = False) -> Steps[bool]:
    """Tell whether there are so many repositories; no more of them are looked at."""
    return number <= 0 or bool((yield from _NTH(number=number - 1, public=int(is_public))))


def set_mutability(repository: RepositoryName, rule: MutabilityRule) -> Steps[None]:
    """Replace which tags may move; those that are there are left alone."""
    yield from _SET_MUTABILITY(
        of=repository,
        new_tag_mutability=rule.setting.value,
        new_mutability_exclusions=json.dumps(rule.exclusions),
    )


def set_scan_on_push(repository: RepositoryName, *, scan: bool) -> Steps[None]:
    """Set whether images are scanned when they are pushed."""
    yield from _SET_SCAN_ON_PUSH(of=repository, new_scan_on_push=int(scan))


def set_resource_tags(repository: RepositoryName, tags: Mapping[str, str]) -> Steps[None]:
    """Replace the tags that the repository has as a resource."""
    yield from _SET_RESOURCE_TAGS(of=repository, new_resource_tags=json.dumps(dict(tags)))


def set_policy(repository: RepositoryName, policy: str | None) -> Steps[None]:
    """Replace the policy, or take it away (None)."""
    yield from _SET_POLICY(of=repository, new_policy=policy)


def set_catalog(repository: RepositoryName, catalog: str | None) -> Steps[None]:
    """Replace the catalog data of a public repository."""
    yield from _SET_CATALOG(of=repository, new_catalog=catalog)


def set_lifecycle_policy(repository: RepositoryName, policy: str | None) -> Steps[None]:
    """Replace the lifecycle policy, or take it away (None); the new one was never evaluated."""
    yield from _SET_LIFECYCLE_POLICY(of=repository, new_lifecycle_policy=policy, new_lifecycle_evaluated_at=None)
