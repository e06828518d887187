"""The decision of policies: ECR's table, an independent model, and the forms of principals (ECR §14.3, §14.4)."""

from __future__ import annotations

import fnmatch
import itertools
import json
import re
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replicator.core.names import AccountId
from replicator.core.policy import Caller, Policy, PolicyKind, parse_policy
from replicator.core.policy_evaluation import Outcome, Question, Relation, decide, label_of

Facts = Mapping[str, tuple[str, ...]]

OWN, OTHER = AccountId("123456789012"), AccountId("210987654321")
RESOURCE = f"arn:aws:ecr:us-east-1:{OWN}:repository/team/api"
ACTION = "ecr:BatchGetImage"
IDENTITY, REPOSITORY, REGISTRY = PolicyKind.IDENTITY, PolicyKind.REPOSITORY, PolicyKind.REGISTRY


def policy(kind: PolicyKind, effect: str, **changes: object) -> Policy:
    statement: dict[str, object] = {"Effect": effect, "Action": ACTION}
    statement |= {} if kind is REPOSITORY else {"Resource": RESOURCE}
    statement |= {} if kind is IDENTITY else {"Principal": "*"}
    changed = {name: value for name, value in {**statement, **changes}.items() if value is not None}
    return parse_policy(json.dumps({"Statement": changed}), kind)


def ask(
    *policies: Policy,
    arn: str | None = f"arn:aws:iam::{OWN}:user/dev",
    relation: Relation = Relation.OWN_ACCOUNT,
    action: str = ACTION,
    resource: str = RESOURCE,
    facts: Facts | None = None,
    service: str | None = None,
) -> Outcome:
    account = None if arn is None else AccountId(arn.split(":")[4])
    question = Question(Caller(arn, account, service), relation, action, resource, lambda: facts or {})
    return decide(question, policies).outcome


SAYINGS = (None, "Allow", "Deny")


@pytest.mark.parametrize(("relation", "account"), [(Relation.OWN_ACCOUNT, OWN), (Relation.OTHER_ACCOUNT, OTHER)])
@pytest.mark.parametrize(("identity", "repository", "registry"), list(itertools.product(SAYINGS, repeat=3)))
def test_what_three_documents_say_together(
    relation: Relation, account: AccountId, identity: str | None, repository: str | None, registry: str | None
) -> None:
    """The table of ECR §19 (51)."""
    said = {IDENTITY: identity, REPOSITORY: repository, REGISTRY: registry}
    found = ask(
        *(policy(kind, effect) for kind, effect in said.items() if effect is not None),
        arn=f"arn:aws:iam::{account}:user/dev",
        relation=relation,
    )
    by_resource = "Allow" in {repository, registry}
    if identity == "Deny":
        assert found is Outcome.DENIED_BY_IDENTITY
    elif "Deny" in {repository, registry}:
        assert found is Outcome.DENIED_BY_RESOURCE
    elif relation is Relation.OWN_ACCOUNT:
        assert found is (Outcome.ALLOWED if identity or by_resource else Outcome.NO_IDENTITY_ALLOWS)
    elif identity is None:
        assert found is Outcome.NO_IDENTITY_ALLOWS
    else:
        assert found is (Outcome.ALLOWED if by_resource else Outcome.NO_RESOURCE_ALLOWS)


def test_a_caller_without_a_name_needs_what_is_given_to_such_callers() -> None:
    everybody = policy(REPOSITORY, "Allow")
    assert ask(everybody, arn=None, relation=Relation.NAMELESS) is Outcome.NO_IDENTITY_ALLOWS
    assert ask(policy(IDENTITY, "Allow"), arn=None, relation=Relation.NAMELESS) is Outcome.ALLOWED
    admitted = Relation.ADMITTED
    assert ask(everybody, arn=None, relation=admitted) is Outcome.ALLOWED
    assert ask(everybody, policy(IDENTITY, "Deny"), arn=None, relation=admitted) is Outcome.DENIED_BY_IDENTITY
    denied = ask(policy(IDENTITY, "Allow"), policy(REPOSITORY, "Deny"), arn=None, relation=Relation.NAMELESS)
    assert denied is Outcome.DENIED_BY_RESOURCE


ROOT = f"arn:aws:iam::{OWN}:root"
USER, ROLE = f"arn:aws:iam::{OWN}:user/dev", f"arn:aws:iam::{OWN}:role/ci/build"
SESSION = f"arn:aws:sts::{OWN}:assumed-role/build/job-1"
STRANGER = f"arn:aws:iam::{OTHER}:user/dev"
CALLERS = (ROOT, USER, ROLE, SESSION, STRANGER, None)


@pytest.mark.parametrize(
    ("principal", "named"),
    [
        ("*", CALLERS),
        ({"AWS": "*"}, CALLERS),
        ({"AWS": OWN}, (ROOT, USER, ROLE, SESSION)),
        ({"AWS": ROOT}, (ROOT, USER, ROLE, SESSION)),
        ({"AWS": USER}, (USER,)),
        ({"AWS": ROLE}, (ROLE, SESSION)),
        ({"AWS": f"arn:aws:iam::{OWN}:role/build"}, (ROLE, SESSION)),
        ({"AWS": f"arn:aws:iam::{OWN}:role/other"}, ()),
        ({"AWS": f"arn:aws:iam::{OTHER}:role/build"}, ()),
        ({"AWS": SESSION}, (SESSION,)),
        ({"AWS": f"arn:aws:sts::{OWN}:assumed-role/build/job-2"}, ()),
        ({"AWS": [USER, OTHER]}, (USER, STRANGER)),
        ({"Service": "codebuild.amazonaws.com"}, ()),
        ({"AWS": USER, "Service": "codebuild.amazonaws.com"}, (USER,)),
    ],
    ids=str,
)
def test_whom_a_principal_names(principal: object, named: tuple[str | None, ...]) -> None:
    for arn in CALLERS:
        allowing = policy(REPOSITORY, "Allow", Principal=principal)
        expected = Outcome.ALLOWED if arn in named else Outcome.NO_IDENTITY_ALLOWS
        assert ask(allowing, arn=arn) is expected, arn
        others = policy(REPOSITORY, "Allow", Principal=None, NotPrincipal=principal)
        assert ask(others, arn=arn) is (Outcome.NO_IDENTITY_ALLOWS if arn in named else Outcome.ALLOWED), arn


@pytest.mark.parametrize("account", [OWN, ROOT])
@pytest.mark.parametrize(("spared", "others"), [((USER,), (ROLE, SESSION)), ((ROLE, SESSION), (USER,))])
def test_an_account_beside_the_principals_that_a_deny_spares_is_its_root(
    account: str, spared: tuple[str, ...], others: tuple[str, ...]
) -> None:
    admin = policy(IDENTITY, "Allow")
    denying = policy(REPOSITORY, "Deny", Principal=None, NotPrincipal={"AWS": [spared[0], account]})
    for arn in (ROOT, *spared):
        assert ask(admin, denying, arn=arn) is Outcome.ALLOWED, arn
    for arn in (*others, STRANGER):
        assert ask(admin, denying, arn=arn) is Outcome.DENIED_BY_RESOURCE, arn


def test_a_service_is_named_by_its_own_name_only() -> None:
    allowing = policy(REPOSITORY, "Allow", Principal={"Service": "codebuild.amazonaws.com"})
    assert ask(allowing, arn=None, service="codebuild.amazonaws.com") is Outcome.ALLOWED
    assert ask(allowing, arn=None, service="lambda.amazonaws.com") is Outcome.NO_IDENTITY_ALLOWS


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [("*", True), ("ecr:*", True), ("ECR:batchgetIMAGE", True), ("ecr:Batch?etImage", True), ("ecr:Describe*", False)],
)
def test_actions_are_matched_in_any_case(pattern: str, matches: bool) -> None:
    assert (ask(policy(IDENTITY, "Allow", Action=pattern)) is Outcome.ALLOWED) is matches
    inverse = policy(IDENTITY, "Allow", Action=None, NotAction=pattern)
    assert (ask(inverse) is Outcome.ALLOWED) is not matches


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("*", True),
        (RESOURCE, True),
        (f"arn:aws:ecr:*:{OWN}:repository/team/*", True),
        (f"arn:aws:ecr:us-east-?:{OWN}:repository/*", True),
        (f"arn:aws:ecr:us-east-1:{OTHER}:repository/team/api", False),
        (f"arn:aws:ecr:us-east-1:{OWN}:repository/TEAM/api", False),
        (f"arn:aws:ecr:us-east-1:{OWN}:repository/team", False),
    ],
)
@pytest.mark.parametrize("kind", [IDENTITY, REGISTRY, REPOSITORY])
def test_resources_are_matched_by_their_arns(kind: PolicyKind, pattern: str, matches: bool) -> None:
    assert (ask(policy(kind, "Allow", Resource=pattern)) is Outcome.ALLOWED) is matches
    inverse = policy(kind, "Allow", Resource=None, NotResource=pattern)
    assert (ask(inverse) is Outcome.ALLOWED) is not matches


def test_all_conditions_have_to_hold() -> None:
    both = {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "Bool": {"aws:SecureTransport": "true"}}
    allowing = policy(IDENTITY, "Allow", Condition=both)
    here: Facts = {"aws:sourceip": ("10.1.2.3",), "aws:securetransport": ("true",)}
    assert ask(allowing, facts=here) is Outcome.ALLOWED
    assert ask(allowing, facts={**here, "aws:securetransport": ("false",)}) is Outcome.NO_IDENTITY_ALLOWS
    assert ask(allowing, facts={"aws:sourceip": ("10.1.2.3",)}) is Outcome.NO_IDENTITY_ALLOWS


def test_a_decision_names_its_statement_and_knows_whether_it_may_be_kept() -> None:
    text = {"Effect": "Allow", "Action": ACTION, "Resource": "*"}
    conditional = {**text, "Effect": "Deny", "Sid": "away", "Condition": {"Bool": {"aws:SecureTransport": "false"}}}
    found = parse_policy(json.dumps({"Statement": [text, conditional]}), IDENTITY)
    caller = Caller(USER, OWN)

    def decision(secure: str, action: str = ACTION) -> tuple[str, bool]:
        question = Question(caller, Relation.OWN_ACCOUNT, action, RESOURCE, lambda: {"aws:securetransport": (secure,)})
        answer = decide(question, (found,))
        assert answer.policy is found
        assert answer.statement is not None
        return label_of(answer.policy, answer.statement), answer.is_constant

    assert decision("true") == ("statement 1", False)
    assert decision("false") == ("statement 2 (away)", False)


# An independent model

_ACTIONS = ["ecr:PutImage", "ecr:BatchGetImage", "ecr:*", "*", "ecr:Batch*"]
_RESOURCES = ["*", RESOURCE, f"arn:aws:ecr:*:{OWN}:repository/*", f"arn:aws:ecr:us-east-1:{OTHER}:repository/*"]
_PRINCIPALS: list[object] = ["*", {"AWS": OWN}, {"AWS": OTHER}, {"AWS": USER}, {"AWS": [ROLE, STRANGER]}]
_CONDITIONS: list[object] = [
    {},
    {"StringEquals": {"aws:username": "dev"}},
    {"StringNotEquals": {"aws:username": ["dev", "ops"]}},
    {"Bool": {"aws:SecureTransport": "true"}, "StringLike": {"aws:username": "d*"}},
]


def _statements(kind: PolicyKind) -> st.SearchStrategy[dict[str, object]]:
    def either(name: str, values: list[object]) -> st.SearchStrategy[dict[str, object]]:
        return st.tuples(st.sampled_from([name, f"Not{name}"]), st.sampled_from(values)).map(lambda pair: dict([pair]))

    parts = [
        st.fixed_dictionaries(
            {"Effect": st.sampled_from(["Allow", "Deny"]), "Condition": st.sampled_from(_CONDITIONS)}
        ),
        either("Action", list(_ACTIONS)),
        either("Resource", list(_RESOURCES)),
    ]
    if kind is not IDENTITY:
        parts.append(either("Principal", _PRINCIPALS))
    return st.tuples(*parts).map(lambda found: {key: value for one in found for key, value in one.items()})


def _documents(kind: PolicyKind) -> st.SearchStrategy[dict[str, object] | None]:
    def document(statements: list[dict[str, object]]) -> dict[str, object]:
        return {"Statement": statements}

    return st.none() | st.lists(_statements(kind), min_size=1, max_size=3).map(document)


def _model(
    documents: dict[PolicyKind, dict[str, object] | None],
    arn: str | None,
    relation: Relation,
    facts: dict[str, tuple[str, ...]],
) -> bool:
    """Decide from the JSON itself, in the plainest way."""
    verdicts: dict[PolicyKind, set[str]] = {kind: set() for kind in documents}
    to_everybody = False
    for kind, document in documents.items():
        statements = [] if document is None else document["Statement"]
        assert isinstance(statements, list)
        for one in statements:
            if _applies(one, arn, facts):
                verdicts[kind].add(one["Effect"])
                names_all = one.get("Principal") in ("*", {"AWS": "*"})
                to_everybody |= names_all and kind is REPOSITORY and one["Effect"] == "Allow"
    if any("Deny" in effects for effects in verdicts.values()):
        return False
    identity = "Allow" in verdicts[IDENTITY]
    resource = "Allow" in verdicts[REPOSITORY] | verdicts[REGISTRY]
    return {
        Relation.OWN_ACCOUNT: identity or resource,
        Relation.OTHER_ACCOUNT: identity and resource,
        Relation.NAMELESS: identity,
        Relation.ADMITTED: identity or to_everybody,
    }[relation]


def _applies(statement: dict[str, object], arn: str | None, facts: dict[str, tuple[str, ...]]) -> bool:
    for name, test in (("Action", _is_action), ("Resource", _is_resource), ("Principal", lambda v: _is_named(v, arn))):
        if name in statement and not test(statement[name]):
            return False
        if f"Not{name}" in statement and test(statement[f"Not{name}"]):
            return False
    condition = statement["Condition"]
    user, secure = facts.get("aws:username", (None,))[0], facts.get("aws:securetransport", (None,))[0]
    expected = [
        True,
        user == "dev",
        user not in {"dev", "ops"},
        secure == "true" and user is not None and user.startswith("d"),
    ]
    return expected[_CONDITIONS.index(condition)]


def _is_action(value: object) -> bool:
    return fnmatch.fnmatchcase(ACTION.lower(), str(value).lower())


def _is_resource(value: object) -> bool:
    return re.fullmatch(re.escape(str(value)).replace(r"\*", ".*"), RESOURCE) is not None


def _is_named(value: object, arn: str | None) -> bool:
    if value == "*":
        return True
    assert isinstance(value, dict)
    names = value["AWS"] if isinstance(value["AWS"], list) else [value["AWS"]]
    account = None if arn is None else arn.split(":")[4]
    role = ROLE if arn == SESSION else arn
    return any(name in {account, arn, role} for name in names)


@settings(max_examples=400)
@given(
    _documents(IDENTITY),
    _documents(REPOSITORY),
    _documents(REGISTRY),
    st.sampled_from(CALLERS),
    st.sampled_from(list(Relation)),
    st.fixed_dictionaries(
        {},
        optional={
            "aws:username": st.sampled_from([("dev",), ("ops",), ("ann",)]),
            "aws:securetransport": st.sampled_from([("true",), ("false",)]),
        },
    ),
)
def test_decisions_are_those_of_a_plain_model(
    identity: dict[str, object] | None,
    repository: dict[str, object] | None,
    registry: dict[str, object] | None,
    arn: str | None,
    relation: Relation,
    facts: dict[str, tuple[str, ...]],
) -> None:
    documents = {IDENTITY: identity, REPOSITORY: repository, REGISTRY: registry}
    policies = [parse_policy(json.dumps(one), kind) for kind, one in documents.items() if one is not None]
    account = None if arn is None else AccountId(arn.split(":")[4])
    question = Question(Caller(arn, account), relation, ACTION, RESOURCE, lambda: facts)
    answer = decide(question, policies)
    assert answer.is_allowed is _model(documents, arn, relation, facts)
    if answer.is_constant:
        others: tuple[Facts, ...] = ({}, {"aws:username": ("dev",), "aws:securetransport": ("true",)})
        for other in others:
            again = decide(Question(Caller(arn, account), relation, ACTION, RESOURCE, dict(other).copy), policies)
            assert again.outcome is answer.outcome


def test_a_denial_that_another_could_have_come_before_is_not_remembered() -> None:
    first = policy(IDENTITY, "Deny", Condition={"StringEquals": {"aws:username": "dev"}})
    root = Caller(f"arn:aws:iam::{OWN}:root", OWN)
    question = Question(root, Relation.OWN_ACCOUNT, ACTION, RESOURCE, dict)
    answer = decide(question, [first, policy(REGISTRY, "Deny")])
    assert (answer.outcome, answer.is_constant) == (Outcome.DENIED_BY_RESOURCE, False)


def test_what_conditions_ask_is_found_out_once_and_only_where_one_asks() -> None:
    asked: list[str] = []

    def facts() -> dict[str, tuple[str, ...]]:
        asked.append("facts")
        return {"aws:sourceip": ("10.0.0.1",)}

    dev = Caller(f"arn:aws:iam::{OWN}:user/dev", OWN)
    question = Question(dev, Relation.OWN_ACCOUNT, ACTION, RESOURCE, facts)
    elsewhere = policy(IDENTITY, "Allow", Condition={"IpAddress": {"aws:SourceIp": "192.0.2.0/24"}})
    here = policy(REPOSITORY, "Allow", Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})
    assert decide(question, [policy(IDENTITY, "Allow")]).is_constant
    assert not asked
    decision = decide(question, [elsewhere, here])
    assert (decision.outcome, decision.is_constant, asked) == (Outcome.ALLOWED, False, ["facts"])
