"""The quotas of a node that its operations read, each made small by the configuration (ECR §17).

Those of repositories, images and layers are shown next to what creates them.
"""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_images import put_manifest, upload
from tests.support.ecr_node import ACCOUNT, REGION, ecr_nodes, node
from tests.support.images import build_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

DAY = 24 * 3600.0
EU, WEST, SOUTH = "eu-west-1", "eu-west-2", "eu-south-1"
QUOTAS = {
    "lifecycle_rules": 1,
    "replication_rules": 2,
    "replication_destinations": 2,
    "replication_filters": 1,
    "cache_rules": 1,
    "creation_templates": 1,
    "signing_rules": 1,
    "signing_filters": 1,
    "pull_time_exclusions": 1,
    "backfills": 1,
    "scans_per_day": 2,
}
PROFILE = f"arn:aws:signer:{REGION}:{ACCOUNT}:/signing-profiles/release"


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    # Peers that take a connection and never say anything: what goes there stays on its way.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        document = {
            "upstreams": [{"name": "public.ecr.aws", "url": "http://127.0.0.1:9", "preset": "ecr-public"}],
            "peers": [{"account": ACCOUNT, "region": region, "url": url} for region in (EU, WEST, SOUTH)],
        }
        with ecr_nodes(tmp_path, document, nodes=[node(quotas=QUOTAS)]) as running:
            yield running


@pytest.fixture
def client(ecr: EcrNodes) -> Any:
    return ecr.client()


def refused(call: Callable[..., Any], **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def lifecycle(rules: int) -> str:
    return json.dumps(
        {
            "rules": [
                {
                    "rulePriority": number,
                    "selection": {
                        "tagStatus": "tagged",
                        "tagPrefixList": [f"v{number}"],
                        "countType": "imageCountMoreThan",
                        "countNumber": 1,
                    },
                    "action": {"type": "expire"},
                }
                for number in range(1, rules + 1)
            ]
        }
    )


def test_rules_of_a_lifecycle_policy(client: Any) -> None:
    client.create_repository(repositoryName="app")
    client.put_lifecycle_policy(repositoryName="app", lifecyclePolicyText=lifecycle(1))
    for call in (client.put_lifecycle_policy, client.start_lifecycle_policy_preview):
        code, message = refused(call, repositoryName="app", lifecyclePolicyText=lifecycle(2))
        assert code == "InvalidParameterException"
        assert "array is too long: must have at most 1 elements but instance has 2 elements" in message
    assert json.loads(client.get_lifecycle_policy(repositoryName="app")["lifecyclePolicyText"])["rules"][1:] == []
    code, message = refused(
        client.create_repository_creation_template,
        prefix="team",
        appliedFor=["REPLICATION"],
        lifecyclePolicy=lifecycle(2),
    )
    assert "must have at most 1 elements" in message


def replication(*rules: tuple[list[str], list[str]]) -> dict[str, Any]:
    written = []
    for regions, filters in rules:
        rule: dict[str, Any] = {"destinations": [{"region": one, "registryId": ACCOUNT} for one in regions]}
        if filters:
            rule["repositoryFilters"] = [{"filter": one, "filterType": "PREFIX_MATCH"} for one in filters]
        written.append(rule)
    return {"replicationConfiguration": {"rules": written}}


def test_what_a_replication_configuration_names(client: Any) -> None:
    client.put_replication_configuration(**replication(([EU, WEST], ["team/"]), ([EU], [])))
    for wrong, text in (
        (replication(([EU], []), ([EU], ["aa"]), ([EU], ["bb"])), "expected at most 2 replication rules, got 3"),
        (replication(([EU, WEST, SOUTH], [])), "expected at most 2 different destinations over all rules, got 3"),
        (replication(([EU], ["aa", "bb"])), "expected at most 1 filters, got 2"),
    ):
        code, message = refused(client.put_replication_configuration, **wrong)
        assert (code, text in message) == ("InvalidParameterException", True)
    assert len(client.describe_registry()["replicationConfiguration"]["rules"]) == 2


def test_cache_rules(client: Any) -> None:
    client.create_pull_through_cache_rule(ecrRepositoryPrefix="public", upstreamRegistryUrl="public.ecr.aws")
    refusal = refused(
        client.create_pull_through_cache_rule, ecrRepositoryPrefix="other", upstreamRegistryUrl="public.ecr.aws"
    )
    text = "The registry already has the maximum allowed number of pull through cache rules which is '1'"
    assert refusal == ("LimitExceededException", text)
    client.delete_pull_through_cache_rule(ecrRepositoryPrefix="public")
    client.create_pull_through_cache_rule(ecrRepositoryPrefix="other", upstreamRegistryUrl="public.ecr.aws")


def test_creation_templates(client: Any) -> None:
    client.create_repository_creation_template(prefix="team", appliedFor=["REPLICATION"])
    refusal = refused(client.create_repository_creation_template, prefix="other", appliedFor=["REPLICATION"])
    text = "The registry already has the maximum allowed number of repository creation templates which is '1'"
    assert refusal == ("LimitExceededException", text)
    refusal = refused(client.create_repository_creation_template, prefix="team", appliedFor=["REPLICATION"])
    assert refusal[0] == "TemplateAlreadyExistsException"
    client.update_repository_creation_template(prefix="team", description="the team's")
    client.delete_repository_creation_template(prefix="team")
    client.create_repository_creation_template(prefix="other", appliedFor=["REPLICATION"])


def test_rules_of_a_signing_configuration(client: Any) -> None:
    def signing(*filters: list[str]) -> dict[str, Any]:
        rules = [
            {
                "signingProfileArn": PROFILE,
                "repositoryFilters": [{"filter": one, "filterType": "WILDCARD_MATCH"} for one in several],
            }
            for several in filters
        ]
        return {"signingConfiguration": {"rules": rules}}

    client.put_signing_configuration(**signing(["team/*"]))
    code, message = refused(client.put_signing_configuration, **signing(["a*"], ["b*"]))
    assert (code, "expected at most 1 rules, got 2" in message) == ("InvalidParameterException", True)
    code, message = refused(client.put_signing_configuration, **signing(["a*", "b*"]))
    assert (code, "expected at most 1 filters, got 2" in message) == ("InvalidParameterException", True)
    assert client.get_signing_configuration()["signingConfiguration"] == signing(["team/*"])["signingConfiguration"]


def test_pull_time_exclusions(client: Any) -> None:
    client.register_pull_time_update_exclusion(principalArn=f"arn:aws:iam::{ACCOUNT}:role/one")
    refusal = refused(client.register_pull_time_update_exclusion, principalArn=f"arn:aws:iam::{ACCOUNT}:role/two")
    text = "The registry already has the maximum allowed number of pull time update exclusions which is '1'"
    assert refusal == ("LimitExceededException", text)


def test_backfills_in_progress(ecr: EcrNodes, client: Any) -> None:
    client.create_repository(repositoryName="app")
    push(ecr, b"waits")
    client.put_replication_configuration(**replication(([EU, WEST], [])))
    client.start_replication_backfill(destination={"region": EU, "registryId": ACCOUNT})
    refusal = refused(client.start_replication_backfill, destination={"region": WEST, "registryId": ACCOUNT})
    assert refusal == ("LimitExceededException", "1 backfills are in progress")


def push(ecr: EcrNodes, content: bytes) -> str:
    image = build_image([content])
    upload(ecr, "app", image)
    assert put_manifest(ecr, "app", image).status == 201
    return image.digest


class TestScans:
    def test_of_a_registry_in_a_day(self, ecr: EcrNodes, client: Any) -> None:
        client.create_repository(repositoryName="app")
        digests = [push(ecr, str(number).encode()) for number in range(3)]
        for digest in digests[:2]:
            client.start_image_scan(repositoryName="app", imageId={"imageDigest": digest})
        third = {"repositoryName": "app", "imageId": {"imageDigest": digests[2]}}
        text = "The scan quota per image has been exceeded. Wait and try again."
        assert refused(client.start_image_scan, **third) == ("LimitExceededException", text)
        ecr.advance(DAY)
        client.start_image_scan(**third)

    def test_on_push_count_too_and_end_with_the_quota(self, ecr: EcrNodes, client: Any) -> None:
        client.create_repository(repositoryName="app", imageScanningConfiguration={"scanOnPush": True})
        digests = [push(ecr, str(number).encode()) for number in range(3)]
        client.describe_image_scan_findings(repositoryName="app", imageId={"imageDigest": digests[1]})
        third = {"repositoryName": "app", "imageId": {"imageDigest": digests[2]}}
        assert refused(client.describe_image_scan_findings, **third)[0] == "ScanNotFoundException"

    def test_may_be_none(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path, nodes=[node(quotas={"image_scans_per_day": 0})]) as running:
            client = running.client()
            client.create_repository(repositoryName="app")
            image = {"repositoryName": "app", "imageId": {"imageDigest": push(running, b"layer")}}
            assert refused(client.start_image_scan, **image)[0] == "LimitExceededException"
