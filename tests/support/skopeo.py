"""skopeo as a user runs it, in an environment of its own: no login and no mirror of this machine matters."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

from tests.support.tools import require

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 60.0


class SkopeoFailed(AssertionError):
    """Skopeo gave up; the message is what it said."""


class Skopeo:
    """Runs skopeo against registries on loopback, which speak plain HTTP."""

    def __init__(self, home: Path) -> None:
        self._program = require("skopeo")
        self._home = home
        home.mkdir(parents=True, exist_ok=True)

    def copy(self, source: str, destination: str, *options: str) -> None:
        """Copy an image."""
        self.run("copy", "--src-tls-verify=false", "--dest-tls-verify=false", *options, source, destination)

    def inspect(self, image: str, *options: str) -> dict[str, Any]:
        """Return what skopeo says about an image."""
        found: dict[str, Any] = json.loads(self.run("inspect", "--tls-verify=false", *options, image))
        return found

    def manifest(self, image: str, *options: str) -> bytes:
        """Return an image's manifest, byte by byte."""
        return self.run("inspect", "--raw", "--tls-verify=false", *options, image)

    def tags(self, repository: str) -> list[str]:
        """Return the tags of a repository."""
        found: list[str] = json.loads(self.run("list-tags", "--tls-verify=false", repository))["Tags"]
        return found

    def delete(self, image: str) -> None:
        """Delete what an image's tag points to."""
        self.run("delete", "--tls-verify=false", image)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start skopeo and return at once; wait for it."""
        return subprocess.Popen(  # noqa: S603 - a command line of a test
            self._command(arguments),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._environment(),
        )

    def run(self, *arguments: str) -> bytes:
        """Run skopeo and return what it printed; raises SkopeoFailed."""
        done = subprocess.run(  # noqa: S603 - a command line of a test
            self._command(arguments),
            capture_output=True,
            check=False,
            timeout=_TIMEOUT,
            stdin=subprocess.DEVNULL,
            env=self._environment(),
        )
        if done.returncode != 0:
            raise SkopeoFailed(f"skopeo {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [self._program, "--insecure-policy", *arguments]

    def _environment(self) -> dict[str, str]:
        home = str(self._home)
        return {"PATH": os.environ.get("PATH", ""), "HOME": home, "XDG_RUNTIME_DIR": home, "TMPDIR": home}
