"""Resident memory: of an idle server, and at its highest while a blob of many times its size passes through."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks import loads
from tests.benchmarks.processes import MemorySampler, memory
from tests.benchmarks.servers import OURS, STOCK, DockerRegistry, Replicator

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.benchmarks.loads import Blob
    from tests.benchmarks.servers import Server

_SETTLE = 1.0
_SMALL = 100_000_000


@dataclass(frozen=True)
class MemoryLine:
    """Bytes for each server, by name."""

    title: str
    values: dict[str, float]


def has_room(directory: Path, size: int) -> bool:
    """Tell whether a blob of a size may be put on this disk."""
    return shutil.disk_usage(directory).free > max(8 * loads.GIB, 3 * size)


def measure(directory: Path, huge: int) -> list[MemoryLine]:
    """Measure all of it, each server by itself, leaving nothing on the disk."""
    huge_blob = loads.make_blob("huge", huge)
    small_blob = loads.make_blob("small", _SMALL)
    starts: dict[str, Callable[[str], Server]] = {
        OURS: lambda place: Replicator(directory / place),
        STOCK: lambda place: DockerRegistry(directory / place, STOCK),
    }
    idle, small, large, after = (dict.fromkeys(starts, 0.0) for _ in range(4))
    for name, start in starts.items():
        with start(f"{name}-small") as server:
            idle[name] = _idle(server)
            small[name] = _peak(server, small_blob)
        with start(f"{name}-huge") as server:
            large[name] = _peak(server, huge_blob)
            after[name] = _idle(server)
        shutil.rmtree(directory / f"{name}-small")
        shutil.rmtree(directory / f"{name}-huge")
    return [
        MemoryLine("idle, one node, fresh store", idle),
        MemoryLine("idle, three nodes in one process, fresh stores", {OURS: _three_nodes(directory)}),
        MemoryLine(f"peak, {_SMALL // 10**6} MB pushed and pulled", small),
        MemoryLine(f"peak, {huge / loads.GIB:g} GiB pushed and pulled", large),
        MemoryLine("idle again afterwards", after),
    ]


def _three_nodes(directory: Path) -> float:
    with Replicator(directory / "three", nodes=3) as server:
        used = _idle(server)
    shutil.rmtree(directory / "three")
    return used


def _idle(server: Server) -> float:
    time.sleep(_SETTLE)
    return memory(server.pid)


def _peak(server: Server, blob: Blob) -> float:
    """Push a blob in chunks and in one piece, pull it, and return the most memory that was in use."""
    with MemorySampler(server.pid) as sampler:
        loads.push(server, "bench/memory", blob)
        loads.pull(server, "bench/memory", blob)
        loads.push(server, "bench/memory-chunked", blob, chunk=blob.size // 4)
    return max(sampler.peak, memory(server.pid, "VmHWM"))
