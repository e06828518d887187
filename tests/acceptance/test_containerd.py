"""containerd pulls, pushes and pulls by digest, as a Kubernetes node does."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.daemon import Daemon, node
from tests.support.http_calls import get, sha256
from tests.support.images import build_index
from tests.support.layouts import container_image, write_oci_layout
from tests.support.processes import Process
from tests.support.tools import require, require_root
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.skopeo import Skopeo

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("containerd")]

AMD64 = container_image([{"etc/name": b"amd64"}, {"etc/shared": b"shared" * 5000}])
ARM64 = container_image([{"etc/name": b"arm64"}, {"etc/shared": b"shared" * 5000}], platform=("linux", "arm64"))
MULTI = build_index([AMD64, ARM64])

_CONFIG = """
version = 2
root = "{directory}/root"
state = "{directory}/state"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs",
]
[grpc]
  address = "{directory}/grpc.sock"
[ttrpc]
  address = "{directory}/ttrpc.sock"
"""


class Containerd:
    """A containerd with a directory of its own, driven by `ctr`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ctr = require("ctr")
        (directory / "config.toml").write_text(_CONFIG.format(directory=directory))
        command = [require("containerd"), "--config", str(directory / "config.toml")]
        self.process = Process(command, directory / "containerd")

    def is_up(self) -> bool:
        """Tell whether it answers; fail the test when it ended."""
        if self.process.exit_code is not None:
            pytest.fail(f"containerd ended:\n{self.process.tail()}")
        return self._run("version").returncode == 0

    def image(self, *arguments: str) -> str:
        """Run `ctr image …` and return what it printed; fail the test when it fails."""
        done = self._run("image", *arguments)
        assert done.returncode == 0, f"ctr image {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    def pull(self, image: str, *options: str) -> None:
        """Pull and unpack an image."""
        self.image("pull", "--plain-http", "--snapshotter", "native", *options, image)

    def digest_of(self, image: str) -> str:
        """Return the digest that a pulled image's name stands for."""
        rows = [line.split() for line in self.image("ls", f"name=={image}").splitlines()[1:]]
        assert len(rows) == 1, rows
        return rows[0][2]

    def content(self) -> set[str]:
        """Return the digests of everything it holds."""
        return set(self._run("content", "ls", "--quiet").stdout.split())

    def forget(self, *images: str) -> None:
        """Remove images together with their content."""
        self.image("rm", "--sync", *images)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - a command line of a test
            [self._ctr, "--address", str(self._directory / "grpc.sock"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            stdin=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), {"nodes": [node()]}) as running:
        yield running


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    require_root()
    client = Containerd(tmp_path_factory.mktemp("cd"))
    try:
        eventually(client.is_up, "containerd to answer")
        yield client
    finally:
        client.process.terminate()


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
    containerd.forget(*containerd.image("ls", "--quiet").split())
    assert AMD64.config not in containerd.content()
    containerd.pull(pushed)
    assert containerd.content() >= {AMD64.digest, *AMD64.blobs}
