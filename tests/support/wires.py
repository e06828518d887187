"""A TCP connection between two nodes that a test can cut, refuse or hold, at a byte of its choice."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from typing import Self

_CHUNK = 64 * 1024


class _Fault(enum.Enum):
    CUT = "the connection is aborted"
    HOLD = "the bytes wait"


class _Aborted(ConnectionError):
    """The wire was cut."""


class Wire:
    """Forwards connections to one port. Faults act on what flows towards it; what comes back is always passed on.

    `forwarded` counts the bytes that were passed on, `connections` the connections that were made.
    """

    def __init__(self, target: int) -> None:
        self.port = 0
        self.forwarded = 0
        self.connections = 0
        self._target = target
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._fault = _Fault.CUT
        self._limit: int | None = None
        self._struck = asyncio.Event()
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        """Where the near end is."""
        return f"http://127.0.0.1:{self.port}"

    async def heal(self) -> None:
        """Accept connections and pass everything on."""
        self._limit = None
        self._released.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def refuse(self) -> None:
        """Break every connection and refuse new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if server is not None:
            await server.wait_closed()

    def cut_after(self, count: int) -> None:
        """Break the connection that carries byte `count` from now on; after that the wire is whole again."""
        self._strike(_Fault.CUT, count)

    def hold_after(self, count: int) -> None:
        """Pass `count` bytes on, then nothing until `heal`."""
        self._strike(_Fault.HOLD, count)

    async def struck(self) -> None:
        """Wait until the fault has happened."""
        await self._struck.wait()

    def _strike(self, fault: _Fault, count: int) -> None:
        self._fault, self._limit = fault, count
        self._struck.clear()
        self._released.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._join(reader, writer)
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._there(reader, far_writer))
                group.create_task(_back(far_reader, writer))
        except* OSError:
            pass  # one end broke: so does the other
        finally:
            far_writer.transport.abort()

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self._limit is not None:
                data = await self._admitted(data, writer)
            await self._forward(data, writer)
        writer.write_eof()

    async def _admitted(self, data: bytes, writer: asyncio.StreamWriter) -> bytes:
        """Forward what comes before the fault, let the fault happen, and return what is left."""
        assert self._limit is not None
        if len(data) <= self._limit:
            self._limit -= len(data)
            return data
        head, rest = data[: self._limit], data[self._limit :]
        await self._forward(head, writer)
        self._struck.set()
        if self._fault is _Fault.CUT:
            self._limit = None
            raise _Aborted
        self._limit = 0
        await self._released.wait()
        return rest

    async def _forward(self, data: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()
        self.forwarded += len(data)

    async def __aenter__(self) -> Self:
        await self.heal()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.refuse()


async def _back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
