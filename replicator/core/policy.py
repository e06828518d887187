"""Policies: who may do what, on what, and when, in the language of AWS (ECR §14).

There are three kinds: of an identity, of a repository and of a registry. `parse_policy` takes exactly the language that
`policy_evaluation` evaluates. Whatever else a document says is refused when it is set: an element that nobody looks at
would be a permission that somebody believes to have given, or to have taken away.
"""

from __future__ import annotations

import enum
import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn

from replicator.core import texts
from replicator.core.account_settings import PolicyScope
from replicator.core.errors import InvalidPolicy
from replicator.core.names import AccountId
from replicator.core.policy_conditions import Condition, parse_condition
from replicator.core.policy_matching import matches_pattern
from replicator.core.principal_arns import Role, account_of, account_of_root, is_principal, role_of, root_arn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_POLICY = 10_240
"""Characters of a policy."""

SCOPE_V1_ACTIONS = frozenset({"ecr:replicateimage", "ecr:batchimportupstreamimage", "ecr:createrepository"})
"""What a registry policy of scope V1 decides on, in lower case."""

_VERSIONS = ("2008-10-17", "2012-10-17")
_ACTION = re.compile(r"\*|[A-Za-z0-9-]{1,64}:[A-Za-z0-9*?]{1,128}")
_ECR_ACTION = re.compile(r"\*|[eE][cC][rR]:[A-Za-z0-9*?]{1,128}")
_PUBLIC_ACTION = re.compile(r"\*|[eE][cC][rR]-[pP][uU][bB][lL][iI][cC]:[A-Za-z0-9*?]{1,128}")
_RESOURCE = re.compile(r"arn:[^:]{1,64}:[^:]{1,64}:[^:]{0,64}:[^:]{0,64}:.{1,2048}")
_ECR_RESOURCE = re.compile(r"arn:[a-z*?-]{1,64}:(?:ecr|\*):[a-z0-9*?-]{0,64}:[0-9*?]{0,64}:[A-Za-z0-9._/*?-]{1,512}")
_PUBLIC_RESOURCE = re.compile(r"arn:[a-z*?-]{1,64}:(?:ecr-public|\*):\*?:[0-9*?]{0,64}:[A-Za-z0-9._/*?-]{1,512}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_SERVICE = re.compile(r"[a-z0-9-]{1,64}(?:\.[a-z0-9-]{1,64}){1,6}")
_SID = re.compile(r"[\x20-\x7e]{0,256}")
_MAX_ID = 512


class PolicyKind(enum.StrEnum):
    """What a policy is attached to."""

    IDENTITY = "identity policy"
    REPOSITORY = "repository policy"
    PUBLIC_REPOSITORY = "public repository policy"
    REGISTRY = "registry policy"


_ACTIONS = {PolicyKind.IDENTITY: _ACTION, PolicyKind.PUBLIC_REPOSITORY: _PUBLIC_ACTION}
_RESOURCES = {PolicyKind.IDENTITY: _RESOURCE, PolicyKind.PUBLIC_REPOSITORY: _PUBLIC_RESOURCE}
_OF_REPOSITORIES = frozenset({PolicyKind.REPOSITORY, PolicyKind.PUBLIC_REPOSITORY})


class Effect(enum.StrEnum):
    """What a statement does to what it matches."""

    ALLOW = "Allow"
    DENY = "Deny"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. A service has no account; somebody without a name has neither."""

    arn: str | None = None
    account: AccountId | None = None
    service: str | None = None

    @property
    def role(self) -> Role | None:
        """The role that the caller is, or has assumed."""
        return None if self.arn is None else role_of(self.arn)


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns of actions (in lower case) or resources; negated ones match what none of them does."""

    patterns: tuple[str, ...]
    is_negated: bool = False

    def matches(self, text: str) -> bool:
        """Tell whether these cover `text`."""
        return any(matches_pattern(pattern, text) for pattern in self.patterns) is not self.is_negated


@dataclass(frozen=True, slots=True)
class Principals:
    """Who is meant. Negated ones mean everybody else: also callers without a name, and sessions of other roles."""

    anybody: bool = False
    accounts: frozenset[str] = frozenset()
    arns: frozenset[str] = frozenset()
    roles: frozenset[Role] = frozenset()
    services: frozenset[str] = frozenset()
    is_negated: bool = False

    def matches(self, caller: Caller) -> bool:
        """Tell whether these cover the caller."""
        return self._names(caller) is not self.is_negated

    def _names(self, caller: Caller) -> bool:
        return (
            self.anybody
            or caller.account in self.accounts
            or caller.arn in self.arns
            or caller.service in self.services
            or (bool(self.roles) and caller.role in self.roles)
        )


@dataclass(frozen=True, slots=True)
class Statement:
    """What a statement says. One without principals is an identity's, one without resources its repository's."""

    effect: Effect
    actions: Patterns
    resources: Patterns | None = None
    principals: Principals | None = None
    conditions: tuple[Condition, ...] = ()
    sid: str | None = None


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Policy:
    """The statements of a document. Two policies are the same only if they are one object, which makes asking cheap."""

    kind: PolicyKind
    statements: tuple[Statement, ...]
    name: str = ""
    """What an explanation calls it, besides its kind."""


def parse_policy(
    text: str, kind: PolicyKind, *, name: str = "", scope: PolicyScope = PolicyScope.V2, field: str = "PolicyText"
) -> Policy:
    """Return the policy that a document holds; `field` is where it stands in the request or file.

    Raises InvalidPolicy with ECR's text, and with the reason for those who can be told more.
    """
    try:
        return Policy(kind, _Reader(kind, scope).read(text), name)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "the document is too deep"
        raise InvalidPolicy(texts.invalid_policy(field, kind.removeprefix("public ")), reason=reason) from error


class _Reader:
    """Reads documents of one kind; raises ValueError for what the language does not have."""

    def __init__(self, kind: PolicyKind, scope: PolicyScope) -> None:
        self._kind = kind
        self._scope = scope
        self._has_principals = kind is not PolicyKind.IDENTITY

    def read(self, text: str) -> tuple[Statement, ...]:
        if len(text) > MAX_POLICY:
            raise ValueError(f"expected at most {MAX_POLICY} characters, got {len(text)}")
        document = _object(json.loads(text, object_pairs_hook=_no_repetition, parse_constant=_no_constant), "a policy")
        _only(document, {"Version", "Id", "Statement"}, "a policy")
        if document.get("Version", "2008-10-17") not in _VERSIONS:
            raise ValueError("expected Version 2008-10-17 or 2012-10-17")
        if len(_text(document.get("Id", ""), "Id")) > _MAX_ID:
            raise ValueError(f"expected an Id of at most {_MAX_ID} characters")
        if "Statement" not in document:
            raise ValueError("a policy needs the element 'Statement'")
        found = document["Statement"]
        statements = found if isinstance(found, list) else [found]
        if not statements:
            raise ValueError("expected at least one statement")
        return tuple(self._statement(number, one) for number, one in enumerate(statements, 1))

    def _statement(self, number: int, value: object) -> Statement:
        try:
            return self._parse(_object(value, "a statement"))
        except ValueError as error:
            raise ValueError(f"statement {number}: {error}") from error

    def _parse(self, fields: dict[str, object]) -> Statement:
        elements = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Condition"}
        _only(fields, elements | ({"Principal", "NotPrincipal"} if self._has_principals else set()), "a statement")
        effect = fields.get("Effect")
        if effect != "Allow" and effect != "Deny":
            raise ValueError("expected Effect Allow or Deny")
        return Statement(
            Effect(effect),
            self._actions(fields),
            self._resources(fields),
            self._principals(fields) if self._has_principals else None,
            tuple(_conditions(fields.get("Condition", {}))),
            _sid(fields.get("Sid")),
        )

    def _actions(self, fields: dict[str, object]) -> Patterns:
        name = _one_of(fields, "Action", "NotAction")
        actions = _texts(fields[name], name)
        form = _ACTIONS.get(self._kind, _ECR_ACTION)
        for action in actions:
            if form.fullmatch(action) is None:
                raise ValueError(f"expected actions such as ecr:BatchGetImage, got {action[:80]!r}")
        lowered = tuple(action.lower() for action in actions)
        if self._kind is PolicyKind.REGISTRY and self._scope is PolicyScope.V1:
            _check_v1(name, lowered)
        return Patterns(lowered, name == "NotAction")

    def _resources(self, fields: dict[str, object]) -> Patterns | None:
        if self._kind in _OF_REPOSITORIES and not fields.keys() & {"Resource", "NotResource"}:
            return None
        name = _one_of(fields, "Resource", "NotResource")
        resources = _texts(fields[name], name)
        form = _RESOURCES.get(self._kind, _ECR_RESOURCE)
        for resource in resources:
            _no_variable(resource)
            if resource != "*" and form.fullmatch(resource) is None:
                raise ValueError(f"expected ARNs, got {resource[:80]!r}")
        return Patterns(tuple(resources), name == "NotResource")

    def _principals(self, fields: dict[str, object]) -> Principals:
        name = _one_of(fields, "Principal", "NotPrincipal")
        value = fields[name]
        is_negated = name == "NotPrincipal"
        if value == "*":
            return Principals(anybody=True, is_negated=is_negated)
        kinds = _object(value, name)
        _only(kinds, {"AWS", "Service"}, name)
        if not kinds:
            raise ValueError(f"expected {name} to name somebody")
        found = _named(
            _texts(kinds["AWS"], name) if "AWS" in kinds else (),
            _texts(kinds["Service"], name) if "Service" in kinds else (),
            is_negated=is_negated,
        )
        return _spared(found) if is_negated and fields.get("Effect") == Effect.DENY else found


def _spared(found: Principals) -> Principals:
    """Return whom a Deny for everybody else leaves out.

    As AWS has it written, an account stands beside its principals that are spared: there it means its root, and not
    all the others of the account, who are those that are meant.
    """
    narrowed = {account_of(arn): arn.split(":")[1] for arn in found.arns}
    beside = {account: partition for account, partition in narrowed.items() if account in found.accounts}
    roots = {root_arn(account, partition) for account, partition in beside.items()}
    return replace(found, accounts=found.accounts - beside.keys(), arns=found.arns | roots)


def _named(aws: Iterable[str], services: Iterable[str], *, is_negated: bool) -> Principals:
    anybody = False
    accounts: set[str] = set()
    arns: set[str] = set()
    roles: set[Role] = set()
    for one in aws:
        account = AccountId(one) if _ACCOUNT.fullmatch(one) else account_of_root(one)
        role = role_of(one) if ":role/" in one else None
        if one == "*":
            anybody = True
        elif account is not None:
            accounts.add(account)
        elif not is_principal(one):
            raise ValueError(f"expected an account, or the ARN of a user, role or session, got {one[:80]!r}")
        else:
            arns.add(one)
            roles.update(() if role is None else (role,))
    for service in services:
        if _SERVICE.fullmatch(service) is None:
            raise ValueError(f"expected the name of a service, got {service[:80]!r}")
    return Principals(
        anybody, frozenset(accounts), frozenset(arns), frozenset(roles), frozenset(services), is_negated=is_negated
    )


def _conditions(value: object) -> Iterator[Condition]:
    for operator, keys in _object(value, "Condition").items():
        _no_variable(operator)
        if not _object(keys, operator):
            raise ValueError(f"expected {operator[:80]} to have a condition key")
        for key, values in _object(keys, operator).items():
            found = tuple(map(_condition_value, values if isinstance(values, list) else [values]))
            for one in (key, *found):
                _no_variable(one)
            yield parse_condition(operator, key, found)


def _condition_value(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    return _text(value, "a condition's value")


def _check_v1(name: str, actions: Iterable[str]) -> None:
    if name != "Action" or any(action != "ecr:*" and action not in SCOPE_V1_ACTIONS for action in actions):
        raise ValueError("a registry policy of scope V1 decides on replication, imports and creation only")


def _sid(value: object) -> str | None:
    if value is None:
        return None
    if _SID.fullmatch(_text(value, "Sid")) is None:
        raise ValueError("expected a Sid of printable characters")
    return _text(value, "Sid") or None


def _no_variable(text: str) -> None:
    if "${" in text:
        raise ValueError("policy variables are not supported")


def _one_of(fields: dict[str, object], name: str, negated: str) -> str:
    found = [one for one in (name, negated) if one in fields]
    if len(found) != 1:
        raise ValueError(f"expected exactly one of {name} and {negated}")
    return found[0]


def _only(fields: dict[str, object], known: set[str], what: str) -> None:
    unknown = fields.keys() - known
    if unknown:
        raise ValueError(f"{what} has no element {min(unknown)[:80]!r}")


def _object(value: object, what: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"expected {what[:80]} to be an object")  # noqa: TRY004 - all that a document can get wrong
    return value


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected {what} to be text")  # noqa: TRY004 - all that a document can get wrong
    return value


def _texts(value: object, what: str) -> tuple[str, ...]:
    found = tuple(_text(one, what) for one in value) if isinstance(value, list) else (_text(value, what),)
    if not found:
        raise ValueError(f"expected {what} to name something")
    return found


def _no_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an element comes twice in one object")
    return found


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")
