from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replicator.core.errors import InvalidInput
from replicator.core.principal_arns import PrincipalType, parse_principal_arn


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("arn:aws:iam::123456789012:root", PrincipalType.ROOT, ""),
        ("arn:aws:iam::123456789012:user/dev", PrincipalType.USER, "dev"),
        ("arn:aws:iam::123456789012:user/team/a/dev@example.com", PrincipalType.USER, "dev@example.com"),
        ("arn:aws-cn:iam::123456789012:role/build", PrincipalType.ROLE, "build"),
        ("arn:aws:iam::123456789012:role/service-role/build", PrincipalType.ROLE, "build"),
        ("arn:aws-us-gov:sts::123456789012:assumed-role/build/i-0abc", PrincipalType.ASSUMED_ROLE, "i-0abc"),
    ],
)
def test_a_principal(text: str, kind: PrincipalType, name: str) -> None:
    found = parse_principal_arn(text)
    assert (str(found), found.account, found.type, found.name) == (text, "123456789012", kind, name)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "*",
        "123456789012",
        "arn:aws:iam::12345678901:root",
        "arn:aws:iam:us-east-1:123456789012:user/dev",
        "arn:aws:iam::123456789012:user/",
        "arn:aws:iam::123456789012:user/a b",
        "arn:aws:iam::123456789012:user/*",
        "arn:aws:iam::123456789012:group/dev",
        "arn:aws:iam::123456789012:root\n",
        "arn:aws:sts::123456789012:assumed-role/build",
        "arn:aws:sts::123456789012:assumed-role/build/a/b",
        "arn:aws:iam::123456789012:assumed-role/build/a",
        "arn:other:iam::123456789012:root",
        "arn:aws:iam::\u0661\u0662\u0663456789012:root",
        "arn:aws:iam::123456789012:user/" + "a/" * 2000 + "b",
    ],
)
def test_what_is_no_principal(text: str) -> None:
    with pytest.raises(InvalidInput, match="expected the ARN of a user"):
        parse_principal_arn(text)


@given(st.text() | st.from_regex(r"arn:aws:(iam|sts)::[0-9]{12}:(user|role|assumed-role)/.*"))
def test_nothing_else_is_raised(text: str) -> None:
    try:
        assert str(parse_principal_arn(text)) == text
    except InvalidInput:
        return
