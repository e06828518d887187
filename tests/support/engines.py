"""buildah and podman with images of their own, in files without a special file system."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.support.tools import require

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


class Engine:
    """One of the two; call it with a command line. Podman takes no directory with a long name."""

    def __init__(self, program: str, directory: Path, *options: str, environ: Mapping[str, str] | None = None) -> None:
        places = ("--root", str(directory / "root"), "--runroot", str(directory / "run"))
        self._command = (require(program), "--storage-driver", "vfs", *places, *options)
        self._environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(directory),
            **(environ or {}),
        }

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(  # noqa: S603 - a command line of a test
            [*self._command, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=50,
            stdin=subprocess.DEVNULL,
            env=self._environment,
        )
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stderr}"
        return done.stdout.strip()


def podman(directory: Path, environ: Mapping[str, str] | None = None) -> Engine:
    """Return a podman with a directory of its own."""
    state = ("--tmpdir", str(directory / "tmp"), "--cgroup-manager", "cgroupfs")
    return Engine("podman", directory, *state, environ=environ)
