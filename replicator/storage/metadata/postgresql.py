"""PostgreSQL behind the database port: serialisable writes that are tried again, by any number of daemons at once.

A write that met a concurrent one is run anew from its first step. From its second try on it queues for a lock that only
such writes take, so however many of them meet, one at a time goes through, while first tries pass them by. Every
transaction runs in a task of its own, owned by the database until it ends: a caller that is cancelled leaves, and no
transaction is torn half-way, nor is a request to cancel it sent over a new connection.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg

from replicator.core.errors import ConfigurationError, InvalidInput, StorageError, StorageFull, StorageUnavailable
from replicator.core.retry import Backoff
from replicator.storage.metadata.detached import result_of
from replicator.storage.metadata.migrate import migrate_postgresql

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    from replicator.storage.metadata.statement import Body, Execution, Rows, Steps

T = TypeVar("T")

_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
_WRITE = "BEGIN ISOLATION LEVEL SERIALIZABLE, READ WRITE"
# The lock conflicts with itself but with no read or change of the table, and LOCK takes no snapshot: what the steps see
# afterwards is what the one before in the queue has committed (PostgreSQL manual, "LOCK").
_WRITE_AGAIN = f"{_WRITE}; LOCK TABLE node IN SHARE UPDATE EXCLUSIVE MODE"

_MET_ANOTHER = frozenset({"40001", "40P01"})
_DISK_FULL = "53100"
_TRIES = 12
_BACKOFF = Backoff(initial=0.002, maximum=0.25)

_DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)

_CONNECT_TIMEOUT = 10.0
_CLOSE_TIMEOUT = 5.0
_GRACE = 5.0
"""The server ends a statement that takes too long by itself; after these seconds more it is taken for unreachable."""


class PostgresqlDatabase:
    """One schema of a PostgreSQL database, shared by all daemons of the node.

    A statement may take `statement_timeout` seconds. `sleep` waits between tries.
    """

    def __init__(
        self,
        dsn: str,
        schema: str,
        pool_size: int = 8,
        *,
        statement_timeout: float = 20.0,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        quoted = schema.replace('"', '""')
        self._dsn = dsn
        self._schema = schema
        self._pool_size = pool_size
        self._statement_timeout = statement_timeout
        self._sleep = sleep
        self._settings = {"search_path": f'"{quoted}"', "application_name": "replicator", "jit": "off"}
        self._pool: asyncpg.Pool | None = None
        self._running: set[asyncio.Task[Any]] = set()

    async def open(self) -> None:
        """Make and upgrade the schema, and connect; see Database.open.

        Raises ConfigurationError when the connection string is malformed.
        """
        with _translated():
            await migrate_postgresql(self._schema, self._connect)
            self._pool = await asyncpg.create_pool(
                self._dsn,
                min_size=0,
                max_size=self._pool_size,
                timeout=_CONNECT_TIMEOUT,
                max_cached_statement_lifetime=0,
                command_timeout=self._statement_timeout + _GRACE,
                server_settings={
                    **self._settings,
                    "statement_timeout": str(int(self._statement_timeout * 1000)),
                    # A daemon that stands still in a transaction must not hold the others up.
                    "idle_in_transaction_session_timeout": "60s",
                },
                init=_make_durable,
                reset=_keep_session,
            )

    async def _connect(self) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(self._dsn, timeout=_CONNECT_TIMEOUT, server_settings=self._settings)
        except OSError:
            raise  # a certificate that is refused is a ValueError as well
        except ValueError:
            # It quotes pieces of the connection string, and where that is malformed a piece may be the password.
            raise ConfigurationError(
                "the dsn of the metadata database cannot be used; expected"
                " postgresql://user:password@host:port/database with percent-encoded parts"
            ) from None

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            while self._running:
                await asyncio.wait(tuple(self._running))
            with _translated():
                await asyncio.wait_for(pool.close(), _CLOSE_TIMEOUT)
        except StorageUnavailable:
            pass  # the server is gone, and its connections with it
        finally:
            pool.terminate()

    async def read(self, steps: Steps[T]) -> T:
        """Run selecting steps on one snapshot; see Database.read."""
        return await self._own(self._transaction(self._opened(), _READ, steps))

    async def write(self, body: Body[T]) -> T:
        """Run steps until they commit without having met another write; see Database.write."""
        return await self._own(self._write(self._opened(), body))

    def _opened(self) -> asyncpg.Pool:
        if self._pool is None:
            raise StorageUnavailable("the metadata database is closed")
        return self._pool

    async def _own(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)  # noqa: TID251 - owned by this object until done
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await result_of(task)

    async def _write(self, pool: asyncpg.Pool, body: Body[T]) -> T:
        begin = _WRITE
        for tried in range(1, _TRIES):
            try:
                return await self._transaction(pool, begin, body())
            except _MetAnother:
                begin = _WRITE_AGAIN
                await self._sleep(_BACKOFF.delay(tried, random.random()))  # noqa: S311 - spreads tries, no secret
        return await self._transaction(pool, begin, body())

    async def _transaction(self, pool: asyncpg.Pool, begin: str, steps: Steps[T]) -> T:
        with _translated():
            connection = await pool.acquire(timeout=self._statement_timeout + _GRACE)
        try:
            with _translated():
                await connection.execute(begin)
            result = await _run(connection, steps)
            with _translated():
                await connection.execute("COMMIT")
            return result
        finally:
            await _release(pool, connection)


class _MetAnother(StorageUnavailable):
    """A concurrent change got in this one's way; what it escapes as when that does not end."""


async def _run(connection: asyncpg.Connection, steps: Steps[T]) -> T:
    try:
        execution = next(steps)
        while True:
            execution = steps.send(await _fetch(connection, steps, execution))
    except StopIteration as stop:
        result: T = stop.value
        return result


async def _fetch(connection: asyncpg.Connection, steps: Steps[Any], execution: Execution) -> Rows:
    text = execution.statement.postgresql
    try:
        execution.check_text()
        with _translated():
            rows: Rows = await connection.fetch(text.text, *text.positional(execution.parameters))
            return rows
    except BaseException:
        steps.close()
        raise


async def _release(pool: asyncpg.Pool, connection: asyncpg.Connection) -> None:
    """Give a connection back, undoing the transaction that it may still be in.

    Raises nothing: what came of the transaction is decided. The pool drops a connection that it cannot take back, and
    the server then undoes what it was in.
    """
    with suppress(*_DRIVER_ERRORS):
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK", timeout=_GRACE)
    with suppress(*_DRIVER_ERRORS):
        await pool.release(connection, timeout=_GRACE)


async def _make_durable(connection: asyncpg.Connection) -> None:
    """Have a commit wait for the disk even where the server, database or role is set up not to."""
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )


async def _keep_session(_connection: asyncpg.Connection) -> None:
    """Leave out the pool's query that resets a session between users: nothing here changes one."""


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _storage_error(error) from error
    except TimeoutError as error:
        raise StorageUnavailable("the metadata database did not answer in time") from error
    except (OSError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise StorageUnavailable(f"the metadata database cannot be reached: {error}") from error


def _storage_error(error: asyncpg.PostgresError) -> StorageError | InvalidInput:
    if isinstance(error, asyncpg.DataError):
        return InvalidInput(f"the metadata database cannot hold a value: {error}")
    if error.sqlstate in _MET_ANOTHER:
        return _MetAnother("concurrent changes to the metadata kept getting in the way")
    if error.sqlstate == _DISK_FULL:
        return StorageFull("the metadata database has no space left")
    return StorageUnavailable(f"the metadata database failed: {error} (SQLSTATE {error.sqlstate})")
