"""The daemon on `configs/ecr-local.yaml` as a user starts it, with what users have: boto3 and the `aws` CLI.

Only the port is another one than the file's. Images are made up: nobody ever uploads their layers.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
import yaml
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.aws_shapes import check_answer
from tests.support.daemon import Daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
ACCOUNT, REGION = "123456789012", "us-east-1"
_numbers = itertools.count()


class LocalEcr:
    """A running local ECR. Every test makes repositories of its own in it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.address = daemon.address(REGION)
        self.url = f"http://{self.address}"

    def client(self, service: str = "ecr") -> Any:
        """Return a client of boto3 whose answers are held against the model."""
        client = boto3.session.Session().client(
            service,
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 1}, ignore_configured_endpoint_urls=True),
        )
        client.meta.events.register("before-parse", check_answer)
        return client

    def aws(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the `aws` CLI, whatever comes of it."""
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.daemon.directory),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }
        return subprocess.run(  # noqa: S603 - the AWS CLI
            [str(Path(sys.executable).parent / "aws"), "--endpoint-url", self.url, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd or self.daemon.directory,
            env=environ,
            timeout=55,
            stdin=subprocess.DEVNULL,
        )

    def ecr(self, *arguments: str, cwd: Path | None = None) -> Any:
        """Run `aws ecr`, which must succeed; return the JSON that it printed, or None for nothing."""
        done = self.aws("ecr", *arguments, cwd=cwd)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout else None

    def text(self, *arguments: str) -> str:
        """Run `aws ecr`, which must succeed; return what it printed as text, as a shell's `$(…)` does."""
        done = self.aws("ecr", *arguments, "--output", "text")
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")

    def fails(self, *arguments: str) -> str:
        """Run `aws ecr`, which must fail as it does where the service refuses; return what it told the user."""
        done = self.aws("ecr", *arguments)
        assert (done.returncode, done.stdout) == (255, ""), done
        return done.stderr.strip().removeprefix("aws: [ERROR]: ")


def running(directory: Path) -> Iterator[LocalEcr]:
    """Start a local ECR in a directory; for a fixture."""
    document = yaml.safe_load((ROOT / "configs" / "ecr-local.yaml").read_text())
    del document["version"], document["storage_root"]
    document["nodes"][0]["listen"] = "127.0.0.1:0"
    with Daemon(directory, document) as daemon:
        yield LocalEcr(daemon)


def new_name(prefix: str = "team") -> str:
    """Return a name that no other repository of this process has."""
    return f"{prefix}/r{next(_numbers)}"


def made_up_manifest(seed: str, **members: Any) -> str:
    """Return the manifest of an image that was never built."""

    def descriptor(part: str, media_type: str, size: int) -> dict[str, Any]:
        digest = hashlib.sha256(f"{seed} {part}".encode()).hexdigest()
        return {"mediaType": media_type, "size": size, "digest": f"sha256:{digest}"}

    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": descriptor("config", "application/vnd.docker.container.image.v1+json", 7023),
        "layers": [
            descriptor(str(number), "application/vnd.docker.image.rootfs.diff.tar.gzip", 1000 + number)
            for number in range(3)
        ],
        **members,
    }
    return json.dumps({name: value for name, value in document.items() if value is not None})


def digest_of(manifest: str) -> str:
    """Return the digest of a manifest's text."""
    return "sha256:" + hashlib.sha256(manifest.encode()).hexdigest()


def refusal(call: Callable[..., Any], **members: Any) -> tuple[str, str]:
    """Return code and text of the error with which a call must end, with status 400 as all of them."""
    with pytest.raises(ClientError) as caught:
        call(**members)
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    return answer["Error"]["Code"], answer["Error"]["Message"]
