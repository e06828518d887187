"""Attacks on what callers may do, against whole nodes with identities; by the numbers of our catalogue."""

from __future__ import annotations

import base64
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.core.digest import digest_of
from tests.support.ecr_node import ACCOUNT, KEY, OTHER_ACCOUNT, REGION, SECRET, EcrNodes, Reply, ecr_nodes, node
from tests.support.images import build_image
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

B = f"{OTHER_ACCOUNT}/{REGION}"
IMAGE = build_image([b"a layer"])
PRIVATE = build_image([b"a private layer"])


def identity(name: str, key: str, *statements: Mapping[str, object], account: str = ACCOUNT) -> dict[str, Any]:
    policies = [{"Version": "2012-10-17", "Statement": list(statements)}] if statements else []
    arn = f"arn:aws:iam::{account}:{name}"
    return {"arn": arn, "access_keys": [{"id": key, "secret": {"insecure": SECRET}}], "policies": policies}


def statement(effect: str, action: str | list[str], resource: str = "*") -> dict[str, object]:
    return {"Effect": effect, "Action": action, "Resource": resource}


def repository(name: str) -> str:
    return f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{name}"


LOGIN = statement("Allow", "ecr:GetAuthorizationToken")
UNLESS_SECRET = {"StringNotEquals": {"aws:ResourceTag/class": "secret"}}
ONLY_BLUE = {"StringEquals": {"aws:RequestTag/Team": "blue"}}
IDENTITIES = [
    identity("root", KEY),
    identity("user/keeper", "AKIDKEEPER", statement("Allow", "*"), statement("Deny", "ecr:BatchDeleteImage")),
    identity("user/team", "AKIDTEAM", LOGIN, statement("Allow", "ecr:*", repository("team/*"))),
    identity("user/nobody", "AKIDNOBODY", LOGIN),
    identity("user/almost", "AKIDALMOST", {"Effect": "Allow", "Action": "*", "NotResource": repository("secret/*")}),
    identity("user/open", "AKIDOPEN", LOGIN, {**statement("Allow", "*"), "Condition": UNLESS_SECRET}),
    identity("user/blue", "AKIDBLUE", {**statement("Allow", "ecr:*"), "Condition": ONLY_BLUE}),
    identity("root", "AKIDOTHER", account=OTHER_ACCOUNT),
]


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EcrNodes]:
    nodes = [node(), node(account=OTHER_ACCOUNT)]
    with ecr_nodes(tmp_path_factory.mktemp("ecr"), {"identities": IDENTITIES}, nodes=nodes) as running:
        for name in ("team/api", "secret/api"):
            running.client().create_repository(repositoryName=name)
        push(running, "team/api", IMAGE)
        push(running, "secret/api", PRIVATE)
        yield running


def login(ecr: EcrNodes, key: str = KEY) -> dict[str, str]:
    """Return the header of a caller who has logged in."""
    reply = ecr.signed("GetAuthorizationToken", key=key)
    return {"Authorization": "Basic " + reply.json()["authorizationData"][0]["authorizationToken"]}


def push(ecr: EcrNodes, name: str, image: Any, tag: str = "1", key: str = KEY) -> Reply:
    caller = login(ecr, key)
    for blob in image.blobs.values():
        path = f"/v2/{name}/blobs/uploads/?digest={digest_of(blob)}"
        ecr.send("POST", path, blob, {**caller, "Content-Type": "application/octet-stream"})
    return put_tag(ecr, name, image, tag, key)


def put_tag(ecr: EcrNodes, name: str, image: Any, tag: str, key: str = KEY) -> Reply:
    headers = {**login(ecr, key), "Content-Type": image.media_type}
    return ecr.send("PUT", f"/v2/{name}/manifests/{tag}", image.manifest, headers)


def test_sec_13_without_the_right_to_delete_nothing_goes_on_any_path(ecr: EcrNodes) -> None:
    """A Deny of ecr:BatchDeleteImage closes every path that deletes, whatever else the caller may do."""
    keeper = login(ecr, "AKIDKEEPER")
    for target in ("manifests/1", f"manifests/{IMAGE.digest}", f"blobs/{IMAGE.layers[0]}"):
        reply = ecr.send("DELETE", f"/v2/team/api/{target}", headers=keeper)
        assert reply.status in {403, 405}, target
    client = ecr.client(key="AKIDKEEPER")
    with pytest.raises(ClientError, match=r"AccessDeniedException.*with an explicit deny in an identity-based policy"):
        client.batch_delete_image(repositoryName="team/api", imageIds=[{"imageTag": "1"}])
    purge = {"repository": "team/api", "reference": "1", "force": True}
    headers = {**keeper, "Content-Type": "application/json"}
    refused = ecr.send("POST", "/_replicator/v1/cache/purge", json.dumps(purge).encode(), headers)
    assert refused.status == 403
    assert ecr.send("GET", "/v2/team/api/manifests/1", headers=keeper).body == IMAGE.manifest


@pytest.mark.parametrize("key", ["AKIDALMOST", "AKIDOPEN"])
@pytest.mark.parametrize("page", ["events/latest", "policy/explain?principal=anonymous&action=ecr:ListImages"])
def test_sec_17_what_is_allowed_with_exceptions_is_not_allowed_everywhere(ecr: EcrNodes, key: str, page: str) -> None:
    assert ecr.send("GET", f"/_replicator/v1/{page}", headers=login(ecr)).status == 200
    assert ecr.send("GET", f"/_replicator/v1/{page}", headers=login(ecr, key)).status == 403


@pytest.mark.parametrize("key", ["AKIDNOBODY", "AKIDOTHER", "AKIDTEAM"])
def test_sec_32_the_state_of_a_node_is_not_for_everybody_who_has_a_key(ecr: EcrNodes, key: str) -> None:
    page = "/_replicator/v1/status"
    assert ecr.send("GET", page, headers=login(ecr)).status == 200
    assert ecr.send("GET", page, headers=login(ecr, key)).status == 403


def test_sec_17_a_tag_that_is_required_is_not_hidden_behind_another(ecr: EcrNodes) -> None:
    red, blue = {"Key": "Team", "Value": "red"}, {"Key": "team", "Value": "blue"}
    for tags in ([red], [red, blue], [blue, red]):
        refused = ecr.signed("CreateRepository", {"repositoryName": "blue/api", "tags": tags}, key="AKIDBLUE")
        assert refused.error[0] == "AccessDeniedException", tags
    made = ecr.signed("CreateRepository", {"repositoryName": "blue/api", "tags": [blue]}, key="AKIDBLUE")
    assert made.status == 200


def test_sec_14_an_immutable_tag_stays_where_it_is(ecr: EcrNodes) -> None:
    ecr.client().create_repository(repositoryName="team/fixed", imageTagMutability="IMMUTABLE")
    other = build_image([b"another layer"])
    assert push(ecr, "team/fixed", IMAGE, "latest").status == 201
    assert push(ecr, "team/fixed", other, "other").status == 201
    moved = put_tag(ecr, "team/fixed", other, "latest")
    assert (moved.status, moved.json()["errors"][0]["code"]) == (400, "TAG_INVALID")
    by_query = put_tag(ecr, "team/fixed", other, f"{other.digest}?tag=latest")
    assert by_query.status == 400
    with pytest.raises(ClientError, match="ImageTagAlreadyExistsException"):
        ecr.client().put_image(
            repositoryName="team/fixed",
            imageManifest=other.manifest.decode(),
            imageManifestMediaType=other.media_type,
            imageTag="latest",
        )
    keeper = login(ecr, "AKIDKEEPER")
    for target in ("latest", IMAGE.digest):
        assert ecr.send("DELETE", f"/v2/team/fixed/manifests/{target}", headers=keeper).status == 403
    assert ecr.send("GET", "/v2/team/fixed/manifests/latest", headers=keeper).body == IMAGE.manifest


def test_sec_15_what_is_taken_away_is_gone_at_once(ecr: EcrNodes) -> None:
    """Permissions of a repository and of the registry; those of identities go as their file changes."""
    admin, path = ecr.client(), "/v2/secret/api/manifests/1"
    nobody = login(ecr, "AKIDNOBODY")
    assert ecr.send("GET", path, headers=nobody).status == 403
    principal = {"AWS": f"arn:aws:iam::{ACCOUNT}:user/nobody"}
    allow = {"Effect": "Allow", "Action": "ecr:BatchGetImage", "Principal": principal}
    for _ in range(2):
        admin.set_repository_policy(
            repositoryName="secret/api", policyText=json.dumps({"Version": "2012-10-17", "Statement": allow})
        )
        assert ecr.send("GET", path, headers=nobody).status == 200
        admin.delete_repository_policy(repositoryName="secret/api")
        reply = ecr.send("GET", path, headers=nobody)
        assert reply.status == 403
        assert reply.json()["errors"][0] == {
            "code": "DENIED",
            "message": f"User: arn:aws:iam::{ACCOUNT}:user/nobody is not authorized to perform: ecr:BatchGetImage on"
            f" resource: {repository('secret/api')} because no identity-based policy allows the ecr:BatchGetImage"
            " action",
        }


@pytest.mark.parametrize("name", ["secret/api", "secret/none"])
@pytest.mark.parametrize(
    ("operation", "members"),
    [
        ("DescribeRepositories", {"repositoryNames": True}),
        ("DescribeImages", {}),
        ("ListImages", {}),
        ("BatchGetImage", {"imageIds": [{"imageTag": "1"}]}),
        ("BatchDeleteImage", {"imageIds": [{"imageTag": "1"}]}),
        ("GetDownloadUrlForLayer", {"layerDigest": PRIVATE.layers[0]}),
        ("InitiateLayerUpload", {}),
        ("SetRepositoryPolicy", {"policyText": "{}"}),
        ("GetRepositoryPolicy", {}),
        ("PutLifecyclePolicy", {"lifecyclePolicyText": "{}" + " " * 100}),
        ("PutImageTagMutability", {"imageTagMutability": "IMMUTABLE"}),
        ("DeleteRepository", {"force": True}),
    ],
)
def test_sec_17_ids_of_another_account_open_nothing(
    ecr: EcrNodes, operation: str, members: dict[str, object], name: str
) -> None:
    """Whether it exists or not, and whatever else the request says of its caller."""
    document: dict[str, object] = {"registryId": ACCOUNT, "admin": True, "account": ACCOUNT, **members}
    if document.get("repositoryNames"):
        document["repositoryNames"] = [name]
    else:
        document["repositoryName"] = name
    reply = ecr.signed(operation, document, key="AKIDOTHER", node=B)
    assert reply.error == (
        "AccessDeniedException",
        f"User: arn:aws:iam::{OTHER_ACCOUNT}:root is not authorized to perform: ecr:{operation} on resource:"
        f" {repository(name)} because no resource-based policy allows the ecr:{operation} action",
    )
    assert ecr.client().describe_repositories(repositoryNames=["secret/api"])["repositories"]


def test_sec_17_an_upload_belongs_to_its_repository(ecr: EcrNodes) -> None:
    upload = ecr.client().initiate_layer_upload(repositoryName="secret/api")["uploadId"]
    team = ecr.client(key="AKIDTEAM")
    with pytest.raises(ClientError, match="UploadNotFoundException"):
        team.upload_layer_part(
            repositoryName="team/api", uploadId=upload, partFirstByte=0, partLastByte=0, layerPartBlob=b"x"
        )


ALIASES = (
    "/v2/_catalog",
    "//v2/_catalog",
    "/v2//_catalog",
    "/v2/./_catalog",
    "/v2/x/../_catalog",
    "/v2/_catalog/",
    "/V2/_catalog",
    "/v2/_CATALOG",
    "/v2/%5fcatalog",
    "/v2/_catalog?n=1",
    "/v2/_catalog%00",
)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ALIASES)
def test_sec_18_no_spelling_of_the_catalog_is_open(ecr: EcrNodes, path: str, method: str) -> None:
    answer = raw(ecr, f"{method} {path} HTTP/1.1\r\nHost: {ecr.host()}\r\nConnection: close\r\n\r\n")
    assert answer.split(b" ", 2)[1] in {b"400", b"401", b"404"}
    assert b"secret" not in answer
    assert b"team" not in answer


def test_sec_18_the_catalog_shows_what_one_may_describe(ecr: EcrNodes) -> None:
    def catalog(key: str) -> list[str]:
        found: list[str] = ecr.send("GET", "/v2/_catalog", headers=login(ecr, key)).json()["repositories"]
        return found

    assert {"team/api", "secret/api"} <= set(catalog(KEY))
    assert "team/api" in catalog("AKIDTEAM")
    assert "secret/api" not in catalog("AKIDTEAM")
    assert catalog("AKIDNOBODY") == []


def raw(ecr: EcrNodes, request: str) -> bytes:
    """Send bytes as they are, and return all that comes back."""
    host, _, port = ecr.host().partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request.encode())
        found = b""
        while data := connection.recv(65536):
            found += data
    return found


def test_sec_31_every_start_has_secrets_of_its_own(tmp_path: Path) -> None:
    """A bearer token of one node is worth nothing at another that was configured alike and knows no secret."""
    user = {"name": "ann", "password": {"env": "ANN"}, "grants": [{"actions": ["pull"]}]}
    basic = {"Authorization": "Basic " + base64.b64encode(b"ann:an9Pass!").decode()}
    tokens: list[str] = []
    for name in ("one", "two"):
        nodes = [node(auth={"users": [user]})]
        with ecr_nodes(tmp_path / name, nodes=nodes, environ={"ANN": "an9Pass!"}) as running:
            for token in tokens:
                assert running.send("GET", "/v2/", headers={"Authorization": f"Bearer {token}"}).status == 401
            token = running.send("GET", "/v2/token", headers=basic).json()["token"]
            assert running.send("GET", "/v2/", headers={"Authorization": f"Bearer {token}"}).status == 200
            tokens.append(token)


IMAGE_NAME: dict[str, object] = {"repository": "team/api", "reference": "1"}
PAGES: tuple[tuple[str, dict[str, object] | None], ...] = (
    ("status", None),
    ("replication/images?repository=team/api&reference=1", None),
    ("replication/conflicts", None),
    ("replication/retry", {"repository": "team/api"}),
    ("replication/wait", IMAGE_NAME),
    ("cache/images", None),
    ("cache/space", None),
    ("cache/upstreams", None),
    ("cache/purge", IMAGE_NAME),
    ("cache/refresh", {"repository": "team/api", "tag": "1"}),
    ("cache/pin", IMAGE_NAME),
    ("cache/warm", IMAGE_NAME),
    ("events/sinks", None),
    ("events/latest", None),
    ("events/retry", {}),
    ("policy/explain?principal=anonymous&action=ecr:PutImage&repository=team/api", None),
)


@pytest.mark.parametrize(("page", "fields"), PAGES, ids=[page for page, _ in PAGES])
def test_sec_32_no_page_for_operators_is_open(ecr: EcrNodes, page: str, fields: dict[str, object] | None) -> None:
    """Neither to nobody, nor to somebody who may do nothing here, nor to a forged node."""
    method, body = ("GET", None) if fields is None else ("POST", json.dumps(fields).encode())
    path, json_body = f"/_replicator/v1/{page}", {"Content-Type": "application/json"}
    forged = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJub2RlIn0."}
    assert ecr.send(method, path, body, json_body).status == 401
    assert ecr.send(method, path, body, {**json_body, **forged}).status == 401
    for key in ("AKIDNOBODY", "AKIDOTHER"):
        reply = ecr.send(method, path, body, {**json_body, **login(ecr, key)})
        # The two lists that a caller may ask for show what it may know of.
        assert reply.status == 403 or page in {"status", "cache/images", "replication/conflicts"}
        assert b"team/api" not in reply.body or reply.status == 403
        assert b"secret/api" not in reply.body


def test_sec_33_a_registry_takes_only_from_accounts_that_its_policy_names(ecr: EcrNodes) -> None:
    sender = ecr.client(key="AKIDOTHER", node=B)
    sender.create_repository(repositoryName="sent/app")
    sender.put_replication_configuration(
        replicationConfiguration={"rules": [{"destinations": [{"region": REGION, "registryId": ACCOUNT}]}]}
    )
    manifest = {**login(ecr, "AKIDOTHER"), "Content-Type": IMAGE.media_type}
    for blob in IMAGE.blobs.values():
        path = f"/v2/sent/app/blobs/uploads/?digest={digest_of(blob)}"
        octets = {**manifest, "Content-Type": "application/octet-stream"}
        assert ecr.send("POST", path, blob, octets, node=B).status == 201
    assert ecr.send("PUT", "/v2/sent/app/manifests/1", IMAGE.manifest, manifest, node=B).status == 201

    def has_failed() -> bool:
        found = sender.describe_image_replication_status(repositoryName="sent/app", imageId={"imageTag": "1"})
        return any(one["status"] == "FAILED" for one in found["replicationStatuses"])

    eventually(has_failed, "the copy to be refused", within=20)
    with pytest.raises(ClientError, match="RepositoryNotFoundException"):
        ecr.client().describe_images(repositoryName="sent/app")
