"""Conditions of policies: every operator with what meets it, and what a missing key means (ECR §14.3)."""

from __future__ import annotations

import pytest

from replicator.core.policy_conditions import OPERATORS, parse_condition, tag_facts

KEYS = {
    "String": "aws:username",
    "Arn": "aws:PrincipalArn",
    "IpAdd": "aws:SourceIp",
    "NotIp": "aws:SourceIp",
    "Bool": "aws:SecureTransport",
    "Numer": "aws:EpochTime",
    "Date": "aws:CurrentTime",
    "Null": "aws:username",
}
VALUES = {
    "String": "x",
    "Arn": "arn:aws:iam::123456789012:user/x",
    "IpAdd": "10.0.0.0/8",
    "NotIp": "10.0.0.0/8",
    "Bool": "true",
    "Numer": "5",
    "Date": "2026-01-01T00:00:00Z",
    "Null": "true",
}


def sample(table: dict[str, str], operator: str) -> str:
    return next(value for start, value in table.items() if operator.startswith(start))


def holds(name: str, values: tuple[str, ...], *actual: str, key: str | None = None) -> bool:
    """Tell whether a request with these values of a key (none: without the key) meets a condition."""
    key = key or sample(KEYS, name.rpartition(":")[2])
    return parse_condition(name, key, values).holds({key.lower(): actual} if actual else {})


USER = "arn:aws:iam::123456789012:user/team/dev"


@pytest.mark.parametrize(
    ("name", "value", "meets", "fails"),
    [
        ("StringEquals", "Dev", "Dev", "dev"),
        ("StringNotEquals", "Dev", "dev", "Dev"),
        ("StringEqualsIgnoreCase", "Dev", "dEV", "de"),
        ("StringNotEqualsIgnoreCase", "Dev", "de", "dEV"),
        ("StringLike", "d?v*", "device", "dv"),
        ("StringNotLike", "d?v*", "dv", "device"),
        ("StringEquals", "d*", "d*", "dev"),
        ("ArnEquals", "arn:aws:iam::*:user/*", USER, "arn:aws:iam::123456789012:role/x"),
        ("ArnLike", "arn:*:iam::123456789012:user/team/*", USER, "arn:aws:iam::123456789012:user/dev"),
        ("ArnLike", "arn:aws:iam::*:user/team/dev", USER, "arn:aws:iam::123:456:user/team/dev"),
        ("ArnNotEquals", "arn:aws:iam::*:user/*", "arn:aws:iam::123456789012:role/x", USER),
        ("ArnNotLike", "arn:aws:iam::*:user/*", "arn:aws:iam::123456789012:role/x", USER),
        ("IpAddress", "203.0.113.0/24", "203.0.113.9", "203.0.114.9"),
        ("IpAddress", "203.0.113.9", "203.0.113.9", "203.0.113.8"),
        ("IpAddress", "203.0.113.0/24", "::ffff:203.0.113.9", "2001:db8::1"),
        ("IpAddress", "2001:db8::/32", "2001:db8:1::2", "203.0.113.9"),
        ("IpAddress", "203.0.113.0/24", "203.0.113.9", "somewhere"),
        ("NotIpAddress", "203.0.113.0/24", "203.0.114.9", "203.0.113.9"),
        ("Bool", "true", "true", "false"),
        ("Bool", "False", "false", "true"),
        ("NumericEquals", "10", "10.0", "11"),
        ("NumericNotEquals", "10", "11", "10"),
        ("NumericLessThan", "10", "9", "10"),
        ("NumericLessThanEquals", "10", "10", "11"),
        ("NumericGreaterThan", "10", "11", "10"),
        ("NumericGreaterThanEquals", "10", "10", "9"),
        ("NumericLessThan", "10", "9", "many"),
        ("DateEquals", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:01Z"),
        ("DateEquals", "1767225600", "2026-01-01T00:00:00Z", "2026-01-01"[:4]),
        ("DateNotEquals", "2026-01-01", "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("DateLessThan", "2026-01-01", "2025-12-31T23:59:59Z", "2026-01-01T00:00:00Z"),
        ("DateLessThanEquals", "2026-01-01", "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z"),
        ("DateGreaterThan", "2026-01-01", "2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z"),
        ("DateGreaterThanEquals", "2026-01-01", "2026-01-01T00:00:00Z", "2025-12-31T23:59:59Z"),
    ],
)
def test_each_operator_compares_in_its_way(name: str, value: str, meets: str, fails: str) -> None:
    assert holds(name, (value,), meets)
    assert not holds(name, (value,), fails)


def test_the_table_above_has_every_operator() -> None:
    marks: list[pytest.Mark] = vars(test_each_operator_compares_in_its_way)["pytestmark"]
    (mark,) = (one for one in marks if one.name == "parametrize")
    assert {case[0] for case in mark.args[1]} | {"Null"} == set(OPERATORS)


def test_one_of_several_values_is_enough_and_a_negated_one_needs_them_all() -> None:
    assert holds("StringEquals", ("a", "b"), "b")
    assert not holds("StringEquals", ("a", "b"), "c")
    assert holds("StringNotEquals", ("a", "b"), "c")
    assert not holds("StringNotEquals", ("a", "b"), "b")


@pytest.mark.parametrize("name", sorted(set(OPERATORS) - {"Null"}))
def test_a_missing_key_meets_what_is_negated_and_what_only_counts_if_it_exists(name: str) -> None:
    value = sample(VALUES, name)
    assert holds(name, (value,)) is OPERATORS[name].is_negated
    assert holds(f"{name}IfExists", (value,))


@pytest.mark.parametrize(("value", "when_missing"), [("true", True), ("false", False), ("TRUE", True)])
def test_null_asks_whether_a_key_is_missing(value: str, when_missing: bool) -> None:
    assert holds("Null", (value,)) is when_missing
    assert holds("Null", (value,), "somebody") is not when_missing


@pytest.mark.parametrize(
    ("name", "actual", "expected"),
    [
        ("ForAllValues:StringEquals", ("a", "b"), True),
        ("ForAllValues:StringEquals", ("a", "c"), False),
        ("ForAllValues:StringEquals", (), True),
        ("ForAllValues:StringNotEquals", ("c", "d"), True),
        ("ForAllValues:StringNotEquals", ("a", "d"), False),
        ("ForAnyValue:StringEquals", ("c", "b"), True),
        ("ForAnyValue:StringEquals", ("c",), False),
        ("ForAnyValue:StringEquals", (), False),
        ("ForAnyValue:StringEqualsIfExists", (), True),
        ("ForAnyValue:StringNotEquals", ("a", "c"), True),
        ("ForAnyValue:StringNotEquals", ("a", "b"), False),
        ("ForAnyValue:StringNotEquals", (), False),
        ("StringEquals", ("c", "b"), True),
        ("StringNotEquals", ("c", "b"), False),
    ],
)
def test_keys_with_several_values(name: str, actual: tuple[str, ...], expected: bool) -> None:
    assert holds(name, ("a", "b"), *actual, key="aws:TagKeys") is expected


@pytest.mark.parametrize(
    "key", ["aws:ResourceTag/Team", "ecr:ResourceTag/Team", "AWS:REQUESTTAG/team", "aws:SourceVpce"]
)
def test_keys_are_known_in_any_case(key: str) -> None:
    assert holds("StringEquals", ("a",), "a", key=key)


@pytest.mark.parametrize(
    ("tags", "key", "meets"),
    [
        ({"Team": "blue"}, "aws:RequestTag/Team", True),
        ({"Team": "blue"}, "AWS:requesttag/team", True),
        ({"team": "blue"}, "aws:RequestTag/Team", True),
        ({"Team": "red", "team": "blue"}, "aws:RequestTag/Team", False),
        ({"team": "blue", "Team": "red"}, "aws:RequestTag/Team", False),
        ({"team": "red", "Team": "blue"}, "aws:RequestTag/Team", True),
        ({"team": "red", "Team": "blue"}, "aws:RequestTag/team", False),
        ({"Teams": "blue"}, "aws:RequestTag/Team", False),
        ({}, "aws:RequestTag/Team", False),
    ],
)
def test_no_tag_hides_behind_one_that_is_spelt_otherwise(tags: dict[str, str], key: str, *, meets: bool) -> None:
    condition = parse_condition("StringEquals", key, ("blue",))
    assert condition.holds(tag_facts("aws:requesttag/", tags)) is meets
