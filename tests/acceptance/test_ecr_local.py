"""The README's local ECR: its commands, as they stand there, with the real AWS CLI and skopeo."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.layouts import container_image, write_oci_layout
from tests.support.skopeo import Skopeo
from tests.support.tools import require, require_root

pytestmark = [pytest.mark.clients, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
SECTION = "## A local ECR in one minute\n"
SCRIPT = """
set -euo pipefail
ip link set lo up
{serve} >daemon.log 2>&1 &
daemon=$!
trap 'kill $daemon; wait $daemon' EXIT
for _ in $(seq 200); do (: </dev/tcp/127.0.0.1/5000) 2>/dev/null && break; sleep 0.1; done
{commands}
"""


def blocks() -> list[str]:
    """Return the shell commands of the section."""
    section = (ROOT / "README.md").read_text().partition(SECTION)[2].partition("\n## ")[0]
    found = [block.partition("```")[0] for block in section.split("```sh\n")[1:]]
    assert len(found) == 2
    return found


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Make a directory as the reader has it: the configurations, and an image in `image.tar`."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    image = container_image([{"greeting": b"hello"}])
    write_oci_layout(tmp_path / "layout", {"app": image})
    Skopeo(tmp_path / "skopeo").copy(
        f"oci:{tmp_path / 'layout'}:app", f"docker-archive:{tmp_path / 'image.tar'}:app:1.0"
    )
    return tmp_path


def test_the_commands_of_the_readme_work(home: Path) -> None:
    require_root()
    serve, commands = blocks()
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),
        "REGISTRY_AUTH_FILE": str(home / "auth.json"),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for variable in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        if variable in os.environ:
            environ[variable] = os.environ[variable]
    # A network of its own: the port of the README may be in use on this machine.
    done = subprocess.run(  # noqa: S603 - the README's commands
        [require("unshare"), "--net", "bash", "-c", SCRIPT.format(serve=serve.strip(), commands=commands)],
        capture_output=True,
        text=True,
        check=False,
        cwd=home,
        env=environ,
        timeout=55,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr + done.stdout + (home / "daemon.log").read_text()
    assert "Login Succeeded!" in done.stdout
    assert '"repositoryUri": "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app"' in done.stdout
    decoder = json.JSONDecoder()
    details, _ = decoder.raw_decode(done.stdout, done.stdout.index('{\n    "imageDetails"'))
    [image] = details["imageDetails"]
    assert image["imageTags"] == ["1.0"]
    inspected = json.loads(done.stdout[done.stdout.rindex('{\n    "Name"') :])
    assert inspected["Name"] == "127.0.0.1:5000/team/app"
    assert inspected["Digest"] == image["imageDigest"]
