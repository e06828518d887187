"""Authorization tokens from a signed request to a pull: whose they are, where they hold, and when they end."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_node import ACCOUNT, KEY, OTHER_ACCOUNT, SECRET, ecr_nodes, node

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes, Reply

TWELVE_HOURS = 12 * 3600
EXPIRED = "Your authorization token has expired. Reauthenticate and try again."
READER_KEY = "AKIDREADER"


def identity(name: str, key: str, *, account: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    return {
        "arn": f"arn:aws:iam::{account}:user/{name}",
        "access_keys": [{"id": key, "secret": {"insecure": SECRET}}],
        **more,
    }


READER_POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": "ecr:GetAuthorizationToken", "Resource": "*"},
        {"Effect": "Allow", "Action": ["ecr:BatchGetImage", "ecr:DescribeRepositories"], "Resource": "*"},
    ],
}
IDENTITIES = [
    identity("admin", KEY, administrator=True),
    identity("reader", READER_KEY, policies=[READER_POLICY]),
    identity("nobody", "AKIDNOBODY"),
    identity("guest", "AKIDGUEST", account=OTHER_ACCOUNT, administrator=True),
]


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    nodes = [node(), node("eu-west-1")]
    with ecr_nodes(tmp_path_factory.mktemp("ecr"), {"identities": IDENTITIES}, nodes=nodes) as running:
        yield running


def login(ecr: EcrNodes, key: str = KEY, **where: Any) -> str:
    """Return the authorization token, which is what follows `Basic`."""
    client = ecr.client(key=key, **where)
    [data] = client.get_authorization_token()["authorizationData"]
    return str(data["authorizationToken"])


def ask(ecr: EcrNodes, path: str = "/v2/", token: str | None = None, scheme: str = "Basic", **more: Any) -> Reply:
    headers = {} if token is None else {"Authorization": f"{scheme} {token}"}
    return ecr.send(more.pop("method", "GET"), path, headers=headers, **more)


def test_a_token_is_for_twelve_hours_and_says_where(ecr: EcrNodes) -> None:
    [data] = ecr.client().get_authorization_token()["authorizationData"]
    user, password = base64.b64decode(data["authorizationToken"]).decode().split(":")  # as `aws` does
    assert user == "AWS"
    assert password
    assert data["expiresAt"] - ecr.now == timedelta(seconds=TWELVE_HOURS)
    assert data["proxyEndpoint"] == f"https://{ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"


def test_one_token_for_each_registry_that_is_named(ecr: EcrNodes) -> None:
    data = ecr.client().get_authorization_token(registryIds=[ACCOUNT, "999999999999"])["authorizationData"]
    assert [one["proxyEndpoint"] for one in data] == [
        f"https://{account}.dkr.ecr.us-east-1.amazonaws.com" for account in (ACCOUNT, "999999999999")
    ]
    with pytest.raises(ClientError, match="InvalidParameterException"):
        ecr.client().get_authorization_token(registryIds=["999999999999"] * 11)
    with pytest.raises(ClientError, match="InvalidParameterException"):
        ecr.client().get_authorization_token(registryIds=["team"])


def test_a_registry_of_another_account_in_this_process_is_where_its_node_is(tmp_path: Path) -> None:
    nodes = [
        node(public_url="https://registry.example:5000"),
        node(account=OTHER_ACCOUNT, public_url="http://127.0.0.1:5002"),
        node("eu-west-1", "999999999999", public_url="https://europe.example"),
    ]
    with ecr_nodes(tmp_path, {"identities": IDENTITIES}, nodes=nodes) as ecr:
        accounts = [ACCOUNT, OTHER_ACCOUNT, "999999999999"]
        data = ecr.client().get_authorization_token(registryIds=accounts)["authorizationData"]
        assert [one["proxyEndpoint"] for one in data] == [
            "https://registry.example:5000",
            "http://127.0.0.1:5002",
            "https://999999999999.dkr.ecr.us-east-1.amazonaws.com",
        ]
        [guest] = ecr.client(key="AKIDGUEST").get_authorization_token()["authorizationData"]
        assert guest["proxyEndpoint"] == "http://127.0.0.1:5002"


def test_only_its_own_policies_let_a_principal_have_a_token(ecr: EcrNodes) -> None:
    with pytest.raises(ClientError) as failure:
        ecr.client(key="AKIDNOBODY").get_authorization_token()
    assert failure.value.response["Error"]["Code"] == "AccessDeniedException"
    assert failure.value.response["Error"]["Message"] == (
        f"User: arn:aws:iam::{ACCOUNT}:user/nobody is not authorized to perform: ecr:GetAuthorizationToken on resource:"
        " * because no identity-based policy allows the ecr:GetAuthorizationToken action"
    )


def test_a_caller_of_another_account_needs_no_registry_here(ecr: EcrNodes) -> None:
    [data] = ecr.client(key="AKIDGUEST").get_authorization_token()["authorizationData"]
    assert data["proxyEndpoint"] == f"https://{OTHER_ACCOUNT}.dkr.ecr.us-east-1.amazonaws.com"
    assert ask(ecr, token=data["authorizationToken"]).status == 200


def test_a_token_logs_in(ecr: EcrNodes) -> None:
    reply = ask(ecr, token=login(ecr))
    assert (reply.status, reply.body) == (200, b"{}")
    assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("path", ["/v2/", "/v2/team/api/manifests/1", "/v2/_catalog", "/v2/nothing"])
def test_without_credentials_the_answer_is_ecr_s(ecr: EcrNodes, method: str, path: str) -> None:
    reply = ask(ecr, path, method=method)
    assert reply.status == 401
    assert reply.headers["WWW-Authenticate"] == f'Basic realm="https://{ecr.host()}/",service="ecr.amazonaws.com"'
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert reply.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
    assert reply.body == (b"" if method == "HEAD" else b"Not Authorized\n")


@pytest.mark.parametrize(
    "token",
    ["", "!!!", "Og==", base64.b64encode(b"AWS:").decode(), base64.b64encode(b"AWS:password").decode(), "A" * 8000],
    ids=lambda token: token[:10],
)
def test_unusable_credentials_are_none(ecr: EcrNodes, token: str) -> None:
    reply = ask(ecr, token=token)
    assert (reply.status, reply.body) == (401, b"Not Authorized\n")


def test_a_token_holds_in_its_region_only(ecr: EcrNodes) -> None:
    eu = f"{ACCOUNT}/eu-west-1"
    ours, theirs = login(ecr), login(ecr, region="eu-west-1", node=eu)
    assert ask(ecr, token=theirs).status == 401
    assert ask(ecr, token=ours, node=eu).status == 401
    assert ask(ecr, token=theirs, node=eu).status == 200


def test_who_lacks_a_permission_is_told_so(ecr: EcrNodes) -> None:
    reply = ask(ecr, "/v2/team/api/blobs/uploads/", login(ecr, READER_KEY), method="POST")
    assert reply.status == 403
    [error] = reply.json()["errors"]
    assert error["code"] == "DENIED"
    assert (
        f"User: arn:aws:iam::{ACCOUNT}:user/reader is not authorized to perform: ecr:InitiateLayerUpload"
        in (error["message"])
    )


def bearer_of(reply: Reply) -> str:
    assert reply.status == 200, reply.body
    document = reply.json()
    assert document["token"] == document["access_token"]
    return str(document["token"])


def test_a_bearer_token_for_clients_that_want_one(ecr: EcrNodes) -> None:
    ours = login(ecr)
    by_get = bearer_of(ask(ecr, "/v2/token?service=replicator&scope=repository:a:pull", ours))
    password = base64.b64decode(ours).decode().removeprefix("AWS:")
    form = {"grant_type": "password", "username": "AWS", "password": password, "service": "x", "client_id": "docker"}
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    by_post = bearer_of(ecr.send("POST", "/v2/token", urlencode(form).encode(), headers))
    for token in (by_get, by_post):
        assert ask(ecr, token=token, scheme="Bearer").status == 200


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"grant_type=password&username=AWS&password=wrong", 401),
        (b"grant_type=refresh_token&refresh_token=x", 400),
        (b"", 400),
        (b"\xff", 400),
        (b"&".join(b"a%d=1" % number for number in range(50)), 400),
        (b"a" * 100_000, 413),
    ],
)
def test_other_forms_get_no_token(ecr: EcrNodes, body: bytes, status: int) -> None:
    assert ecr.send("POST", "/v2/token", body, {"Content-Type": "text/plain"}).status == status


def test_a_token_ends_after_twelve_hours(tmp_path: Path) -> None:
    with ecr_nodes(tmp_path, {"identities": IDENTITIES}) as ecr:
        token = login(ecr)
        reply = ask(ecr, "/v2/token", token)
        assert reply.json()["expires_in"] == TWELVE_HOURS
        bearer = bearer_of(reply)
        ecr.advance(TWELVE_HOURS - 1)
        assert ask(ecr, token=token).status == 200
        assert ask(ecr, "/v2/token", token).json()["expires_in"] == 1
        ecr.advance(1)
        for scheme, credentials in (("Basic", token), ("Bearer", bearer)):
            reply = ask(ecr, token=credentials, scheme=scheme)
            assert (reply.status, reply.headers["Content-Type"]) == (403, "application/json")
            assert reply.json() == {"errors": [{"code": "DENIED", "message": EXPIRED}]}


def test_a_token_survives_a_restart(tmp_path: Path) -> None:
    with ecr_nodes(tmp_path, {"identities": IDENTITIES}) as ecr:
        token = login(ecr)
    with ecr_nodes(tmp_path, {"identities": IDENTITIES}) as ecr:
        assert ask(ecr, token=token).status == 200


def test_nameless_callers_may_pull_where_they_are_granted_to(tmp_path: Path) -> None:
    """podman sends empty credentials to a token service, and the token that it gets stands for nobody."""
    anonymous = node(auth={"anonymous": [{"actions": ["pull"], "repositories": ["public/*"]}]})
    with ecr_nodes(tmp_path, {"identities": IDENTITIES}, nodes=[anonymous]) as ecr:
        ecr.client().create_repository(repositoryName="public/app")
        challenge = ask(ecr)
        assert challenge.status == 401
        assert challenge.headers["WWW-Authenticate"] == (
            f'Bearer realm="http://{ecr.host()}/v2/token",service="replicator"'
        )
        token = bearer_of(ask(ecr, "/v2/token", "Og=="))
        assert ask(ecr, token=token, scheme="Bearer").status == 200
        assert ask(ecr, "/v2/public/app/tags/list", token, "Bearer").status == 200
        assert ask(ecr, "/v2/private/app/tags/list", token, "Bearer").status == 401
        assert ask(ecr, "/v2/private/app/tags/list", login(ecr)).status == 404


def test_a_node_without_identities_keeps_its_own_answers(tmp_path: Path) -> None:
    user = {"name": "dev", "password": {"env": "PASSWORD"}, "grants": [{"actions": ["pull"]}]}
    nodes = [node(auth={"users": [user]})]
    with ecr_nodes(tmp_path, nodes=nodes, environ={"PASSWORD": "a-password-of-dev"}) as ecr:
        reply = ask(ecr)
        assert reply.headers["WWW-Authenticate"] == f'Basic realm="http://{ecr.host()}/",service="replicator"'
        assert reply.json()["errors"][0]["code"] == "UNAUTHORIZED"


def test_an_open_node_gives_tokens_that_every_client_can_use(tmp_path: Path) -> None:
    with ecr_nodes(tmp_path) as ecr:
        token = login(ecr)
        user, password = base64.b64decode(token).decode().split(":")
        assert (user, bool(password)) == ("AWS", True)
        assert ask(ecr, token=token).status == 200


def test_public_tokens_are_told_alone(ecr: EcrNodes) -> None:
    data = ecr.client("ecr-public").get_authorization_token()["authorizationData"]
    assert sorted(data) == ["authorizationToken", "expiresAt"]
    assert ask(ecr, token=data["authorizationToken"]).status == 200


def test_answers_with_tokens_are_not_kept_by_anybody(ecr: EcrNodes) -> None:
    assert ask(ecr, "/v2/token", login(ecr)).headers["Cache-Control"] == "no-store"
    assert json.loads(ask(ecr, "/v2/token", login(ecr)).body)["expires_in"] <= TWELVE_HOURS
