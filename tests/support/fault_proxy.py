"""Connections between processes that go wrong on demand: refused, cut, corrupted, slow, late, or open without life.

    with Proxies() as proxies:
        proxy = proxies.add()          # has a port at once; where it leads can be said later
        proxy.lead_to(daemon_port)
        proxy.fail(Fault(cut_after=100_000))
        ...
        proxy.heal()

The proxies run in a thread of their own, so that tests which drive processes need not be coroutines. A fault acts on
every connection that is there or comes, until another is set; bytes are counted per connection, from the client's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from types import TracebackType

T = TypeVar("T")

_CHUNK = 64 * 1024


@dataclass(frozen=True)
class Fault:
    """What goes wrong. Bytes are those that the client sends on one connection; seconds and bytes a second."""

    refuse: bool = False
    """New connections are closed at once, those that are there are reset."""
    half_open: bool = False
    """Connections are accepted and stay, but nothing passes any more, in neither direction."""
    cut_after: int | None = None
    """The connection is reset after so many bytes."""
    corrupt_after: int | None = None
    """One bit of the byte after so many bytes is flipped."""
    delay: float = 0.0
    """Everything arrives so much later."""
    rate: float | None = None
    """So many bytes a second at most, on each connection."""
    reset_share: float = 0.0
    """So many of the connections are reset after a random number of bytes, as bad luck has it."""


WHOLE = Fault()


class Proxy:
    """One way to one port. It counts the bytes `carried` there, the `connections` made, and the bits `damaged`."""

    def __init__(self, proxies: Proxies) -> None:
        self.port = 0
        self.carried = 0
        self.connections = 0
        self.damaged = 0
        self._proxies = proxies
        self._target = 0
        self._fault = WHOLE
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._random = random.Random(1)  # noqa: S311 - bad luck, not a secret

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"http://127.0.0.1:{self.port}"

    def lead_to(self, port: int) -> None:
        """Forward new connections to a loopback port."""
        self._target = port

    def fail(self, fault: Fault) -> None:
        """Have something go wrong from now on."""
        self._proxies.run(self._set(fault))

    def heal(self) -> None:
        """Have everything pass. Connections that were half open are reset, as their hosts' timeouts would do."""
        self.fail(WHOLE)

    async def _set(self, fault: Fault) -> None:
        was, self._fault = self._fault, fault
        if fault.refuse or was.half_open:
            for task in tuple(self._tasks):
                task.cancel()
        self._changed.set()
        self._changed = asyncio.Event()

    async def open(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # the end of a connection is what this is about
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self._fault.refuse:
            return
        unlucky = self._random.random() < self._fault.reset_share
        limit = self._random.randrange(1, 200_000) if unlucky else None
        await asyncio.sleep(self._fault.delay)
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry(reader, back, limit, counts=True))
                group.create_task(self._carry(there, writer, None, counts=False))
        except* (OSError, _Cut):
            pass
        finally:
            back.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, *, counts: bool
    ) -> None:
        passed = 0
        while data := await reader.read(_CHUNK):
            fault = self._fault
            while self._fault.half_open:
                await self._changed.wait()
            if counts:
                whole, data = data, _damaged(data, passed, fault)
                self.damaged += data != whole
                _cut_where_due(data, passed, fault.cut_after if limit is None else limit, writer)
            passed += len(data)
            if fault.delay:
                await asyncio.sleep(fault.delay)
            if fault.rate:
                await asyncio.sleep(len(data) / fault.rate)
            writer.write(data)
            await writer.drain()
            self.carried += len(data) if counts else 0
        raise _Cut


class _Cut(Exception):
    """One side has ended the connection, or a fault has."""


def _damaged(data: bytes, passed: int, fault: Fault) -> bytes:
    place = None if fault.corrupt_after is None else fault.corrupt_after - passed
    if place is None or not 0 <= place < len(data):
        return data
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _cut_where_due(data: bytes, passed: int, limit: int | None, writer: asyncio.StreamWriter) -> None:
    if limit is not None and passed + len(data) > limit:
        writer.write(data[: max(0, limit - passed)])
        raise _Cut


class Proxies:
    """The proxies of one test, and the thread they run in."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._proxies: list[Proxy] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxies", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def add(self) -> Proxy:
        """Return a new proxy that listens already."""
        proxy = Proxy(self)
        self.run(proxy.open())
        self._proxies.append(proxy)
        return proxy

    def run(self, work: Coroutine[object, object, T]) -> T:
        """Do something in the proxies' thread, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10.0)

    async def _end(self) -> None:
        for proxy in self._proxies:
            proxy.close()
        own = asyncio.current_task()
        tasks = [task for task in asyncio.all_tasks() if task is not own]
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)  # noqa: TID251 - nobody else is left
