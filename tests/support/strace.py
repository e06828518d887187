"""Interfering with the system calls of a running process: `strace -e inject`, attached after it has started.

Calls are counted for each thread, from the moment strace is attached.
"""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING, Self

from tests.support.tools import require
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType


class Strace:
    """Traces `calls` of a process and all its threads while the block lasts; `inject` is what is done to them."""

    def __init__(self, pid: int, log: Path, calls: str, inject: str | None = None) -> None:
        self._log = log
        self._messages = log.with_suffix(".attached")
        command = [require("strace"), "-f", "-y", "-ttt", "-p", str(pid), "-o", str(log), "-e", f"trace={calls}"]
        if inject is not None:
            command += ["-e", f"inject={calls}:{inject}"]
        with self._messages.open("wb") as messages:
            self._popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=messages)  # noqa: S603

    def __enter__(self) -> Self:
        eventually(lambda: b"attached" in self._messages.read_bytes(), "strace to attach")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._popen.send_signal(signal.SIGINT)
        try:
            self._popen.wait(5)
        except subprocess.TimeoutExpired:
            # It may wait for a thread that was killed with the others; without it, that one ends.
            self._popen.kill()
            self._popen.wait(5)

    def lines(self) -> list[str]:
        """Return the calls that were seen, with the time of each, in order."""
        return [line.partition(" ")[2].strip() for line in self._log.read_text(errors="replace").splitlines()]
