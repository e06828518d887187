"""Which accounts may replicate into a registry: the part of ECR's registry policy that replication asks.

A node of the registry's own account needs no permission. One of another account needs `ecr:ReplicateImage` on the
repository, and `ecr:CreateRepository` where the repository is missing (ECR, "Registry permissions"; ECR §9.3).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput
from replicator.core.mutability import matches_wildcard

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.names import AccountId, RepositoryName


class Permission(enum.StrEnum):
    """An action that a registry policy can allow another account."""

    REPLICATE_IMAGE = "ecr:ReplicateImage"
    CREATE_REPOSITORY = "ecr:CreateRepository"


ALL_PERMISSIONS = frozenset(Permission)
_PATTERN = re.compile(r"[a-z0-9._/*-]{1,256}")


@dataclass(frozen=True, slots=True)
class PolicyStatement:
    """An account and what it may do in the repositories that match (`*` is any characters)."""

    account: AccountId
    permissions: frozenset[Permission] = ALL_PERMISSIONS
    repositories: tuple[str, ...] = ("*",)

    def allows(self, account: AccountId, permission: Permission, repository: RepositoryName) -> bool:
        """Tell whether this statement allows `account` to do something."""
        named = account == self.account and permission in self.permissions
        return named and any(matches_wildcard(pattern, repository) for pattern in self.repositories)


@dataclass(frozen=True, slots=True)
class RegistryPolicy:
    """The registry policy of a node of `owner`. Nothing is allowed to others that no statement allows."""

    owner: AccountId
    statements: tuple[PolicyStatement, ...] = ()

    def missing(self, source: AccountId, repository: RepositoryName, *, exists: bool) -> Permission | None:
        """Return the permission that `source` lacks to replicate into a repository, or None when it lacks none."""
        needed = (Permission.REPLICATE_IMAGE,) if exists else tuple(Permission)
        return next((one for one in needed if not self._allows(source, one, repository)), None)

    def _allows(self, source: AccountId, permission: Permission, repository: RepositoryName) -> bool:
        return source == self.owner or any(
            statement.allows(source, permission, repository) for statement in self.statements
        )


def check_statements(statements: Iterable[PolicyStatement]) -> None:
    """Raise InvalidInput for statements that allow nothing, nowhere, or where no repository can be."""
    for number, statement in enumerate(statements, start=1):
        if not statement.permissions or not statement.repositories:
            raise InvalidInput(f"statement {number}: expected at least one action and one repository")
        for pattern in statement.repositories:
            if _PATTERN.fullmatch(pattern) is None:
                raise InvalidInput(f"statement {number}: expected a pattern of repository names, got {pattern[:80]!r}")
