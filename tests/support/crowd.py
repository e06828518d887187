"""Many clients of one blob at the same moment, in one thread, each with its own digest of what it got."""

from __future__ import annotations

import hashlib
import selectors
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import _Hash

_BUFFER = 512 * 1024
_SILENCE = 60.0


@dataclass
class _Client:
    head: bytes = b""
    left: int | None = None
    digest: _Hash = field(default_factory=hashlib.sha256)

    def take(self, data: memoryview) -> None:
        if self.left is None:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            self.head, _, body = self.head.partition(b"\r\n\r\n")
            lines = self.head.decode().lower().split("\r\n")
            self.left = next(int(line[15:]) for line in lines if line.startswith("content-length:"))
            data = memoryview(body)
        self.left -= len(data)
        self.digest.update(data)

    @property
    def outcome(self) -> str:
        """The status and the digest, or how many bytes were missing."""
        status = self.head.split(b" ")[1].decode() if self.head else "nothing"
        return f"{status} sha256:{self.digest.hexdigest()}" if self.left == 0 else f"{status}, lacks {self.left}"


def pull(port: int, path: str, clients: int) -> Counter[str]:
    """GET a path with so many clients at once; return how often each outcome was seen, `200 sha256:...` at best."""
    selector, buffer = selectors.DefaultSelector(), memoryview(bytearray(_BUFFER))
    outcomes: Counter[str] = Counter()
    for _ in range(clients):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        connection.setblocking(False)
        selector.register(connection, selectors.EVENT_READ, _Client())
    while selector.get_map():
        ready = selector.select(_SILENCE)
        if not ready:
            raise TimeoutError(f"{len(selector.get_map())} clients wait for nothing")
        for key, _ in ready:
            connected, client = key.fileobj, key.data
            assert isinstance(connected, socket.socket)
            try:
                count = connected.recv_into(buffer)
            except ConnectionError:
                count = 0
            if count:
                client.take(buffer[:count])
            if not count or client.left == 0:
                outcomes[client.outcome] += 1
                selector.unregister(connected)
                connected.close()
    return outcomes
