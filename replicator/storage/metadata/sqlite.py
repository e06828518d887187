"""SQLite behind the database port: reads inline on the loop, writes on one thread with group commit.

An indexed read takes microseconds, less than a hop to a thread, so reads run where they are asked for, on a connection of their
own (WAL: readers never wait for the writer). Writes queue for one thread, which runs all that are waiting in one transaction,
each in a savepoint, and commits them with one fsync (`synchronous=FULL`): a write is answered only when it is durable.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Generator
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from replicator.core.errors import (
    ReplicatorError,
    StorageError,
    StorageFull,
    StorageUnavailable,
)
from replicator.storage.metadata.migrate import migrate_sqlite
from replicator.storage.metadata.statement import Body, Execution, Rows, Steps

T = TypeVar("T")

_MAX_GROUP = 256
_BUSY_TIMEOUT = 10.0


class SqliteDatabase:
    """One database file. Opened by one process at a time (the store's lock sees to that)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reader: sqlite3.Connection | None = None
        self._writer: _Writer | None = None

    async def open(self) -> None:
        """Open the file, making it if it is missing, and bring its schema up to date."""
        await asyncio.to_thread(self._prepare)
        self._reader = _connect(self._path)
        self._reader.execute("PRAGMA query_only=ON")
        self._writer = _Writer(_connect(self._path))

    def _prepare(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(_connect(self._path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
            migrate_sqlite(self._path)
        except (sqlite3.Error, OSError) as error:
            raise _translated(error) from error

    async def close(self) -> None:
        """Commit what is queued and close."""
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)
            self._writer = None
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def read(self, steps: Steps[T]) -> T:
        """Run selecting steps inline; see Database.read."""
        if self._reader is None:
            raise StorageUnavailable("the metadata database is closed")
        try:
            self._reader.execute("BEGIN")
            try:
                return _run(self._reader, steps)
            finally:
                self._reader.execute("COMMIT")
        except sqlite3.Error as error:
            raise _translated(error) from error

    async def write(self, body: Body[T]) -> T:
        """Queue the steps for the writer thread; see Database.write."""
        if self._writer is None:
            raise StorageUnavailable("the metadata database is closed")
        return await asyncio.shield(asyncio.wrap_future(self._writer.submit(body)))


class _Write:
    """A queued transaction body and the future of its result."""

    __slots__ = ("body", "future", "result")

    def __init__(self, body: Body[Any]) -> None:
        self.body = body
        self.future: Future[Any] = Future()
        self.result: object = None

    def run(self, connection: sqlite3.Connection) -> bool:
        """Run in a savepoint; on the steps' own exception undo it, settle the future and return False."""
        connection.execute("SAVEPOINT body")
        try:
            self.result = _run(connection, self.body())
        except sqlite3.Error as error:
            if not connection.in_transaction:
                raise  # the disk is full: SQLite has rolled the whole group back
            _undo(connection)
            self.future.set_exception(_translated(error))
            return False
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whose steps raised it
            _undo(connection)
            self.future.set_exception(error)
            return False
        connection.execute("RELEASE body")
        return True


class _Writer:
    """The writer thread. `None` in the queue ends it."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._loop, name="sqlite-writer", daemon=True
        )
        self._thread.start()

    def submit(self, body: Body[T]) -> Future[T]:
        write = _Write(body)
        self._queue.put(write)
        return write.future

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _loop(self) -> None:
        last = False
        while not last:
            group, last = self._next_group()
            if group:
                self._commit(group)

    def _next_group(self) -> tuple[list[_Write], bool]:
        group: list[_Write] = []
        item = self._queue.get()
        while item is not None:
            group.append(item)
            if len(group) == _MAX_GROUP:
                return group, False
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[_Write]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            done = [write for write in group if write.run(self._connection)]
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            _fail(
                [write for write in group if not write.future.done()],
                _translated(error),
            )
            return
        for write in done:
            write.future.set_result(write.result)


def _fail(writes: list[_Write], error: StorageError) -> None:
    for write in writes:
        write.future.set_exception(type(error)(str(error)))


def _undo(connection: sqlite3.Connection) -> None:
    connection.execute("ROLLBACK TO body")
    connection.execute("RELEASE body")


def _run(connection: sqlite3.Connection, steps: Generator[Execution, Rows, T]) -> T:
    try:
        execution = next(steps)
        while True:
            text = execution.statement.sqlite
            try:
                rows = connection.execute(text.text, text.named(execution.parameters)).fetchall()
            except sqlite3.Error:
                steps.close()
                raise
            execution = steps.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path,
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA cache_size=-8192")
    connection.execute("PRAGMA trusted_schema=OFF")
    return connection


def _translated(error: sqlite3.Error | OSError) -> ReplicatorError:
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL") or (
        isinstance(error, OSError) and error.errno in _FULL
    ):
        return StorageFull("the metadata database has no space left")
    return StorageUnavailable(f"the metadata database failed: {error}")


_FULL = frozenset({28, 122})
