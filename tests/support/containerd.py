"""A containerd with a directory of its own, driven by `ctr`, as a Kubernetes node's is by the kubelet."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support.processes import Process
from tests.support.tools import require, require_root
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


class CtrFailed(AssertionError):
    """A command of ctr failed; the message is what it said."""


class Containerd:
    """A containerd and what a test does with it."""

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
        """Run `ctr image …` and return what it printed; raises CtrFailed."""
        done = self._run("image", *arguments)
        if done.returncode != 0:
            raise CtrFailed(f"ctr image {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def pull(self, image: str, *options: str) -> None:
        """Pull and unpack an image over plain HTTP."""
        self.image("pull", "--plain-http", "--snapshotter", "native", *options, image)

    def pull_by_hosts(self, hosts: Path, image: str, *options: str) -> None:
        """Pull and unpack an image, from where the files in a `certs.d` directory say."""
        self.image("pull", "--hosts-dir", str(hosts), "--snapshotter", "native", *options, image)

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

    def forget_everything(self) -> None:
        """Remove all images together with their content."""
        names = self.image("ls", "--quiet").split()
        if names:
            self.forget(*names)

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - a command line of a test
            [self._ctr, "--address", str(self._directory / "grpc.sock"), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            stdin=subprocess.DEVNULL,
        )


def running_containerd(directory: Path) -> Iterator[Containerd]:
    """Yield a containerd that answers, and end it; for fixtures. Needs root."""
    require_root()
    client = Containerd(directory)
    try:
        eventually(client.is_up, "containerd to answer")
        yield client
    finally:
        client.process.terminate()
