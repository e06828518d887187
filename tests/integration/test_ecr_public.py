"""ECR Public as a client of AWS sees it: its repositories, images, layers, catalog and registry (ECR §16)."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from replicator.control_api.model import service_model
from replicator.control_api.operations import ECR_PUBLIC
from replicator.core.errors import ConfigurationError
from tests.support.ecr_images import push, put_manifest
from tests.support.ecr_node import ACCOUNT, ecr_nodes, node
from tests.support.images import build_image, build_index
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.ecr_node import EcrNodes

ALIAS = "my-team"
NAME = "web/app"
ARN = f"arn:aws:ecr-public::{ACCOUNT}:repository/{NAME}"
HERE = f"repository with name '{NAME}' in the registry with id '{ACCOUNT}'"
IMAGE, OTHER = build_image([b"one"]), build_image([b"two"])
PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(17)
CATALOG = {
    "description": "An application",
    "architectures": ["ARM 64", "x86-64"],
    "operatingSystems": ["Linux"],
    "aboutText": "# About",
    "usageText": "Run it",
}


@pytest.fixture
def ecr(tmp_path: Path) -> Iterator[EcrNodes]:
    quotas = {"public_repositories": 4, "public_layer_parts": 2, "min_layer_part_size": 1}
    with ecr_nodes(tmp_path, nodes=[node(ecr_public={"alias": ALIAS}, quotas=quotas)]) as nodes:
        yield nodes


@pytest.fixture
def client(ecr: EcrNodes) -> Any:
    client = ecr.client("ecr-public")
    client.create_repository(repositoryName=NAME)
    return client


def refusal(call: Any, **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as caught:
        call(**members)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


def missing(name: str, registry: str = ACCOUNT) -> tuple[str, str]:
    return (
        "RepositoryNotFoundException",
        f"The repository with name '{name}' does not exist in the registry with id '{registry}'",
    )


class TestRepositories:
    def test_one_is_named_without_the_alias_and_found_below_it(self, ecr: EcrNodes) -> None:
        client = ecr.client("ecr-public")
        created = client.create_repository(repositoryName=NAME)
        assert "catalogData" not in created
        assert created["repository"] == {
            "repositoryArn": ARN,
            "registryId": ACCOUNT,
            "repositoryName": NAME,
            "repositoryUri": f"public.ecr.aws/{ALIAS}/{NAME}",
            "createdAt": created["repository"]["createdAt"],
        }
        assert created["repository"]["createdAt"] == ecr.now
        assert client.describe_repositories()["repositories"] == [created["repository"]]
        assert client.describe_repositories(repositoryNames=[NAME])["repositories"] == [created["repository"]]
        assert client.delete_repository(repositoryName=NAME)["repository"] == created["repository"]
        assert client.describe_repositories()["repositories"] == []

    def test_where_the_node_has_an_address_of_its_own(self, tmp_path: Path) -> None:
        for settings, uri in (
            (
                {"public_url": "https://registry.example:8443", "ecr_public": {"alias": ALIAS}},
                "registry.example:8443/my-team/app",
            ),
            (
                {
                    "public_url": "https://registry.example",
                    "ecr_public": {"alias": ALIAS, "public_url": "https://public.example"},
                },
                "public.example/my-team/app",
            ),
        ):
            with ecr_nodes(tmp_path / uri[:8], nodes=[{**node(), **settings}]) as ecr:
                created = ecr.client("ecr-public").create_repository(repositoryName="app")
                assert created["repository"]["repositoryUri"] == uri

    def test_errors_name_it_as_clients_do(self, ecr: EcrNodes, client: Any) -> None:
        assert refusal(client.create_repository, repositoryName=NAME) == (
            "RepositoryAlreadyExistsException",
            f"The repository with name '{NAME}' already exists in the registry with id '{ACCOUNT}'",
        )
        assert refusal(client.describe_repositories, repositoryNames=["none"]) == missing("none")
        assert refusal(client.describe_images, repositoryName="none") == missing("none")
        assert refusal(client.describe_images, repositoryName="none", registryId="999999999999") == missing(
            "none", "999999999999"
        )
        push(ecr, f"{ALIAS}/{NAME}", IMAGE, "v1")
        assert refusal(client.delete_repository, repositoryName=NAME) == (
            "RepositoryNotEmptyException",
            f"The repository with name '{NAME}' in registry with id '{ACCOUNT}' cannot be deleted because it still"
            " contains images",
        )
        client.delete_repository(repositoryName=NAME, force=True)
        assert refusal(client.describe_images, repositoryName=NAME) == missing(NAME)

    @pytest.mark.parametrize("name", ["a" * 206, "a--b", "a__b", "AA", "a/", "-a"])
    def test_names_that_a_public_one_cannot_have(self, client: Any, name: str) -> None:
        assert refusal(client.create_repository, repositoryName=name)[0] == "InvalidParameterException"

    def test_the_longest_name(self, ecr: EcrNodes, client: Any) -> None:
        name = "a" * 205
        client.create_repository(repositoryName=name)
        push(ecr, f"{ALIAS}/{name}", IMAGE, "v1")

    def test_there_is_a_quota_of_their_own(self, ecr: EcrNodes, client: Any) -> None:
        for number in range(3):
            client.create_repository(repositoryName=f"more/{number}")
        assert refusal(client.create_repository, repositoryName="more/3") == (
            "LimitExceededException",
            f"The registry with id '{ACCOUNT}' already has the maximum allowed number of repositories which is '4'",
        )
        ecr.client().create_repository(repositoryName="private")

    def test_pages(self, client: Any) -> None:
        for name in ("a1", "b2"):
            client.create_repository(repositoryName=name)
        pages = client.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 2})
        assert [[one["repositoryName"] for one in page["repositories"]] for page in pages] == [["a1", "b2"], [NAME]]
        assert refusal(client.describe_repositories, nextToken="no")[0] == "InvalidParameterException"

    def test_tags_of_a_resource(self, client: Any) -> None:
        client.create_repository(repositoryName="tagged", tags=[{"Key": "team", "Value": "web"}])
        arn = f"arn:aws:ecr-public::{ACCOUNT}:repository/tagged"
        client.tag_resource(resourceArn=arn, tags=[{"Key": "stage", "Value": "test"}])
        client.untag_resource(resourceArn=arn, tagKeys=["team"])
        assert client.list_tags_for_resource(resourceArn=arn)["tags"] == [{"Key": "stage", "Value": "test"}]
        many = [{"Key": str(number), "Value": ""} for number in range(51)]
        assert refusal(client.tag_resource, resourceArn=arn, tags=many)[0] == "TooManyTagsException"
        assert refusal(client.create_repository, repositoryName="x1", tags=many)[0] == "TooManyTagsException"
        assert refusal(client.list_tags_for_resource, resourceArn=arn + "/none") == missing("tagged/none")
        foreign = arn.replace(ACCOUNT, "999999999999")
        assert refusal(client.list_tags_for_resource, resourceArn=foreign) == missing("tagged", "999999999999")
        for wrong in ("nonsense", f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/tagged"):
            assert refusal(client.tag_resource, resourceArn=wrong, tags=[]) == (
                "InvalidParameterException",
                "Invalid parameter at 'resourceArn' failed to satisfy constraint: 'Invalid ARN'",
            )


class TestImages:
    def test_a_push_by_parts(self, client: Any) -> None:
        [(digest, content), *_] = IMAGE.blobs.items()
        for digest, content in IMAGE.blobs.items():
            started = client.initiate_layer_upload(repositoryName=NAME, registryId=ALIAS)
            part = {"repositoryName": NAME, "uploadId": started["uploadId"], "registryId": ACCOUNT}
            sent = client.upload_layer_part(
                **part, partFirstByte=0, partLastByte=len(content) - 1, layerPartBlob=content
            )
            assert (sent["registryId"], sent["repositoryName"], sent["lastByteReceived"]) == (
                ACCOUNT,
                NAME,
                len(content) - 1,
            )
            done = client.complete_layer_upload(**part, layerDigests=[digest])
            assert (done["registryId"], done["repositoryName"], done["layerDigest"]) == (ACCOUNT, NAME, digest)
        found = client.batch_check_layer_availability(repositoryName=NAME, layerDigests=[digest, "x"], registryId=ALIAS)
        assert [one["layerAvailability"] for one in found["layers"]] == ["AVAILABLE"]
        assert [one["failureCode"] for one in found["failures"]] == ["InvalidLayerDigest"]
        put = {
            "repositoryName": NAME,
            "imageManifest": IMAGE.manifest.decode(),
            "imageManifestMediaType": IMAGE.media_type,
            "registryId": ALIAS,
        }
        image = client.put_image(**put, imageTag="v1")["image"]
        assert image["imageId"] == {"imageDigest": IMAGE.digest, "imageTag": "v1"}
        assert (image["registryId"], image["repositoryName"]) == (ACCOUNT, NAME)
        assert refusal(client.put_image, **put, imageTag="v1") == (
            "ImageAlreadyExistsException",
            f"Image with digest '{IMAGE.digest}' and tag 'v1' already exists in the repository with name '{NAME}' in"
            f" registry with id '{ACCOUNT}'",
        )

    def test_layers_have_limits_of_their_own(self, client: Any) -> None:
        upload = client.initiate_layer_upload(repositoryName=NAME)["uploadId"]
        part = {"repositoryName": NAME, "uploadId": upload}
        for number in range(2):
            client.upload_layer_part(**part, partFirstByte=number, partLastByte=number, layerPartBlob=b"x")
        assert refusal(client.upload_layer_part, **part, partFirstByte=2, partLastByte=2, layerPartBlob=b"x") == (
            "LimitExceededException",
            f"The upload with id '{upload}' already has the maximum allowed number of layer parts which is '2'",
        )

    @pytest.mark.parametrize("registry", ["999999999999", "nobody"])
    def test_a_registry_that_nobody_has(self, client: Any, registry: str) -> None:
        for call, members in (
            (client.initiate_layer_upload, {}),
            (client.put_image, {"imageManifest": "{}"}),
            (client.batch_check_layer_availability, {"layerDigests": ["sha256:" + "0" * 64]}),
        ):
            assert refusal(call, repositoryName=NAME, registryId=registry, **members) == (
                "RegistryNotFoundException",
                f"The registry with id '{registry}' does not exist",
            )

    def test_missing_layers_and_images(self, client: Any) -> None:
        index = build_index([OTHER])
        for built, code in ((OTHER, "LayersNotFoundException"), (index, "ReferencedImagesNotFoundException")):
            found, text = refusal(
                client.put_image,
                repositoryName=NAME,
                imageManifest=built.manifest.decode(),
                imageManifestMediaType=built.media_type,
            )
            assert found == code
            assert f"pushing image into {HERE} do not exist" in text

    def test_images_and_tags_are_described(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, f"{ALIAS}/{NAME}", IMAGE, "v1")
        push(ecr, f"{ALIAS}/{NAME}", OTHER, "v2")
        push(ecr, f"{ALIAS}/{NAME}", OTHER, "latest")
        [first, second] = client.describe_images(repositoryName=NAME)["imageDetails"]
        assert set(first) - {"artifactMediaType"} == {
            "registryId",
            "repositoryName",
            "imageDigest",
            "imageTags",
            "imageSizeInBytes",
            "imagePushedAt",
            "imageManifestMediaType",
        }
        assert (first["imageDigest"], first["imageTags"]) == (IMAGE.digest, ["v1"])
        assert (first["repositoryName"], sorted(second["imageTags"])) == (NAME, ["latest", "v2"])
        [named] = client.describe_images(repositoryName=NAME, imageIds=[{"imageTag": "v1"}])["imageDetails"]
        assert named == first
        assert refusal(client.describe_images, repositoryName=NAME, imageIds=[{"imageTag": "v3"}]) == (
            "ImageNotFoundException",
            "The image with imageId {imageDigest:'null', imageTag:'v3'} does not exist within the repository with name"
            f" '{NAME}' in the registry with id '{ACCOUNT}'",
        )
        pages = client.get_paginator("describe_image_tags").paginate(
            repositoryName=NAME, PaginationConfig={"PageSize": 2}
        )
        tags = [one for page in pages for one in page["imageTagDetails"]]
        assert [(one["imageTag"], one["imageDetail"]["imageDigest"]) for one in tags] == [
            ("latest", OTHER.digest),
            ("v1", IMAGE.digest),
            ("v2", OTHER.digest),
        ]
        assert tags[0]["createdAt"] > tags[2]["createdAt"]
        assert tags[1]["imageDetail"]["imageSizeInBytes"] == first["imageSizeInBytes"]

    def test_a_tag_always_moves(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, f"{ALIAS}/{NAME}", IMAGE, "v1")
        push(ecr, f"{ALIAS}/{NAME}", OTHER, "v1")
        [moved] = client.describe_image_tags(repositoryName=NAME)["imageTagDetails"]
        assert moved["imageDetail"]["imageDigest"] == OTHER.digest

    def test_images_are_deleted(self, ecr: EcrNodes, client: Any) -> None:
        push(ecr, f"{ALIAS}/{NAME}", IMAGE, "v1")
        wanted = [{"imageTag": "v1"}, {"imageTag": "v2"}]
        deleted = client.batch_delete_image(repositoryName=NAME, imageIds=wanted, registryId=ALIAS)
        assert deleted["imageIds"] == [{"imageDigest": IMAGE.digest, "imageTag": "v1"}]
        assert [one["failureCode"] for one in deleted["failures"]] == ["ImageNotFound"]
        assert client.describe_images(repositoryName=NAME)["imageDetails"] == []


class TestCatalog:
    def test_of_a_repository(self, ecr: EcrNodes, client: Any) -> None:
        assert refusal(client.get_repository_catalog_data, repositoryName=NAME) == (
            "RepositoryCatalogDataNotFoundException",
            f"Repository catalog data does not exist for the {HERE}",
        )
        shown = {**CATALOG, "marketplaceCertified": False}
        put = client.put_repository_catalog_data(repositoryName=NAME, catalogData=CATALOG)
        assert put["catalogData"] == shown
        assert client.get_repository_catalog_data(repositoryName=NAME)["catalogData"] == shown
        created = client.create_repository(repositoryName="other", catalogData={"description": "Another"})
        assert created["catalogData"] == {"description": "Another", "marketplaceCertified": False}
        client.put_repository_catalog_data(repositoryName=NAME, catalogData={"aboutText": "Less"})
        found = client.get_repository_catalog_data(repositoryName=NAME)["catalogData"]
        assert found == {"aboutText": "Less", "marketplaceCertified": False}
        assert refusal(client.get_repository_catalog_data, repositoryName="none") == missing("none")

    def test_its_logo_is_a_picture_and_nothing_else(self, ecr: EcrNodes, client: Any) -> None:
        put = client.put_repository_catalog_data(repositoryName=NAME, catalogData={"logoImageBlob": PNG})
        url = put["catalogData"]["logoUrl"]
        assert url.startswith(ecr.url())
        path = url.removeprefix(ecr.url())
        logo = ecr.send("GET", path)
        assert (logo.status, logo.body, logo.headers["Content-Type"]) == (200, PNG, "image/png")
        assert logo.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in logo.headers["Content-Security-Policy"]
        assert ecr.send("POST", path, b"x").status == 405
        client.put_repository_catalog_data(repositoryName=NAME, catalogData={"description": "no logo"})
        for gone in (path, path.rpartition("/")[0], "/_ecr/logos/", "/_ecr/logos/../x"):
            assert ecr.send("GET", gone).status == 404

    @pytest.mark.parametrize(
        "content", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"\x89PNG\r\n\x1a\n<script>", b"GIF89a"]
    )
    def test_what_is_no_logo_is_refused(self, client: Any, content: bytes) -> None:
        assert refusal(client.create_repository, repositoryName="other", catalogData={"logoImageBlob": content}) == (
            "InvalidParameterException",
            "Invalid parameter at 'catalogData.logoImageBlob' failed to satisfy constraint: 'Member must be a PNG"
            " image'",
        )
        assert refusal(client.describe_images, repositoryName="other") == missing("other")

    def test_its_limits(self, client: Any) -> None:
        for wrong in (
            {"description": "x" * 1025},
            {"architectures": ["x"] * 51},
            {"operatingSystems": ["x" * 51]},
            {"aboutText": "x" * 25601},
            {"usageText": "x" * 25601},
            {"logoImageBlob": PNG + bytes(512_000)},
        ):
            code, _ = refusal(client.put_repository_catalog_data, repositoryName=NAME, catalogData=wrong)
            assert code == "InvalidParameterException"
        client.put_repository_catalog_data(
            repositoryName=NAME, catalogData={"logoImageBlob": PNG + bytes(512_000 - len(PNG))}
        )

    def test_of_the_registry(self, client: Any) -> None:
        assert client.get_registry_catalog_data()["registryCatalogData"] == {}
        put = client.put_registry_catalog_data(displayName="My Team")
        assert put["registryCatalogData"] == {"displayName": "My Team"}
        assert client.get_registry_catalog_data()["registryCatalogData"] == {"displayName": "My Team"}
        assert refusal(client.put_registry_catalog_data, displayName="x" * 101)[0] == "InvalidParameterException"
        assert client.put_registry_catalog_data(displayName="")["registryCatalogData"] == {}


class TestPolicies:
    def test_of_a_repository(self, client: Any) -> None:
        none = ("RepositoryPolicyNotFoundException", f"Repository policy does not exist for the {HERE}")
        assert refusal(client.get_repository_policy, repositoryName=NAME) == none
        text = json.dumps(
            {
                "Version": "2012-10-17",
                "Statement": {"Effect": "Allow", "Principal": "*", "Action": "ecr-public:PutImage"},
            }
        )
        shown = {"registryId": ACCOUNT, "repositoryName": NAME, "policyText": text}
        for answer in (
            client.set_repository_policy(repositoryName=NAME, policyText=text),
            client.get_repository_policy(repositoryName=NAME),
            client.delete_repository_policy(repositoryName=NAME),
        ):
            assert {name: answer[name] for name in shown} == shown
        assert refusal(client.delete_repository_policy, repositoryName=NAME) == none

    @pytest.mark.parametrize("action", ["ecr:PutImage", "s3:GetObject"])
    def test_actions_are_those_of_ecr_public(self, client: Any, action: str) -> None:
        text = json.dumps({"Statement": {"Effect": "Allow", "Principal": "*", "Action": action}})
        assert refusal(client.set_repository_policy, repositoryName=NAME, policyText=text) == (
            "InvalidParameterException",
            "Invalid parameter at 'PolicyText' failed to satisfy constraint: 'Invalid repository policy provided'",
        )


class TestRegistry:
    def test_its_alias_appears_with_the_first_repository_and_stays(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path) as ecr:
            client = ecr.client("ecr-public")
            registry = {
                "registryId": ACCOUNT,
                "registryArn": f"arn:aws:ecr-public::{ACCOUNT}:registry/{ACCOUNT}",
                "registryUri": "",
                "verified": False,
                "aliases": [],
            }
            assert client.describe_registries()["registries"] == [registry]
            assert refusal(client.describe_images, repositoryName=NAME) == missing(NAME)
            client.create_repository(repositoryName=NAME)
            [first] = client.describe_registries()["registries"]
            [alias] = first["aliases"]
            assert re.fullmatch(r"(?:[a-z][0-9]){4}", alias["name"])
            assert alias == {
                "name": alias["name"],
                "status": "ACTIVE",
                "primaryRegistryAlias": True,
                "defaultRegistryAlias": True,
            }
            assert first["registryUri"] == f"public.ecr.aws/{alias['name']}"
            client.delete_repository(repositoryName=NAME)
            client.create_repository(repositoryName="again")
            assert client.describe_registries()["registries"] == [first]
        with ecr_nodes(tmp_path) as ecr:
            assert ecr.client("ecr-public").describe_registries()["registries"] == [first]

    def test_the_file_says_which(self, ecr: EcrNodes) -> None:
        [found] = ecr.client("ecr-public").describe_registries()["registries"]
        [alias] = found["aliases"]
        assert (alias["name"], alias["defaultRegistryAlias"]) == (ALIAS, False)

    def test_an_alias_that_private_repositories_are_below_is_not_taken(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path) as ecr:
            ecr.client().create_repository(repositoryName=f"{ALIAS}/app")
        declared = [node(ecr_public={"alias": ALIAS})]
        refused = pytest.raises(
            ConfigurationError, match="there are private repositories, or a cache rule, below my-team/"
        )
        with refused, ecr_nodes(tmp_path, nodes=declared):
            pass
        with ecr_nodes(tmp_path) as ecr:
            ecr.client().delete_repository(repositoryName=f"{ALIAS}/app")
        with ecr_nodes(tmp_path, nodes=declared) as ecr:
            ecr.client("ecr-public").create_repository(repositoryName="app")

    def test_an_alias_that_is_in_use_stays(self, tmp_path: Path, ecr: EcrNodes) -> None:
        first, second = [node(ecr_public={"alias": ALIAS})], [node(ecr_public={"alias": "other"})]
        with ecr_nodes(tmp_path / "here", nodes=first) as here:
            here.client("ecr-public").create_repository(repositoryName="app")
        refused = pytest.raises(ConfigurationError, match=r"below the alias my-team; ecr_public\.alias cannot become")
        with refused, ecr_nodes(tmp_path / "here", nodes=second):
            pass
        with ecr_nodes(tmp_path / "here", nodes=first) as here:
            here.client("ecr-public").delete_repository(repositoryName="app")
        with ecr_nodes(tmp_path / "here", nodes=second) as here:
            created = here.client("ecr-public").create_repository(repositoryName="app")
            assert created["repository"]["repositoryUri"] == "public.ecr.aws/other/app"

    def test_a_node_that_does_not_serve_it(self, tmp_path: Path) -> None:
        with ecr_nodes(tmp_path) as ecr:
            created = ecr.client("ecr-public").create_repository(repositoryName="app")["repository"]
            path = created["repositoryUri"].removeprefix("public.ecr.aws")
            push(ecr, path[1:], IMAGE, "v1")
            assert ecr.send("GET", f"/v2{path}/manifests/v1").status == 200
        with ecr_nodes(tmp_path, nodes=[node(ecr_public={"enabled": False})]) as ecr:
            assert refusal(ecr.client("ecr-public").describe_repositories) == (
                "UnsupportedCommandException",
                "ECR Public is not served by this registry.",
            )
            assert ecr.send("GET", f"/v2{path}/manifests/v1").status == 404
            assert ecr.send("GET", "/token/").status == 404
            assert ecr.client().describe_repositories()["repositories"] == []

    def test_regions_that_have_none(self, ecr: EcrNodes) -> None:
        ecr.client("ecr-public", region="us-west-2").describe_registries()
        code, _ = refusal(ecr.client("ecr-public", region="eu-west-3").describe_registries)
        assert code == "UnsupportedCommandException"

    def test_the_token_is_one_object(self, ecr: EcrNodes) -> None:
        data = ecr.client("ecr-public").get_authorization_token()["authorizationData"]
        assert set(data) == {"authorizationToken", "expiresAt"}
        assert base64.b64decode(data["authorizationToken"]).startswith(b"AWS:")


class TestApart:
    """Public and private repositories know nothing of each other, whatever they are called."""

    def test_each_api_lists_its_own(self, ecr: EcrNodes, client: Any) -> None:
        private = ecr.client()
        private.create_repository(repositoryName=NAME)
        push(ecr, NAME, OTHER, "v1")
        push(ecr, f"{ALIAS}/{NAME}", IMAGE, "v1")
        assert [one["repositoryName"] for one in private.describe_repositories()["repositories"]] == [NAME]
        assert ecr.send("GET", "/v2/_catalog").json() == {"repositories": [NAME]}
        [shown] = client.describe_images(repositoryName=NAME)["imageDetails"]
        assert shown["imageDigest"] == IMAGE.digest
        [kept] = private.describe_images(repositoryName=NAME)["imageDetails"]
        assert kept["imageDigest"] == OTHER.digest

    def test_the_private_api_does_not_know_what_is_below_the_alias(self, ecr: EcrNodes, client: Any) -> None:
        private, name = ecr.client(), f"{ALIAS}/{NAME}"
        for call, members in (
            (private.delete_repository, {"force": True}),
            (private.describe_images, {}),
            (private.put_image_tag_mutability, {"imageTagMutability": "IMMUTABLE"}),
            (private.set_repository_policy, {"policyText": "{}"}),
            (private.put_lifecycle_policy, {"lifecyclePolicyText": "x" * 100}),
            (private.initiate_layer_upload, {}),
            (private.start_image_scan, {"imageId": {"imageTag": "v1"}}),
        ):
            assert refusal(call, repositoryName=name, **members) == missing(name)
        assert refusal(private.describe_repositories, repositoryNames=[name]) == missing(name)
        arn = f"arn:aws:ecr:us-east-1:{ACCOUNT}:repository/{name}"
        assert refusal(private.list_tags_for_resource, resourceArn=arn) == missing(name)
        assert refusal(private.create_repository, repositoryName=f"{ALIAS}/new") == (
            "InvalidParameterException",
            "Invalid parameter at 'repositoryName' failed to satisfy constraint: 'names below the alias of the public"
            " registry, my-team, are those of public repositories'",
        )
        private.create_repository(repositoryName=ALIAS)  # beside it, not below

    def test_a_push_makes_no_public_repository(self, ecr: EcrNodes, client: Any) -> None:
        refused = ecr.send("POST", f"/v2/{ALIAS}/none/blobs/uploads/")
        assert refused.status == 404
        assert refused.json()["errors"][0] == {
            "code": "NAME_UNKNOWN",
            "message": f"The repository with name 'none' does not exist in the registry with id '{ALIAS}'",
        }
        assert put_manifest(ecr, f"{ALIAS}/none", IMAGE, "v1").status == 404
        assert [one["repositoryName"] for one in client.describe_repositories()["repositories"]] == [NAME]

    def test_nothing_of_it_is_replicated_cached_or_told(self, tmp_path: Path) -> None:
        first = node(
            ecr_public={"alias": ALIAS},
            replication={"rules": [{"name": "all", "destinations": [{"region": "eu-west-1", "account": ACCOUNT}]}]},
        )
        with ecr_nodes(tmp_path, nodes=[first, node("eu-west-1")]) as ecr:
            ecr.client("ecr-public").create_repository(repositoryName=NAME)
            push(ecr, f"{ALIAS}/{NAME}", IMAGE, "v1")
            push(ecr, "private", IMAGE, "v1")
            there = ecr.client(region="eu-west-1", node=f"{ACCOUNT}/eu-west-1")

            eventually(
                lambda: ecr.send("GET", "/v2/private/manifests/v1", node=f"{ACCOUNT}/eu-west-1").status == 200,
                "the private image to arrive",
            )
            assert [one["repositoryName"] for one in there.describe_repositories()["repositories"]] == ["private"]

    def test_a_private_image_does_not_become_public_elsewhere(self, tmp_path: Path) -> None:
        rule = {"name": "all", "destinations": [{"region": "eu-west-1", "account": ACCOUNT}]}
        there = f"{ACCOUNT}/eu-west-1"
        nodes = [node(replication={"rules": [rule]}), node("eu-west-1", ecr_public={"alias": ALIAS})]
        with ecr_nodes(tmp_path, nodes=nodes) as ecr:
            public = ecr.client("ecr-public", node=there)
            public.create_repository(repositoryName=NAME)
            private = ecr.client()
            private.create_repository(repositoryName=f"{ALIAS}/{NAME}")
            push(ecr, f"{ALIAS}/{NAME}", IMAGE, "v1")
            image = {"repositoryName": f"{ALIAS}/{NAME}", "imageId": {"imageDigest": IMAGE.digest}}

            def has_failed() -> bool:
                [one] = private.describe_image_replication_status(**image)["replicationStatuses"]
                return bool(one["status"] == "FAILED")

            eventually(has_failed, "the replication to fail")
            assert public.describe_images(repositoryName=NAME)["imageDetails"] == []

    def test_the_cache_does_not_fill_it(self, ecr: EcrNodes) -> None:
        for prefix in (ALIAS, f"{ALIAS}/more"):
            assert refusal(
                ecr.client().create_pull_through_cache_rule,
                ecrRepositoryPrefix=prefix,
                upstreamRegistryUrl="public.ecr.aws",
            ) == (
                "InvalidParameterException",
                "Invalid parameter at 'ecrRepositoryPrefix' failed to satisfy constraint: 'names below the alias of"
                " the public registry, my-team, are those of public repositories'",
            )


def test_every_operation_is_answered(ecr: EcrNodes) -> None:
    assert set(ECR_PUBLIC) == set(service_model("ecr-public").operations)
    assert len(ECR_PUBLIC) == 23


def test_the_digest_in_a_logo_s_url_is_that_of_its_bytes(ecr: EcrNodes, client: Any) -> None:
    put = client.put_repository_catalog_data(repositoryName=NAME, catalogData={"logoImageBlob": PNG})
    assert put["catalogData"]["logoUrl"].endswith(f"{ALIAS}/{NAME}/sha256:{hashlib.sha256(PNG).hexdigest()}")
