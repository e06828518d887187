"""Which accounts may replicate into a registry: the part of ECR's registry policy that replication asks.

A node of the registry's own account needs no permission. One of another account needs `ecr:ReplicateImage` on the
repository, and `ecr:CreateRepository` where the repository is missing (ECR, "Registry permissions"; ECR §9.3).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from replicator.core.arns import partition_of, repository_arn
from replicator.core.policy import Caller, Effect, Patterns, Policy, PolicyKind, Principals, Statement
from replicator.core.policy_evaluation import Question, Relation, decide
from replicator.core.principal_arns import root_arn

if TYPE_CHECKING:
    from replicator.core.names import AccountId, NodeId, RepositoryName


class Permission(enum.StrEnum):
    """An action that a registry policy can allow another account."""

    REPLICATE_IMAGE = "ecr:ReplicateImage"
    CREATE_REPOSITORY = "ecr:CreateRepository"


ALL_PERMISSIONS = frozenset(Permission)
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class PolicyStatement:
    """An account and what it may do in the repositories that match (`*` is any characters)."""

    account: AccountId
    permissions: frozenset[Permission] = ALL_PERMISSIONS
    repositories: tuple[str, ...] = ("*",)

    def to_statement(self) -> Statement:
        """Return this in the language of policies."""
        return Statement(
            Effect.ALLOW,
            Patterns(tuple(sorted(permission.lower() for permission in self.permissions))),
            Patterns(tuple(f"arn:*:ecr:*:*:repository/{pattern}" for pattern in self.repositories)),
            Principals(accounts=frozenset({self.account})),
        )


@dataclass(frozen=True, slots=True)
class RegistryPolicy:
    """The registry policy of a node of `owner`: short statements, such as the file's, and a document put at run time.

    Nothing is allowed to others that nothing here allows; a Deny of the document stops also what the file allows.
    """

    owner: AccountId
    statements: tuple[PolicyStatement, ...] = ()
    document: Policy | None = None

    @property
    def policies(self) -> tuple[Policy, ...]:
        """All of it, as policies."""
        declared = _declared(self.statements) if self.statements else None
        return tuple(policy for policy in (declared, self.document) if policy is not None)

    def missing(self, here: NodeId, source: NodeId, repository: RepositoryName, *, exists: bool) -> Permission | None:
        """Return the permission that `source` lacks to replicate into `here`, or None when it lacks none.

        A node acts as the root of its account; what is sent was decided by that account's own rules.
        """
        needed = (Permission.REPLICATE_IMAGE,) if exists else tuple(Permission)
        return next((one for one in needed if not self._allows(here, source, one, repository)), None)

    def _allows(self, here: NodeId, source: NodeId, permission: Permission, repository: RepositoryName) -> bool:
        question = Question(
            Caller(root_arn(source.account, partition_of(source.region)), source.account),
            Relation.OWN_ACCOUNT if source.account == self.owner else Relation.OTHER_ACCOUNT,
            permission,
            repository_arn(here, repository),
            lambda: _facts(here, source),
        )
        return decide(question, (_BY_ITS_RULES, *self.policies)).is_allowed


_BY_ITS_RULES = Policy(
    PolicyKind.IDENTITY, (Statement(Effect.ALLOW, Patterns(("*",)), Patterns(("*",))),), "replication rules"
)


@lru_cache(_REMEMBERED)
def _declared(statements: tuple[PolicyStatement, ...]) -> Policy:
    return Policy(PolicyKind.REGISTRY, tuple(one.to_statement() for one in statements), "declared statements")


def _facts(here: NodeId, source: NodeId) -> dict[str, tuple[str, ...]]:
    return {
        "aws:principalarn": (root_arn(source.account, partition_of(source.region)),),
        "aws:principalaccount": (source.account,),
        "aws:principaltype": ("Account",),
        "aws:requestedregion": (here.region,),
        "aws:resourceaccount": (here.account,),
        "aws:securetransport": ("true",),
        "aws:sourceaccount": (source.account,),
        "aws:viaawsservice": ("false",),
    }
