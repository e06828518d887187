"""What the ECR API says of repositories that the cache fills, and to whom (ECR §10.2, §13.2)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from replicator.core.media_types import OCI_INDEX
from tests.support.ecr_node import ecr_nodes, node
from tests.support.images import build_image
from tests.support.threaded_upstream import ThreadedUpstream
from tests.support.upstreams import Fault, Hold
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes
    from tests.support.images import BuiltImage

NAME, OURS = "library/alpine", "hub/library/alpine"
IMAGE = build_image([b"the image"])
SBOM, SIGNATURE = "application/spdx+json", "application/vnd.signature"
SBOMS = [
    build_image([f"sbom {number}".encode()], subject=IMAGE, artifact_type=SBOM, annotations={"n": str(number)})
    for number in range(4)
]
SIGNED = build_image([b"signature"], subject=IMAGE, artifact_type=SIGNATURE)
SUBJECT = {"imageDigest": IMAGE.digest}


@pytest.fixture
def upstream() -> Iterator[ThreadedUpstream]:
    with ThreadedUpstream() as running:
        running.registry.add(NAME, IMAGE, "latest")
        yield running


@pytest.fixture
def ecr(tmp_path: Path, upstream: ThreadedUpstream) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path, {"upstreams": [{"name": "hub", "url": upstream.url}]}, nodes=[caching()]) as nodes:
        yield nodes


def caching() -> dict[str, Any]:
    return node(cache={"rules": [{"prefix": "hub", "upstream": "hub"}]})


def listed(client: Any, **members: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = client.list_image_referrers(repositoryName=OURS, subjectId=SUBJECT, **members)[
        "referrers"
    ]
    return found


def refer(upstream: ThreadedUpstream, *referrers: BuiltImage) -> None:
    """Have the upstream hold and list referrers of the image."""
    entries = []
    for one in referrers:
        upstream.registry.add(NAME, one)
        entry = {"mediaType": one.media_type, "digest": one.digest, "size": len(one.manifest)}
        document = json.loads(one.manifest)
        more = {"artifactType": document["artifactType"], "annotations": document.get("annotations", {})}
        entries.append({**entry, **more})
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    body = json.dumps(index).encode()
    upstream.registry.faults.on("GET /v2/*/referrers/*", Fault(body=body, content_type=OCI_INDEX))


def digests(found: list[dict[str, Any]]) -> list[str]:
    return [one["digest"] for one in found]


class TestReferrers:
    def test_those_of_the_upstream_follow_those_of_here(self, ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
        client = ecr.client()
        refer(upstream, *SBOMS, SIGNED)
        assert ecr.send("GET", f"/v2/{OURS}/manifests/{SBOMS[0].digest}").status == 200
        rest = sorted((one.digest for one in (*SBOMS[1:], SIGNED)), reverse=True)
        assert digests(listed(client)) == [SBOMS[0].digest, *rest]
        token: dict[str, str] = {}
        pages: list[str] = []
        while True:
            page = client.list_image_referrers(repositoryName=OURS, subjectId=SUBJECT, maxResults=2, **token)
            pages += digests(page["referrers"])
            if "nextToken" not in page:
                break
            token = {"nextToken": page["nextToken"]}
        assert pages == [SBOMS[0].digest, *rest]
        shown = next(one for one in listed(client) if one["digest"] == SBOMS[1].digest)
        assert shown == {
            "digest": SBOMS[1].digest,
            "mediaType": SBOMS[1].media_type,
            "artifactType": SBOM,
            "size": len(SBOMS[1].manifest),
            "annotations": {"n": "1"},
            "artifactStatus": "ACTIVE",
        }

    def test_they_are_filtered_like_those_of_here(self, ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
        client = ecr.client()
        refer(upstream, SBOMS[0], SIGNED)
        assert digests(listed(client, filter={"artifactTypes": [SIGNATURE]})) == [SIGNED.digest]
        assert ecr.send("GET", f"/v2/{OURS}/manifests/latest").status == 200
        assert listed(client, filter={"artifactStatus": "ARCHIVED"}) == []
        assert len(listed(client, filter={"artifactStatus": "ANY"})) == 2

    def test_an_archived_one_is_not_the_upstreams_to_show(self, ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
        client = ecr.client()
        refer(upstream, SIGNED)
        assert ecr.send("GET", f"/v2/{OURS}/manifests/{SIGNED.digest}").status == 200
        image_id = {"imageDigest": SIGNED.digest}
        client.update_image_storage_class(repositoryName=OURS, imageId=image_id, targetStorageClass="ARCHIVE")
        assert listed(client) == []
        assert digests(listed(client, filter={"artifactStatus": "ARCHIVED"})) == [SIGNED.digest]

    def test_an_upstream_that_cannot_say_is_an_error_unless_the_image_is_here(
        self, ecr: EcrNodes, upstream: ThreadedUpstream
    ) -> None:
        client = ecr.client()
        upstream.registry.faults.on("GET /v2/*/referrers/*", Fault(status=503))
        with pytest.raises(client.exceptions.UnableToListUpstreamImageReferrersException) as caught:
            listed(client)
        text = caught.value.response["Error"]["Message"]
        assert text.startswith("The referrer or referrers were unable to be pulled from the upstream registry: ")
        assert ecr.send("GET", f"/v2/{OURS}/manifests/latest").status == 200
        assert listed(client) == []

    def test_a_repository_of_nobody_is_not_found(self, ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
        client = ecr.client()
        upstream.registry.repositories.clear()
        for name in (OURS, "team/app"):
            with pytest.raises(client.exceptions.RepositoryNotFoundException):
                client.list_image_referrers(repositoryName=name, subjectId=SUBJECT)
        assert upstream.registry.count("GET /v2/app/*") == 0


def test_a_batch_is_fetched_a_few_at_once_and_answered_in_order(ecr: EcrNodes, upstream: ThreadedUpstream) -> None:
    """The upstream answers the first only when it has been asked for the others."""
    for number, one in enumerate(SBOMS):
        upstream.registry.add(NAME, one, f"v{number}")
    hold = Hold()
    upstream.registry.faults.on("GET /v2/*/manifests/v0", Fault(hold=hold))

    def asked() -> bool:
        return all(upstream.registry.count(f"GET /v2/*/manifests/v{number}") for number in (1, 2, 3))

    with ThreadPoolExecutor(1) as pool:
        wanted = [{"imageTag": f"v{number}"} for number in (0, 1, 2, 3)] + [{"imageTag": "none"}]
        answer = pool.submit(ecr.client().batch_get_image, repositoryName=OURS, imageIds=wanted)
        try:
            eventually(asked, "the others to be asked for")
        finally:
            upstream.call(hold.release)
        found = answer.result(20)
    assert [one["imageId"]["imageTag"] for one in found["images"]] == ["v0", "v1", "v2", "v3"]
    assert [one["imageId"]["imageTag"] for one in found["failures"]] == ["none"]
