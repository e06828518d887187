"""A client that costs as little as a client can: one thread, plain sockets, bytes copied into one buffer and dropped.

Runs in a process of its own, so that it shares no interpreter with the harness: `run_client(plan)` starts it, hands it
the plan and returns what it measured. Whatever an answer is but the expected one raises, as a benchmark of errors is
none.
"""

from __future__ import annotations

import json
import selectors
import socket
import subprocess
import sys
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Plan = dict[str, Any]

_BUFFER = 1024 * 1024
_HEAD_LIMIT = 64 * 1024
_TIMEOUT = 120.0


def run_client(plan: Plan) -> dict[str, float]:
    """Carry out a plan in a new process and return its measurements."""
    command = [sys.executable, "-m", "tests.benchmarks.client"]
    done = subprocess.run(  # noqa: S603 - this very module
        command, input=json.dumps(plan), capture_output=True, text=True, check=False, timeout=_TIMEOUT * 2
    )
    if done.returncode:
        raise RuntimeError(f"the client failed: {done.stderr[-600:]}")
    return {name: float(value) for name, value in json.loads(done.stdout).items()}


class Connection:
    """One connection to a server, over which requests go one after the other."""

    def __init__(self, port: int, headers: Sequence[str]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), _TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._common = "".join(f"{line}\r\n" for line in ("Host: 127.0.0.1", *headers))
        self.first_byte_at = 0.0
        """When the first byte of the latest answer's body was here."""

    @cached_property
    def buffer(self) -> memoryview:
        """Where bodies go."""
        return memoryview(bytearray(_BUFFER))

    def send_head(self, method: str, target: str, *headers: str) -> None:
        """Send a request's line and headers."""
        extra = "".join(f"{line}\r\n" for line in headers)
        self.socket.sendall(f"{method} {target} HTTP/1.1\r\n{self._common}{extra}\r\n".encode())

    def read_head(self) -> tuple[int, dict[str, str], int]:
        """Return the status, the headers and how many bytes of the body came with them."""
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.socket.recv(_HEAD_LIMIT)
            if not piece:
                raise ConnectionError(f"the server closed the connection after {head!r}")
            head += piece
        return (*parse_head(head), len(head) - head.index(b"\r\n\r\n") - 4)

    def read_answer(self, expected: int) -> dict[str, str]:
        """Read a whole answer and drop its body; returns the headers."""
        status, headers, received = self.read_head()
        length = int(headers.get("content-length", "0"))
        self.first_byte_at = time.perf_counter() if received else 0.0
        while received < length:
            count = self.socket.recv_into(self.buffer)
            if not count:
                raise ConnectionError(f"the answer ended after {received} of {length} bytes")
            self.first_byte_at = self.first_byte_at or time.perf_counter()
            received += count
        if status != expected:
            raise RuntimeError(f"expected {expected}, got {status}")
        return headers


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Return the status and the headers of an answer."""
    status, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    return int(status.split(" ", 2)[1]), {name.strip().lower(): value.strip() for name, _, value in pairs}


def get(plan: Plan) -> dict[str, float]:
    """GET a path a number of times over one connection; also says when the first byte came, connecting included."""
    began = time.perf_counter()
    connection = Connection(plan["port"], plan["headers"])
    first = 0.0
    for _ in range(plan["times"]):
        connection.send_head("GET", plan["path"])
        connection.read_answer(200)
        first = first or connection.first_byte_at - began
    return {"seconds": time.perf_counter() - began, "first_byte": first}


def push(plan: Plan) -> dict[str, float]:
    """Push one blob: in one PUT, or in chunks of PATCH and an empty PUT. Its bytes are the seed, then zeros."""
    connection = Connection(plan["port"], plan["headers"])
    size, chunk = plan["size"], plan["chunk"]
    began = time.perf_counter()
    connection.send_head("POST", f"/v2/{plan['repository']}/blobs/uploads/", "Content-Length: 0")
    target = _target(connection.read_answer(202)["location"])
    for start in range(0, size, chunk) if chunk else ():
        stop = min(start + chunk, size)
        connection.send_head(
            "PATCH",
            target,
            f"Content-Length: {stop - start}",
            f"Content-Range: {start}-{stop - 1}",
            "Content-Type: application/octet-stream",
        )
        _send_content(connection, plan["seed"], start, stop)
        target = _target(connection.read_answer(202)["location"])
    rest = 0 if chunk else size
    closing = f"{target}{'&' if '?' in target else '?'}digest={plan['digest']}"
    connection.send_head("PUT", closing, f"Content-Length: {rest}", "Content-Type: application/octet-stream")
    _send_content(connection, plan["seed"], 0, rest)
    connection.read_answer(201)
    return {"seconds": time.perf_counter() - began}


def crowd(plan: Plan) -> dict[str, float]:
    """GET one path with many clients at once; also says when the last of them got its first byte."""
    selector = selectors.DefaultSelector()
    buffer = memoryview(bytearray(_BUFFER))
    connections = [Connection(plan["port"], plan["headers"]) for _ in range(plan["clients"])]
    began = time.perf_counter()
    for connection in connections:
        connection.send_head("GET", plan["path"])
        selector.register(connection.socket, selectors.EVENT_READ, _Download())
    last_first = 0.0
    while selector.get_map():
        for key, _ in selector.select(_TIMEOUT):
            download: _Download = key.data
            count = key.fileobj.recv_into(buffer)  # type: ignore[union-attr]
            if not count:
                raise ConnectionError("an answer ended early")
            if download.take(buffer[:count]):
                last_first = time.perf_counter() - began
            if download.left == 0:
                selector.unregister(key.fileobj)
    return {"seconds": time.perf_counter() - began, "last_first_byte": last_first}


class _Download:
    """How far one of many answers is."""

    def __init__(self) -> None:
        self._head = b""
        self._size = 0
        self.left = -1
        """Bytes of the body that are to come; -1 before the head was read."""

    def take(self, data: memoryview) -> bool:
        """Note bytes; tells whether the first of the body were among them."""
        if self.left >= 0:
            first = self._size == self.left and len(data) > 0
            self.left -= len(data)
            return first
        self._head += bytes(data)
        if b"\r\n\r\n" not in self._head:
            return False
        status, headers = parse_head(self._head)
        if status != 200:
            raise RuntimeError(f"expected 200, got {status}")
        body = len(self._head) - self._head.index(b"\r\n\r\n") - 4
        self._size = int(headers["content-length"])
        self.left = self._size - body
        return body > 0


def content(seed: str, start: int, stop: int) -> Iterator[memoryview]:
    """Yield a part of the blob of a seed: the seed in its first block, zeros otherwise."""
    zeros = memoryview(bytes(_BUFFER))
    first = memoryview(seed.encode().ljust(_BUFFER, b"\0"))
    while start < stop:
        block = first if start < _BUFFER else zeros
        begin = start % _BUFFER
        piece = block[begin : min(_BUFFER, begin + stop - start)]
        yield piece
        start += len(piece)


def _send_content(connection: Connection, seed: str, start: int, stop: int) -> None:
    for piece in content(seed, start, stop):
        connection.socket.sendall(piece)


def _target(location: str) -> str:
    return "/" + location.split("/", 3)[3] if location.startswith("http") else location


_PLANS = {"get": get, "push": push, "crowd": crowd}


def main() -> None:
    """Carry out the plan on standard input."""
    plan = json.load(sys.stdin)
    json.dump(_PLANS[plan["do"]](plan), sys.stdout)


if __name__ == "__main__":
    main()
