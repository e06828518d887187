"""Policies: what the parser takes, and that it takes nothing else (ECR §14.2)."""

from __future__ import annotations

import json

import pytest

from replicator.core.account_settings import PolicyScope
from replicator.core.errors import InvalidPolicy
from replicator.core.names import AccountId
from replicator.core.policy import MAX_POLICY, Effect, PolicyKind, Principals, parse_policy
from replicator.core.principal_arns import Role

REPOSITORY, REGISTRY, IDENTITY = PolicyKind.REPOSITORY, PolicyKind.REGISTRY, PolicyKind.IDENTITY
PUBLIC = PolicyKind.PUBLIC_REPOSITORY
ARN = "arn:aws:ecr:us-east-1:123456789012:repository/*"
STATEMENTS: dict[PolicyKind, dict[str, object]] = {
    REPOSITORY: {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Principal": "*"},
    PUBLIC: {"Effect": "Allow", "Action": "ecr-public:PutImage", "Principal": "*"},
    REGISTRY: {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Principal": "*", "Resource": ARN},
    IDENTITY: {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"},
}


def document(kind: PolicyKind = REPOSITORY, **changes: object) -> str:
    """Return a policy of one statement; a change to None leaves an element out."""
    statement = {name: value for name, value in {**STATEMENTS[kind], **changes}.items() if value is not None}
    return json.dumps({"Version": "2012-10-17", "Statement": statement})


def principals(value: object) -> Principals | None:
    return parse_policy(document(Principal=value), REPOSITORY).statements[0].principals


@pytest.mark.parametrize("kind", list(PolicyKind))
@pytest.mark.parametrize("version", ["2008-10-17", "2012-10-17", None])
def test_a_statement_alone_and_in_a_list_are_the_same(kind: PolicyKind, version: str | None) -> None:
    statement = STATEMENTS[kind]
    alone = {"Version": version, "Statement": statement} if version else {"Statement": statement}
    listed = {**alone, "Statement": [statement], "Id": "some id"}
    assert (
        parse_policy(json.dumps(alone), kind).statements
        == parse_policy(json.dumps(listed), kind).statements
        == parse_policy(document(kind), kind).statements
    )


def test_what_a_statement_says_is_what_is_read() -> None:
    text = document(
        REGISTRY,
        Sid="no tags",
        Effect="Deny",
        Action=None,
        NotAction=["ecr:Batch*", "ECR:putimage"],
        Resource=None,
        NotResource=[ARN, "*"],
        Condition={"StringLike": {"aws:PrincipalArn": ["*/a", "*/b"]}, "Bool": {"aws:SecureTransport": False}},
    )
    (statement,) = parse_policy(text, REGISTRY).statements
    assert (statement.sid, statement.effect) == ("no tags", Effect.DENY)
    assert (statement.actions.patterns, statement.actions.is_negated) == (("ecr:batch*", "ecr:putimage"), True)
    assert statement.resources is not None
    assert (statement.resources.patterns, statement.resources.is_negated) == ((ARN, "*"), True)
    assert [(one.operator, one.key, one.values) for one in statement.conditions] == [
        ("StringLike", "aws:principalarn", ("*/a", "*/b")),
        ("Bool", "aws:securetransport", ("false",)),
    ]


def test_sids_may_come_twice() -> None:
    statement = {**STATEMENTS[REPOSITORY], "Sid": "same"}
    assert len(parse_policy(json.dumps({"Statement": [statement, statement]}), REPOSITORY).statements) == 2


def test_principals_in_all_their_forms() -> None:
    user, role = "arn:aws:iam::123456789012:user/team/dev", "arn:aws:iam::123456789012:role/path/ci"
    session = "arn:aws:sts::123456789012:assumed-role/ci/job-1"
    found = principals(
        {"AWS": ["111111111111", "arn:aws:iam::222222222222:root", user, role, session], "Service": "x.amazonaws.com"}
    )
    assert found == Principals(
        accounts=frozenset({"111111111111", "222222222222"}),
        arns=frozenset({user, role, session}),
        roles=frozenset({Role(AccountId("123456789012"), "ci")}),
        services=frozenset({"x.amazonaws.com"}),
    )
    assert principals("*") == principals({"AWS": "*"}) == Principals(anybody=True)


@pytest.mark.parametrize(
    "value",
    [
        "123456789012",
        {},
        {"AWS": []},
        {"AWS": ""},
        {"AWS": "12345678901"},
        {"AWS": "arn:aws:iam::123456789012:user/*"},
        {"AWS": "arn:aws:iam::123456789012:user/de?"},
        {"AWS": "arn:aws:iam::*:root"},
        {"AWS": "arn:aws:iam::123456789012:group/dev"},
        {"AWS": "arn:aws:iam::123456789012:user/${aws:username}"},
        {"AWS": "AIDAJQABLZS4A3QDU576Q"},
        {"AWS": ["123456789012", 1]},
        {"AWS": {"a": "b"}},
        {"Service": "*"},
        {"Service": "UPPER.amazonaws.com"},
        {"Federated": "accounts.google.com"},
        {"CanonicalUser": "a"},
        {"AWS": "*", "Everyone": "*"},
        None,
        ["*"],
        1,
    ],
    ids=str,
)
def test_other_principals_are_refused(value: object) -> None:
    with pytest.raises(InvalidPolicy):
        principals(value)


@pytest.mark.parametrize("kind", list(PolicyKind))
@pytest.mark.parametrize(
    "changes",
    [
        {"Effect": None},
        {"Effect": "allow"},
        {"Effect": ["Allow"]},
        {"Action": None},
        {"Action": []},
        {"Action": ""},
        {"Action": "BatchGetImage"},
        {"Action": "ecr:"},
        {"Action": "e*:BatchGetImage"},
        {"Action": "ecr:Batch Get"},
        {"Action": "ecr:${a}"},
        {"Action": {"ecr": "*"}},
        {"Action": [1]},
        {"NotAction": "ecr:PutImage"},
        {"Resource": []},
        {"Resource": "repository/*"},
        {"Resource": "arn:aws:ecr:us-east-1"},
        {"Resource": "arn:aws:ecr:us-east-1:123456789012:repository/${aws:username}"},
        {"Resource": 1},
        {"Resource": "*", "NotResource": "*"},
        {"Condition": []},
        {"Condition": "x"},
        {"Condition": {"StringEquals": "x"}},
        {"Condition": {"StringEquals": {}}},
        {"Condition": {"StringMatches": {}}},
        {"Condition": {"StringEquals": {"aws:username": {}}}},
        {"Condition": {"StringEquals": {"aws:username": []}}},
        {"Condition": {"StringEquals": {"aws:username": None}}},
        {"Condition": {"StringEquals": {"aws:usernam": "x"}}},
        {"Condition": {"StringEquals": {"aws:ResourceTag/": "x"}}},
        {"Condition": {"StringEquals": {"aws:username": "${aws:userid}"}}},
        {"Condition": {"StringMatches": {"aws:username": "x"}}},
        {"Condition": {"stringequals": {"aws:username": "x"}}},
        {"Condition": {"BinaryEquals": {"aws:username": "eA=="}}},
        {"Condition": {"ForAnyValue:IpAddress": {"aws:SourceIp": "10.0.0.1"}}},
        {"Condition": {"ForSomeValue:StringEquals": {"aws:TagKeys": "x"}}},
        {"Condition": {"NullIfExists": {"aws:username": "true"}}},
        {"Condition": {"Null": {"aws:username": "maybe"}}},
        {"Condition": {"Null": {"aws:username": ["true", "false"]}}},
        {"Condition": {"Bool": {"aws:SecureTransport": "yes"}}},
        {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}}},
        {"Condition": {"NumericLessThan": {"aws:EpochTime": "soon"}}},
        {"Condition": {"DateLessThan": {"aws:CurrentTime": "2026-02-30T00:00:00Z"}}},
        {"Condition": {"ArnLike": {"aws:PrincipalArn": "dev"}}},
        {"Sid": 1},
        {"Sid": "a\nb"},
        {"Comment": "never looked at"},
        {"effect": "Allow"},
    ],
    ids=str,
)
def test_what_the_language_does_not_have_is_refused(kind: PolicyKind, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidPolicy):
        parse_policy(document(kind, **changes), kind)


@pytest.mark.parametrize("kind", list(PolicyKind))
def test_a_policy_without_statements_is_told_what_it_lacks(kind: PolicyKind) -> None:
    with pytest.raises(InvalidPolicy) as caught:
        parse_policy('{"Version": "2012-10-17"}', kind)
    assert caught.value.reason == "a policy needs the element 'Statement'"


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (REPOSITORY, {"Principal": None}),
        (REGISTRY, {"Principal": None}),
        (REGISTRY, {"Resource": None}),
        (IDENTITY, {"Resource": None}),
        (IDENTITY, {"Principal": "*"}),
        (IDENTITY, {"NotPrincipal": "*"}),
        (REPOSITORY, {"NotPrincipal": "*"}),
        (REPOSITORY, {"Action": "s3:GetObject"}),
        (REPOSITORY, {"Action": "ecr-public:PutImage"}),
        (REPOSITORY, {"Resource": "arn:aws:ecr-public::123456789012:repository/app"}),
        (PUBLIC, {"Action": "ecr:PutImage"}),
        (PUBLIC, {"Resource": "arn:aws:ecr:us-east-1:123456789012:repository/app"}),
        (PUBLIC, {"Principal": None}),
        (REGISTRY, {"Action": "s3:GetObject"}),
        (REGISTRY, {"Resource": "arn:aws:s3:::bucket/*"}),
    ],
)
def test_each_kind_has_its_own_elements(kind: PolicyKind, changes: dict[str, object]) -> None:
    with pytest.raises(InvalidPolicy):
        parse_policy(document(kind, **changes), kind)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "null",
        "[]",
        '"x"',
        "{}",
        '{"Statement": []}',
        '{"Statement": [1]}',
        '{"Statement": null}',
        '{"Version": "2012-10-18", "Statement": {"Effect": "Deny", "Action": "*", "Principal": "*"}}',
        '{"Version": ["2012-10-17"], "Statement": {"Effect": "Deny", "Action": "*", "Principal": "*"}}',
        '{"Other": 1, "Statement": {"Effect": "Deny", "Action": "*", "Principal": "*"}}',
        '{"Id": 1, "Statement": {"Effect": "Deny", "Action": "*", "Principal": "*"}}',
        '{"Statement": {"Effect": "Deny", "Effect": "Allow", "Action": "*", "Principal": "*"}}',
        '{"Statement": {"Effect": "Deny", "Action": "*", "Principal": "*", "Condition": NaN}}',
        "[" * MAX_POLICY,
        '{"a":' * 2000,
        "1" * 5000,
    ],
    ids=lambda text: text[:60],
)
def test_documents_that_are_no_policies_are_refused(text: str) -> None:
    with pytest.raises(InvalidPolicy):
        parse_policy(text, REPOSITORY)


def test_a_policy_has_at_most_as_many_characters_as_in_ecr() -> None:
    text = document()
    parse_policy(text + " " * (MAX_POLICY - len(text)), REPOSITORY)
    with pytest.raises(InvalidPolicy):
        parse_policy(text + " " * (MAX_POLICY - len(text) + 1), REPOSITORY)


@pytest.mark.parametrize(
    ("action", "accepted"),
    [
        ("ecr:ReplicateImage", True),
        (["ecr:BatchImportUpstreamImage", "ECR:createrepository"], True),
        ("ecr:*", True),
        ("ecr:BatchGetImage", False),
        ("*", False),
        (["ecr:ReplicateImage", "ecr:Put*"], False),
    ],
)
def test_scope_v1_has_three_actions(action: object, accepted: bool) -> None:
    text = document(REGISTRY, Action=action)
    parse_policy(text, REGISTRY, scope=PolicyScope.V2)
    if accepted:
        parse_policy(text, REGISTRY, scope=PolicyScope.V1)
        return
    with pytest.raises(InvalidPolicy):
        parse_policy(text, REGISTRY, scope=PolicyScope.V1)


def test_all_actions_but_some_are_too_many_for_scope_v1() -> None:
    with pytest.raises(InvalidPolicy):
        parse_policy(document(REGISTRY, Action=None, NotAction="ecr:ReplicateImage"), REGISTRY, scope=PolicyScope.V1)


@pytest.mark.parametrize(
    ("kind", "field", "text"),
    [
        (
            REPOSITORY,
            "PolicyText",
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'",
        ),
        (
            PUBLIC,
            "PolicyText",
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'",
        ),
        (
            REGISTRY,
            "PolicyText",
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid registry policy provided'",
        ),
    ],
)
def test_a_refusal_is_in_ecr_s_words_and_has_a_reason_for_the_operator(kind: PolicyKind, field: str, text: str) -> None:
    with pytest.raises(InvalidPolicy) as refusal:
        parse_policy(document(kind, Effect="Maybe"), kind, field=field)
    assert str(refusal.value) == text
    assert refusal.value.reason == "statement 1: expected Effect Allow or Deny"
