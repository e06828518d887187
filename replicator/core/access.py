"""Who asks, and what may be done: principals, actions, and the rights that configured users have.

Every question is answered by the evaluation of policies, in one way for everybody: the rights that a configuration
grants are written as identity policies. Nothing is allowed that no policy allows. What nodes do for each other is not
granted here: it is for the replication rules and the registry policy to say.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from replicator.core import public_registry, texts
from replicator.core.account_settings import PolicyScope
from replicator.core.bounded import BoundedMap
from replicator.core.policy import (
    SCOPE_V1_ACTIONS,
    Caller,
    Effect,
    Patterns,
    Policy,
    PolicyKind,
    Statement,
)
from replicator.core.policy_arns import (
    account_of_root,
    partition_of,
    repository_arn,
    root_arn,
    session_role,
    user_arn,
    user_name,
)
from replicator.core.policy_conditions import tag_facts
from replicator.core.policy_evaluation import Decision, Outcome, Question, Relation, decide

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.names import AccountId, NodeId, RepositoryName
    from replicator.core.policy_conditions import Facts
    from replicator.core.public_registry import PublicRegistry

_NO_VALUES: Mapping[str, tuple[str, ...]] = {}
_NO_TAGS: Mapping[str, str] = {}
_REMEMBERED = 20_000


class Action(enum.StrEnum):
    """What the registry, the node's own pages and its engines ask for; the JSON API asks `ecr:` and its operation."""

    BATCH_CHECK_LAYER_AVAILABILITY = "ecr:BatchCheckLayerAvailability"
    BATCH_DELETE_IMAGE = "ecr:BatchDeleteImage"
    BATCH_GET_IMAGE = "ecr:BatchGetImage"
    BATCH_IMPORT_UPSTREAM_IMAGE = "ecr:BatchImportUpstreamImage"
    COMPLETE_LAYER_UPLOAD = "ecr:CompleteLayerUpload"
    CREATE_REPOSITORY = "ecr:CreateRepository"
    DESCRIBE_IMAGE_REPLICATION_STATUS = "ecr:DescribeImageReplicationStatus"
    DESCRIBE_IMAGE_SCAN_FINDINGS = "ecr:DescribeImageScanFindings"
    DESCRIBE_IMAGES = "ecr:DescribeImages"
    DESCRIBE_REPOSITORIES = "ecr:DescribeRepositories"
    GET_DOWNLOAD_URL_FOR_LAYER = "ecr:GetDownloadUrlForLayer"
    INITIATE_LAYER_UPLOAD = "ecr:InitiateLayerUpload"
    LIST_IMAGE_REFERRERS = "ecr:ListImageReferrers"
    LIST_IMAGES = "ecr:ListImages"
    PUT_IMAGE = "ecr:PutImage"
    REPLICATE_IMAGE = "ecr:ReplicateImage"
    UPLOAD_LAYER_PART = "ecr:UploadLayerPart"

    COMPARE_REGISTRIES = "replicator:CompareRegistries"
    DESCRIBE_CACHE = "replicator:DescribeCache"
    DESCRIBE_EVENTS = "replicator:DescribeEvents"
    DESCRIBE_STATUS = "replicator:DescribeStatus"
    EXPLAIN_POLICY = "replicator:ExplainPolicy"
    FILL_CACHE = "replicator:FillCache"
    MANAGE_EVENTS = "replicator:ManageEvents"
    PIN_IMAGE = "replicator:PinImage"
    PURGE_CACHE = "replicator:PurgeCache"
    REPLICATE_AGAIN = "replicator:ReplicateAgain"
    START_BACKFILL = "replicator:StartBackfill"
    SYNC_REGISTRIES = "replicator:SyncRegistries"


class Right(enum.StrEnum):
    """What a configuration can grant a user: the actions that belong to one kind of work."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"


ACTIONS_OF: Mapping[Right, frozenset[Action]] = {
    # A pull through the cache may have to make the repository, which is the only thing that whoever may pull and not
    # push can have made.
    Right.PULL: frozenset(
        {
            Action.BATCH_CHECK_LAYER_AVAILABILITY,
            Action.BATCH_GET_IMAGE,
            Action.BATCH_IMPORT_UPSTREAM_IMAGE,
            Action.CREATE_REPOSITORY,
            Action.DESCRIBE_IMAGE_REPLICATION_STATUS,
            Action.DESCRIBE_IMAGE_SCAN_FINDINGS,
            Action.DESCRIBE_IMAGES,
            Action.DESCRIBE_REPOSITORIES,
            Action.GET_DOWNLOAD_URL_FOR_LAYER,
            Action.LIST_IMAGE_REFERRERS,
            Action.LIST_IMAGES,
            Action.COMPARE_REGISTRIES,
            Action.DESCRIBE_CACHE,
            Action.DESCRIBE_EVENTS,
            Action.DESCRIBE_STATUS,
            Action.EXPLAIN_POLICY,
        }
    ),
    Right.PUSH: frozenset(
        {
            Action.COMPLETE_LAYER_UPLOAD,
            Action.CREATE_REPOSITORY,
            Action.INITIATE_LAYER_UPLOAD,
            Action.PUT_IMAGE,
            Action.UPLOAD_LAYER_PART,
            Action.FILL_CACHE,
            Action.MANAGE_EVENTS,
            Action.PIN_IMAGE,
            Action.REPLICATE_AGAIN,
            Action.START_BACKFILL,
            Action.SYNC_REGISTRIES,
        }
    ),
    Right.DELETE: frozenset({Action.BATCH_DELETE_IMAGE, Action.PURGE_CACHE}),
}
"""What each right lets a user do."""

ALL_RIGHTS = frozenset(Right)


class PrincipalKind(enum.StrEnum):
    """What stands behind a request."""

    ANONYMOUS = "anonymous"
    USER = "user"
    NODE = "node"


@dataclass(frozen=True, slots=True)
class Grant:
    """`rights` in the repositories that match one of `repositories` (`*` is any characters)."""

    rights: frozenset[Right]
    repositories: tuple[str, ...] = ("*",)

    def to_statement(self) -> Statement:
        """Return what this grants, in the language of policies."""
        actions = sorted({action.lower() for right in self.rights for action in ACTIONS_OF[right]})
        resources = tuple("*" if one == "*" else f"arn:*:ecr:*:*:repository/{one}" for one in self.repositories)
        return Statement(Effect.ALLOW, Patterns(tuple(actions)), Patterns(resources))


@lru_cache(_REMEMBERED)
def policies_of(grants: tuple[Grant, ...]) -> tuple[Policy, ...]:
    """Return identity policies that allow what is granted, the same ones whenever the same is; none for no grants."""
    statements = tuple(grant.to_statement() for grant in grants)
    return (Policy(PolicyKind.IDENTITY, statements, "grants of the configuration"),) if statements else ()


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What conditions may ask of a request. `values` holds further condition keys, in lower case."""

    source_ip: str | None = None
    is_secure: bool = False
    now: float | None = None
    values: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: _NO_VALUES)


NO_CONTEXT = RequestContext()


class DecisionMemory:
    """Decisions that no condition takes part in, until something changes that they depend on."""

    def __init__(self) -> None:
        self._decisions: BoundedMap[object, Decision] = BoundedMap(_REMEMBERED)

    def find(self, key: object) -> Decision | None:
        """Return a decision that was kept."""
        return self._decisions.peek(key)

    def keep(self, key: object, decision: Decision) -> None:
        """Remember a decision, if it is the same for every request."""
        if decision.is_constant:
            self._decisions.put(key, decision)

    def clear(self) -> None:
        """Forget everything."""
        self._decisions.clear()


class ResourcePolicies(Protocol):
    """The policies of one registry and of its repositories, as they are now."""

    @property
    def owner(self) -> NodeId:
        """The registry."""
        ...

    @property
    def registry_policies(self) -> tuple[Policy, ...]:
        """What the registry's policy says: the file's part, and what was put at run time."""
        ...

    @property
    def scope(self) -> PolicyScope:
        """Which actions the registry's policy decides on."""
        ...

    @property
    def public_registry(self) -> PublicRegistry:
        """Which repositories are public."""
        ...

    @property
    def memory(self) -> DecisionMemory:
        """Decisions made by these policies, which forgets them when one changes, and after a while."""
        ...

    def repository_policy(self, repository: RepositoryName) -> Policy | None:
        """Return the policy of a repository, if it has one."""
        ...

    def resource_tags(self, repository: RepositoryName) -> Mapping[str, str]:
        """Return the tags of a repository."""
        ...


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
        outcome = self.decide(action, repository).outcome
        kind = "resource-based" if outcome in _BY_RESOURCE else "identity-based"
        if self._is_public(repository):
            action = public_registry.public_action(action)
        is_explicit = outcome in {Outcome.DENIED_BY_IDENTITY, Outcome.DENIED_BY_RESOURCE}
        why = texts.explicit_deny(kind) if is_explicit else texts.nothing_allows(kind, action)
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
            **_facts_of(self.context),
            **_facts_of_caller(self.caller_arn, self._account),
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


def _facts_of(context: RequestContext) -> dict[str, tuple[str, ...]]:
    facts: dict[str, tuple[str, ...]] = {
        "aws:securetransport": ("true" if context.is_secure else "false",),
        "aws:viaawsservice": ("false",),
        "aws:principalisawsservice": ("false",),
    }
    if context.source_ip is not None:
        facts["aws:sourceip"] = (context.source_ip,)
    if context.now is not None:
        moment = datetime.fromtimestamp(int(context.now), UTC)
        facts["aws:currenttime"] = (moment.strftime("%Y-%m-%dT%H:%M:%SZ"),)
        facts["aws:epochtime"] = (str(int(context.now)),)
    return facts


def _facts_of_caller(arn: str | None, account: AccountId | None) -> dict[str, tuple[str, ...]]:
    if arn is None:
        return {"aws:principaltype": ("Anonymous",)}
    role, user, partition = session_role(arn), user_name(arn), arn.split(":")[1]
    # A session is known by the role that it is one of, as in AWS.
    shown = arn if role is None else f"arn:{partition}:iam::{role.account}:role/{role.name}"
    facts: dict[str, tuple[str, ...]] = {"aws:principalarn": (shown,), "aws:principaltype": ("User",)}
    if account is not None:
        facts["aws:principalaccount"] = (account,)
    if role is not None:
        facts["aws:principaltype"] = ("AssumedRole",)
    elif user is not None:
        facts["aws:username"] = (user,)
    elif account_of_root(arn) is not None:
        facts["aws:principaltype"] = ("Account",)
        facts["aws:userid"] = (arn.split(":")[4],)
    return facts


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
