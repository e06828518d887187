"""containerd pulls, pushes and pulls by digest, as a Kubernetes node does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.containerd import Containerd, running_containerd
from tests.support.daemon import Daemon, node
from tests.support.http_calls import get, sha256
from tests.support.images import build_index
from tests.support.layouts import container_image, write_oci_layout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.skopeo import Skopeo

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("containerd")]

AMD64 = container_image([{"etc/name": b"amd64"}, {"etc/shared": b"shared" * 5000}])
ARM64 = container_image([{"etc/name": b"arm64"}, {"etc/shared": b"shared" * 5000}], platform=("linux", "arm64"))
MULTI = build_index([AMD64, ARM64])


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), {"nodes": [node()]}) as running:
        yield running


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    yield from running_containerd(tmp_path_factory.mktemp("cd"))


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("layout")
    write_oci_layout(directory, {"one": AMD64, "multi": MULTI})
    return f"oci:{directory}"


def test_an_image_is_pulled_and_unpacked(daemon: Daemon, containerd: Containerd, layout: str, skopeo: Skopeo) -> None:
    image = f"{daemon.address()}/pulled/app:1.0"
    skopeo.copy(f"{layout}:one", f"docker://{image}")
    containerd.pull(image)
    assert containerd.digest_of(image) == AMD64.digest
    assert containerd.content() >= {AMD64.digest, *AMD64.blobs}


def test_an_image_is_pulled_by_digest(daemon: Daemon, containerd: Containerd, layout: str, skopeo: Skopeo) -> None:
    repository = f"{daemon.address()}/pinned/app"
    skopeo.copy(f"{layout}:one", f"docker://{repository}:1.0")
    containerd.pull(f"{repository}@{AMD64.digest}")
    assert containerd.digest_of(f"{repository}@{AMD64.digest}") == AMD64.digest


def test_all_platforms_of_an_index_are_pulled(
    daemon: Daemon, containerd: Containerd, layout: str, skopeo: Skopeo
) -> None:
    image = f"{daemon.address()}/multi/app:1.0"
    skopeo.copy(f"{layout}:multi", f"docker://{image}", "--all", "--preserve-digests")
    containerd.pull(image, "--all-platforms")
    assert containerd.digest_of(image) == MULTI.digest
    assert containerd.content() >= {MULTI.digest, AMD64.digest, ARM64.digest, *MULTI.blobs}


def test_a_pushed_image_can_be_pulled_again(
    daemon: Daemon, containerd: Containerd, layout: str, skopeo: Skopeo
) -> None:
    source, pushed = (f"{daemon.address()}/{name}/app:1.0" for name in ("source", "pushed"))
    skopeo.copy(f"{layout}:one", f"docker://{source}")
    containerd.pull(source)
    containerd.image("tag", "--force", source, pushed)
    containerd.image("push", "--plain-http", pushed)
    assert sha256(get(daemon.url("/v2/pushed/app/manifests/1.0"), {"Accept": AMD64.media_type}).body) == AMD64.digest
    containerd.forget_everything()
    assert AMD64.config not in containerd.content()
    containerd.pull(pushed)
    assert containerd.content() >= {AMD64.digest, *AMD64.blobs}
