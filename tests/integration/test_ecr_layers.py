"""Layers through boto3: uploads by parts, what is known of a layer, and pre-signed downloads (ECR §6)."""

from __future__ import annotations

import hashlib
import urllib.error
import urllib.request
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from tests.support.ecr_node import ACCOUNT, EcrNodes, ecr_nodes, node
from tests.support.images import build_image
from tests.support.threaded_upstream import ThreadedUpstream
from tests.support.upstreams import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.support.images import BuiltImage

MIB = 2**20
SMALL = {"min_layer_part_size": 4, "layer_part_size": "16B", "layer_parts": 5, "layer_size": "64B"}


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    with ecr_nodes(tmp_path, nodes=[node(repositories={"create_on_push": False})]) as running:
        yield running


@pytest.fixture
def small(tmp_path: Path) -> Iterator[EcrNodes]:
    """A registry whose parts are a few bytes long."""
    with ecr_nodes(tmp_path, nodes=[node(quotas=SMALL)]) as running:
        yield running


def client_of(nodes: EcrNodes) -> Any:
    client = nodes.client()
    client.create_repository(repositoryName="app")
    return client


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def start(client: Any) -> str:
    return str(client.initiate_layer_upload(repositoryName="app")["uploadId"])


def send(client: Any, upload: str, content: bytes, first: int = 0, last: int | None = None) -> Any:
    return client.upload_layer_part(
        repositoryName="app",
        uploadId=upload,
        partFirstByte=first,
        partLastByte=first + len(content) - 1 if last is None else last,
        layerPartBlob=content,
    )


def complete(client: Any, upload: str, *digests: str) -> Any:
    return client.complete_layer_upload(repositoryName="app", uploadId=upload, layerDigests=list(digests))


def put(client: Any, *parts: bytes) -> str:
    """Upload a layer in parts and return its digest."""
    upload, first = start(client), 0
    for part in parts:
        send(client, upload, part, first)
        first += len(part)
    return str(complete(client, upload, sha256(b"".join(parts)))["layerDigest"])


def refused(call: Any, *args: Any, **members: Any) -> dict[str, Any]:
    """Return the answer to a call that fails."""
    with pytest.raises(ClientError) as caught:
        call(*args, **members)
    return dict(caught.value.response)


def code(call: Any, *args: Any, **members: Any) -> str:
    return str(refused(call, *args, **members)["Error"]["Code"])


def state(client: Any, *digests: str) -> tuple[list[Any], list[Any]]:
    answer = client.batch_check_layer_availability(repositoryName="app", layerDigests=list(digests))
    return answer["layers"], answer["failures"]


def push_image(nodes: EcrNodes, client: Any, layers: Sequence[bytes]) -> BuiltImage:
    """Upload what an image consists of, and the image by `/v2/`."""
    built = build_image(layers)
    for content in built.blobs.values():
        put(client, content)
    reply = nodes.send(
        "PUT", "/v2/app/manifests/latest", built.manifest, {"Content-Type": built.media_type, **basic(nodes)}
    )
    assert reply.status == 201
    return built


def basic(_: EcrNodes) -> dict[str, str]:
    return {}


def get(url: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, bytes, Any]:
    request = urllib.request.Request(url, headers=headers or {}, method=method)  # noqa: S310 - loopback
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - loopback
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), error.headers


class TestUploads:
    def test_a_layer_comes_in_parts_of_five_mebibytes_and_a_rest(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        begun = client.initiate_layer_upload(repositoryName="app")
        assert uuid.UUID(begun["uploadId"]).version == 4
        assert begun["partSize"] == 20 * MIB
        content = b"x" * (5 * MIB) + b"rest"
        answer = send(client, begun["uploadId"], content[: 5 * MIB])
        answer.pop("ResponseMetadata")
        assert answer == {
            "registryId": ACCOUNT,
            "repositoryName": "app",
            "uploadId": begun["uploadId"],
            "lastByteReceived": 5 * MIB - 1,
        }
        assert send(client, begun["uploadId"], b"rest", 5 * MIB)["lastByteReceived"] == len(content) - 1
        done = complete(client, begun["uploadId"], sha256(content))
        done.pop("ResponseMetadata")
        assert done == {
            "registryId": ACCOUNT,
            "repositoryName": "app",
            "uploadId": begun["uploadId"],
            "layerDigest": sha256(content),
        }
        assert state(client, sha256(content)) == (
            [
                {
                    "layerDigest": sha256(content),
                    "layerAvailability": "AVAILABLE",
                    "layerSize": len(content),
                    "mediaType": "application/octet-stream",  # no image says more of it yet
                }
            ],
            [],
        )
        assert code(send, client, begun["uploadId"], b"more", len(content)) == "UploadNotFoundException"

    def test_a_part_may_be_twenty_mebibytes_and_no_more(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        upload, content = start(client), b"y" * (20 * MIB)
        assert send(client, upload, content)["lastByteReceived"] == 20 * MIB - 1
        error = refused(send, client, upload, content + b"y", 20 * MIB)["Error"]
        assert error["Code"] == "InvalidParameterException"
        assert error["Message"].startswith("Invalid parameter at 'layerPartBlob' failed to satisfy constraint: '")
        assert complete(client, upload, sha256(content))["layerDigest"] == sha256(content)

    @pytest.mark.parametrize("upload", ["does-not-exist", "x" * 1000])
    def test_an_id_that_nobody_was_given_is_one_of_no_upload(self, ecr: EcrNodes, upload: str) -> None:
        client = client_of(ecr)
        for answer in (refused(send, client, upload, b"x"), refused(complete, client, upload, sha256(b"x"))):
            assert answer["Error"]["Code"] == "UploadNotFoundException"
            assert len(answer["Error"]["Message"]) < 300

    def test_a_part_goes_on_where_the_last_one_ended(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        upload = start(client)
        answer = refused(send, client, upload, b"part", 4)
        assert (answer["Error"]["Code"], answer["lastValidByteReceived"]) == ("InvalidLayerPartException", 0)
        send(client, upload, b"0123")
        for first, last, content in ((0, 3, b"0123"), (5, 6, b"xx"), (4, 8, b"xxxx"), (4, 5, b"xxxx"), (4, 3, b"xx")):
            answer = refused(send, client, upload, content, first, last)
            assert answer["Error"]["Code"] == "InvalidLayerPartException"
            assert answer["registryId"] == ACCOUNT
            assert answer["repositoryName"] == "app"
            assert answer["uploadId"] == upload
            assert answer["lastValidByteReceived"] == 3
        assert code(send, client, upload, b"", 4, 4) == "InvalidLayerPartException"
        # Nothing of what was refused is in the layer.
        assert complete(client, upload, sha256(b"0123"))["layerDigest"] == sha256(b"0123")

    def test_only_the_last_part_may_be_small(self, small: EcrNodes) -> None:
        client = client_of(small)
        assert put(client, b"1234", b"12345", b"1") == sha256(b"12341234" + b"51")
        upload = start(client)
        for first, part in ((0, b"1234"), (4, b"123"), (7, b"1234")):
            send(client, upload, part, first)
        for _ in range(2):
            error = refused(complete, client, upload, sha256(b"12341231234"))["Error"]
            assert (error["Code"], error["Message"]) == (
                "LayerPartTooSmallException",
                "All layer parts except the last part should be at least 5MB",
            )

    def test_the_rule_is_about_five_mebibytes(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        upload, content = start(client), b"z" * (5 * MIB - 1)
        send(client, upload, content)
        send(client, upload, b"last", len(content))
        assert code(complete, client, upload, sha256(content + b"last")) == "LayerPartTooSmallException"

    def test_parts_and_bytes_are_limited(self, small: EcrNodes) -> None:
        client = client_of(small)
        assert client.initiate_layer_upload(repositoryName="app")["partSize"] == 16
        upload = start(client)
        for number in range(5):
            send(client, upload, b"1234", 4 * number)
        error = refused(send, client, upload, b"1234", 20)["Error"]
        assert (error["Code"], "maximum allowed number of layer parts which is '5'" in error["Message"]) == (
            "LimitExceededException",
            True,
        )
        assert complete(client, upload, sha256(b"1234" * 5))["layerDigest"] == sha256(b"1234" * 5)
        upload = start(client)
        assert code(send, client, upload, b"x" * 17) == "InvalidLayerPartException"
        for number in range(4):
            send(client, upload, b"x" * 16, 16 * number)
        assert code(send, client, upload, b"x", 64) == "LimitExceededException"

    def test_a_blob_is_no_larger_than_the_node_takes(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path, nodes=[node(uploads={"max_blob_size": "300KiB"})]) as running:
            client = client_of(running)
            upload = start(client)
            assert code(send, client, upload, b"x" * (301 * 1024)) == "LimitExceededException"
            assert send(client, upload, b"x" * (300 * 1024))["lastByteReceived"] == 300 * 1024 - 1

    def test_an_upload_without_bytes(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        upload = start(client)
        assert code(complete, client, upload, sha256(b"")) == "EmptyUploadException"
        send(client, upload, b"bytes")
        assert complete(client, upload, sha256(b"bytes"))["layerDigest"] == sha256(b"bytes")

    def test_after_a_wrong_digest_the_right_one_may_follow(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        upload = start(client)
        send(client, upload, b"bytes")
        for wrong in (sha256(b"others"), "sha256:abc", "md5:4b3a6218bb3e3a7303e8a171a60fcf92", sha256(b"bytes")[:-1]):
            assert code(complete, client, upload, wrong) == "InvalidLayerException"
        assert code(complete, client, upload, sha256(b"bytes"), sha256(b"others")) == "InvalidLayerException"
        assert state(client, sha256(b"bytes"))[0][0]["layerAvailability"] == "UNAVAILABLE"
        assert complete(client, upload, sha256(b"bytes"))["layerDigest"] == sha256(b"bytes")

    def test_all_digests_must_be_right_and_the_first_names_the_layer(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        upload = start(client)
        send(client, upload, b"bytes")
        sha512 = f"sha512:{hashlib.sha512(b'bytes').hexdigest()}"
        assert complete(client, upload, sha256(b"bytes"), sha512)["layerDigest"] == sha256(b"bytes")

    def test_a_layer_that_is_here_already(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        put(client, b"bytes")
        upload = start(client)
        send(client, upload, b"bytes")
        error = refused(complete, client, upload, sha256(b"bytes"))["Error"]
        assert (error["Code"], error["Message"]) == (
            "LayerAlreadyExistsException",
            "The image layer already exists in the associated repository.",
        )
        client.create_repository(repositoryName="other")
        upload = client.initiate_layer_upload(repositoryName="other")["uploadId"]
        members = {"repositoryName": "other", "uploadId": upload}
        client.upload_layer_part(**members, partFirstByte=0, partLastByte=4, layerPartBlob=b"bytes")
        assert client.complete_layer_upload(**members, layerDigests=[sha256(b"bytes")])["repositoryName"] == "other"

    def test_uploads_belong_to_a_repository(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        client.create_repository(repositoryName="other")
        upload = client.initiate_layer_upload(repositoryName="other")["uploadId"]
        for unknown in (upload, str(uuid.uuid4())):
            assert code(send, client, unknown, b"bytes") == "UploadNotFoundException"
            assert code(complete, client, unknown, sha256(b"bytes")) == "UploadNotFoundException"
        assert code(send, client, "no-uuid", b"bytes") == "UploadNotFoundException"

    def test_a_repository_that_is_missing(self, small: EcrNodes) -> None:
        client = small.client()
        text = f"The repository with name 'gone' does not exist in the registry with id '{ACCOUNT}'"
        upload = str(uuid.uuid4())
        for call, members in (
            (client.initiate_layer_upload, {}),
            (
                client.upload_layer_part,
                {"uploadId": upload, "partFirstByte": 0, "partLastByte": 0, "layerPartBlob": b"x"},
            ),
            (client.complete_layer_upload, {"uploadId": upload, "layerDigests": [sha256(b"x")]}),
            (client.batch_check_layer_availability, {"layerDigests": [sha256(b"x")]}),
            (client.get_download_url_for_layer, {"layerDigest": sha256(b"x")}),
            (client.get_download_url_for_layer, {"layerDigest": "md5:abc"}),
        ):
            error = refused(call, repositoryName="gone", **members)["Error"]
            assert (error["Code"], error["Message"]) == ("RepositoryNotFoundException", text)

    def test_an_upload_goes_on_after_a_restart(self, tmp_path: Path) -> None:
        settings = [node(quotas=SMALL)]
        with ecr_nodes(tmp_path, nodes=settings) as first:
            client = client_of(first)
            upload = start(client)
            send(client, upload, b"1234")
            send(client, upload, b"12", 4)
        with ecr_nodes(tmp_path, nodes=settings) as second:
            client = second.client()
            assert refused(send, client, upload, b"1234", 0)["lastValidByteReceived"] == 5
            assert complete(client, upload, sha256(b"123412"))["layerDigest"] == sha256(b"123412")

    def test_an_upload_that_nobody_goes_on_with_ends(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        upload = start(client)
        ecr.advance(25 * 3600)
        assert code(send, client, upload, b"bytes") == "UploadNotFoundException"


class TestAvailability:
    def test_what_is_known_of_layers(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        image = push_image(ecr, client, [b"layer"])
        loose = put(client, b"loose")
        absent = sha256(b"absent")
        layers, failures = state(client, sha256(b"layer"), image.config, loose, absent, "no digest", "", "sha256:abc")
        assert layers == [
            {
                "layerDigest": sha256(b"layer"),
                "layerAvailability": "AVAILABLE",
                "layerSize": 5,
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
            },
            {
                "layerDigest": image.config,
                "layerAvailability": "AVAILABLE",
                "layerSize": len(image.blobs[image.config]),
                "mediaType": "application/vnd.oci.image.config.v1+json",
            },
            {
                "layerDigest": loose,
                "layerAvailability": "AVAILABLE",
                "layerSize": 5,
                "mediaType": "application/octet-stream",
            },
            {"layerDigest": absent, "layerAvailability": "UNAVAILABLE"},
            {"layerDigest": "sha256:abc", "layerAvailability": "UNAVAILABLE"},
        ]
        assert [(one["layerDigest"], one["failureCode"]) for one in failures] == [
            ("no digest", "InvalidLayerDigest"),
            ("", "MissingLayerDigest"),
        ]


class TestDownloads:
    def test_a_layer_of_an_image_is_had_without_credentials(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        push_image(ecr, client, [b"0123456789"])
        answer = client.get_download_url_for_layer(repositoryName="app", layerDigest=sha256(b"0123456789"))
        assert answer["layerDigest"] == sha256(b"0123456789")
        url = answer["downloadUrl"]
        assert url.startswith(ecr.url() + "/_ecr/layers/app/sha256:")
        assert get(url)[:2] == (200, b"0123456789")
        status, body, headers = get(url, {"Range": "bytes=2-4"})
        assert (status, body, headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
        status, body, headers = get(url, method="HEAD")
        assert (status, body, headers["Content-Length"]) == (200, b"", "10")
        status, body, _ = get(url, {"Range": "bytes=10-"})
        assert (status, b"<Code>InvalidRange</Code>" in body) == (416, True)
        assert get(url, method="DELETE")[0] == 405

    def test_the_url_begins_with_the_address_that_the_client_used(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        push_image(ecr, client, [b"bytes"])
        members = {"repositoryName": "app", "layerDigest": sha256(b"bytes")}
        for host, start_of_url in (
            ("registry.example:5000", "http://registry.example:5000/_ecr/layers/app/"),
            ("bad host/", ecr.url() + "/_ecr/layers/app/"),
        ):
            reply = ecr.signed("GetDownloadUrlForLayer", members, headers={"Host": host})
            assert reply.json()["downloadUrl"].startswith(start_of_url)

    def test_a_configured_address_comes_first(self, tmp_path: Path) -> None:
        settings = node(public_url="https://registry.example")
        with ecr_nodes(tmp_path, nodes=[settings]) as running:
            client = client_of(running)
            push_image(running, client, [b"bytes"])
            answer = client.get_download_url_for_layer(repositoryName="app", layerDigest=sha256(b"bytes"))
            assert answer["downloadUrl"].startswith("https://registry.example/_ecr/layers/app/")

    def test_a_url_is_good_for_an_hour_and_for_one_layer(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        push_image(ecr, client, [b"one", b"two"])
        url = client.get_download_url_for_layer(repositoryName="app", layerDigest=sha256(b"one"))["downloadUrl"]
        changed = [
            url.replace(sha256(b"one"), sha256(b"two")),
            url.replace("/app/", "/other/"),
            url.replace("expires=", "expires=9"),
            url[:-1] + ("0" if url[-1] != "0" else "1"),
            url.partition("&")[0],
            url.partition("?")[0],
            url + "&expires=1",
            url.replace("signature=", "signature=%C3%A9"),
            url.replace("/app/", "/../app/"),
        ]
        for one in changed:
            status, body, headers = get(one)
            assert (status, headers["Content-Type"]) == (403, "application/xml"), one
            assert b"<Code>AccessDenied</Code>" in body
        ecr.advance(3599)
        assert get(url)[0] == 200
        ecr.advance(1)
        status, body, _ = get(url)
        assert (status, b"<Message>Request has expired</Message>" in body) == (403, True)

    def test_a_url_outlives_a_restart_but_not_its_layer(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path) as first:
            client = client_of(first)
            push_image(first, client, [b"bytes"])
            url = client.get_download_url_for_layer(repositoryName="app", layerDigest=sha256(b"bytes"))["downloadUrl"]
            path = url.removeprefix(first.url())
        with ecr_nodes(tmp_path) as second:
            assert get(second.url() + path)[:2] == (200, b"bytes")
            second.client().delete_repository(repositoryName="app", force=True)
            status, body, _ = get(second.url() + path)
            assert (status, b"<Code>NoSuchKey</Code>" in body) == (404, True)

    def test_other_nodes_sign_otherwise(self, tmp_path: Path) -> None:
        nodes = [node(), node("eu-west-1")]
        with ecr_nodes(tmp_path, nodes=nodes) as running:
            client = client_of(running)
            push_image(running, client, [b"bytes"])
            url = client.get_download_url_for_layer(repositoryName="app", layerDigest=sha256(b"bytes"))["downloadUrl"]
            other = url.replace(running.url(), running.url(f"{ACCOUNT}/eu-west-1"))
            assert get(other)[0] == 403

    def test_a_layer_of_no_image_cannot_be_had(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        loose = put(client, b"loose")
        error = refused(client.get_download_url_for_layer, repositoryName="app", layerDigest=loose)["Error"]
        assert (error["Code"], error["Message"]) == (
            "LayerInaccessibleException",
            "The specified layer is not available because it is not associated with an image. Unassociated image"
            " layers may be cleaned up at any time.",
        )
        for unknown in (sha256(b"absent"), "sha256:abc"):
            error = refused(client.get_download_url_for_layer, repositoryName="app", layerDigest=unknown)["Error"]
            assert (error["Code"], error["Message"]) == (
                "LayersNotFoundException",
                "The specified layers could not be found, or the specified layer is not valid for this repository.",
            )

    def test_another_repositorys_layer_cannot_be_had(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        push_image(ecr, client, [b"bytes"])
        client.create_repository(repositoryName="other")
        call = client.get_download_url_for_layer
        assert code(call, repositoryName="other", layerDigest=sha256(b"bytes")) == "LayersNotFoundException"


class TestRepositoriesWithImages:
    def test_one_that_holds_images_goes_with_force_only(self, ecr: EcrNodes) -> None:
        client = client_of(ecr)
        push_image(ecr, client, [b"bytes"])
        error = refused(client.delete_repository, repositoryName="app")["Error"]
        assert (error["Code"], error["Message"]) == (
            "RepositoryNotEmptyException",
            f"The repository with name 'app' in registry with id '{ACCOUNT}' cannot be deleted because it still"
            " contains images",
        )
        assert ecr.send("GET", "/v2/app/manifests/latest").status == 200
        upload = start(client)
        client.delete_repository(repositoryName="app", force=True)
        assert ecr.send("GET", "/v2/app/manifests/latest").status == 404
        client.create_repository(repositoryName="app")
        assert ecr.send("GET", "/v2/app/tags/list").json()["tags"] == []
        assert state(client, sha256(b"bytes"))[0][0]["layerAvailability"] == "UNAVAILABLE"
        assert code(send, client, upload, b"bytes") == "UploadNotFoundException"
        push_image(ecr, client, [b"bytes"])
        assert ecr.send("GET", "/v2/app/manifests/latest").status == 200


class TestThroughTheCache:
    def test_a_layer_is_fetched_before_its_url_is_given(self, tmp_path: Path) -> None:
        upstream = ThreadedUpstream()
        image = upstream.registry.add_image("library/app", "latest", [b"one", b"two"])
        with upstream:
            document = {"upstreams": [{"name": "hub", "url": upstream.url}]}
            cached = node(cache={"rules": [{"prefix": "hub", "upstream": "hub"}]})
            with ecr_nodes(tmp_path, document, nodes=[cached]) as running:
                client = running.client()
                assert running.send("GET", "/v2/hub/library/app/manifests/latest").body == image.manifest
                wanted = {"repositoryName": "hub/library/app", "layerDigest": image.layers[0]}
                url = client.get_download_url_for_layer(**wanted)["downloadUrl"]
                assert get(url)[:2] == (200, b"one")
                assert upstream.downloads(image.layers[0]) == 1
                answer = client.batch_check_layer_availability(
                    repositoryName="hub/library/app", layerDigests=list(image.layers)
                )
                states = [one["layerAvailability"] for one in answer["layers"]]
                assert states == ["AVAILABLE", "UNAVAILABLE"]
                client.delete_repository(repositoryName="hub/library/app", force=True)
                assert get(url)[0] == 404
                assert running.send("GET", "/v2/hub/library/app/manifests/latest").body == image.manifest
                url = client.get_download_url_for_layer(**wanted)["downloadUrl"]
                assert (get(url)[:2], upstream.downloads(image.layers[0])) == ((200, b"one"), 2)
                unknown = {**wanted, "layerDigest": sha256(b"unknown")}
                assert code(client.get_download_url_for_layer, **unknown) == "LayersNotFoundException"
                upstream.registry.faults.on("*/blobs/*", Fault(status=503))
                gone = {**wanted, "layerDigest": image.layers[1]}
                assert code(client.get_download_url_for_layer, **gone) == "UnableToGetUpstreamLayerException"
                assert get(url)[:2] == (200, b"one")
