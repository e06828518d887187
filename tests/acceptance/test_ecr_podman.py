"""podman logs in to a node with the token that the ECR API issues, pulls, and pushes under another name."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support import engines
from tests.support.layouts import container_image, write_oci_layout
from tests.support.local_ecr import running
from tests.support.skopeo import Skopeo
from tests.support.tools import require_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.local_ecr import LocalEcr

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("podman")]


@pytest.fixture
def local(tmp_path: Path) -> Iterator[LocalEcr]:
    yield from running(tmp_path / "daemon")


def test_podman_pulls_and_pushes_with_a_token(local: LocalEcr, tmp_path: Path) -> None:
    require_root()
    client = local.client()
    for name in ("podman/app", "podman/copy"):
        client.create_repository(repositoryName=name)
    password = local.aws("ecr", "get-login-password").stdout.strip()
    write_oci_layout(tmp_path / "layout", {"app": container_image([{"greeting": os.urandom(8)}])})
    image, copy = f"{local.address}/podman/app:1", f"{local.address}/podman/copy:1"
    skopeo = Skopeo(tmp_path / "skopeo")
    skopeo.copy(f"oci:{tmp_path / 'layout'}:app", f"docker://{image}", f"--dest-creds=AWS:{password}")

    with tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp") as directory:  # podman takes no long name
        environ = {"REGISTRY_AUTH_FILE": str(Path(directory) / "auth.json")}
        podman = engines.podman(Path(directory) / "podman", environ)
        podman("login", "--tls-verify=false", "--username", "AWS", "--password", password, local.address)
        podman("pull", "--tls-verify=false", image)
        podman("push", "--tls-verify=false", image, copy)
    [pushed] = client.describe_images(repositoryName="podman/copy")["imageDetails"]
    assert pushed["imageTags"] == ["1"]
