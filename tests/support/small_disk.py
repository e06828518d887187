"""A small file system in memory, for tests of a full disk. Needs root."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.tools import require, require_root

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def mounted_disk(size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes; skip the test where that cannot be done.

    It does not lie among pytest's directories: a killed run would leave one there that pytest cannot delete.
    """
    require_root()
    directory = Path(tempfile.mkdtemp(prefix="full-disk-"))
    mount = [require("mount"), "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        directory.rmdir()
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        subprocess.run([require("umount"), str(directory)], check=True)  # noqa: S603
        directory.rmdir()
