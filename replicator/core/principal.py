"""Who asks, and what they may do.

Every question is answered by the evaluation of policies, in one way for everybody: what a configuration grants is an
identity policy, too. Nothing is allowed that no policy allows.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core import public_registry, texts
from replicator.core.account_settings import PolicyScope
from replicator.core.arns import partition_of, repository_arn
from replicator.core.policy import SCOPE_V1_ACTIONS, Caller, Effect, Patterns, Policy, PolicyKind, Statement
from replicator.core.policy_conditions import tag_facts
from replicator.core.policy_evaluation import Decision, Outcome, Question, Relation, decide
from replicator.core.principal_arns import root_arn, user_arn
from replicator.core.request_context import NO_CONTEXT, RequestContext, facts_of_caller, facts_of_request
from replicator.core.rights import Grant, Right, policies_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.names import AccountId, NodeId, RepositoryName
    from replicator.core.policy_conditions import Facts
    from replicator.core.resource_policies import ResourcePolicies

_NO_TAGS: Mapping[str, str] = {}


class PrincipalKind(enum.StrEnum):
    """What stands behind a request."""

    ANONYMOUS = "anonymous"
    USER = "user"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller with its identity policies; `node` is set for a node.

    One without an account belongs to the registry that it asks, as its root (`is_root`) or a user of this name. Until
    an edge says by `at` what is asked and how, only the identity policies are looked at: so an engine asks, and a
    peer. A node is shown what lies here; one that `pulls_through` may also have fetched what a cache rule leads to.
    """

    name: str
    kind: PrincipalKind
    policies: tuple[Policy, ...] = ()
    node: NodeId | None = None
    pulls_through: bool = False
    arn: str | None = None
    account: AccountId | None = None
    is_root: bool = False
    tags: Mapping[str, str] = field(default_factory=lambda: _NO_TAGS, hash=False)
    resources: ResourcePolicies | None = field(default=None, compare=False, repr=False)
    context: RequestContext = field(default=NO_CONTEXT, compare=False)

    def at(self, resources: ResourcePolicies, context: RequestContext) -> Principal:
        """Return the caller as one who asks this registry by this request."""
        # Written out, because every request comes through here, and `replace` takes twice as long.
        return Principal(
            self.name,
            self.kind,
            self.policies,
            self.node,
            self.pulls_through,
            self.arn,
            self.account,
            self.is_root,
            self.tags,
            resources,
            context,
        )

    @property
    def is_nobody(self) -> bool:
        """Whether this is a caller without a name, to whom nothing is granted."""
        return self.kind is PrincipalKind.ANONYMOUS and not self.policies

    @property
    def caller_arn(self) -> str | None:
        """The ARN, which is of the asked registry's account where the caller has no other; None without a name."""
        if self.arn is not None or self.resources is None:
            return self.arn
        owner = self.resources.owner
        if self.is_root:
            return root_arn(owner.account, partition_of(owner.region))
        return user_arn(owner, self.name) if self.kind is PrincipalKind.USER else None

    def may(self, action: str, repository: RepositoryName | None) -> bool:
        """Tell whether the caller may do `action` in `repository`, or in the registry itself (None)."""
        return self.decide(action, repository).is_allowed

    def decide(self, action: str, repository: RepositoryName | None) -> Decision:
        """Return whether the caller may do `action`, and which statement decided."""
        resources = self.resources
        if resources is None:
            return self._decide(action, repository)
        memory = resources.memory
        key = (self.policies, self.arn or (self.kind, self.name), action, repository)
        found = memory.find(key)
        if found is None:
            found = self._decide(action, repository)
            memory.keep(key, found)
        return found

    def may_everywhere(self, action: str) -> bool:
        """Tell whether the caller may do `action` in every repository: its policies allow it for all, and deny none.

        What is allowed except somewhere, or for some tags, is not allowed everywhere.
        """
        decision = self.decide(action, None)
        if not decision.is_allowed or decision.statement is None or _has_exceptions(decision.statement):
            return False
        denying = (one for policy in self.policies for one in policy.statements if one.effect is Effect.DENY)
        return not any(statement.actions.matches(action.lower()) for statement in denying)

    def refusal(self, action: str, repository: RepositoryName | None) -> str:
        """Say in ECR's words why the caller may not do `action`."""
        decision = self.decide(action, repository)
        kind = "resource-based" if decision.outcome in _BY_RESOURCE else "identity-based"
        if self._is_public(repository):
            action = public_registry.public_action(action)
        why = texts.explicit_deny(kind) if decision.is_explicit else texts.nothing_allows(kind, action)
        return texts.access_denied(self.caller_arn or self.name, action, self.resource_arn(repository), why)

    def _decide(self, action: str, repository: RepositoryName | None) -> Decision:
        if self._is_public(repository):
            action = public_registry.public_action(action)
            if public_registry.is_pull(action):
                return Decision(Outcome.ALLOWED, public_registry.PULLS, public_registry.PULLS.statements[0])
        arn = self.caller_arn
        account = self._account if arn is not None else None
        question = Question(
            Caller(arn, account), self._relation, action, self.resource_arn(repository), lambda: self._facts(repository)
        )
        return decide(question, (*self.policies, *_policies_at(self.resources, action, repository)))

    @property
    def _account(self) -> AccountId | None:
        if self.account is not None or self.resources is None:
            return self.account
        return self.resources.owner.account

    @property
    def _relation(self) -> Relation:
        if self.kind is PrincipalKind.ANONYMOUS and not self.is_root:
            return Relation.NAMELESS if self.is_nobody else Relation.ADMITTED
        if self.resources is None or self._account == self.resources.owner.account:
            return Relation.OWN_ACCOUNT
        return Relation.OTHER_ACCOUNT

    def resource_arn(self, repository: RepositoryName | None) -> str:
        """Return what a question about `repository`, or about the registry itself (None), is about."""
        if repository is None:
            return "*"
        if self.resources is None:
            return f"arn:aws:ecr:::repository/{repository}"
        if self._is_public(repository):
            name = self.resources.public_registry.to_public(repository)
            return public_registry.repository_arn(self.resources.owner.account, name)
        return repository_arn(self.resources.owner, repository)

    def _is_public(self, repository: RepositoryName | None) -> bool:
        return (
            repository is not None and self.resources is not None and self.resources.public_registry.covers(repository)
        )

    def _facts(self, repository: RepositoryName | None) -> Facts:
        facts = {
            **facts_of_request(self.context),
            **facts_of_caller(self.caller_arn, self._account),
            **tag_facts("aws:principaltag/", self.tags),
        }
        if self.resources is not None:
            facts["aws:requestedregion"] = (self.resources.owner.region,)
            facts["aws:resourceaccount"] = (self.resources.owner.account,)
            tags = _NO_TAGS if repository is None else self.resources.resource_tags(repository)
            for prefix in ("aws", "ecr-public" if self._is_public(repository) else "ecr"):
                facts |= tag_facts(f"{prefix}:resourcetag/", tags)
        return {**facts, **self.context.values}


def _has_exceptions(statement: Statement) -> bool:
    is_negated = statement.resources is not None and statement.resources.is_negated
    return is_negated or any(":resourcetag/" in condition.key for condition in statement.conditions)


_BY_RESOURCE = frozenset({Outcome.DENIED_BY_RESOURCE, Outcome.NO_RESOURCE_ALLOWS})


def _policies_at(
    resources: ResourcePolicies | None, action: str, repository: RepositoryName | None
) -> tuple[Policy, ...]:
    if resources is None:
        return ()
    if public_registry.is_public_action(action):  # the registry's policy is that of the private registry
        policy = None if repository is None else resources.repository_policy(repository)
        return () if policy is None else (policy,)
    decides = resources.scope is PolicyScope.V2 or action.lower() in SCOPE_V1_ACTIONS
    found = resources.registry_policies if decides else ()
    policy = None if repository is None else resources.repository_policy(repository)
    return found if policy is None else (policy, *found)


EVERYTHING = Policy(
    PolicyKind.IDENTITY, (Statement(Effect.ALLOW, Patterns(("*",)), Patterns(("*",))),), "everything is allowed"
)
"""The identity policy of an account's root, and of the caller of a node without users."""


UNRESTRICTED = Principal("anonymous", PrincipalKind.ANONYMOUS, (EVERYTHING,), is_root=True)
"""The caller of a node that runs without authentication: the root of the account, which only a Deny stops."""


def assumed_root(arn: str, account: AccountId) -> Principal:
    """Return the root of an account whose own policies are not known here, and are taken to allow everything."""
    return Principal(arn, PrincipalKind.USER, (EVERYTHING,), arn=arn, account=account)


def node_principal(node: NodeId) -> Principal:
    """Return the principal of a peer; it may read, where the edge lets it."""
    return Principal(str(node), PrincipalKind.NODE, policies_of((Grant(frozenset({Right.PULL})),)), node)
