"""The programs of others that tests drive: where they are, and what to do without them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

_SEARCH_PATH = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"


def require(program: str) -> str:
    """Return the path of a program; skip the test without it, or fail it on CI, where everything is installed."""
    found = shutil.which(program, path=_SEARCH_PATH)
    if found is None:
        give_up(f"the program {program} is not installed: `make tools` installs it")
    return str(found)


def require_root() -> None:
    """Skip the test, or fail it on CI, when it is not run by root."""
    if os.geteuid() != 0:
        give_up("only root may do this")


def require_static_busybox() -> Path:
    """Return the path of a busybox that runs in an image without libraries."""
    path = Path(require("busybox"))
    if subprocess.run(["ldd", str(path)], capture_output=True, check=False).returncode == 0:  # noqa: S603, S607
        give_up(f"{path} needs libraries: the package busybox-static has one that does not")
    return path


def give_up(reason: str) -> None:
    """Skip the test for a reason, or fail it on CI, where everything is possible."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)
