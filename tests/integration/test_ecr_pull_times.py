"""When images were pulled, and whose pulls leave no trace, through the ECR API (ECR §13.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.core.names import RepositoryName
from replicator.storage.metadata import images
from tests.support.ecr_images import push
from tests.support.ecr_node import KEY, SECRET, ecr_nodes, node
from tests.support.images import build_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

REPOSITORY = "team/app"
IMAGE = build_image([b"1"])
ROLE, USER = "arn:aws:iam::123456789012:role/ci", "arn:aws:iam::123456789012:user/other"
KEYS = {
    "AKIDSESSION": "arn:aws:sts::123456789012:assumed-role/ci/build-7",
    "AKIDOTHERROLE": "arn:aws:sts::123456789012:assumed-role/cd/build-7",
    "AKIDOTHER": USER,
}
IDENTITIES = [
    {"arn": arn, "administrator": True, "access_keys": [{"id": key, "secret": {"insecure": SECRET}}]}
    for key, arn in {KEY: "arn:aws:iam::123456789012:user/dev", **KEYS}.items()
]


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path) as nodes:
        yield nodes


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[EcrNodes]:
    """A node with principals that sign."""
    with ecr_nodes(tmp_path, {"identities": IDENTITIES}) as nodes:
        client = nodes.client()
        client.create_repository(repositoryName=REPOSITORY)
        header = authorization(client)
        for digest, content in IMAGE.blobs.items():
            path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest}"
            assert nodes.send("POST", path, content, header).status == 201
        client.put_image(repositoryName=REPOSITORY, imageManifest=IMAGE.manifest.decode(), imageTag="v1")
        yield nodes


def authorization(client: Any) -> dict[str, str]:
    [data] = client.get_authorization_token()["authorizationData"]
    return {"Authorization": f"Basic {data['authorizationToken']}"}


def last_pull(ecr: EcrNodes) -> float | None:
    (detail,) = ecr.client().describe_images(repositoryName=REPOSITORY)["imageDetails"]
    pulled_at = detail.get("lastRecordedPullTime")
    return None if pulled_at is None else pulled_at.timestamp()


class TestRecording:
    def test_pulls_by_tag_by_digest_and_in_a_batch_are_recorded_and_nothing_else_is(self, ecr: EcrNodes) -> None:
        ecr.client().create_repository(repositoryName=REPOSITORY)
        push(ecr, REPOSITORY, IMAGE, "v1")
        client = ecr.client()
        ecr.send("HEAD", f"/v2/{REPOSITORY}/manifests/v1")
        client.list_images(repositoryName=REPOSITORY)
        assert last_pull(ecr) is None
        pulls = (
            lambda: ecr.send("GET", f"/v2/{REPOSITORY}/manifests/v1"),
            lambda: ecr.send("GET", f"/v2/{REPOSITORY}/manifests/{IMAGE.digest}"),
            lambda: client.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "v1"}]),
        )
        for pull in pulls:
            ecr.advance(10)
            pull()
            assert last_pull(ecr) == ecr.clock.now()

    def test_a_pull_outlives_the_process_and_costs_one_write_a_while(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path) as ecr:
            ecr.client().create_repository(repositoryName=REPOSITORY)
            push(ecr, REPOSITORY, IMAGE, "v1")
            ecr.send("GET", f"/v2/{REPOSITORY}/manifests/v1")
            pulled_at, clock = ecr.clock.now(), ecr.clock
        with ecr_nodes(tmp_path, clock=clock) as ecr:
            assert last_pull(ecr) == pulled_at

    def test_other_nodes_leave_no_trace(self, tmp_path: Path) -> None:
        rule = {"name": "all", "destinations": [{"account": "123456789012", "region": "us-west-2"}]}
        with ecr_nodes(tmp_path, nodes=[node(replication={"rules": [rule]}), node("us-west-2")]) as ecr:
            push(ecr, REPOSITORY, IMAGE, "v1")
            west = ecr.client(node="123456789012/us-west-2", region="us-west-2")

            async def arrived() -> bool:
                names = [one for one in ecr.parts if one.endswith("us-west-2")]
                return bool(await ecr.node(names[0]).registry.database.read(_images()))

            ecr.until(arrived)
            (detail,) = west.describe_images(repositoryName=REPOSITORY)["imageDetails"]
            assert "lastRecordedPullTime" not in detail
            assert last_pull(ecr) is None


def _images() -> Any:
    return images.list_after(RepositoryName(REPOSITORY), "", 1)


class TestExclusions:
    def test_an_excluded_principal_and_sessions_of_an_excluded_role_leave_no_trace(self, guarded: EcrNodes) -> None:
        client = guarded.client()
        for arn in (ROLE, USER):
            client.register_pull_time_update_exclusion(principalArn=arn)
        for key in ("AKIDSESSION", "AKIDOTHER"):
            other = guarded.client(key=key)
            other.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "v1"}])
            header = authorization(other)
            assert guarded.send("GET", f"/v2/{REPOSITORY}/manifests/v1", headers=header).status == 200
        assert last_pull(guarded) is None
        header = authorization(guarded.client(key="AKIDOTHERROLE"))
        assert guarded.send("GET", f"/v2/{REPOSITORY}/manifests/v1", headers=header).status == 200
        assert last_pull(guarded) == guarded.clock.now()
        guarded.advance(10)
        client.deregister_pull_time_update_exclusion(principalArn=USER)
        other = guarded.client(key="AKIDOTHER")
        other.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "v1"}])
        assert last_pull(guarded) == guarded.clock.now()

    def test_exclusions_are_listed_in_pages_and_outlive_the_process(self, tmp_path: Path) -> None:
        arns = [f"arn:aws:iam::123456789012:user/u{number}" for number in range(5)]
        with ecr_nodes(tmp_path) as ecr:
            client = ecr.client()
            for arn in reversed(arns):
                answer = client.register_pull_time_update_exclusion(principalArn=arn)
                assert (answer["principalArn"], answer["createdAt"].timestamp()) == (arn, ecr.clock.now())
            clock = ecr.clock
        with ecr_nodes(tmp_path, clock=clock) as ecr:
            client, found = ecr.client(), []
            more: dict[str, str] = {}
            while True:
                page = client.list_pull_time_update_exclusions(maxResults=2, **more)
                found.append(page["pullTimeUpdateExclusions"])
                if "nextToken" not in page:
                    break
                more = {"nextToken": page["nextToken"]}
            assert found == [arns[:2], arns[2:4], arns[4:]]

    def test_what_is_there_or_is_not_there_or_is_too_much_is_refused(self, ecr: EcrNodes) -> None:
        client = ecr.client()

        def refusal(call: Any, arn: str) -> str:
            with pytest.raises(ClientError) as caught:
                call(principalArn=arn)
            code: str = caught.value.response["Error"]["Code"]
            return code

        client.register_pull_time_update_exclusion(principalArn=ROLE)
        assert refusal(client.register_pull_time_update_exclusion, ROLE) == "ExclusionAlreadyExistsException"
        assert refusal(client.deregister_pull_time_update_exclusion, USER) == "ExclusionNotFoundException"
        assert refusal(client.register_pull_time_update_exclusion, KEYS["AKIDSESSION"]) in {
            "InvalidParameterException",
            "ValidationException",
        }
        for number in range(99):
            client.register_pull_time_update_exclusion(principalArn=f"{USER}{number}")
        assert refusal(client.register_pull_time_update_exclusion, USER) == "LimitExceededException"
        assert len(client.list_pull_time_update_exclusions()["pullTimeUpdateExclusions"]) == 100
