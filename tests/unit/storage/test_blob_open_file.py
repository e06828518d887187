"""Reads of open files: from memory without a thread, from anywhere else with one, the same bytes either way."""

from __future__ import annotations

import asyncio
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from replicator.storage.blobs.open_file import FileReads, OpenFile
from replicator.storage.blobs.threads import FileThreads
from tests.support.blob_stores import open_files_below

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    T = TypeVar("T")

CONTENT = os.urandom(300_000)


class CountedThreads(FileThreads):
    """Threads that count the operations they were asked for."""

    hops = 0

    async def run(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.hops += 1
        return await super().run(operation, *args, **kwargs)


@pytest.fixture
async def threads() -> AsyncIterator[CountedThreads]:
    threads = CountedThreads(1)
    threads.open()
    yield threads
    await threads.close()


@pytest.fixture
def on_disk(tmp_path: Path) -> int:
    (tmp_path / "file").write_bytes(CONTENT)
    return os.open(tmp_path / "file", os.O_RDONLY)


@pytest.fixture
def in_shared_memory() -> Iterator[int]:
    """Return a file of a tmpfs, which cannot tell whether a read would wait."""
    shared = Path("/dev/shm")  # noqa: S108 - the tmpfs itself is wanted
    if not shared.is_dir() or not os.access(shared, os.W_OK):
        pytest.skip("there is no tmpfs at /dev/shm")
    with tempfile.NamedTemporaryFile(dir=shared) as file:
        file.write(CONTENT)
        file.flush()
        yield os.open(file.name, os.O_RDONLY)


async def whole(reads: FileReads, fd: int) -> bytes:
    content = b""
    while piece := await reads.read(fd, len(content), 70_000):
        content += piece
    return content


async def test_what_is_in_memory_takes_no_thread(on_disk: int, threads: CountedThreads) -> None:
    reads = FileReads(threads)
    if reads._nowait is None:
        pytest.skip("this system cannot tell what is in memory")
    assert await whole(reads, on_disk) == CONTENT
    assert threads.hops == 0
    os.close(on_disk)


async def test_what_is_on_disk_only_takes_a_thread(on_disk: int, threads: CountedThreads) -> None:
    os.fsync(on_disk)
    os.posix_fadvise(on_disk, 0, 0, os.POSIX_FADV_DONTNEED)
    reads = FileReads(threads)
    assert await whole(reads, on_disk) == CONTENT
    assert threads.hops >= 1
    os.close(on_disk)


async def test_a_file_system_that_cannot_tell_is_remembered(in_shared_memory: int, threads: CountedThreads) -> None:
    reads = FileReads(threads)
    assert await whole(reads, in_shared_memory) == CONTENT
    assert threads.hops == 6  # five pieces and the end
    assert reads._nowait is None
    os.close(in_shared_memory)


class GatedThreads(FileThreads):
    """Threads whose operations begin when the test says so."""

    def __init__(self) -> None:
        super().__init__(1)
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()

    async def run(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        self.asked.set()
        await self.gate.wait()
        return await super().run(operation, *args, **kwargs)


async def test_a_file_closed_during_a_read_is_open_until_the_read_is_over(tmp_path: Path, on_disk: int) -> None:
    threads = GatedThreads()
    threads.open()
    reads = FileReads(threads)
    reads._nowait = None  # as if nothing were in memory
    file = OpenFile(on_disk, reads, threads)
    async with asyncio.TaskGroup() as tasks:
        read = tasks.create_task(file.read(0, 1000))
        await threads.asked.wait()
        await file.close()
        assert open_files_below(tmp_path) == [str(tmp_path / "file")]
        threads.gate.set()
    assert read.result() == CONTENT[:1000]
    assert open_files_below(tmp_path) == []
    await threads.close()


async def test_a_deleted_file_is_closed_in_a_thread(tmp_path: Path, on_disk: int, threads: CountedThreads) -> None:
    file = OpenFile(on_disk, FileReads(threads), threads)
    os.unlink(tmp_path / "file")  # noqa: PTH108 - a path object would be blamed for blocking
    await file.close()
    await file.close()
    assert threads.hops == 1
    assert open_files_below(tmp_path) == []


async def test_a_file_can_be_closed_after_its_threads(tmp_path: Path, on_disk: int, threads: CountedThreads) -> None:
    file = OpenFile(on_disk, FileReads(threads), threads)
    os.unlink(tmp_path / "file")  # noqa: PTH108 - a path object would be blamed for blocking
    await threads.close()
    await file.close()
    assert open_files_below(tmp_path) == []
