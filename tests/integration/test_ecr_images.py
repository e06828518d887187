"""Images through the ECR API, as a client of AWS sees them (ECR §6, §19 (11) to (17))."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.core.media_types import DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from tests.support.ecr_images import push, upload
from tests.support.ecr_node import ecr_nodes
from tests.support.images import build_image, build_index

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes
    from tests.support.images import Built

REPOSITORY = "team/app"
ACCOUNT = "123456789012"
HERE = f"repository with name '{REPOSITORY}' in the registry with id '{ACCOUNT}'"
ONE, TWO, THREE = (build_image([text]) for text in (b"1", b"22", b"333"))
ABSENT = "sha256:" + "0" * 64


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path) as nodes:
        nodes.client().create_repository(repositoryName=REPOSITORY)
        yield nodes


@pytest.fixture
def client(ecr: EcrNodes) -> Any:
    return ecr.client()


def put(client: Any, built: Built, tag: str | None = None, **more: str) -> Any:
    tagged = {"imageTag": tag} if tag else {}
    return client.put_image(
        repositoryName=REPOSITORY,
        imageManifest=built.manifest.decode(),
        imageManifestMediaType=built.media_type,
        **tagged,
        **more,
    )


def refusal(call: Any, **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(repositoryName=REPOSITORY, **members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def listed(client: Any, **members: Any) -> list[tuple[str, str | None]]:
    pages = client.get_paginator("list_images").paginate(repositoryName=REPOSITORY, **members)
    return [(one["imageDigest"], one.get("imageTag")) for page in pages for one in page["imageIds"]]


class TestPut:
    def test_an_image_is_stored_exactly_as_it_was_written(self, ecr: EcrNodes, client: Any) -> None:
        upload(ecr, REPOSITORY, ONE)
        answer = put(client, ONE, "v1", imageDigest=ONE.digest)["image"]
        assert answer == {
            "registryId": ACCOUNT,
            "repositoryName": REPOSITORY,
            "imageId": {"imageDigest": ONE.digest, "imageTag": "v1"},
            "imageManifest": ONE.manifest.decode(),
            "imageManifestMediaType": ONE.media_type,
        }
        assert ecr.send("GET", f"/v2/{REPOSITORY}/manifests/v1").body == ONE.manifest

    def test_an_image_is_tagged_again_with_its_own_text(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        ecr.advance(1)
        found = client.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "v1"}])["images"][0]
        client.put_image(repositoryName=REPOSITORY, imageManifest=found["imageManifest"], imageTag="latest")
        assert listed(client) == [(ONE.digest, "v1"), (ONE.digest, "latest")]

    def test_a_media_type_may_stand_beside_the_manifest_alone(self, ecr: EcrNodes, client: Any) -> None:
        upload(ecr, REPOSITORY, ONE)
        text = json.dumps({key: value for key, value in json.loads(ONE.manifest).items() if key != "mediaType"})
        stored = client.put_image(repositoryName=REPOSITORY, imageManifest=text, imageManifestMediaType=DOCKER_MANIFEST)
        assert stored["image"]["imageManifestMediaType"] == DOCKER_MANIFEST
        assert self.served(ecr, stored) == (DOCKER_MANIFEST, text)

    def test_a_typeless_manifest_is_no_longer_dockers_once_somebody_pushes_it(self, ecr: EcrNodes, client: Any) -> None:
        """Bytes have one type for all repositories; whoever is first must not choose it for the others."""
        upload(ecr, REPOSITORY, ONE)
        text = json.dumps({key: value for key, value in json.loads(ONE.manifest).items() if key != "mediaType"})
        stored = client.put_image(repositoryName=REPOSITORY, imageManifest=text, imageManifestMediaType=DOCKER_MANIFEST)
        client.create_repository(repositoryName="team/other")
        upload(ecr, "team/other", ONE)
        for stated, status in ((DOCKER_MANIFEST, 400), (OCI_MANIFEST, 201)):
            path, headers = "/v2/team/other/manifests/v1", {"Content-Type": stated}
            assert ecr.send("PUT", path, text.encode(), headers).status == status
        assert self.served(ecr, stored) == (OCI_MANIFEST, text)

    def test_the_manifests_own_type_counts_beside_another_of_its_kind(self, ecr: EcrNodes, client: Any) -> None:
        upload(ecr, REPOSITORY, ONE)
        text = ONE.manifest.decode()
        stored = client.put_image(repositoryName=REPOSITORY, imageManifest=text, imageManifestMediaType=DOCKER_MANIFEST)
        assert stored["image"]["imageManifestMediaType"] == OCI_MANIFEST
        assert self.served(ecr, stored) == (OCI_MANIFEST, text)
        code, message = refusal(client.put_image, imageManifest=text, imageTag="x", imageManifestMediaType=OCI_INDEX)
        assert (code, "contradicts" in message) == ("InvalidParameterException", True)

    def served(self, ecr: EcrNodes, stored: Any) -> tuple[str, str]:
        """Return type and text with which an image is served."""
        reply = ecr.send("GET", f"/v2/{REPOSITORY}/manifests/{stored['image']['imageId']['imageDigest']}")
        return reply.headers["Content-Type"], reply.body.decode()

    def test_a_manifest_that_is_no_json_or_of_no_type_is_refused(self, client: Any) -> None:
        assert refusal(client.put_image, imageManifest="{", imageTag="v1") == (
            "InvalidParameterException",
            "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'",
        )
        assert refusal(client.put_image, imageManifest="[]") == (
            "InvalidParameterException",
            "Invalid parameter at 'ImageManifest' failed to satisfy constraint: 'Invalid JSON syntax'",
        )
        document = {key: value for key, value in json.loads(ONE.manifest).items() if key != "mediaType"}
        assert refusal(client.put_image, imageManifest=json.dumps(document)) == (
            "InvalidParameterException",
            "image manifest mediatype not provided in manifest or parameter",
        )
        code, message = refusal(client.put_image, imageManifest='{"schemaVersion": 1, "mediaType": "x"}')
        assert (code, "schema 1 is not supported" in message) == ("InvalidParameterException", True)

    def test_another_digest_than_the_stated_one_is_refused(self, ecr: EcrNodes, client: Any) -> None:
        upload(ecr, REPOSITORY, ONE)
        with pytest.raises(client.exceptions.ImageDigestDoesNotMatchException):
            put(client, ONE, "v1", imageDigest=TWO.digest)
        with pytest.raises(client.exceptions.InvalidParameterException, match="imageDigest"):
            put(client, ONE, "v1", imageDigest="sha256:1")
        with pytest.raises(client.exceptions.InvalidParameterException, match="imageTag"):
            put(client, ONE, "no tag")
        assert listed(client) == []

    def test_what_an_image_needs_must_be_here(self, ecr: EcrNodes, client: Any) -> None:
        text, media_type = ONE.manifest.decode(), ONE.media_type
        code, message = refusal(client.put_image, imageManifest=text, imageManifestMediaType=media_type)
        needed = ", ".join(ONE.blobs)
        assert (code, message) == (
            "LayersNotFoundException",
            f"Layers with digests '[{needed}]' required for pushing image into {HERE} do not exist",
        )
        both = build_index([ONE, TWO])
        push(ecr, REPOSITORY, TWO)
        code, message = refusal(client.put_image, imageManifest=both.manifest.decode())
        assert (code, message) == (
            "ReferencedImagesNotFoundException",
            f"Images with digests '[{ONE.digest}]' required for pushing image into {HERE} do not exist",
        )
        answer = ecr.send("PUT", f"/v2/{REPOSITORY}/manifests/all", both.manifest, {"Content-Type": both.media_type})
        error = answer.json()["errors"][0]
        assert (answer.status, error["code"], error["message"]) == (404, "MANIFEST_BLOB_UNKNOWN", message)

    def test_an_image_that_is_here_under_the_tag_exists_already(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        where = f"already exists in the repository with name '{REPOSITORY}' in registry with id '{ACCOUNT}'"
        for members, tag in (({"imageTag": "v1"}, "v1"), ({}, "null")):
            code, message = refusal(client.put_image, imageManifest=ONE.manifest.decode(), **members)
            assert code == "ImageAlreadyExistsException"
            assert message == f"Image with digest '{ONE.digest}' and tag '{tag}' {where}"
        push(ecr, REPOSITORY, ONE, "v1")

    def test_a_tag_that_moves_leaves_the_image_without_a_tag(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        upload(ecr, REPOSITORY, TWO)
        ecr.advance(5)
        put(client, TWO, "v1")
        assert listed(client) == [(ONE.digest, None), (TWO.digest, "v1")]

    def test_a_missing_repository_is_not_made(self, client: Any) -> None:
        with pytest.raises(client.exceptions.RepositoryNotFoundException) as caught:
            client.put_image(repositoryName="no/such", imageManifest=ONE.manifest.decode(), imageTag="v1")
        assert caught.value.response["Error"]["Message"] == (
            f"The repository with name 'no/such' does not exist in the registry with id '{ACCOUNT}'"
        )

    def test_an_image_has_at_most_a_thousand_tags(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE)
        kind = {"Content-Type": ONE.media_type}
        for first in range(0, 1000, 50):
            names = "&".join(f"tag=t{number}" for number in range(first, first + 50))
            path = f"/v2/{REPOSITORY}/manifests/{ONE.digest}?{names}"
            assert ecr.send("PUT", path, ONE.manifest, kind).status == 201
        with pytest.raises(client.exceptions.LimitExceededException):
            put(client, ONE, "one-more")
        assert len(listed(client)) == 1000


class TestGet:
    def test_images_are_found_by_tag_by_digest_and_by_both(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        wanted = [{"imageTag": "v1"}, {"imageDigest": ONE.digest}, {"imageTag": "v1", "imageDigest": ONE.digest}]
        answer = client.batch_get_image(repositoryName=REPOSITORY, imageIds=wanted)
        assert [one["imageId"] for one in answer["images"]] == [
            {"imageDigest": ONE.digest, **named} for named in ({"imageTag": "v1"}, {}, {"imageTag": "v1"})
        ]
        assert {one["imageManifest"] for one in answer["images"]} == {ONE.manifest.decode()}
        assert answer["failures"] == []

    def test_an_answer_holds_so_much_and_no_more(self, ecr: EcrNodes, client: Any) -> None:
        """A hundred tags of one large manifest would be an answer of hundreds of megabytes."""
        upload(ecr, REPOSITORY, ONE)
        text = json.dumps({**json.loads(ONE.manifest), "annotations": {"filler": "x" * (3 * 2**20)}})
        for tag in ("a", "b", "c"):
            client.put_image(repositoryName=REPOSITORY, imageManifest=text, imageTag=tag)
        two = client.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "a"}, {"imageTag": "b"}])
        assert [one["imageManifest"] for one in two["images"]] == [text, text]
        with pytest.raises(ClientError, match=r"LimitExceededException.*larger than 8388608 bytes together"):
            client.batch_get_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": tag} for tag in ("a", "b", "c")])

    def test_what_is_wrong_with_each_is_said(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        push(ecr, REPOSITORY, TWO, "v2")
        wanted = [
            {"imageTag": "v3"},
            {"imageDigest": ABSENT},
            {},
            {"imageDigest": "sha256:not-hex"},
            {"imageTag": "no tag"},
            {"imageTag": "v1", "imageDigest": TWO.digest},
            {"imageTag": "v1"},
        ]
        answer = client.batch_get_image(repositoryName=REPOSITORY, imageIds=wanted)
        assert [(one["imageId"], one["failureCode"]) for one in answer["failures"]] == list(
            zip(
                wanted,
                [
                    "ImageNotFound",
                    "ImageNotFound",
                    "MissingDigestAndTag",
                    "InvalidImageDigest",
                    "InvalidImageTag",
                    "ImageTagDoesNotMatchDigest",
                ],
                strict=False,
            )
        )
        reasons = [one["failureReason"] for one in answer["failures"]]
        assert reasons[0] == "Requested image not found"
        assert reasons[2] == "Invalid request parameters: both tag and digest cannot be null"
        assert reasons[3] == (
            "Invalid request parameters: image digest should satisfy the regex '[a-zA-Z0-9-_+.]+:[a-fA-F0-9]+'"
        )
        assert len(answer["images"]) == 1

    def test_a_missing_repository_fails_the_whole_call(self, client: Any) -> None:
        for wanted in ({"imageTag": "v1"}, {}):
            with pytest.raises(client.exceptions.RepositoryNotFoundException):
                client.batch_get_image(repositoryName="no/such", imageIds=[wanted])


class TestDelete:
    def delete(self, client: Any, *wanted: dict[str, str]) -> tuple[list[Any], list[tuple[Any, str]]]:
        answer = client.batch_delete_image(repositoryName=REPOSITORY, imageIds=list(wanted))
        return answer["imageIds"], [(one["imageId"], one["failureCode"]) for one in answer["failures"]]

    def test_the_last_tag_takes_the_image_with_it(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        push(ecr, REPOSITORY, ONE, "v2")
        assert self.delete(client, {"imageTag": "v1"}) == ([{"imageDigest": ONE.digest, "imageTag": "v1"}], [])
        assert listed(client) == [(ONE.digest, "v2")]
        assert self.delete(client, {"imageTag": "v2"}) == ([{"imageDigest": ONE.digest, "imageTag": "v2"}], [])
        assert listed(client) == []
        assert ecr.send("GET", f"/v2/{REPOSITORY}/manifests/{ONE.digest}").status == 404

    def test_a_digest_takes_all_tags_and_lists_each(self, ecr: EcrNodes, client: Any) -> None:
        for tag in ("v1", "v2"):
            push(ecr, REPOSITORY, ONE, tag)
        push(ecr, REPOSITORY, TWO)
        deleted, failures = self.delete(client, {"imageDigest": ONE.digest}, {"imageDigest": TWO.digest})
        assert deleted == [
            {"imageDigest": ONE.digest, "imageTag": "v1"},
            {"imageDigest": ONE.digest, "imageTag": "v2"},
            {"imageDigest": TWO.digest},
        ]
        assert (failures, listed(client)) == ([], [])

    def test_a_digest_with_a_tag_of_it_takes_the_image(self, ecr: EcrNodes, client: Any) -> None:
        for tag in ("v1", "v2"):
            push(ecr, REPOSITORY, ONE, tag)
        deleted, _ = self.delete(client, {"imageDigest": ONE.digest, "imageTag": "v2"})
        assert [one["imageTag"] for one in deleted] == ["v1", "v2"]
        assert listed(client) == []

    def test_what_is_wrong_with_each_is_said_and_nothing_of_it_changes(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        push(ecr, REPOSITORY, TWO, "v2")
        wanted = [
            ({}, "MissingDigestAndTag"),
            ({"imageDigest": "sha256:x"}, "InvalidImageDigest"),
            ({"imageTag": "-"}, "InvalidImageTag"),
            ({"imageTag": "v3"}, "ImageNotFound"),
            ({"imageDigest": ONE.digest, "imageTag": "v3"}, "ImageNotFound"),
            ({"imageDigest": ONE.digest, "imageTag": "v2"}, "ImageTagDoesNotMatchDigest"),
        ]
        assert self.delete(client, *(one for one, _ in wanted)) == ([], wanted)
        assert listed(client) == [(ONE.digest, "v1"), (TWO.digest, "v2")]

    def test_an_image_that_an_index_lists_stays_until_the_index_is_gone(self, ecr: EcrNodes, client: Any) -> None:
        both = build_index([ONE, TWO])
        push(ecr, REPOSITORY, ONE, "one")
        push(ecr, REPOSITORY, ONE, "uno")
        push(ecr, REPOSITORY, TWO)
        push(ecr, REPOSITORY, both, "all")
        assert self.delete(client, {"imageTag": "uno"})[1] == []
        answer = client.batch_delete_image(
            repositoryName=REPOSITORY, imageIds=[{"imageTag": "one"}, {"imageDigest": TWO.digest}]
        )
        assert answer["imageIds"] == []
        assert {(one["failureCode"], one["failureReason"]) for one in answer["failures"]} == {
            ("ImageReferencedByManifestList", f"Requested image referenced by manifest list: [{both.digest}]")
        }
        assert (ONE.digest, "one") in listed(client)
        refused = ecr.send("DELETE", f"/v2/{REPOSITORY}/manifests/{ONE.digest}")
        error = refused.json()["errors"][0]
        assert (refused.status, error["code"]) == (405, "UNSUPPORTED")
        assert error["message"] == f"Requested image referenced by manifest list: [{both.digest}]"
        assert self.delete(client, {"imageTag": "all"}) == ([{"imageDigest": both.digest, "imageTag": "all"}], [])
        assert sorted(digest for digest, _ in listed(client)) == sorted([ONE.digest, TWO.digest])
        assert self.delete(client, {"imageTag": "one"}, {"imageDigest": TWO.digest})[1] == []

    def test_referrers_go_with_their_subject(self, ecr: EcrNodes, client: Any) -> None:
        signature = build_image([b"s"], subject=ONE, artifact_type="application/vnd.signature")
        of_signature = build_image([b"t"], subject=signature, artifact_type="application/vnd.signature")
        for built in (ONE, signature, of_signature):
            push(ecr, REPOSITORY, built)
        self.delete(client, {"imageDigest": ONE.digest})
        assert listed(client) == []


class TestListing:
    def fill(self, ecr: EcrNodes) -> None:
        push(ecr, REPOSITORY, THREE, "b")
        push(ecr, REPOSITORY, THREE, "a")
        push(ecr, REPOSITORY, ONE)
        push(ecr, REPOSITORY, TWO, "c")

    def test_images_come_in_push_order_in_pages_of_any_size(self, ecr: EcrNodes, client: Any) -> None:
        self.fill(ecr)
        expected = [(THREE.digest, "b"), (THREE.digest, "a"), (ONE.digest, None), (TWO.digest, "c")]
        for size in (1, 2, 3, 4, 1000):
            assert listed(client, PaginationConfig={"PageSize": size}) == expected
        assert listed(client, filter={"tagStatus": "UNTAGGED"}) == [(ONE.digest, None)]
        assert len(listed(client, filter={"tagStatus": "TAGGED"})) == 3
        assert "nextToken" not in client.list_images(repositoryName=REPOSITORY, maxResults=4)

    def test_what_is_pushed_and_deleted_between_pages_moves_nothing_else(self, ecr: EcrNodes, client: Any) -> None:
        self.fill(ecr)
        first = client.describe_images(repositoryName=REPOSITORY, maxResults=1)
        push(ecr, REPOSITORY, build_image([b"4"]), "d")
        client.batch_delete_image(repositoryName=REPOSITORY, imageIds=[{"imageDigest": THREE.digest}])
        rest = client.describe_images(repositoryName=REPOSITORY, nextToken=first["nextToken"])
        assert [one["imageDigest"] for one in rest["imageDetails"]][:2] == [ONE.digest, TWO.digest]
        assert len(rest["imageDetails"]) == 3

    def test_a_token_of_nobody_is_refused(self, ecr: EcrNodes, client: Any) -> None:
        token = client.describe_repositories()  # any answer
        assert "nextToken" not in token
        for operation in (client.list_images, client.describe_images):
            assert refusal(operation, nextToken="djE6eA==")[0] == "InvalidParameterException"

    def test_everything_that_is_known_of_an_image_is_described(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, THREE, "b")
        push(ecr, REPOSITORY, THREE, "a")
        layers = sum(one["size"] for one in json.loads(THREE.manifest)["layers"])
        (detail,) = client.describe_images(repositoryName=REPOSITORY)["imageDetails"]
        pushed_at = detail.pop("imagePushedAt")
        assert pushed_at.timestamp() == ecr.clock.now() - 1, "another tag does not change when it was pushed"
        assert detail == {
            "registryId": ACCOUNT,
            "repositoryName": REPOSITORY,
            "imageDigest": THREE.digest,
            "imageTags": ["b", "a"],
            "imageSizeInBytes": layers,
            "imageManifestMediaType": THREE.media_type,
            "artifactMediaType": "application/vnd.oci.image.config.v1+json",
            "imageStatus": "ACTIVE",
        }

    def test_an_index_is_as_large_as_its_largest_image(self, ecr: EcrNodes, client: Any) -> None:
        both = build_index([ONE, THREE])
        for built in (ONE, THREE, both):
            push(ecr, REPOSITORY, built)
        details = client.describe_images(repositoryName=REPOSITORY)["imageDetails"]
        sizes = {one["imageDigest"]: one["imageSizeInBytes"] for one in details}
        assert sizes[both.digest] == max(sizes[ONE.digest], sizes[THREE.digest])
        (index,) = (one for one in details if one["imageDigest"] == both.digest)
        assert "imageTags" not in index
        assert "artifactMediaType" not in index

    def test_named_images_are_described_once_or_not_at_all(self, ecr: EcrNodes, client: Any) -> None:
        self.fill(ecr)
        found = client.describe_images(
            repositoryName=REPOSITORY, imageIds=[{"imageTag": "c"}, {"imageTag": "a"}, {"imageDigest": TWO.digest}]
        )["imageDetails"]
        assert [one["imageDigest"] for one in found] == [TWO.digest, THREE.digest]
        code, message = refusal(client.describe_images, imageIds=[{"imageTag": "c"}, {"imageTag": "x"}])
        assert code == "ImageNotFoundException"
        assert message == (
            f"The image with imageId {{imageDigest:'null', imageTag:'x'}} does not exist within the {HERE}"
        )
        code, message = refusal(client.describe_images, imageIds=[{"imageDigest": ABSENT, "imageTag": "c"}])
        assert f"{{imageDigest:'{ABSENT}', imageTag:'c'}}" in message
        assert refusal(client.describe_images, imageIds=[{"imageTag": "c"}], maxResults=5)[0] == (
            "InvalidParameterException"
        )
        assert refusal(client.describe_images, imageIds=[{}])[0] == "InvalidParameterException"

    def test_a_missing_repository_is_said_in_ecrs_words(self, client: Any) -> None:
        for operation in (client.list_images, client.describe_images):
            with pytest.raises(client.exceptions.RepositoryNotFoundException, match="'no/such' does not exist"):
                operation(repositoryName="no/such")


class TestReferrers:
    def test_the_newest_come_first_in_pages(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE)
        made = [
            build_image([b"%d" % number], subject=ONE, artifact_type=f"application/vnd.{kind}", annotations={"k": kind})
            for number, kind in enumerate("aba")
        ]
        for built in made:
            push(ecr, REPOSITORY, built)
        newest, *older = [built.digest for built in reversed(made)]
        subject = {"imageDigest": ONE.digest}
        first = client.list_image_referrers(repositoryName=REPOSITORY, subjectId=subject, maxResults=1)
        assert first["referrers"] == [
            {
                "digest": newest,
                "mediaType": made[2].media_type,
                "artifactType": "application/vnd.a",
                "size": len(made[2].manifest),
                "annotations": {"k": "a"},
                "artifactStatus": "ACTIVE",
            }
        ]
        rest = client.list_image_referrers(repositoryName=REPOSITORY, subjectId=subject, nextToken=first["nextToken"])
        assert [one["digest"] for one in rest["referrers"]] == older
        assert "nextToken" not in rest
        of_type = client.list_image_referrers(
            repositoryName=REPOSITORY, subjectId=subject, filter={"artifactTypes": ["application/vnd.b"]}
        )["referrers"]
        assert [one["digest"] for one in of_type] == [made[1].digest]
        details = client.describe_images(repositoryName=REPOSITORY, imageIds=[{"imageDigest": newest}])["imageDetails"]
        assert (details[0]["subjectManifestDigest"], details[0]["artifactMediaType"]) == (
            ONE.digest,
            "application/vnd.a",
        )

    def test_a_page_of_large_ones_is_short_and_none_is_left_out(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE)
        filler = {"filler": "x" * 2**20}
        made = [build_image([b"%d" % number], subject=ONE, annotations=filler) for number in range(10)]
        for built in made:
            push(ecr, REPOSITORY, built)
        subject = {"imageDigest": ONE.digest}
        pages: list[list[str]] = []
        more: dict[str, str] = {}
        while not pages or more:
            page = client.list_image_referrers(repositoryName=REPOSITORY, subjectId=subject, maxResults=50, **more)
            pages.append([one["digest"] for one in page["referrers"]])
            more = {"nextToken": page["nextToken"]} if "nextToken" in page else {}
        assert len(pages) == 2
        assert pages[0] + pages[1] == [built.digest for built in reversed(made)]

    def test_an_unknown_subject_has_none(self, client: Any) -> None:
        found = client.list_image_referrers(repositoryName=REPOSITORY, subjectId={"imageDigest": ABSENT})
        assert found["referrers"] == []


class TestTextsOfTheRegistry:
    def test_an_image_that_is_not_here_is_named_as_ecr_names_it(self, ecr: EcrNodes) -> None:
        for reference in ("v9", ABSENT, "-bad-"):
            for method in ("GET",) if reference == "-bad-" else ("GET", "DELETE"):
                answer = ecr.send(method, f"/v2/{REPOSITORY}/manifests/{reference}")
                error = answer.json()["errors"][0]
                assert (answer.status, error["code"]) == (404, "MANIFEST_UNKNOWN")
                assert error["message"] == "Requested image not found"
