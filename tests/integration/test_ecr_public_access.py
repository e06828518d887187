"""Who gets in where everybody may pull: public repositories over `/v2/` on a node with identities (ECR §16, §19 (52)).

Everybody may pull what is public, and nobody what is not, whatever it is called; whoever pushes needs permissions of
ECR Public, and the one for its tokens.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_node import ACCOUNT, KEY, OTHER_ACCOUNT, SECRET, ecr_nodes, node
from tests.support.images import build_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes, Reply
    from tests.support.images import Built

ALIAS, NAME = "my-team", "web/app"
PUBLIC, PRIVATE = f"{ALIAS}/{NAME}", "web/app"
PUBLIC_ARN = f"arn:aws:ecr-public::{ACCOUNT}:repository/{NAME}"
EXPIRED = "Your authorization token has expired. Reauthenticate and try again."
IMAGE, SECRET_IMAGE = build_image([b"public"]), build_image([b"private"])
OWN_HOST = "public.example"


def policy(*actions: str, effect: str = "Allow", resource: str = "*", **more: Any) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": effect, "Action": list(actions), "Resource": resource, **more}],
    }


def identity(name: str, key: str, *policies: dict[str, Any], account: str = ACCOUNT, **more: Any) -> dict[str, Any]:
    return {
        "arn": f"arn:aws:iam::{account}:user/{name}",
        "access_keys": [{"id": key, "secret": {"insecure": SECRET}}],
        "policies": list(policies),
        **more,
    }


TOKEN = policy("sts:GetServiceBearerToken", "ecr-public:GetAuthorizationToken", "ecr:GetAuthorizationToken")
IDENTITIES = [
    identity("admin", KEY, administrator=True),
    identity("pusher", "AKIDPUSHER", TOKEN, policy("ecr-public:*", resource=PUBLIC_ARN)),
    identity("tokenless", "AKIDTOKENLESS", policy("ecr-public:*", "ecr:*")),
    identity("private", "AKIDPRIVATE", TOKEN, policy("ecr:*")),
    identity("denied", "AKIDDENIED", TOKEN, policy("ecr-public:*"), policy("ecr-public:*", "ecr:*", effect="Deny")),
    identity("guest", "AKIDGUEST", TOKEN, policy("ecr-public:*"), account=OTHER_ACCOUNT),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    public = {"alias": ALIAS, "public_url": f"https://{OWN_HOST}"}
    nodes = [node(ecr_public=public), node(account=OTHER_ACCOUNT)]
    with ecr_nodes(tmp_path_factory.mktemp("ecr"), {"identities": IDENTITIES}, nodes=nodes) as running:
        running.client("ecr-public").create_repository(repositoryName=NAME)
        running.client().create_repository(repositoryName=PRIVATE)
        token = login(running)
        push(running, PUBLIC, IMAGE, token)
        push(running, PRIVATE, SECRET_IMAGE, token)
        yield running


@pytest.fixture
def ecr(shared: EcrNodes) -> Iterator[EcrNodes]:
    yield shared
    client = shared.client("ecr-public")
    with contextlib.suppress(client.exceptions.RepositoryPolicyNotFoundException):
        client.delete_repository_policy(repositoryName=NAME)


def login(ecr: EcrNodes, key: str = KEY) -> str:
    data = ecr.client("ecr-public", key=key).get_authorization_token()["authorizationData"]
    return str(data["authorizationToken"])


def private_login(ecr: EcrNodes, key: str) -> str:
    [data] = ecr.client(key=key).get_authorization_token()["authorizationData"]
    return str(data["authorizationToken"])


def ask(
    ecr: EcrNodes, path: str, token: str | None = None, method: str = "GET", scheme: str = "Bearer", **more: Any
) -> Reply:
    headers = dict(more.pop("headers", {}))
    if token is not None:
        headers["Authorization"] = f"{scheme} {token}"
    return ecr.send(method, path, more.pop("body", None), headers, **more)


def push(ecr: EcrNodes, repository: str, built: Built, token: str | None, tag: str = "v1") -> int:
    """Push an image; return the status of the first refusal, or 201."""
    for digest, content in built.blobs.items():
        path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        answer = ask(ecr, path, token, "POST", body=content)
        if answer.status != 201:
            return answer.status
    headers = {"Content-Type": built.media_type}
    path = f"/v2/{repository}/manifests/{tag}"
    return ask(ecr, path, token, "PUT", headers=headers, body=built.manifest).status


def message(reply: Reply) -> str:
    return str(reply.json()["errors"][0]["message"])


class TestPulls:
    def test_everybody_may(self, ecr: EcrNodes) -> None:
        manifest = ask(ecr, f"/v2/{PUBLIC}/manifests/v1")
        assert (manifest.status, manifest.body) == (200, IMAGE.manifest)
        assert ask(ecr, f"/v2/{PUBLIC}/manifests/v1", method="HEAD").status == 200
        for digest, content in IMAGE.blobs.items():
            assert ask(ecr, f"/v2/{PUBLIC}/blobs/{digest}").body == content
        assert ask(ecr, f"/v2/{PUBLIC}/tags/list").json() == {"name": PUBLIC, "tags": ["v1"]}
        assert ask(ecr, f"/v2/{PUBLIC}/referrers/{IMAGE.digest}").status == 200

    @pytest.mark.parametrize("key", [KEY, "AKIDPRIVATE", "AKIDGUEST"])
    def test_whoever_has_a_token_may_as_well(self, ecr: EcrNodes, key: str) -> None:
        token = login(ecr, key)
        for scheme in ("Bearer", "Basic"):
            assert ask(ecr, f"/v2/{PUBLIC}/manifests/v1", token, scheme=scheme).status == 200

    def test_no_policy_can_deny_it(self, ecr: EcrNodes) -> None:
        client, token = ecr.client("ecr-public"), login(ecr)
        client.create_repository(repositoryName="denying")
        assert push(ecr, f"{ALIAS}/denying", IMAGE, token) == 201
        denial = {"Statement": {"Effect": "Deny", "Principal": "*", "Action": "ecr-public:*"}}
        client.set_repository_policy(repositoryName="denying", policyText=json.dumps(denial), force=True)
        for given in (None, token):
            assert ask(ecr, f"/v2/{ALIAS}/denying/manifests/v1", given).status == 200
        assert push(ecr, f"{ALIAS}/denying", IMAGE, token) == 403
        with pytest.raises(ClientError, match="with an explicit deny in a resource-based policy"):
            client.delete_repository(repositoryName="denying", force=True)

    def test_what_is_not_there_is_not_found(self, ecr: EcrNodes) -> None:
        found = ask(ecr, f"/v2/{ALIAS}/none/manifests/v1")
        assert found.status == 404
        assert message(found) == f"The repository with name 'none' does not exist in the registry with id '{ALIAS}'"
        assert message(ask(ecr, f"/v2/{PUBLIC}/manifests/v9")) == "Requested image not found"

    def test_with_a_token_that_has_expired_they_are_denied(self, tmp_path: Path) -> None:
        nodes = [node(ecr_public={"alias": ALIAS})]
        with ecr_nodes(tmp_path, {"identities": IDENTITIES}, nodes=nodes) as ecr:
            ecr.client("ecr-public").create_repository(repositoryName=NAME)
            token = login(ecr)
            assert push(ecr, PUBLIC, IMAGE, token) == 201
            ecr.advance(12 * 3600)
            refused = ask(ecr, f"/v2/{PUBLIC}/manifests/v1", token)
            assert (refused.status, message(refused)) == (403, EXPIRED)
            assert ask(ecr, f"/v2/{PUBLIC}/manifests/v1").status == 200

    def test_they_are_as_many_a_second_as_the_file_says(self, tmp_path: Path) -> None:
        limits = {"anonymous_pulls_per_second": 1, "authenticated_pulls_per_second": 3}
        nodes = [node(ecr_public={"alias": ALIAS, **limits})]
        with ecr_nodes(tmp_path, {"identities": IDENTITIES}, nodes=nodes) as ecr:
            ecr.client("ecr-public").create_repository(repositoryName=NAME)
            token, path = login(ecr), f"/v2/{PUBLIC}/manifests/v1"
            assert push(ecr, PUBLIC, IMAGE, token) == 201
            assert [ask(ecr, path).status for _ in range(2)] == [200, 429]
            refused = ask(ecr, path)
            assert refused.json()["errors"][0] == {"code": "TOOMANYREQUESTS", "message": "Rate exceeded"}
            assert ask(ecr, path, method="HEAD").status == 200
            assert ask(ecr, f"/v2/{PUBLIC}/tags/list").status == 200
            assert [ask(ecr, path, token).status for _ in range(4)] == [200, 200, 200, 429]
            ecr.advance(1)
            assert [ask(ecr, path).status for _ in range(2)] == [200, 429]


class TestTokens:
    def challenge(self, ecr: EcrNodes, base: str | None = None) -> str:
        return f'Bearer realm="{base or ecr.url()}/token/",service="public.ecr.aws",scope="aws"'

    def test_those_who_push_without_a_name_are_told_where_to_get_one(self, ecr: EcrNodes) -> None:
        refused = ask(ecr, f"/v2/{PUBLIC}/blobs/uploads/", method="POST")
        assert refused.status == 401
        assert refused.headers["WWW-Authenticate"] == self.challenge(ecr)

    def test_the_host_of_public_repositories_says_so_at_its_entrance(self, ecr: EcrNodes) -> None:
        entrance = ask(ecr, "/v2/", headers={"Host": OWN_HOST})
        assert entrance.status == 401
        assert entrance.headers["WWW-Authenticate"] == self.challenge(ecr, f"http://{OWN_HOST}")
        other = ask(ecr, "/v2/")
        assert other.headers["WWW-Authenticate"].startswith("Basic ")

    @pytest.mark.parametrize("path", ["/token/?service=public.ecr.aws&scope=aws", "/token"])
    def test_a_token_without_a_name_pulls_and_does_nothing_else(self, ecr: EcrNodes, path: str) -> None:
        token = ask(ecr, path).json()["token"]
        assert ask(ecr, f"/v2/{PUBLIC}/manifests/v1", token).status == 200
        assert push(ecr, PUBLIC, IMAGE, token) == 401
        assert ask(ecr, f"/v2/{PRIVATE}/manifests/v1", token).status == 401
        assert ask(ecr, "/v2/_catalog", token).status == 401

    def test_a_password_becomes_a_token_of_the_same_principal(self, ecr: EcrNodes) -> None:
        token = ask(ecr, "/token/?service=public.ecr.aws&scope=aws", login(ecr, "AKIDPUSHER"), scheme="Basic").json()
        assert push(ecr, PUBLIC, IMAGE, token["token"]) == 201

    def test_the_api_s_own_token_is_one(self, ecr: EcrNodes) -> None:
        token = login(ecr, "AKIDPUSHER")
        assert base64.b64decode(token).startswith(b"AWS:")
        assert push(ecr, PUBLIC, IMAGE, token) == 201

    def test_a_wrong_password_gets_none(self, ecr: EcrNodes) -> None:
        wrong = base64.b64encode(b"AWS:wrong").decode()
        assert ask(ecr, "/token/", wrong, scheme="Basic").status == 401

    def test_who_may_have_one(self, ecr: EcrNodes) -> None:
        with pytest.raises(ClientError) as refused:
            login(ecr, "AKIDTOKENLESS")
        error = refused.value.response["Error"]
        assert error["Code"] == "AccessDeniedException"
        assert "is not authorized to perform: sts:GetServiceBearerToken on resource: *" in error["Message"]


class TestPushes:
    def test_the_permission_is_that_of_ecr_public(self, ecr: EcrNodes) -> None:
        assert push(ecr, PUBLIC, IMAGE, login(ecr, "AKIDPUSHER")) == 201
        refused = ask(ecr, f"/v2/{PUBLIC}/blobs/uploads/", login(ecr, "AKIDPRIVATE"), "POST")
        assert refused.status == 403
        action = "ecr-public:InitiateLayerUpload"
        assert message(refused) == (
            f"User: arn:aws:iam::{ACCOUNT}:user/private is not authorized to perform: {action} on resource:"
            f" {PUBLIC_ARN} because no identity-based policy allows the {action} action"
        )

    def test_it_takes_the_permission_to_have_a_token_too(self, ecr: EcrNodes) -> None:
        refused = ask(ecr, f"/v2/{PUBLIC}/blobs/uploads/", private_login(ecr, "AKIDTOKENLESS"), "POST")
        assert refused.status == 403
        assert "is not authorized to perform: sts:GetServiceBearerToken" in message(refused)

    def test_an_explicit_deny_wins(self, ecr: EcrNodes) -> None:
        with pytest.raises(ClientError, match="with an explicit deny in an identity-based policy"):
            login(ecr, "AKIDDENIED")

    def test_a_repository_s_policy_lets_in_another_account(self, ecr: EcrNodes) -> None:
        token = login(ecr, "AKIDGUEST")
        assert push(ecr, PUBLIC, IMAGE, token) == 403
        statement = {
            "Effect": "Allow",
            "Principal": {"AWS": OTHER_ACCOUNT},
            "Action": ["ecr-public:PutImage", "ecr-public:*Layer*"],
        }
        ecr.client("ecr-public").set_repository_policy(
            repositoryName=NAME, policyText=json.dumps({"Statement": statement})
        )
        assert push(ecr, PUBLIC, IMAGE, token, "guest") == 201
        guest = ecr.client("ecr-public", key="AKIDGUEST")
        assert "uploadId" in guest.initiate_layer_upload(repositoryName=NAME, registryId=ALIAS)
        with pytest.raises(ClientError, match="no resource-based policy allows the ecr-public:DeleteRepository"):
            guest.delete_repository(repositoryName=NAME, registryId=ACCOUNT)

    def test_each_account_has_a_registry_of_its_own(self, ecr: EcrNodes) -> None:
        guest = ecr.client("ecr-public", key="AKIDGUEST")
        assert guest.describe_repositories()["repositories"] == []
        [registry] = guest.describe_registries()["registries"]
        assert registry["registryId"] == OTHER_ACCOUNT

    @pytest.mark.parametrize(
        ("operation", "members"),
        [
            ("create_repository", {"repositoryName": "new"}),
            ("describe_registries", {}),
            ("put_registry_catalog_data", {"displayName": "mine"}),
            ("describe_images", {"repositoryName": NAME}),
            ("describe_repositories", {"repositoryNames": [NAME]}),
            ("tag_resource", {"resourceArn": PUBLIC_ARN, "tags": []}),
        ],
    )
    def test_permissions_of_private_repositories_are_others(
        self, ecr: EcrNodes, operation: str, members: dict[str, Any]
    ) -> None:
        client = ecr.client("ecr-public", key="AKIDPRIVATE")
        with pytest.raises(ClientError, match="because no identity-based policy allows the ecr-public:"):
            getattr(client, operation)(**members)


class TestPrivateStaysPrivate:
    """SEC-10 to SEC-18: no spelling of a private repository is public."""

    @pytest.mark.parametrize(
        "path",
        [
            f"/v2/{PRIVATE}/manifests/v1",
            f"/v2/{PRIVATE}/tags/list",
            f"/v2/{PRIVATE}/blobs/{next(iter(SECRET_IMAGE.blobs))}",
            f"/v2/{PRIVATE}/referrers/{SECRET_IMAGE.digest}",
            f"/v2/{ALIAS}/../{PRIVATE}/manifests/v1",
            f"/v2/{ALIAS}/./{PRIVATE}/../../{PRIVATE}/manifests/v1",
            f"/v2/{ALIAS}%2F{NAME}/manifests/v1",
            f"/v2/{ALIAS}/%2e%2e/{PRIVATE}/manifests/v1",
            f"/v2//{PRIVATE}/manifests/v1",
            f"/v2/{ALIAS}//{NAME}/manifests/v1",
            f"/v2/{ALIAS.upper()}/{NAME}/manifests/v1",
            f"/v2/{ALIAS}-x/{NAME}/manifests/v1",
            f"/v2/{ALIAS}/manifests/v1",
            f"/v2/{ALIAS}/tags/list",
            f"/v2/{ALIAS}/blobs/uploads/",
            "/v2/",
            "/v2/_catalog",
            "/v2/_catalog?n=1000",
            f"/v2/{PUBLIC}/manifests/v1?ns=docker.io",
            "/_replicator/v1/status",
        ],
    )
    def test_without_a_name_nothing_but_what_is_public_can_be_read(self, ecr: EcrNodes, path: str) -> None:
        reply = ask(ecr, path)
        assert reply.status in {400, 401, 404}
        assert SECRET_IMAGE.manifest not in reply.body
        if reply.status != 401:
            assert not path.startswith(f"/v2/{PRIVATE}")

    def test_the_blobs_and_manifests_of_others_are_not_in_it(self, ecr: EcrNodes) -> None:
        for digest in SECRET_IMAGE.blobs:
            if digest not in IMAGE.blobs:
                assert ask(ecr, f"/v2/{PUBLIC}/blobs/{digest}").status == 404
        assert ask(ecr, f"/v2/{PUBLIC}/manifests/{SECRET_IMAGE.digest}").status == 404
        assert ask(ecr, f"/v2/{PUBLIC}/referrers/{SECRET_IMAGE.digest}").json()["manifests"] == []

    @pytest.mark.parametrize("source", [f"&from={PRIVATE}", ""])
    def test_a_private_layer_is_not_made_public_by_those_who_cannot_read_it(self, ecr: EcrNodes, source: str) -> None:
        ecr.client().put_account_setting(name="BLOB_MOUNTING", value="ENABLED")
        digest = next(one for one in SECRET_IMAGE.blobs if one not in IMAGE.blobs)
        path = f"/v2/{PUBLIC}/blobs/uploads/?mount={digest}{source}"
        answer = ask(ecr, path, login(ecr, "AKIDPUSHER"), "POST")
        assert answer.status == 202  # a session, not the layer
        assert ask(ecr, f"/v2/{PUBLIC}/blobs/{digest}").status == 404
        assert ask(ecr, path, None, "POST").status == 401

    def test_a_public_layer_may_be_mounted_by_whoever_may_push(self, ecr: EcrNodes) -> None:
        ecr.client().put_account_setting(name="BLOB_MOUNTING", value="ENABLED")
        digest = next(one for one in IMAGE.blobs if one not in SECRET_IMAGE.blobs)
        path = f"/v2/web/mounted/blobs/uploads/?mount={digest}&from={PUBLIC}"
        ecr.client().create_repository(repositoryName="web/mounted")
        assert ask(ecr, path, private_login(ecr, "AKIDPRIVATE"), "POST").status == 201

    def test_what_one_may_do_in_public_repositories_is_nothing_in_private_ones(self, ecr: EcrNodes) -> None:
        token = login(ecr, "AKIDPUSHER")
        for method, path in (
            ("GET", f"/v2/{PRIVATE}/manifests/v1"),
            ("POST", f"/v2/{PRIVATE}/blobs/uploads/"),
            ("DELETE", f"/v2/{PRIVATE}/manifests/v1"),
        ):
            assert ask(ecr, path, token, method).status == 403
        assert ask(ecr, "/v2/_catalog", token).json() == {"repositories": []}
        with pytest.raises(ClientError, match="AccessDenied"):
            ecr.client(key="AKIDPUSHER").describe_repositories()

    def test_the_registry_s_policy_is_that_of_private_repositories(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        statement = {"Effect": "Deny", "Principal": {"AWS": ACCOUNT}, "Action": "*", "Resource": "*"}
        text = json.dumps({"Version": "2012-10-17", "Statement": {**statement, "Action": "ecr:PutImage"}})
        client.put_registry_policy(policyText=text)
        try:
            assert push(ecr, PUBLIC, IMAGE, login(ecr, "AKIDPUSHER")) == 201
            assert push(ecr, PRIVATE, IMAGE, private_login(ecr, "AKIDPRIVATE"), "again") == 403
        finally:
            client.delete_registry_policy()
