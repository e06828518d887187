"""Who may have what done at a node with identities: the cache, creation on push, tags of repositories, everybody."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.names import RepositoryName
from replicator.storage.metadata import repositories
from tests.support.ecr_node import ACCOUNT, KEY, OTHER_ACCOUNT, REGION, SECRET, ecr_nodes, node
from tests.support.images import build_image
from tests.support.threaded_upstream import ThreadedUpstream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.ecr_node import EcrNodes, Reply

IMAGE, NEWER = build_image([b"image"]), build_image([b"newer"])
OTHER = f"{OTHER_ACCOUNT}/{REGION}"
ROOT = Path(__file__).parents[2]


def statement(effect: str, *actions: str, **more: object) -> dict[str, object]:
    return {"Effect": effect, "Action": list(actions), "Resource": "*", **more}


def identity(name: str, key: str, *statements: Mapping[str, object], account: str = ACCOUNT) -> dict[str, Any]:
    policies = [{"Version": "2012-10-17", "Statement": list(statements)}]
    arn = f"arn:aws:iam::{account}:{name}"
    return {"arn": arn, "access_keys": [{"id": key, "secret": {"insecure": SECRET}}], "policies": policies}


def text(*statements: Mapping[str, object]) -> str:
    bare = [{name: value for name, value in one.items() if name != "Resource"} for one in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": bare})


ALL = statement("Allow", "*")
IDENTITIES = [
    identity("user/all", KEY, ALL),
    identity("user/reader", "AKIDREADER", ALL, statement("Deny", "ecr:BatchImportUpstreamImage")),
    identity("user/importer", "AKIDIMPORTER", ALL, statement("Deny", "ecr:CreateRepository")),
    identity(
        "user/outsider",
        "AKIDOUTSIDER",
        ALL,
        statement("Deny", "ecr:*", Condition={"StringEquals": {"aws:ResourceTag/stage": "prod"}}),
    ),
    identity("user/foreign", "AKIDFOREIGN", ALL, account=OTHER_ACCOUNT),
]


@pytest.fixture
def upstream() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as running:
        running.registry.add("app", IMAGE, "v1")
        running.registry.add("app", NEWER, "v2")
        yield running


@pytest.fixture
def ecr(tmp_path: Path, upstream: ThreadedUpstream) -> Iterator[EcrNodes]:
    caching = node(
        cache={"rules": [{"prefix": "hub", "upstream": "hub"}]},
        auth={"anonymous": [{"actions": ["pull"], "repositories": ["open/*"]}]},
    )
    whole = {"identities": IDENTITIES, "upstreams": [{"name": "hub", "url": upstream.url}]}
    with ecr_nodes(tmp_path, whole, nodes=[caching]) as nodes:
        yield nodes


def login(ecr: EcrNodes, key: str = KEY) -> dict[str, str]:
    reply = ecr.signed("GetAuthorizationToken", key=key)
    return {"Authorization": "Basic " + reply.json()["authorizationData"][0]["authorizationToken"]}


def get(ecr: EcrNodes, path: str, key: str = KEY) -> Reply:
    return ecr.send("GET", f"/v2/{path}", headers=login(ecr, key))


def error(reply: Reply) -> tuple[int, str, str]:
    found = reply.json()["errors"][0]
    return reply.status, found["code"], found["message"]


def no_repository(name: str) -> str:
    return f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"


class TestImports:
    """ECR §10.2, §19 (44)."""

    @pytest.mark.parametrize("key", ["AKIDREADER", "AKIDIMPORTER"])
    def test_a_missing_repository_is_only_made_for_whoever_may(
        self, ecr: EcrNodes, upstream: ThreadedUpstream, key: str
    ) -> None:
        for path in ("hub/app/manifests/v1", f"hub/app/blobs/{IMAGE.config}", "hub/app/tags/list"):
            assert error(get(ecr, path, key))[0] == 404, path
        assert error(get(ecr, "hub/app/manifests/v1", key)) == (404, "NAME_UNKNOWN", no_repository("hub/app"))
        answer = ecr.signed("BatchGetImage", {"repositoryName": "hub/app", "imageIds": [{"imageTag": "v1"}]}, key=key)
        assert answer.error == ("RepositoryNotFoundException", no_repository("hub/app"))
        assert upstream.registry.requests == []

    def test_what_is_here_is_all_there_is_for_whoever_may_not_import(
        self, ecr: EcrNodes, upstream: ThreadedUpstream
    ) -> None:
        assert get(ecr, "hub/app/manifests/v1").body == IMAGE.manifest
        asked = len(upstream.registry.requests)
        assert get(ecr, "hub/app/manifests/v1", "AKIDREADER").body == IMAGE.manifest
        for path in ("hub/app/manifests/v2", f"hub/app/manifests/{NEWER.digest}"):
            missing = (404, "MANIFEST_UNKNOWN", "Requested image not found")
            assert error(get(ecr, path, "AKIDREADER")) == missing
        assert error(get(ecr, f"hub/app/blobs/{NEWER.config}", "AKIDREADER"))[:2] == (404, "BLOB_UNKNOWN")
        assert get(ecr, "hub/app/tags/list", "AKIDREADER").json()["tags"] == ["v1"]
        assert get(ecr, f"hub/app/referrers/{IMAGE.digest}", "AKIDREADER").json()["manifests"] == []
        wanted = {"repositoryName": "hub/app", "imageIds": [{"imageTag": "v1"}, {"imageTag": "v2"}]}
        batch = ecr.signed("BatchGetImage", wanted, key="AKIDREADER").json()
        assert [one["imageId"]["imageTag"] for one in batch["images"]] == ["v1"]
        assert [one["failureCode"] for one in batch["failures"]] == ["ImageNotFound"]
        assert len(upstream.registry.requests) == asked, "the upstream hears of none of it"

    def test_a_repository_that_is_there_is_filled_for_whoever_may_make_none(
        self, ecr: EcrNodes, upstream: ThreadedUpstream
    ) -> None:
        assert get(ecr, "hub/app/manifests/v1").status == 200
        assert get(ecr, "hub/app/manifests/v2", "AKIDIMPORTER").body == NEWER.manifest
        assert get(ecr, "hub/app/tags/list", "AKIDIMPORTER").json()["tags"] == ["v1", "v2"]
        assert upstream.registry.count("GET /v2/app/tags/list") == 1


def test_a_push_makes_no_repository_for_whoever_may_not(ecr: EcrNodes) -> None:
    ecr.client().create_repository_creation_template(prefix="ROOT", appliedFor=["CREATE_ON_PUSH"])
    headers = {**login(ecr, "AKIDIMPORTER"), "Content-Type": IMAGE.media_type}
    for method, path, body in (
        ("POST", "/v2/team/new/blobs/uploads/", b""),
        ("PUT", "/v2/team/new/manifests/v1", IMAGE.manifest),
    ):
        refused = ecr.send(method, path, body, headers)
        assert error(refused) == (404, "NAME_UNKNOWN", no_repository("team/new"))
    assert ecr.client().describe_repositories()["repositories"] == []
    assert ecr.send("POST", "/v2/team/new/blobs/uploads/", b"", login(ecr)).status == 202


def test_a_denial_by_the_tags_of_a_repository_holds_while_it_has_them(ecr: EcrNodes) -> None:
    client = ecr.client()
    arn = client.create_repository(repositoryName="team/app")["repository"]["repositoryArn"]
    assert get(ecr, "team/app/tags/list", "AKIDOUTSIDER").status == 200
    for _ in range(2):
        client.tag_resource(resourceArn=arn, tags=[{"Key": "stage", "Value": "prod"}])
        status, code, message = error(get(ecr, "team/app/tags/list", "AKIDOUTSIDER"))
        assert (status, code) == (403, "DENIED")
        assert message.endswith("with an explicit deny in an identity-based policy")
        client.untag_resource(resourceArn=arn, tagKeys=["stage"])
        assert get(ecr, "team/app/tags/list", "AKIDOUTSIDER").status == 200


def test_a_policy_that_another_process_set_holds_within_half_a_minute(ecr: EcrNodes) -> None:
    ecr.client().create_repository(repositoryName="team/app")
    denied = text(statement("Deny", "ecr:*", Principal={"AWS": f"arn:aws:iam::{ACCOUNT}:user/reader"}))
    for policy, status in ((denied, 403), (None, 200)):
        change = partial(repositories.set_policy, RepositoryName("team/app"), policy)
        ecr.run(ecr.node().registry.database.write(change))

        async def has_taken_it_over(policy: str | None = policy) -> bool:
            ecr.clock.advance(31)
            found = ecr.node().registry.policies.repository_policy(RepositoryName("team/app"))
            return (found is None) is (policy is None)

        ecr.until(has_taken_it_over)
        assert get(ecr, "team/app/tags/list", "AKIDREADER").status == status


class TestEverybody:
    """`Principal: "*"` means callers without a name, too, where such callers are let in (ECR §14.3)."""

    PULL = statement("Allow", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", Principal="*")

    def anonymous(self, ecr: EcrNodes) -> dict[str, str]:
        reply = ecr.send("GET", "/v2/token", headers={"Authorization": "Basic Og=="})
        return {"Authorization": f"Bearer {reply.json()['token']}"}

    def test_a_repository_that_is_given_to_everybody(self, ecr: EcrNodes) -> None:
        client = ecr.client()
        client.create_repository(repositoryName="team/app")
        caller, path = self.anonymous(ecr), "/v2/team/app/manifests/none"
        assert ecr.send("GET", path, headers=caller).status == 401
        client.set_repository_policy(repositoryName="team/app", policyText=text(self.PULL))
        assert ecr.send("GET", path, headers=caller).status == 404, "it may ask, there is no such image"
        assert ecr.send("POST", "/v2/team/app/blobs/uploads/", b"", caller).status == 401
        for principal in ({"AWS": ACCOUNT}, {"AWS": f"arn:aws:iam::{ACCOUNT}:user/all"}):
            narrow = {**self.PULL, "Principal": principal}
            client.set_repository_policy(repositoryName="team/app", policyText=text(narrow))
            assert ecr.send("GET", path, headers=caller).status == 401
        denied = {**self.PULL, "Effect": "Deny"}
        client.create_repository(repositoryName="open/app")
        client.set_repository_policy(repositoryName="open/app", policyText=text(denied), force=True)
        assert ecr.send("GET", "/v2/open/app/manifests/none", headers=caller).status == 401

    def test_nobody_without_a_name_is_let_in_where_that_is_not_configured(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path, {"identities": IDENTITIES}) as ecr:
            ecr.client().create_repository(repositoryName="team/app")
            ecr.client().set_repository_policy(repositoryName="team/app", policyText=text(self.PULL))
            assert ecr.send("GET", "/v2/team/app/manifests/none").status == 401
            nobody = self.anonymous(ecr)
            assert ecr.send("GET", "/v2/team/app/manifests/none", headers=nobody).status == 401


def test_sec_15_what_the_registry_policy_gave_is_gone_with_it(tmp_path: Path) -> None:
    with ecr_nodes(tmp_path, {"identities": IDENTITIES}) as ecr:
        client = ecr.client()
        client.create_repository(repositoryName="team/app")
        client.put_account_setting(name="REGISTRY_POLICY_SCOPE", value="V2")
        foreign = login(ecr, "AKIDFOREIGN")
        allow = {
            "Sid": "pulls",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{OTHER_ACCOUNT}:root"},
            "Action": ["ecr:BatchGetImage"],
            "Resource": f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/team/*",
        }
        for _ in range(2):
            assert ecr.send("GET", "/v2/team/app/manifests/none", headers=foreign).status == 403
            client.put_registry_policy(policyText=json.dumps({"Version": "2012-10-17", "Statement": [allow]}))
            assert ecr.send("GET", "/v2/team/app/manifests/none", headers=foreign).status == 404
            client.delete_registry_policy()


_QUOTED = re.compile(r"""(?i)(secret|passw|token|private_key)\w*["']?\s*[:=]\s*b?["']([^"'{}$<>\s]{8,})["']""")
_PLAIN = re.compile(r"(?i)(secret|passw|token|private_key|insecure)\w*:\s*([\w/+=.-]{8,})\s*[,}]?")
_MATERIAL = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b")
_INSECURE = re.compile(r"\binsecure: *[^ `]")
_TEXTS = {".yaml", ".yml", ".json", ".toml", ".conf", ".md", ".sh", ".service", ""}
DEVELOPMENT = "configs/ecr-local.yaml"
"""The file whose credentials everybody may know: it says so, and listens on loopback only."""


def test_sec_31_no_secret_is_written_down_in_the_tree() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for part in ("configs", "replicator", "deploy")
        for path in sorted((ROOT / part).rglob("*"))
        if path.suffix in {".py", *_TEXTS} and path.is_file()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if is_secret(path, line)
    ]
    assert {one.partition(":")[0] for one in found} == {DEVELOPMENT}, found
    development = (ROOT / DEVELOPMENT).read_text()
    assert "127.0.0.1" in development
    assert "0.0.0.0" not in development  # noqa: S104 - looked for


def is_secret(path: Path, line: str) -> bool:
    """Tell whether a line states key material: in a program, something that looks random."""
    if _MATERIAL.search(line) or (path.suffix in {".yaml", ".yml"} and _INSECURE.search(line)):
        return True
    stated = _QUOTED.search(line) or (_PLAIN.search(line) if path.suffix in _TEXTS else None)
    if stated is None or stated[2].startswith("/"):
        return False
    return any(one.isdigit() for one in stated[2]) and any(one.isalpha() for one in stated[2])


def test_sec_31_a_secret_would_be_seen() -> None:
    for name, line in (
        ("a.py", 'SECRET = "s3cr3tValue"'),
        ("a.yaml", "    password: hunter2hunter2"),
        ("a.yaml", "    secret: {insecure: letmein}"),
        ("a.md", "-----BEGIN PRIVATE KEY-----"),
    ):
        assert is_secret(Path(name), line), line
