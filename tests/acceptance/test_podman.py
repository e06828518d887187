"""buildah builds an image from nothing and pushes it; podman pulls it by tag and by digest."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import engines
from tests.support.daemon import Daemon, node
from tests.support.engines import Engine
from tests.support.http_calls import call
from tests.support.tools import require_root, require_static_busybox

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("podman")]

GREETING = "hello from an image\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    with Daemon(tmp_path_factory.mktemp("daemon"), {"nodes": [node()]}) as running:
        yield running


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Make a directory with a short name: podman takes no long one."""
    with tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
def buildah(short_path: Path) -> Engine:
    require_root()
    return Engine("buildah", short_path / "buildah")


@pytest.fixture
def podman(short_path: Path) -> Engine:
    require_root()
    return engines.podman(short_path / "podman")


def build(buildah: Engine, directory: Path, image: str) -> None:
    """Build an image of a static busybox and a greeting, run it once, and name it."""
    tree = directory / "tree"
    (tree / "bin").mkdir(parents=True)
    shutil.copy2(require_static_busybox(), tree / "bin" / "busybox")
    (tree / "greeting").write_text(GREETING)
    container = buildah("from", "scratch")
    buildah("copy", container, str(tree), "/")
    buildah("config", "--cmd", '["/bin/busybox","cat","/greeting"]', container)
    assert buildah("run", "--isolation", "chroot", container, "/bin/busybox", "cat", "/greeting") == GREETING.strip()
    buildah("commit", container, image)


def test_an_image_built_from_nothing_is_pushed_and_pulled(
    daemon: Daemon, buildah: Engine, podman: Engine, tmp_path: Path
) -> None:
    image, repository = f"{daemon.address()}/built/tiny:1.0", f"{daemon.address()}/built/tiny"
    build(buildah, tmp_path, image)
    buildah("push", "--tls-verify=false", "--digestfile", str(tmp_path / "digest"), image)
    digest = (tmp_path / "digest").read_text()
    assert call("HEAD", daemon.url("/v2/built/tiny/manifests/1.0")).headers["Docker-Content-Digest"] == digest

    by_tag = podman("pull", "--quiet", "--tls-verify=false", image)
    by_digest = podman("pull", "--quiet", "--tls-verify=false", f"{repository}@{digest}")
    assert by_tag == by_digest
    assert json.loads(podman("image", "inspect", image))[0]["Digest"] == digest
    mounted = Path(podman("image", "mount", image))
    greeting = subprocess.run(  # noqa: S603 - our own file
        [mounted / "bin" / "busybox", "cat", mounted / "greeting"], capture_output=True, text=True, check=True
    )
    podman("image", "unmount", image)
    assert greeting.stdout == GREETING


def test_podman_pushes_what_it_pulled_under_another_name(
    daemon: Daemon, buildah: Engine, podman: Engine, tmp_path: Path
) -> None:
    source, again = f"{daemon.address()}/source/tiny:1.0", f"{daemon.address()}/again/tiny:2.0"
    build(buildah, tmp_path, source)
    buildah("push", "--tls-verify=false", source)
    podman("pull", "--quiet", "--tls-verify=false", source)
    podman("tag", source, again)
    podman("push", "--quiet", "--tls-verify=false", again)
    podman("image", "rm", "--all", "--force")
    podman("pull", "--quiet", "--tls-verify=false", again)
    assert json.loads(podman("image", "inspect", again))[0]["RepoTags"] == [again]


def test_an_image_that_is_not_there_is_an_error(daemon: Daemon, podman: Engine) -> None:
    with pytest.raises(AssertionError, match="unknown"):
        podman("pull", "--quiet", "--tls-verify=false", f"{daemon.address()}/never/pushed:1.0")
