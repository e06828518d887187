"""A public repository with other people's tools: made and logged in to with the AWS CLI, pushed to with skopeo, pulled
by skopeo and podman without a name.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import engines
from tests.support.daemon import Daemon, node
from tests.support.layouts import container_image, write_oci_layout
from tests.support.skopeo import Skopeo, SkopeoFailed
from tests.support.tools import require_root

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.clients, pytest.mark.slow, pytest.mark.xdist_group("podman")]

BIN = Path(sys.executable).parent
ACCOUNT, ALIAS = "123456789012", "my-team"
KEY, SECRET = "AKIDEXAMPLE", "a-secret-access-key-of-this-test"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    document = {
        "identities": [
            {
                "arn": f"arn:aws:iam::{ACCOUNT}:user/dev",
                "administrator": True,
                "access_keys": [{"id": KEY, "secret": {"env": "SECRET"}}],
            }
        ],
        "nodes": [node(account=ACCOUNT, ecr_public={"alias": ALIAS})],
    }
    with Daemon(tmp_path_factory.mktemp("daemon"), document, {"SECRET": SECRET}) as running:
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> str:
    layout = tmp_path_factory.mktemp("layout") / "layout"
    write_oci_layout(layout, {"app": container_image([{"greeting": b"hello"}])})
    return f"oci:{layout}:app"


def aws(daemon: Daemon, home: Path, *arguments: str) -> str:
    """Run the AWS CLI against the node, and return what it printed."""
    done = subprocess.run(  # noqa: S603 - a client
        [str(BIN / "aws"), "ecr-public", *arguments, "--region", "us-east-1", "--endpoint-url", daemon.url("")],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_EC2_METADATA_DISABLED": "true",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def described(daemon: Daemon, home: Path, *arguments: str) -> Any:
    return json.loads(aws(daemon, home, *arguments, "--output", "json"))


def test_everybody_pulls_what_its_owner_pushes(daemon: Daemon, image: str, tmp_path: Path) -> None:
    require_root()
    created = described(daemon, tmp_path, "create-repository", "--repository-name", "app")["repository"]
    assert created["repositoryUri"] == f"public.ecr.aws/{ALIAS}/app"
    where = f"docker://{daemon.address()}/{ALIAS}/app"
    stranger, owner = Skopeo(tmp_path / "stranger"), Skopeo(tmp_path / "owner")
    with pytest.raises(SkopeoFailed):
        stranger.copy(image, f"{where}:1.0")
    password = aws(daemon, tmp_path, "get-login-password").strip()
    owner.run("login", "--tls-verify=false", "--username", "AWS", "--password", password, daemon.address())
    owner.copy(image, f"{where}:1.0")
    owner.copy(image, f"docker://{daemon.address()}/{ALIAS}/app:2.0", f"--dest-creds=AWS:{password}")

    [first, second] = described(daemon, tmp_path, "describe-image-tags", "--repository-name", "app")["imageTagDetails"]
    assert [first["imageTag"], second["imageTag"]] == ["1.0", "2.0"]
    digest = first["imageDetail"]["imageDigest"]
    assert stranger.inspect(f"{where}:1.0")["Digest"] == digest
    stranger.copy(f"{where}@{digest}", f"oci:{tmp_path / 'pulled'}:app")
    assert sorted(stranger.tags(where)) == ["1.0", "2.0"]
    with tempfile.TemporaryDirectory(prefix="pod-", dir="/tmp") as directory:  # podman takes no long name
        podman = engines.podman(Path(directory) / "podman")
        podman("pull", "--tls-verify=false", f"{daemon.address()}/{ALIAS}/app:1.0")
        assert podman("image", "inspect", "--format", "{{.Digest}}", f"{daemon.address()}/{ALIAS}/app:1.0") == digest


def test_what_is_private_stays_so(daemon: Daemon, image: str, tmp_path: Path) -> None:
    password = aws(daemon, tmp_path, "get-login-password").strip()
    owner, stranger = Skopeo(tmp_path / "owner"), Skopeo(tmp_path / "stranger")
    where = f"docker://{daemon.address()}/private/app:1.0"
    owner.copy(image, where, f"--dest-creds=AWS:{password}")
    with pytest.raises(SkopeoFailed):
        stranger.inspect(where)
