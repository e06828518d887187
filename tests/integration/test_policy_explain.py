"""`replicator policy explain` against a running node: it names the statement that decides."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.ecr_node import ACCOUNT, KEY, OTHER_ACCOUNT, REGION, SECRET, EcrNodes, ecr_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

ADMIN, READER = f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:user/reader"
STRANGER = f"arn:aws:iam::{OTHER_ACCOUNT}:user/ann"
PULL = {
    "Version": "2012-10-17",
    "Statement": {"Sid": "Pull", "Effect": "Allow", "Action": "ecr:BatchGetImage", "Resource": "*"},
}
IDENTITIES = [
    {"arn": ADMIN, "access_keys": [{"id": KEY, "secret": {"insecure": SECRET}}]},
    {"arn": READER, "access_keys": [{"id": "AKIDREADER", "secret": {"insecure": SECRET}}], "policies": [PULL]},
]
DENY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "ecr:ListImages", "Principal": {"AWS": OTHER_ACCOUNT}},
        {
            "Sid": "NotFromAfar",
            "Effect": "Deny",
            "Action": "ecr:BatchGetImage",
            "Principal": {"AWS": READER},
            "Condition": {"NotIpAddress": {"aws:SourceIp": "127.0.0.0/8"}},
        },
        {"Sid": "Never", "Effect": "Deny", "Action": "ecr:PutImage", "Principal": "*"},
    ],
}


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path_factory.mktemp("ecr"), {"identities": IDENTITIES}) as running:
        client = running.client()
        client.create_repository(repositoryName="team/api")
        client.set_repository_policy(repositoryName="team/api", policyText=json.dumps(DENY))
        yield running


def explain(ecr: EcrNodes, principal: str, action: str, repository: str = "team/api") -> dict[str, Any]:
    query = f"principal={principal}&action={action}&repository={repository}"
    headers = {"Authorization": login(ecr)}
    reply = ecr.send("GET", f"/_replicator/v1/policy/explain?{query}", headers=headers)
    assert reply.status == 200, reply
    found: dict[str, Any] = reply.json()
    return found


def login(ecr: EcrNodes, key: str = KEY) -> str:
    (data,) = ecr.client(key=key).get_authorization_token()["authorizationData"]
    return f"Basic {data['authorizationToken']}"


def test_an_allow_of_the_identity_is_named(ecr: EcrNodes) -> None:
    found = explain(ecr, READER, "ecr:BatchGetImage", "team/other")
    assert found["allowed"]
    assert found["decided_by"]["policy"] == "identity policy"
    assert found["decided_by"]["statement"] == "statement 1 (Pull)"
    assert found["resource"] == f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/other"
    assert not found["depends_on_request"]


def test_a_deny_of_the_repository_is_named_and_refuses(ecr: EcrNodes) -> None:
    found = explain(ecr, ADMIN, "ecr:PutImage")
    assert not found["allowed"]
    assert found["decided_by"] == {
        "policy": "repository policy",
        "name": None,
        "statement": "statement 3 (Never)",
        "effect": "Deny",
    }
    assert found["message"].endswith("with an explicit deny in a resource-based policy")


def test_what_depends_on_the_request_is_said_to(ecr: EcrNodes) -> None:
    """An explanation comes from nowhere, so a condition on the address decides otherwise than for a caller here."""
    found = explain(ecr, READER, "ecr:BatchGetImage")
    assert (found["allowed"], found["depends_on_request"]) == (False, True)
    assert found["decided_by"]["statement"] == "statement 2 (NotFromAfar)"


def test_nothing_decides_where_nothing_allows(ecr: EcrNodes) -> None:
    found = explain(ecr, STRANGER, "ecr:ListImages")
    assert (found["allowed"], found["is_known"], found["decided_by"]) == (False, False, None)
    assert found["message"].endswith("because no identity-based policy allows the ecr:ListImages action")


@pytest.mark.parametrize(
    "query",
    ["", f"principal={READER}", f"principal={READER}&action=pull", "principal=nobody&action=ecr:PutImage"],
)
def test_questions_that_make_no_sense_are_refused(ecr: EcrNodes, query: str) -> None:
    headers = {"Authorization": login(ecr)}
    assert ecr.send("GET", f"/_replicator/v1/policy/explain?{query}", headers=headers).status == 400


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("action=ecr:PutImage", "expected principal"),
        (f"principal={READER}", "expected action such as ecr:BatchGetImage, got ''"),
        (f"principal={READER}&action=PutImage", "expected action such as ecr:BatchGetImage, got 'PutImage'"),
    ],
)
def test_the_argument_that_is_wrong_is_named(ecr: EcrNodes, query: str, message: str) -> None:
    reply = ecr.send("GET", f"/_replicator/v1/policy/explain?{query}", headers={"Authorization": login(ecr)})
    assert (reply.status, reply.json()["errors"][0]["message"]) == (400, message)


def test_only_who_may_ask_is_answered(ecr: EcrNodes) -> None:
    path = f"/_replicator/v1/policy/explain?principal={READER}&action=ecr:PutImage&repository=team/api"
    assert ecr.send("GET", path).status == 401


def test_why_everybody_may_pull_what_is_public(ecr: EcrNodes) -> None:
    client = ecr.client("ecr-public")
    uri = client.create_repository(repositoryName="shown")["repository"]["repositoryUri"]
    name = uri.removeprefix("public.ecr.aws/")
    answer = explain(ecr, READER, "ecr:BatchGetImage", name)
    assert answer["allowed"] is True
    assert "everybody may pull" in json.dumps(answer)
    assert explain(ecr, READER, "ecr:PutImage", name)["allowed"] is False
