"""Images between storage classes through the ECR API (ECR §13.1, §19 (50))."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.core.errors import BlobArchived, ImageInaccessible
from replicator.core.image_requests import RequestedImage
from replicator.core.image_status import ImageStatus, StorageClass
from replicator.core.names import RepositoryName
from replicator.registry.storage_classes import StorageClasses
from replicator.storage.metadata import image_states
from tests.support.clock import FakeClock
from tests.support.ecr_images import push, put_manifest, upload
from tests.support.ecr_node import ecr_nodes, node
from tests.support.images import build_image, build_index
from tests.support.pull_through_node import ALPINE, LATEST, caching_node
from tests.support.upstreams import FakeRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from replicator.core.digest import Digest
    from tests.support.ecr_node import EcrNodes

REPOSITORY = "team/app"
ONE, TWO = (build_image([text]) for text in (b"1", b"22"))
BOTH = build_index([ONE, TWO])
SIGNATURE = build_image([b"s"], subject=ONE, artifact_type="application/vnd.signature")
MINUTES = 120
ANY = {"imageStatus": "ANY"}


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path, nodes=[node(repositories={"activation_time": f"{MINUTES}s"})]) as nodes:
        nodes.client().create_repository(repositoryName=REPOSITORY)
        yield nodes


@pytest.fixture
def client(ecr: EcrNodes) -> Any:
    return ecr.client()


def move(client: Any, target: str, **image_id: str) -> Any:
    return client.update_image_storage_class(repositoryName=REPOSITORY, imageId=image_id, targetStorageClass=target)


def details(client: Any) -> dict[str, dict[str, Any]]:
    found = client.describe_images(repositoryName=REPOSITORY, filter=ANY)["imageDetails"]
    return {one["imageDigest"]: one for one in found}


def statuses(client: Any) -> dict[str, str]:
    return {digest: one["imageStatus"] for digest, one in details(client).items()}


def pull(ecr: EcrNodes, reference: str) -> int:
    return ecr.send("GET", f"/v2/{REPOSITORY}/manifests/{reference}").status


def blob(ecr: EcrNodes, digest: str) -> int:
    path = f"/v2/{REPOSITORY}/blobs/{digest}"
    status = ecr.send("GET", path).status
    assert ecr.send("HEAD", path).status == status
    return status


class TestWayThere:
    def test_an_archived_image_is_kept_and_shown_only_to_who_asks_for_it(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        push(ecr, REPOSITORY, TWO, "v2")
        assert pull(ecr, "v1") == 200, "it is in the memory of pulls"
        answer = move(client, "ARCHIVE", imageTag="v1")
        assert answer["imageId"] == {"imageDigest": ONE.digest, "imageTag": "v1"}
        assert (answer["imageStatus"], answer["repositoryName"]) == ("ARCHIVED", REPOSITORY)
        listed = client.list_images(repositoryName=REPOSITORY)["imageIds"]
        assert listed == [{"imageDigest": TWO.digest, "imageTag": "v2"}]
        assert len(client.describe_images(repositoryName=REPOSITORY)["imageDetails"]) == 1
        archived = client.list_images(repositoryName=REPOSITORY, filter={"imageStatus": "ARCHIVED"})["imageIds"]
        assert archived == [{"imageDigest": ONE.digest, "imageTag": "v1"}]
        detail = details(client)[ONE.digest]
        assert (detail["imageStatus"], detail["lastArchivedAt"]) == ("ARCHIVED", ecr.now.astimezone())
        assert "lastActivatedAt" not in detail

    def test_an_archived_image_cannot_be_pulled(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        assert pull(ecr, ONE.digest) == 200
        move(client, "ARCHIVE", imageDigest=ONE.digest)
        for reference in ("v1", ONE.digest):
            answer = ecr.send("GET", f"/v2/{REPOSITORY}/manifests/{reference}")
            assert (answer.status, answer.json()["errors"][0]) == (
                404,
                {"code": "MANIFEST_UNKNOWN", "message": "Requested image not found"},
            )
            assert ecr.send("HEAD", f"/v2/{REPOSITORY}/manifests/{reference}").status == 404
        wanted = [{"imageTag": "v1"}]
        (failure,) = client.batch_get_image(repositoryName=REPOSITORY, imageIds=wanted)["failures"]
        assert failure["failureCode"] == "ImageInaccessible"
        with pytest.raises(client.exceptions.ImageNotFoundException):
            client.describe_images(repositoryName=REPOSITORY, imageIds=wanted)
        found = client.describe_images(repositoryName=REPOSITORY, imageIds=wanted, filter=ANY)["imageDetails"]
        assert len(found) == 1

    def test_layers_go_and_come_with_the_images_that_have_them(self, ecr: EcrNodes, client: Any) -> None:
        """A layer that another image has, too, can be pulled as before; so can the ones of an image that is back."""
        shared = build_image([b"1", b"shared"])
        for built, tag in ((ONE, "v1"), (shared, "v2")):
            push(ecr, REPOSITORY, built, tag)
        both, own = ONE.layers[0], shared.layers[1]
        assert [blob(ecr, one) for one in (both, own)] == [200, 200], "they are in the memory of blobs"
        move(client, "ARCHIVE", imageTag="v2")
        assert [blob(ecr, one) for one in (both, own)] == [200, 404]
        answer = ecr.send("GET", f"/v2/{REPOSITORY}/blobs/{own}")
        assert answer.json()["errors"][0]["code"] == "BLOB_UNKNOWN"
        mount = f"/v2/{REPOSITORY}-two/blobs/uploads/?mount={{}}&from={REPOSITORY}"
        client.create_repository(repositoryName=f"{REPOSITORY}-two")
        assert [ecr.send("POST", mount.format(one), b"").status for one in (both, own)] == [201, 202]
        client.batch_delete_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "v1"}])
        assert [blob(ecr, one) for one in (both, own)] == [404, 404]
        move(client, "STANDARD", imageTag="v2")
        assert blob(ecr, own) == 404, "it is on its way back"
        ecr.advance(MINUTES + 11)
        ecr.until(lambda: _is_active(ecr, digest=shared.digest))
        assert [blob(ecr, one) for one in (both, own)] == [200, 200]

    def test_a_layer_of_an_archived_image_comes_back_with_a_push(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        move(client, "ARCHIVE", imageTag="v1")
        upload(ecr, REPOSITORY, ONE)
        assert blob(ecr, ONE.layers[0]) == 404
        push(ecr, REPOSITORY, build_image([b"1", b"more"]), "v2")
        assert blob(ecr, ONE.layers[0]) == 200

    def test_referrers_follow_their_subject(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE)
        push(ecr, REPOSITORY, SIGNATURE)
        move(client, "ARCHIVE", imageDigest=ONE.digest)
        assert statuses(client) == {ONE.digest: "ARCHIVED", SIGNATURE.digest: "ARCHIVED"}
        subject = {"imageDigest": ONE.digest}
        assert client.list_image_referrers(repositoryName=REPOSITORY, subjectId=subject)["referrers"] == []
        (one,) = client.list_image_referrers(
            repositoryName=REPOSITORY, subjectId=subject, filter={"artifactStatus": "ANY"}
        )["referrers"]
        assert one["artifactStatus"] == "ARCHIVED"
        move(client, "STANDARD", imageDigest=ONE.digest)
        assert set(statuses(client).values()) == {"ACTIVATING"}

    def test_what_an_index_needs_is_archived_after_it_and_comes_back_with_it(self, ecr: EcrNodes, client: Any) -> None:
        for built in (ONE, TWO, BOTH):
            push(ecr, REPOSITORY, built)
        with pytest.raises(client.exceptions.ImageStorageClassUpdateNotSupportedException, match="manifest list"):
            move(client, "ARCHIVE", imageDigest=ONE.digest)
        for built in (BOTH, ONE):
            move(client, "ARCHIVE", imageDigest=built.digest)
        assert statuses(client) == {ONE.digest: "ARCHIVED", TWO.digest: "ACTIVE", BOTH.digest: "ARCHIVED"}
        answer = put_manifest(ecr, REPOSITORY, BOTH)
        assert answer.status == 404, "an index does not come back without what it lists"
        assert answer.json()["errors"][0]["detail"] == {"digest": ONE.digest}
        move(client, "STANDARD", imageDigest=BOTH.digest)
        assert statuses(client) == {ONE.digest: "ACTIVATING", TWO.digest: "ACTIVE", BOTH.digest: "ACTIVATING"}

    def test_an_archived_image_can_be_deleted(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        move(client, "ARCHIVE", imageTag="v1")
        answer = client.batch_delete_image(repositoryName=REPOSITORY, imageIds=[{"imageTag": "v1"}])
        assert (len(answer["imageIds"]), answer["failures"]) == (1, [])
        assert statuses(client) == {}


class TestWayBack:
    def test_an_image_is_active_again_after_a_while(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        move(client, "ARCHIVE", imageTag="v1")
        archived_at = ecr.clock.now()
        ecr.advance(10)
        assert move(client, "STANDARD", imageTag="v1")["imageStatus"] == "ACTIVATING"
        due = ecr.clock.now() + MINUTES
        assert pull(ecr, "v1") == 404
        assert "lastActivatedAt" not in details(client)[ONE.digest]
        ecr.advance(MINUTES - 1)
        assert statuses(client) == {ONE.digest: "ACTIVATING"}
        ecr.advance(11)
        ecr.until(lambda: _is_active(ecr))
        detail = details(client)[ONE.digest]
        assert detail["lastActivatedAt"].timestamp() == due
        assert detail["lastArchivedAt"].timestamp() == archived_at
        assert pull(ecr, "v1") == 200

    def test_the_way_back_goes_on_after_a_restart(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path) as ecr:
            client = ecr.client()
            client.create_repository(repositoryName=REPOSITORY)
            push(ecr, REPOSITORY, ONE, "v1")
            move(client, "ARCHIVE", imageTag="v1")
            move(client, "STANDARD", imageTag="v1")
            clock = ecr.clock
        clock.advance(3600)
        with ecr_nodes(tmp_path, clock=clock) as ecr:
            ecr.until(lambda: _is_active(ecr))
            assert pull(ecr, "v1") == 200

    @pytest.mark.parametrize("by_api", [True, False])
    def test_a_push_of_it_brings_an_image_back_at_once(self, ecr: EcrNodes, client: Any, by_api: bool) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        move(client, "ARCHIVE", imageTag="v1")
        ecr.advance(7)
        if by_api:
            client.put_image(repositoryName=REPOSITORY, imageManifest=ONE.manifest.decode(), imageTag="v1")
        else:
            push(ecr, REPOSITORY, ONE, "v1")
        detail = details(client)[ONE.digest]
        assert detail["imageStatus"] == "ACTIVE"
        assert detail["lastActivatedAt"] > detail["lastArchivedAt"]
        assert pull(ecr, "v1") == 200


class TestRefusals:
    def refusal(self, client: Any, target: str, **image_id: str) -> str:
        with pytest.raises(ClientError) as caught:
            move(client, target, **image_id)
        code: str = caught.value.response["Error"]["Code"]
        return code

    def test_moves_that_lead_nowhere_are_refused(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        nowhere = "ImageStorageClassUpdateNotSupportedException"
        assert self.refusal(client, "STANDARD", imageTag="v1") == nowhere
        move(client, "ARCHIVE", imageTag="v1")
        assert self.refusal(client, "ARCHIVE", imageTag="v1") == nowhere
        move(client, "STANDARD", imageTag="v1")
        for target in ("ARCHIVE", "STANDARD"):
            assert self.refusal(client, target, imageTag="v1") == nowhere

    def test_images_that_are_not_here_are_not_found(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, REPOSITORY, ONE, "v1")
        for wanted in ({"imageTag": "v2"}, {"imageDigest": TWO.digest}, {"imageTag": "v1", "imageDigest": TWO.digest}):
            assert self.refusal(client, "ARCHIVE", **wanted) == "ImageNotFoundException"
        assert self.refusal(client, "ARCHIVE") == "InvalidParameterException"
        with pytest.raises(client.exceptions.RepositoryNotFoundException):
            client.update_image_storage_class(
                repositoryName="no/such", imageId={"imageTag": "v1"}, targetStorageClass="ARCHIVE"
            )


class TestReplication:
    def test_a_restored_image_is_replicated_and_its_archived_copy_comes_back(self, tmp_path: Path) -> None:
        east, west = "123456789012/us-east-1", "123456789012/us-west-2"
        rule = {"name": "all", "destinations": [{"account": "123456789012", "region": "us-west-2"}]}
        nodes = [
            node(replication={"rules": [rule]}, repositories={"activation_time": "1s"}),
            node("us-west-2"),
        ]
        with ecr_nodes(tmp_path, nodes=nodes) as ecr:
            there = ecr.client(node=west, region="us-west-2")
            here = ecr.client(node=east)
            push(ecr, REPOSITORY, ONE, "v1", east)
            ecr.until(lambda: _is_active(ecr, west))
            move(there, "ARCHIVE", imageTag="v1")
            move(here, "ARCHIVE", imageTag="v1")
            assert statuses(there) == {ONE.digest: "ARCHIVED"}
            ecr.advance(5)
            move(here, "STANDARD", imageTag="v1")
            ecr.advance(30)
            ecr.until(lambda: _is_active(ecr, east))
            ecr.until(lambda: _is_active(ecr, west))


async def _is_active(ecr: EcrNodes, name: str | None = None, digest: Digest = ONE.digest) -> bool:
    read = image_states.find_status(RepositoryName(REPOSITORY), digest)
    return await ecr.node(name).registry.database.read(read) is ImageStatus.ACTIVE


async def test_an_archived_image_of_the_cache_is_not_fetched_again(tmp_path: Path) -> None:
    clock = FakeClock(1_000_000.0)
    async with FakeRegistry() as upstream, caching_node(tmp_path, {"hub": upstream}, clock) as cached:
        image = upstream.add_image("library/alpine", "latest")
        await cached.manifest()
        assert (asked := upstream.count()) > 0
        await StorageClasses(cached.node).move(ALPINE, RequestedImage(tag="latest"), StorageClass.ARCHIVE)
        for reference in (LATEST, image.digest):
            with pytest.raises(ImageInaccessible):
                await cached.manifest(reference)
        with pytest.raises(BlobArchived):
            await cached.open(image.layers[0])
        assert upstream.count() == asked
