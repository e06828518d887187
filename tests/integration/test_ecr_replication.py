"""Replication configuration, status and backfills, as boto3 sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.core.names import RepositoryName, Tag
from tests.support.ecr_images import push, put_manifest
from tests.support.ecr_node import ACCOUNT, OTHER_ACCOUNT, ecr_nodes, node
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

US, EU, AP = "us-east-1", "eu-west-1", "ap-south-1"
REPOSITORY = RepositoryName("team/app")
IMAGE, OTHER = build_image([b"image"]), build_image([b"other"])
INDEX = build_index([IMAGE, OTHER])


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path, nodes=[node(US), node(EU), node(AP)]) as nodes:
        yield nodes


def to(*regions: str, account: str = ACCOUNT, filters: tuple[str, ...] = (), **members: object) -> dict[str, Any]:
    rule: dict[str, Any] = {"destinations": [{"region": one, "registryId": account} for one in regions], **members}
    if filters:
        rule["repositoryFilters"] = [{"filter": one, "filterType": "PREFIX_MATCH"} for one in filters]
    return rule


def put(ecr: EcrNodes, *rules: dict[str, Any]) -> dict[str, Any]:
    answer = ecr.client().put_replication_configuration(replicationConfiguration={"rules": list(rules)})
    return dict(answer["replicationConfiguration"])


def in_force(ecr: EcrNodes) -> list[dict[str, Any]]:
    return list(ecr.client().describe_registry()["replicationConfiguration"]["rules"])


def refused(ecr: EcrNodes, *rules: dict[str, Any]) -> tuple[str, str]:
    with pytest.raises(ClientError) as error:
        put(ecr, *rules)
    found = error.value.response["Error"]
    return found["Code"], found["Message"]


def statuses(ecr: EcrNodes, **image_id: str) -> dict[str, str]:
    found = ecr.client().describe_image_replication_status(repositoryName=REPOSITORY, imageId=image_id)
    return {one["region"]: one["status"] for one in found["replicationStatuses"]}


def until_complete(ecr: EcrNodes, *regions: str, **image_id: str) -> None:
    async def is_complete() -> bool:
        rows = await ecr.node(f"{ACCOUNT}/{US}").replication.use_cases.status.of_image(
            REPOSITORY, Tag(image_id["imageTag"])
        )
        return {one.destination: one.status for one in rows} == {
            f"{ACCOUNT}/{region}": "COMPLETE" for region in regions
        }

    ecr.until(is_complete)


def test_a_registry_has_no_rules_at_first(ecr: EcrNodes) -> None:
    found = ecr.client().describe_registry()
    assert (found["registryId"], found["replicationConfiguration"]) == (ACCOUNT, {"rules": []})


def test_a_put_replaces_everything_and_images_go_by_it(ecr: EcrNodes) -> None:
    rules = [to(EU, filters=("team/", "te")), to(EU, AP, deleteReplication={"enabled": True})]
    assert put(ecr, *rules) == {"rules": rules}
    assert in_force(ecr) == rules
    push(ecr, REPOSITORY, IMAGE, "v1")
    until_complete(ecr, EU, AP, imageTag="v1")
    assert statuses(ecr, imageTag="v1") == statuses(ecr, imageDigest=IMAGE.digest) == {EU: "COMPLETE", AP: "COMPLETE"}
    for region in (EU, AP):
        assert ecr.send("GET", f"/v2/{REPOSITORY}/manifests/v1", node=f"{ACCOUNT}/{region}").body == IMAGE.manifest
    put(ecr)
    assert in_force(ecr) == []


def test_a_filter_is_a_literal_start_of_the_name(ecr: EcrNodes) -> None:
    put(ecr, to(EU, filters=("tea", "base/")))
    for repository in ("team/app", "base", "xtea"):
        push(ecr, repository, IMAGE, "v1")
    until_complete(ecr, EU, imageTag="v1")
    client = ecr.client()
    for repository in ("base", "xtea"):
        found = client.describe_image_replication_status(repositoryName=repository, imageId={"imageTag": "v1"})
        assert found["replicationStatuses"] == []


def test_the_limits_and_senseless_destinations_are_refused(ecr: EcrNodes) -> None:
    code, text = refused(ecr, to(US))
    assert (code, text) == (
        "InvalidParameterException",
        "Invalid parameter at 'replicationConfiguration' failed to satisfy constraint: 'Replication destination cannot"
        " be the same as the source registry'",
    )
    assert refused(ecr, to("mars-1"))[0] == "InvalidParameterException"
    assert refused(ecr, to(EU, account=OTHER_ACCOUNT))[0] == "InvalidParameterException"
    assert refused(ecr, *[to(EU)] * 11)[0] == "InvalidParameterException"
    assert refused(ecr, to(EU, filters=tuple(f"team{number}/" for number in range(101))))[0] == (
        "InvalidParameterException"
    )
    assert in_force(ecr) == []


def test_twenty_five_destinations_are_the_most(tmp_path: Path) -> None:
    settings = node(US, replication={"unknown_destinations": "accept"})
    with ecr_nodes(tmp_path, nodes=[settings]) as ecr:
        regions = [f"eu-west-{number}" for number in range(26)]
        assert len(put(ecr, to(*regions[:25]))["rules"]) == 1
        assert refused(ecr, to(*regions))[0] == "InvalidParameterException"
        assert refused(ecr, to(*regions[:13]), to(*regions[13:]))[0] == "InvalidParameterException"
        assert in_force(ecr) == [to(*regions[:25])]


def test_an_unknown_destination_that_is_accepted_fails_at_once_and_for_good(tmp_path: Path) -> None:
    accepting = node(US, replication={"unknown_destinations": "accept"})
    with ecr_nodes(tmp_path, nodes=[accepting]) as ecr:
        put(ecr, to(EU))
        push(ecr, REPOSITORY, IMAGE, "v1")

        async def has_failed() -> bool:
            rows = await ecr.node().replication.use_cases.status.of_image(REPOSITORY, Tag("v1"))
            return [one.status for one in rows] == ["FAILED"]

        ecr.until(has_failed)
        found = ecr.client().describe_image_replication_status(repositoryName=REPOSITORY, imageId={"imageTag": "v1"})
        assert found["replicationStatuses"] == [
            {"region": EU, "registryId": ACCOUNT, "status": "FAILED", "failureCode": "DestinationNotFound"}
        ]
    with ecr_nodes(tmp_path, nodes=[accepting, node(EU)]) as ecr:
        ecr.advance(1)
        until_complete(ecr, EU, imageTag="v1")


def test_the_status_of_what_is_not_there(ecr: EcrNodes) -> None:
    def failure(**image_id: str) -> str:
        with pytest.raises(ClientError) as error:
            statuses(ecr, **image_id)
        return str(error.value.response["Error"]["Code"])

    assert failure(imageTag="v1") == "RepositoryNotFoundException"
    push(ecr, REPOSITORY, IMAGE, "v1")
    push(ecr, REPOSITORY, OTHER, "v2")
    for image_id in (
        {"imageTag": "v9"},
        {"imageDigest": INDEX.digest},
        {"imageTag": "v1", "imageDigest": OTHER.digest},
    ):
        assert failure(**image_id) == "ImageNotFoundException"
    assert failure() == "InvalidParameterException"
    assert statuses(ecr, imageTag="v1", imageDigest=IMAGE.digest) == {}


def test_rules_of_the_file_are_shown_and_may_be_put_back(tmp_path: Path) -> None:
    declared = {"rules": [{"name": "to-eu", "destinations": [{"account": ACCOUNT, "region": EU}]}]}
    with ecr_nodes(tmp_path, nodes=[node(US, replication=declared), node(EU), node(AP)]) as ecr:
        assert in_force(ecr) == [to(EU)]
        put(ecr, to(EU), to(AP, filters=("team/",)))
        assert in_force(ecr) == [to(EU), to(AP, filters=("team/",))]
        put(ecr, to(EU))
        assert in_force(ecr) == [to(EU)]
        code, text = refused(ecr)
        assert code == "InvalidParameterException"
        assert "replicator.yaml" in text


def test_a_backfill_brings_what_was_there(ecr: EcrNodes) -> None:
    client = ecr.client()
    push(ecr, REPOSITORY, OTHER)
    push(ecr, REPOSITORY, IMAGE, "v2")
    assert put_manifest(ecr, REPOSITORY, INDEX, "v1").status == 201
    destination = {"region": EU, "registryId": ACCOUNT}
    with pytest.raises(client.exceptions.ValidationException):
        client.start_replication_backfill(destination=destination)
    put(ecr, to(EU))
    started = client.start_replication_backfill(destination=destination)
    assert (started["registryId"], started["destination"]) == (ACCOUNT, destination)
    assert started["status"] == "PREPARING"
    backfill_id = started["replicationBackfillId"]

    async def is_over() -> bool:
        return (await ecr.node().replication.backfills.get(backfill_id)).state.is_terminal

    ecr.until(is_over)
    found = client.describe_replication_backfill_results(replicationBackfillId=backfill_id)
    assert (found["status"], found["startedAt"] <= found["endedAt"]) == ("COMPLETE", True)
    results = {(one["imageId"].get("imageTag"), one["status"]) for one in found["results"]}
    assert {("v1", "COMPLETE"), ("v2", "COMPLETE")} <= results
    assert found["progress"] == {
        "totalReplicationCount": len(found["results"]),
        "completedReplicationCount": len(found["results"]),
        "failedReplicationCount": 0,
        "failureCodes": [],
    }
    pages = client.get_paginator("describe_replication_backfill_results").paginate(
        replicationBackfillId=backfill_id, PaginationConfig={"PageSize": 1}
    )
    assert [len(page["results"]) for page in pages] == [1] * len(found["results"])
    failed = client.describe_replication_backfill_results(
        replicationBackfillId=backfill_id, resultStatusFilter="FAILED"
    )
    assert failed["results"] == []
    with pytest.raises(client.exceptions.ReplicationBackfillInvalidStatusException):
        client.stop_replication_backfill(replicationBackfillId=backfill_id)
    assert ecr.send("GET", f"/v2/{REPOSITORY}/manifests/v1", node=f"{ACCOUNT}/{EU}").body == INDEX.manifest


def test_backfills_are_listed_by_pages_the_youngest_first(ecr: EcrNodes) -> None:
    client = ecr.client()
    put(ecr, to(EU, AP))
    made: list[str] = []
    for region in (EU, AP):
        started = client.start_replication_backfill(destination={"region": region, "registryId": ACCOUNT})
        made.insert(0, started["replicationBackfillId"])
        ecr.advance(1)
    listed = client.list_replication_backfills()
    assert [one["replicationBackfillId"] for one in listed["backfills"]] == made
    assert "nextToken" not in listed
    pages = client.get_paginator("list_replication_backfills").paginate(PaginationConfig={"PageSize": 1})
    assert [one["replicationBackfillId"] for page in pages for one in page["backfills"]] == made
    with pytest.raises(client.exceptions.InvalidParameterException):
        client.list_replication_backfills(nextToken="senseless")


def test_an_unknown_backfill_is_not_found(ecr: EcrNodes) -> None:
    client = ecr.client()
    unknown = "00000000-0000-4000-8000-000000000000"
    for ask in (client.stop_replication_backfill, client.describe_replication_backfill_results):
        with pytest.raises(client.exceptions.ReplicationBackfillNotFoundException):
            ask(replicationBackfillId=unknown)
