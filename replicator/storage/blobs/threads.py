"""Threads for the disk, and waits that cannot be torn.

The event loop never waits for a disk: whatever may block runs as one *hop* to a thread and back. A hop cannot be
stopped half-way, so a coroutine that is cancelled while it waits for one still waits to the end, and is cancelled
then. Without that, a file would be closed, unlinked or published while a thread is still writing to it.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from replicator.core.errors import StorageUnavailable
from replicator.storage.blobs.files import storage_error

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_P = ParamSpec("_P")
_T = TypeVar("_T")


async def settle(work: asyncio.Future[_T] | Coroutine[Any, Any, _T]) -> _T:
    """Wait for `work` to its end whatever happens to the waiter, and return its result.

    A cancellation that comes meanwhile does not reach `work`; it is raised when `work` is done, in place of its result.
    """
    future = asyncio.ensure_future(work)  # noqa: TID251 - owned here: never left before it is done
    cancellation: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancellation = error
    if cancellation is not None:
        if not future.cancelled():
            future.exception()  # seen, so that asyncio does not report it as lost
        raise cancellation
    return future.result()


class FileThreads:
    """A few threads for file operations. An OSError of an operation arrives as StorageFull or StorageUnavailable."""

    def __init__(self, count: int = 8) -> None:
        self._count = count
        self._executor: ThreadPoolExecutor | None = None
        self._hops: set[asyncio.Future[Any]] = set()

    @property
    def is_open(self) -> bool:
        """Tell whether operations are accepted."""
        return self._executor is not None

    def open(self) -> None:
        """Accept operations; threads start as they are needed."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._count, thread_name_prefix="blob-files")

    async def close(self) -> None:
        """Wait for the operations under way and end the threads. Safe to call twice."""
        executor, self._executor = self._executor, None
        if executor is None:
            return
        while self._hops:
            await asyncio.wait(tuple(self._hops))
        executor.shutdown()

    def start(self, operation: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> asyncio.Future[_T]:
        """Start an operation without waiting for it; raises StorageUnavailable when the store is closed."""
        if self._executor is None:
            raise StorageUnavailable("the blob store is closed")
        loop = asyncio.get_running_loop()
        hop: asyncio.Future[_T] = loop.run_in_executor(self._executor, lambda: _translated(operation, *args, **kwargs))
        self._hops.add(hop)
        hop.add_done_callback(self._hops.discard)
        return hop

    async def run(self, operation: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Run an operation in a thread. A cancellation is raised once the operation is over."""
        return await settle(self.start(operation, *args, **kwargs))

    async def acquire(self, operation: Callable[[], _T], undo: Callable[[_T], object]) -> _T:
        """Run an operation whose result must be given back: `undo`, which never raises, gets it on a cancellation."""
        hop = self.start(operation)
        try:
            return await settle(hop)
        except asyncio.CancelledError:
            if not hop.cancelled() and hop.exception() is None:
                await self.run(undo, hop.result())
            raise


def _translated(operation: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    try:
        return operation(*args, **kwargs)
    except OSError as error:
        raise storage_error(error) from error
