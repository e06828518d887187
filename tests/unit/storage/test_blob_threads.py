"""Hops to threads: a wait that is cancelled ends when the thread is done, not before."""

from __future__ import annotations

import asyncio
import errno
import gc
import threading

import pytest

from replicator.core.errors import StorageFull, StorageUnavailable
from replicator.storage.blobs.threads import FileThreads, settle


class Gate:
    """An operation that a test sees begin and lets end."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.opened = threading.Event()
        self.ended = False

    def pass_through(self) -> str:
        self.begun.set()
        assert self.opened.wait(10)
        self.ended = True
        return "through"


async def begun(gate: Gate) -> None:
    assert await asyncio.get_running_loop().run_in_executor(None, gate.begun.wait, 10)


async def test_a_cancelled_wait_outlasts_the_operation_however_often_it_is_cancelled() -> None:
    threads, gate = FileThreads(1), Gate()
    threads.open()
    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(threads.run(gate.pass_through))
        await begun(gate)
        for _ in range(3):
            waiter.cancel()
            await asyncio.sleep(0)
        assert not waiter.done()
        gate.opened.set()
    assert waiter.cancelled()
    assert gate.ended
    await threads.close()


async def test_what_a_cancelled_wait_acquired_is_given_back() -> None:
    threads, gate = FileThreads(1), Gate()
    threads.open()
    given_back: list[str] = []
    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(threads.acquire(gate.pass_through, given_back.append))
        await begun(gate)
        waiter.cancel()
        gate.opened.set()
    assert waiter.cancelled()
    assert given_back == ["through"]
    await threads.close()


async def test_what_is_acquired_in_peace_is_kept() -> None:
    threads = FileThreads(1)
    threads.open()
    given_back: list[str] = []
    assert await threads.acquire(lambda: "kept", given_back.append) == "kept"
    assert given_back == []
    await threads.close()


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageUnavailable),
        (errno.EROFS, StorageUnavailable),
    ],
)
async def test_an_error_of_the_system_arrives_as_ours(code: int, error: type[Exception]) -> None:
    def fail() -> None:
        raise OSError(code, "a text with /secret/path")

    threads = FileThreads(1)
    threads.open()
    with pytest.raises(error, match=errno.errorcode[code]) as failure:
        await threads.run(fail)
    assert "secret" not in str(failure.value)
    assert isinstance(failure.value.__cause__, OSError)
    await threads.close()


async def test_closing_waits_for_operations_under_way() -> None:
    threads, gate = FileThreads(1), Gate()
    threads.open()
    hop = threads.start(gate.pass_through)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(threads.close())
        await begun(gate)
        with pytest.raises(StorageUnavailable):
            await threads.run(gate.pass_through)
        gate.opened.set()
    assert hop.result() == "through"


async def test_settling_a_failure_raises_it() -> None:
    async def fail() -> None:
        raise ValueError("failed")

    with pytest.raises(ValueError, match="failed"):
        await settle(fail())


async def test_a_failure_behind_a_cancellation_is_not_reported_as_lost() -> None:
    proceed = asyncio.Event()
    reported: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    async def fail() -> None:
        await proceed.wait()
        raise ValueError("failed")

    async with asyncio.TaskGroup() as tasks:
        waiter = tasks.create_task(settle(fail()))
        await asyncio.sleep(0)
        waiter.cancel()
        proceed.set()
    assert waiter.cancelled()
    del waiter
    gc.collect()
    assert reported == []
