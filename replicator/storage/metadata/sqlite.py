"""SQLite behind the database port: reads inline on the loop, writes on one thread with group commit.

An indexed read takes microseconds, less than a hop to a thread, so reads run where they are asked for, on a
connection of their own (WAL: readers never wait for the writer). Writes queue for one thread, which runs all that are
waiting in one transaction, each in a savepoint, and commits them with one fsync (`synchronous=FULL`): a write is
answered, with its result or with its steps' exception, only when everything it has seen is durable.
"""

from __future__ import annotations

import asyncio
import errno
import queue
import sqlite3
import threading
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from replicator.core.errors import InvalidInput, StorageError, StorageFull, StorageUnavailable
from replicator.storage.blobs.files import PosixFiles
from replicator.storage.metadata.detached import result_of
from replicator.storage.metadata.migrate import migrate_sqlite

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from replicator.storage.metadata.statement import Body, Steps

T = TypeVar("T")

_MAX_GROUP = 256
_READER_WAIT = 0.25
"""Seconds that a read waits for a lock of another program: on the loop, so hardly."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FULL_NAMES = frozenset({"SQLITE_FULL", "SQLITE_IOERR_SHMSIZE"})


class SqliteDatabase:
    """One database file. Opened by one process at a time (the store's lock sees to that).

    A write waits `lock_wait` seconds for another program that writes to the file, such as a backup.
    """

    def __init__(self, path: Path, *, lock_wait: float = 10.0) -> None:
        self._path = path
        self._lock_wait = lock_wait
        self._make_room: Callable[[], Awaitable[bool]] | None = None
        self._reader: sqlite3.Connection | None = None
        self._writer: _Writer | None = None

    def on_full(self, make_room: Callable[[], Awaitable[bool]]) -> None:
        """Have `make_room` called when a write finds no space; the write is tried again where it returns True."""
        self._make_room = make_room

    async def open(self) -> None:
        """Open the file, making it if it is missing, and bring its schema up to date."""
        self._reader, connection = await asyncio.to_thread(self._prepare)
        self._writer = _Writer(connection)

    def _prepare(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        try:
            _make_directory(self._path.parent)
            migrate_sqlite(self._path, self._connect)
            writer = self._connect()
            try:
                reader = self._connect(_READER_WAIT)
                reader.execute("PRAGMA query_only=ON")
            except BaseException:
                writer.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise _translated(error) from error
        return reader, writer

    def _connect(self, wait: float | None = None) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path,
            timeout=self._lock_wait if wait is None else wait,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=512,
        )
        try:
            _prepare_connection(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    async def close(self) -> None:
        """Commit what is queued and close."""
        writer, self._writer = self._writer, None
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        if writer is not None:
            await asyncio.to_thread(writer.close)

    async def read(self, steps: Steps[T]) -> T:
        """Run selecting steps inline; see Database.read."""
        reader = self._reader
        if reader is None:
            raise StorageUnavailable("the metadata database is closed")
        try:
            reader.execute("BEGIN")
            result = _run(reader, steps, changing=False)
            reader.execute("COMMIT")
        except sqlite3.Error as error:
            raise _translated(error) from error
        finally:
            if reader.in_transaction:
                _undo(reader)
        return result

    async def write(self, body: Body[T]) -> T:
        """Queue the steps for the writer thread; see Database.write."""
        while True:
            if self._writer is None:
                raise StorageUnavailable("the metadata database is closed")
            try:
                return await result_of(asyncio.wrap_future(self._writer.submit(body)))
            except StorageFull:
                if self._make_room is None or not await self._make_room():
                    raise


_PRAGMAS = (
    "synchronous=FULL",
    "foreign_keys=ON",
    "cache_size=-8192",
    "trusted_schema=OFF",
    "temp_store=MEMORY",  # a savepoint's journal: a container may have no directory for temporary files
    "journal_size_limit=67108864",  # what a burst of writes has made of the log is given back
)


def _prepare_connection(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    if mode != "wal":
        raise StorageUnavailable("the metadata database's file system cannot hold SQLite's write-ahead log")
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")


class _Write:
    """A queued transaction body, what became of it, and the future that tells its caller."""

    __slots__ = ("body", "error", "future", "result")

    def __init__(self, body: Body[Any]) -> None:
        self.body = body
        self.future: Future[Any] = Future()
        self.error: BaseException | None = None
        self.result: object = None

    def run(self, connection: sqlite3.Connection) -> None:
        """Run in a savepoint, undoing it on an error; raises sqlite3.Error when the whole group is undone."""
        connection.execute("SAVEPOINT body")
        try:
            self.result = _run(connection, self.body(), changing=True)
        except sqlite3.Error as error:
            if not connection.in_transaction:
                raise  # for want of space SQLite has undone the whole group
            self.error = _translated(error)
            self.error.__cause__ = error
        except StopIteration as error:
            self.error = RuntimeError("the body raised StopIteration")  # a future cannot hold that
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whose steps raised it
            self.error = error
        if self.error is not None:
            connection.execute("ROLLBACK TO body")
        connection.execute("RELEASE body")

    def settle(self) -> None:
        """Tell the caller."""
        if not self.future.set_running_or_notify_cancel():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)

    def fail(self, error: StorageError, cause: BaseException | None) -> None:
        """Tell the caller that nothing came of it, unless it has been told something already."""
        if not self.future.done():
            self.error = type(error)(str(error))
            self.error.__cause__ = cause
            self.settle()


class _Writer:
    """The writer thread. `None` in the queue ends it; whatever ends it, nobody is left waiting."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._unsettled: set[_Write] = set()
        self._closing = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._loop, name="sqlite-writer", daemon=True)
        self._thread.start()

    def submit(self, body: Body[T]) -> Future[T]:
        """Queue a body; raises StorageUnavailable when the thread takes no more."""
        write = _Write(body)
        with self._closing:
            if self._closed:
                raise StorageUnavailable("the metadata database is closed")
            self._unsettled.add(write)
            self._queue.put(write)
        return write.future

    def close(self) -> None:
        """Take no more, commit what is queued, and close the connection."""
        with self._closing:
            self._closed = True
            self._queue.put(None)
        self._thread.join()
        self._connection.close()

    def _loop(self) -> None:
        try:
            last = False
            while not last:
                group, last = self._next_group()
                self._commit(group)
                self._unsettled.difference_update(group)
        finally:
            with self._closing:
                self._closed = True
            for write in tuple(self._unsettled):
                write.fail(StorageUnavailable("the metadata database's writer has ended"), None)

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
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            self._connection.execute("BEGIN IMMEDIATE")
            for write in group:
                write.run(self._connection)
            self._connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - a thread that died here would leave its callers waiting
            _undo(self._connection)
            for write in group:
                write.fail(_translated(error), error)
            return
        for write in group:
            write.settle()


def _make_directory(path: Path) -> None:
    """Make a directory and those above it, durably."""
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(mode=0o750, exist_ok=True)
        PosixFiles().sync_directory(path.parent)


def _undo(connection: sqlite3.Connection) -> None:
    """Roll back what can be; SQLite has done so itself after some errors."""
    with suppress(sqlite3.Error):
        connection.execute("ROLLBACK")


def _run(connection: sqlite3.Connection, steps: Steps[T], *, changing: bool) -> T:
    try:
        execution = next(steps)
        while True:
            text = execution.statement.sqlite
            try:
                if changing:
                    execution.check_text()
                rows = connection.execute(text.text, text.named(execution.parameters)).fetchall()
            except (OverflowError, UnicodeEncodeError) as error:
                steps.close()
                raise InvalidInput(f"the metadata database cannot hold a value: {error}") from error
            except (sqlite3.Error, InvalidInput):
                steps.close()
                raise
            execution = steps.send(rows)
    except StopIteration as stop:
        result: T = stop.value
        return result


def _translated(error: BaseException) -> StorageError:
    name = getattr(error, "sqlite_errorname", None)
    if name in _FULL_NAMES or (isinstance(error, OSError) and error.errno in _FULL):
        return StorageFull("the metadata database has no space left")
    return StorageUnavailable(f"the metadata database failed: {str(error) or type(error).__name__}")
