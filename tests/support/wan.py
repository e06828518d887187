"""A long link in front of a port: a round trip time, a bandwidth that all connections share, and a window for each.

    python -m tests.support.wan --target 5001 --rtt 0.1 --rate 125000000

prints its own port and forwards until it is killed. A connection's first bytes leave one round trip after it was made,
as if its handshake had crossed the link; at most `window` bytes of a connection are on their way at once, as with TCP.
Both directions have the whole rate. There is no loss and no slow start: what is measured is the protocol above.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import deque
from typing import TYPE_CHECKING, cast

import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW = 4 * 1024 * 1024
"""Bytes: the largest send buffer that Linux gives a connection by itself."""

_SLICE = 64 * 1024


class Pipe:
    """One direction of the link: bytes of all connections queue for its rate."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rate: float, delay: float) -> None:
        self._loop = loop
        self._rate = rate
        self.delay = delay
        self._free_at = 0.0
        self.carried = 0

    def send(self, size: int, not_before: float) -> float:
        """Take in bytes; return when the last of them comes out at the other end (loop time)."""
        start = max(self._loop.time(), not_before, self._free_at)
        self._free_at = start + size / self._rate
        self.carried += size
        return self._free_at + self.delay


class End(asyncio.Protocol):
    """One socket of a forwarded connection. What it receives goes through the pipe to its other end."""

    def __init__(self, pipe: Pipe, window: int, loop: asyncio.AbstractEventLoop) -> None:
        self._pipe = pipe
        self._window = window
        self._loop = loop
        self._not_before = 0.0
        self._in_flight = 0
        self._waiting: deque[bytes] = deque()
        # The timers of a loop may go off in another order than their times: what they deliver is kept in ours.
        self._arriving: deque[bytes | None] = deque()
        self._ended = False
        self.transport: asyncio.Transport | None = None
        self.other: End | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = cast("asyncio.Transport", transport)

    def hold_until(self, moment: float) -> None:
        """Send nothing before a moment (loop time)."""
        self._not_before = moment

    def data_received(self, data: bytes) -> None:
        """Send bytes on, or stop reading while the window is full."""
        self._waiting.extend(data[start : start + _SLICE] for start in range(0, len(data), _SLICE))
        self._pump()

    def _pump(self) -> None:
        while self._waiting and self._in_flight < self._window and self.other is not None:
            piece = self._waiting.popleft()
            self._in_flight += len(piece)
            arrives = self._pipe.send(len(piece), self._not_before)
            self.other.expect(piece, arrives)
            self._loop.call_at(arrives + self._pipe.delay, self._acknowledged, len(piece))
        transport = self.transport
        if transport is not None and not transport.is_closing():
            if self._waiting:
                transport.pause_reading()
            elif not transport.is_reading():
                transport.resume_reading()
        if self._ended and not self._waiting:
            self._forward_end()

    def _acknowledged(self, size: int) -> None:
        self._in_flight -= size
        self._pump()

    def expect(self, data: bytes | None, arrives: float) -> None:
        """Write bytes that come through the pipe at a moment (loop time); None: end the connection then."""
        self._arriving.append(data)
        self._loop.call_at(arrives, self._arrived)

    def _arrived(self) -> None:
        data = self._arriving.popleft()
        if self.transport is None or self.transport.is_closing():
            return
        if data is None:
            self.transport.close()
        else:
            self.transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end on after what is on its way."""
        self._ended = True
        self._pump()
        return True

    def connection_lost(self, _: Exception | None) -> None:
        """Close the other end after what is on its way."""
        self._ended = True
        self._waiting.clear()
        self._forward_end()

    def _forward_end(self) -> None:
        other, self.other = self.other, None
        if other is not None and other.transport is not None:
            other.expect(None, self._pipe.send(0, self._not_before))


async def serve(target: int, rtt: float, rate: float, window: int, report: Callable[[int], None]) -> None:
    """Forward connections to a loopback port until cancelled; `report` is told the link's own port."""
    loop = asyncio.get_running_loop()
    forth, back = Pipe(loop, rate, rtt / 2), Pipe(loop, rate, rtt / 2)

    async def join(near: End) -> None:
        _, far = await loop.create_connection(lambda: End(back, window, loop), "127.0.0.1", target)
        near.other, far.other = far, near
        near.hold_until(loop.time() + rtt)
        near.data_received(b"")

    joining: set[asyncio.Task[None]] = set()

    class Near(End):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            task = loop.create_task(join(self))
            joining.add(task)
            task.add_done_callback(joining.discard)

    server = await loop.create_server(lambda: Near(forth, window, loop), "127.0.0.1", 0)
    report(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def main() -> None:
    """Run the link that the command line describes."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.wan", description=__doc__)
    parser.add_argument("--target", type=int, required=True, help="loopback port behind the link")
    parser.add_argument("--rtt", type=float, default=0.1, help="seconds")
    parser.add_argument("--rate", type=float, default=125e6, help="bytes a second")
    parser.add_argument("--window", type=int, default=WINDOW, help="bytes of a connection on their way at once")
    options = parser.parse_args()

    def report(port: int) -> None:
        sys.stdout.write(f"listening on 127.0.0.1:{port}\n")
        sys.stdout.flush()

    uvloop.run(serve(options.target, options.rtt, options.rate, options.window, report))


if __name__ == "__main__":
    main()
