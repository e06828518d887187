"""Where events go: a webhook, a file of JSON lines, or the daemon's own log."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Protocol

from replicator.core.errors import StorageFull, StorageUnavailable
from replicator.notifications.rendering import body_of, content_type_of, document_of
from replicator.telemetry.logs import get_logger
from replicator.upstream.webhooks import Message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from replicator.core.event_sinks import EventFormat
    from replicator.storage.metadata.events import StoredEvent
    from replicator.upstream.webhooks import WebhookClient

_log = get_logger(__name__)

_FILE_MODE = 0o640
_DISK_FULL = {28, 122}
"""ENOSPC and EDQUOT."""


class Sink(Protocol):
    """Somebody who is told. What `deliver` returned for is told; anything else may be told again."""

    batch: int
    """How many events it takes at once."""

    async def deliver(self, events: Sequence[StoredEvent]) -> None:
        """Tell of up to `batch` events, in order; return when the receiver has them. Raises ReplicatorError."""
        ...

    async def close(self) -> None:
        """Let go of what it holds."""
        ...


class WebhookSink:
    """A webhook, which gets one event a request."""

    batch = 1

    def __init__(self, client: WebhookClient, style: EventFormat) -> None:
        self._client = client
        self._style = style

    async def deliver(self, events: Sequence[StoredEvent]) -> None:
        """Post each event; raises what `WebhookClient.post` does."""
        for event in events:
            message = Message(event.event_id, content_type_of(self._style), body_of(event, self._style))
            await self._client.post(message)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


class FileSink:
    """A file of JSON lines, each whole and on the disk before its event counts as delivered.

    The file is opened for every batch, so that it may be renamed away or deleted at any time: the next line begins a
    new one. A line that a crash left half-written is ended first; its event follows again.
    """

    batch = 500

    def __init__(self, path: Path, style: EventFormat) -> None:
        self._path = path
        self._style = style

    async def deliver(self, events: Sequence[StoredEvent]) -> None:
        """Append a line for each event; raises StorageFull or StorageUnavailable, some lines being written then."""
        lines = b"".join(body_of(event, self._style) + b"\n" for event in events)
        try:
            await asyncio.to_thread(self._append, lines)
        except OSError as error:
            kind = StorageFull if error.errno in _DISK_FULL else StorageUnavailable
            raise kind(f"cannot write {self._path}: {error.strerror or error}") from error

    def _append(self, lines: bytes) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_CREAT | os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(self._path, flags, _FILE_MODE)
        try:
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                lines = b"\n" + lines
            while lines:
                lines = lines[os.write(fd, lines) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Do nothing: the file is not held open."""


class LogSink:
    """The daemon's own log, in whose form events stand there."""

    batch = 100

    def __init__(self, name: str, style: EventFormat) -> None:
        self._name = name
        self._style = style

    async def deliver(self, events: Sequence[StoredEvent]) -> None:
        """Log each event."""
        for event in events:
            _log.info("event", sink=self._name, document=document_of(event, self._style))

    async def close(self) -> None:
        """Do nothing."""
