"""skopeo pushes, pulls, inspects and deletes; what comes back is what went in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from replicator.core.media_types import DOCKER_MANIFEST, DOCKER_MANIFEST_LIST, OCI_INDEX
from tests.support.daemon import Daemon, node
from tests.support.http_calls import sha256
from tests.support.images import Built, build_index
from tests.support.layouts import container_image, write_directory, write_oci_layout
from tests.support.skopeo import Skopeo, SkopeoFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("skopeo")]

ONE = container_image([{"etc/name": b"one"}, {"etc/shared": b"shared" * 5000}])
OTHER = container_image([{"etc/name": b"other"}, {"etc/shared": b"shared" * 5000}], platform=("linux", "arm64"))
MULTI = build_index([ONE, OTHER])
DOCKER = container_image([{"etc/name": b"docker"}], media="docker")
DOCKER_LIST = build_index(
    [DOCKER, container_image([{"etc/name": b"arm"}], media="docker", platform=("linux", "arm64"))], media="docker"
)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    nodes = [node("us-east-1"), node("eu-west-1")]
    with Daemon(tmp_path_factory.mktemp("daemon"), {"nodes": nodes}) as running:
        yield running


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("layout")
    write_oci_layout(directory, {"one": ONE, "other": OTHER, "multi": MULTI})
    return f"oci:{directory}"


def files_of(directory: Path, image: Built) -> dict[str, bytes]:
    """Return the blobs of an image as skopeo wrote them into an OCI layout, by digest."""
    return {digest: (directory / "blobs" / "sha256" / digest.partition(":")[2]).read_bytes() for digest in image.blobs}


def test_an_image_is_pulled_as_it_was_pushed(daemon: Daemon, layout: str, skopeo: Skopeo, tmp_path: Path) -> None:
    image = f"docker://{daemon.address()}/round/trip:1.0"
    skopeo.copy(f"{layout}:one", image)
    skopeo.copy(image, f"oci:{tmp_path / 'back'}:one")
    assert sha256(skopeo.manifest(image)) == ONE.digest
    assert skopeo.manifest(f"oci:{tmp_path / 'back'}:one") == ONE.manifest
    assert files_of(tmp_path / "back", ONE) == ONE.blobs


def test_an_image_is_inspected_by_tag_and_by_digest(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    repository = f"docker://{daemon.address()}/inspected/app"
    skopeo.copy(f"{layout}:one", f"{repository}:1.0")
    by_tag = skopeo.inspect(f"{repository}:1.0")
    by_digest = skopeo.inspect(f"{repository}@{ONE.digest}")
    assert by_tag["Digest"] == by_digest["Digest"] == ONE.digest
    assert by_tag["Layers"] == list(ONE.layers)
    assert by_tag["Architecture"] == "amd64"
    assert by_tag["RepoTags"] == ["1.0"]


def test_tags_are_listed(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    repository = f"docker://{daemon.address()}/listed/app"
    for tag in ("2.0", "latest", "1.0"):
        skopeo.copy(f"{layout}:one", f"{repository}:{tag}")
    assert skopeo.tags(repository) == ["1.0", "2.0", "latest"]


def test_an_index_is_copied_with_all_platforms(daemon: Daemon, layout: str, skopeo: Skopeo, tmp_path: Path) -> None:
    image = f"docker://{daemon.address()}/multi/app:1.0"
    skopeo.copy(f"{layout}:multi", image, "--all", "--preserve-digests")
    raw = skopeo.manifest(image)
    assert json.loads(raw)["mediaType"] == OCI_INDEX
    assert raw == MULTI.manifest
    skopeo.copy(image, f"oci:{tmp_path / 'back'}:multi", "--all", "--preserve-digests")
    assert files_of(tmp_path / "back", MULTI) == MULTI.blobs


def test_one_platform_of_an_index_is_pulled(daemon: Daemon, layout: str, skopeo: Skopeo, tmp_path: Path) -> None:
    image = f"docker://{daemon.address()}/multi/chosen:1.0"
    skopeo.copy(f"{layout}:multi", image, "--all", "--preserve-digests")
    skopeo.run(
        *("--override-arch", "arm64", "copy", "--src-tls-verify=false", image, f"oci:{tmp_path / 'arm'}:arm"),
    )
    assert skopeo.manifest(f"oci:{tmp_path / 'arm'}:arm") == OTHER.manifest


def test_docker_media_types_stay(daemon: Daemon, skopeo: Skopeo, tmp_path: Path) -> None:
    write_directory(tmp_path / "docker", DOCKER)
    image = f"docker://{daemon.address()}/docker/app:1.0"
    skopeo.copy(f"dir:{tmp_path / 'docker'}", image, "--preserve-digests")
    raw = skopeo.manifest(image)
    assert json.loads(raw)["mediaType"] == DOCKER_MANIFEST
    assert raw == DOCKER.manifest


def test_a_docker_manifest_list_stays(daemon: Daemon, skopeo: Skopeo, tmp_path: Path) -> None:
    write_directory(tmp_path / "list", DOCKER_LIST)
    image = f"docker://{daemon.address()}/docker/multi:1.0"
    skopeo.copy(f"dir:{tmp_path / 'list'}", image, "--all", "--preserve-digests")
    raw = skopeo.manifest(image)
    assert json.loads(raw)["mediaType"] == DOCKER_MANIFEST_LIST
    assert raw == DOCKER_LIST.manifest


def test_an_image_is_converted_to_docker_schema_2(daemon: Daemon, layout: str, skopeo: Skopeo, tmp_path: Path) -> None:
    image = f"docker://{daemon.address()}/converted/app:1.0"
    skopeo.copy(f"{layout}:one", image, "--format", "v2s2")
    assert json.loads(skopeo.manifest(image))["mediaType"] == DOCKER_MANIFEST
    skopeo.copy(image, f"docker-archive:{tmp_path / 'app.tar'}:app:1.0")
    assert (tmp_path / "app.tar").stat().st_size > 0


def test_an_image_is_copied_from_node_to_node(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    source = f"docker://{daemon.address('us-east-1')}/travelling/app:1.0"
    destination = f"docker://{daemon.address('eu-west-1')}/arrived/app:1.0"
    skopeo.copy(f"{layout}:multi", source, "--all", "--preserve-digests")
    skopeo.copy(source, destination, "--all", "--preserve-digests")
    assert skopeo.manifest(destination) == MULTI.manifest
    assert skopeo.inspect(f"{destination.rpartition(':')[0]}@{OTHER.digest}")["Digest"] == OTHER.digest


def test_a_layer_that_another_repository_has_is_pushed_all_the_same(
    daemon: Daemon, layout: str, skopeo: Skopeo, tmp_path: Path
) -> None:
    first, second = (f"docker://{daemon.address()}/shared/{name}:1.0" for name in ("first", "second"))
    skopeo.copy(f"{layout}:one", first)
    skopeo.copy(first, second)
    skopeo.copy(second, f"oci:{tmp_path / 'back'}:one")
    assert files_of(tmp_path / "back", ONE) == ONE.blobs


def test_a_deleted_image_is_gone_and_the_others_stay(daemon: Daemon, layout: str, skopeo: Skopeo) -> None:
    repository = f"docker://{daemon.address()}/deleted/app"
    skopeo.copy(f"{layout}:one", f"{repository}:1.0")
    skopeo.copy(f"{layout}:other", f"{repository}:2.0")
    skopeo.delete(f"{repository}:1.0")
    assert skopeo.tags(repository) == ["2.0"]
    with pytest.raises(SkopeoFailed, match="manifest unknown"):
        skopeo.manifest(f"{repository}:1.0")
    assert skopeo.manifest(f"{repository}:2.0") == OTHER.manifest


def test_an_unknown_tag_is_reported_as_unknown(daemon: Daemon, skopeo: Skopeo) -> None:
    with pytest.raises(SkopeoFailed, match="unknown"):
        skopeo.manifest(f"docker://{daemon.address()}/never/pushed:1.0")
