"""One line per request, cheap enough to be on: a line costs a few microseconds, and no request waits for a disk.

A line is put together from ready pieces and appended to a buffer. The buffer goes to a writer thread when it holds
64 KiB, every second (`run`), and at `close`, which returns when everything is written: an orderly stop loses nothing. A
reader of our output that stops reading cannot stop the daemon: past a bound, lines are dropped and their number logged.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from replicator.telemetry.logs import get_logger
from replicator.telemetry.rendering import escape

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.core.clock import Clock
    from replicator.telemetry.redaction import Redactor

log = get_logger(__name__)

FLUSH_SECONDS = 1.0
FLUSH_CHARACTERS = 64 * 1024
MAX_WAITING_BYTES = 16 * 2**20
CLOSE_TIMEOUT = 5.0


def write_stdout(data: bytes) -> None:
    """Write to standard output, past its text layer."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


class AccessLog:
    """The log of requests of one process. `record`, `flush` and `close` belong to the loop's thread."""

    def __init__(
        self, clock: Clock, redactor: Redactor, *, as_json: bool = True, write: Callable[[bytes], None] = write_stdout
    ) -> None:
        self._clock = clock
        self._redactor = redactor
        self._write = write
        self._as_json = as_json
        self._lines: list[str] = []
        self._characters = 0
        self._second = -1
        self._time = ""
        self._writer = _Writer(write)
        self.dropped = 0
        """Lines that were given up because nobody read the output."""

    def record(
        self,
        node: str,
        client: str,
        method: str,
        path: str,
        status: int,
        seconds: float,
        sent: int,
        received: int,
        user: str = "",
        agent: str = "",
        request_id: str = "",
        cache: str = "",
        upstream: str = "",
        operation: str = "",
    ) -> None:
        """Note one finished request. `path` comes without its query, which may carry credentials.

        `cache` and `upstream`, an operator's name, say how a cached repository answered, and where from.
        `operation` is what the ECR API was asked for: all of it comes to one path.
        """
        now = self._clock.now()
        if int(now) != self._second:
            self._second = int(now)
            self._time = self._format_time(now)
        given = f"{client}{method}{path}{user}{agent}{request_id}"
        if not (given.isascii() and given.isprintable()) or '"' in given or "\\" in given or self._is_secret(given):
            client, method, path = self._safe(client), self._safe(method), self._safe(path)
            user, agent, request_id = self._safe(user), self._safe(agent), self._safe(request_id)
        if self._as_json:
            cached = f',"cache":"{cache}","upstream":"{upstream}"' if cache else ""
            asked = f',"operation":"{operation}"' if operation else ""
            line = (
                f'{{"time":"{self._time}","node":"{node}","client":"{client}","method":"{method}","path":"{path}",'
                f'"status":{status},"seconds":{seconds:.6f},"sent":{sent},"received":{received},'
                f'"user":"{user}","agent":"{agent}","request_id":"{request_id}"{asked}{cached}}}\n'
            )
        else:
            cached = f" cache={cache} upstream={upstream}" if cache else ""
            asked = f" operation={operation}" if operation else ""
            line = (
                f"{self._time} access  {method} {path} {status} {seconds * 1000:.1f}ms"
                f" sent={sent} received={received} node={node} client={client} user={user or '-'}{asked}{cached}\n"
            )
        self._lines.append(line)
        self._characters += len(line)
        if self._characters >= FLUSH_CHARACTERS:
            self.flush()

    def flush(self) -> None:
        """Hand the buffered lines to the writer thread; never waits."""
        if not self._lines:
            return
        lines, self._lines, self._characters = self._lines, [], 0
        if not self._writer.put("".join(lines).encode()):
            self.dropped += len(lines)

    async def run(self) -> None:
        """Flush every second until cancelled; report lines that had to be dropped."""
        reported = 0
        while True:
            await self._clock.sleep(FLUSH_SECONDS)
            self.flush()
            if self.lost > reported:
                log.warning("access log lost lines", lines=self.lost - reported)
                reported = self.lost

    @property
    def lost(self) -> int:
        """Lines that will never be written: dropped, or refused by the output."""
        return self.dropped + self._writer.failed

    def close(self) -> None:
        """Write what is buffered and end the writer thread; waits for it, for at most five seconds."""
        self.flush()
        self._writer.close(CLOSE_TIMEOUT)

    def _is_secret(self, text: str) -> bool:
        return self._redactor.redact_known(text) != text

    def _safe(self, text: str) -> str:
        """Return a field as it may stand in a line: what a client sends is in it."""
        shown = self._redactor.redact_known(text)
        return json.dumps(shown)[1:-1].replace("\x7f", "\\u007f") if self._as_json else escape(shown)

    def _format_time(self, now: float) -> str:
        moment = datetime.fromtimestamp(now, UTC)
        return f"{moment:%Y-%m-%dT%H:%M:%SZ}" if self._as_json else f"{moment.astimezone():%H:%M:%S}"


class _Writer:
    """A thread that writes chunks in order; a daemon thread, as output nobody reads must not keep the process alive."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._chunks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self.failed = 0
        """Lines that the output refused."""
        self._thread = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._thread.start()

    def put(self, chunk: bytes) -> bool:
        """Queue a chunk; False when too much is waiting already."""
        with self._lock:
            if self._waiting + len(chunk) > MAX_WAITING_BYTES:
                return False
            self._waiting += len(chunk)
        self._chunks.put(chunk)
        return True

    def close(self, timeout: float) -> None:
        self._chunks.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            try:
                self._write(chunk)
            except (OSError, ValueError):
                # A closed pipe or a full disk must not end the log: the next chunk may get through.
                self.failed += chunk.count(b"\n")
            with self._lock:
                self._waiting -= len(chunk)
