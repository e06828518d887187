"""What a running server costs: processor time and memory of a process with its children, as the kernel counts them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import TracebackType

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLING = 0.02
_REST, _LONGEST_REST = 0.1, 30.0


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants, as far as they are alive."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            found += [int(child) for child in task.read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process and its children have used."""
    total = 0
    for one in tree(pid):
        fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11 : 15 if one == pid else 13])
    return total / _TICKS


def cpu_seconds_at_rest(pid: int) -> float:
    """Wait until a process has nothing more to do, and return the processor time it and its children have used."""
    deadline = time.monotonic() + _LONGEST_REST
    used, before = cpu_seconds(pid), -1.0
    while used - before > 1.5 / _TICKS and time.monotonic() < deadline:
        time.sleep(_REST)
        used, before = cpu_seconds(pid), used
    return used


def memory(pid: int, field: str = "VmRSS") -> int:
    """Return the resident bytes of a process and its children: now (VmRSS) or at their highest (VmHWM)."""
    total = 0
    for one in tree(pid):
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                total += int(line.split()[1]) * 1024
    return total


class MemorySampler:
    """Watches a process while a block runs; `peak` is the most that was seen."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.peak = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_SAMPLING):
            self.peak = max(self.peak, memory(self._pid))
