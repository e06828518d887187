"""The decision: what the policies of a caller, of a repository and of its registry say together (ECR §14.4).

A Deny that matches decides. Else, in the own account one Allow anywhere is enough; a caller of another account needs
one of its own and one of the repository or the registry; a caller without a name needs one that was given to such
callers. Everything else is denied.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.policy import Effect, PolicyKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from replicator.core.policy import Caller, Policy, Statement
    from replicator.core.policy_conditions import Facts


class Relation(enum.Enum):
    """What a caller is to the registry that is asked."""

    OWN_ACCOUNT = enum.auto()
    OTHER_ACCOUNT = enum.auto()
    NAMELESS = enum.auto()
    ADMITTED = enum.auto()
    """Without a name, at an endpoint that lets such callers in: what a repository gives to everybody is theirs, too."""


class Outcome(enum.Enum):
    """How a decision came about."""

    ALLOWED = enum.auto()
    DENIED_BY_IDENTITY = enum.auto()
    DENIED_BY_RESOURCE = enum.auto()
    NO_IDENTITY_ALLOWS = enum.auto()
    NO_RESOURCE_ALLOWS = enum.auto()


@dataclass(frozen=True, slots=True)
class Question:
    """May `caller` do `action` on `resource`? `facts` are asked for where a condition needs them."""

    caller: Caller
    relation: Relation
    action: str
    resource: str
    facts: Callable[[], Facts]


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer, and the statement that decided, if one did. A constant one does not depend on any condition."""

    outcome: Outcome
    policy: Policy | None = None
    statement: Statement | None = None
    is_constant: bool = True

    @property
    def is_allowed(self) -> bool:
        """Whether the caller may."""
        return self.outcome is Outcome.ALLOWED

    @property
    def is_explicit(self) -> bool:
        """Whether a Deny decided."""
        return self.outcome in {Outcome.DENIED_BY_IDENTITY, Outcome.DENIED_BY_RESOURCE}


def decide(question: Question, policies: Iterable[Policy]) -> Decision:
    """Return what the policies that apply to a caller and a resource say."""
    action = question.action.lower()
    allowing: dict[bool, tuple[Policy, Statement]] = {}
    facts: Facts | None = None
    for policy in policies:
        for statement in policy.statements:
            if not _covers(statement, question, action) or not _counts(policy, statement, question):
                continue
            if statement.conditions:
                facts = facts or question.facts()
                if not all(condition.holds(facts) for condition in statement.conditions):
                    continue
            if statement.effect is Effect.DENY:
                return _denied(policy, statement, is_constant=facts is None)
            allowing.setdefault(policy.kind is PolicyKind.IDENTITY, (policy, statement))
    return _decide(question.relation, allowing.get(True), allowing.get(False), is_constant=facts is None)


def _covers(statement: Statement, question: Question, action: str) -> bool:
    return (
        statement.actions.matches(action)
        and (statement.principals is None or statement.principals.matches(question.caller))
        and (statement.resources is None or statement.resources.matches(question.resource))
    )


def _counts(policy: Policy, statement: Statement, question: Question) -> bool:
    """Tell whether a statement is about the caller: one without a name is only given what everybody is, by `*`."""
    if question.relation is not Relation.ADMITTED or statement.effect is Effect.DENY or statement.principals is None:
        return True
    names_all = statement.principals.anybody and not statement.principals.is_negated
    return names_all and policy.kind is PolicyKind.REPOSITORY


def _denied(policy: Policy, statement: Statement, *, is_constant: bool) -> Decision:
    is_identity = policy.kind is PolicyKind.IDENTITY
    outcome = Outcome.DENIED_BY_IDENTITY if is_identity else Outcome.DENIED_BY_RESOURCE
    return Decision(outcome, policy, statement, is_constant)


def _decide(
    relation: Relation,
    identity: tuple[Policy, Statement] | None,
    resource: tuple[Policy, Statement] | None,
    *,
    is_constant: bool,
) -> Decision:
    deciding = identity
    if relation in {Relation.OWN_ACCOUNT, Relation.ADMITTED}:
        deciding = identity or resource
    elif relation is Relation.OTHER_ACCOUNT and identity is not None:
        deciding = resource
    if deciding is not None:
        return Decision(Outcome.ALLOWED, *deciding, is_constant)
    lacks_resource = relation is Relation.OTHER_ACCOUNT and identity is not None
    missing = Outcome.NO_RESOURCE_ALLOWS if lacks_resource else Outcome.NO_IDENTITY_ALLOWS
    return Decision(missing, is_constant=is_constant)


def label_of(policy: Policy, statement: Statement) -> str:
    """Name a statement: by its Sid, or by its number, which counts from 1."""
    number = next(number for number, one in enumerate(policy.statements, 1) if one is statement)
    return f"statement {number}" if statement.sid is None else f"statement {number} ({statement.sid})"
