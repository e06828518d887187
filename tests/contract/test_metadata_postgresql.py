"""What only PostgreSQL can do to a database: refuse, fail, stall, go away, ask for another try."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import asyncpg
import pytest
import sqlalchemy as sa

from replicator.core.digest import digest_of
from replicator.core.errors import ConfigurationError, ReplicatorError, StorageFull, StorageUnavailable
from replicator.core.jobs import JobKind, NewJob
from replicator.core.names import AccountId, NodeId, Region, RepositoryName, Tag
from replicator.storage.metadata import jobs, repositories, tags
from replicator.storage.metadata.postgresql import PostgresqlDatabase
from replicator.storage.metadata.statement import Statement
from tests.support.databases import PostgresqlBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable

    from replicator.core.revisions import TagRegister
    from replicator.storage.metadata.statement import Steps
    from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.postgres

NODE = NodeId(AccountId("1" * 12), Region("eu-west-1"))
REPOSITORY = RepositoryName("team/app")
LATEST = Tag("latest")
DIGEST = digest_of(b"content")


def move_tag() -> Steps[TagRegister]:
    return tags.put(REPOSITORY, LATEST, DIGEST, NODE, 0.0)


class Sleeper:
    """Sleeps in no time, and remembers for how long."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)


@pytest.fixture
def bench(postgres_server: PostgresServer) -> PostgresqlBench:
    return PostgresqlBench(postgres_server)


@pytest.fixture
async def sleeper() -> Sleeper:
    return Sleeper()


@pytest.fixture
async def database(bench: PostgresqlBench, sleeper: Sleeper) -> AsyncIterator[PostgresqlDatabase]:
    database = PostgresqlDatabase(bench.dsn, bench.schema, 3, statement_timeout=0.5, sleep=sleeper)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def admin(bench: PostgresqlBench) -> AsyncIterator[asyncpg.Connection]:
    """A connection behind the database's back."""
    connection = await asyncpg.connect(bench.dsn, server_settings={"search_path": bench.schema})
    yield connection
    await connection.close()


async def sessions(admin: asyncpg.Connection, state: str) -> int:
    count: int = await admin.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'replicator' AND state LIKE $1", state
    )
    return count


class TestRetries:
    async def test_a_write_that_met_another_is_run_anew(self, database: PostgresqlDatabase, sleeper: Sleeper) -> None:
        tries: list[int] = []
        both_have_read = asyncio.Barrier(2)

        def body(number: int) -> Steps[TagRegister]:
            tries.append(number)
            yield from tags.find(REPOSITORY, LATEST)
            return (yield from move_tag())

        async def write(number: int) -> TagRegister:
            await both_have_read.wait()
            return await database.write(lambda: body(number))

        while len(tries) == len(set(tries)):
            tries.clear()
            async with asyncio.TaskGroup() as group:
                group.create_task(write(1))
                group.create_task(write(2))
        assert 0 < sleeper.slept[0] <= 0.002
        state = await database.read(tags.find(REPOSITORY, LATEST))
        assert state is not None
        assert state.revision.counter % 2 == 0

    async def test_many_writers_of_one_row_all_get_through(self, bench: PostgresqlBench, sleeper: Sleeper) -> None:
        daemons = [PostgresqlDatabase(bench.dsn, bench.schema, 6, sleep=sleeper) for _ in range(3)]
        for daemon in daemons:
            await daemon.open()
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(daemons[number % 3].write(move_tag)) for number in range(300)]
        assert sorted(task.result().revision.counter for task in tasks) == list(range(1, 301))
        for daemon in daemons:
            await daemon.close()

    @pytest.mark.parametrize("sqlstate", ["40001", "40P01"])
    async def test_a_write_is_tried_a_bounded_number_of_times(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection, sleeper: Sleeper, sqlstate: str
    ) -> None:
        await self.fail_inserts(admin, sqlstate)
        tries = 0

        def body() -> Steps[TagRegister]:
            nonlocal tries
            tries += 1
            return (yield from move_tag())

        with pytest.raises(StorageUnavailable, match="concurrent changes"):
            await database.write(body)
        assert tries == len(sleeper.slept) + 1
        assert 5 <= tries <= 20
        assert sum(sleeper.slept) < 2.0
        assert all(later <= 0.25 for later in sleeper.slept)
        await admin.execute("DROP TRIGGER fail ON tags")
        assert (await database.write(move_tag)).revision.counter == 1

    async def test_a_failure_of_another_kind_is_not_tried_again(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection, sleeper: Sleeper
    ) -> None:
        await self.fail_inserts(admin, "53200")
        with pytest.raises(StorageUnavailable, match="53200"):
            await database.write(move_tag)
        assert sleeper.slept == []

    async def test_a_full_disk_is_told_as_such_and_reads_go_on(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection
    ) -> None:
        await self.fail_inserts(admin, "53100")
        with pytest.raises(StorageFull):
            await database.write(move_tag)
        assert await database.read(tags.names_after(REPOSITORY, "", 10)) == []
        await admin.execute("DROP TRIGGER fail ON tags")
        assert (await database.write(move_tag)).revision.counter == 1

    async def test_a_failure_at_commit_is_tried_again(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection, sleeper: Sleeper
    ) -> None:
        await admin.execute("CREATE SEQUENCE tries")
        await admin.execute(
            "CREATE FUNCTION fail_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " IF nextval('tries') < 3 THEN RAISE 'at commit' USING ERRCODE = '40001'; END IF; RETURN NULL; END $$"
        )
        await admin.execute(
            "CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON tags DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION fail_twice()"
        )
        assert (await database.write(move_tag)).revision.counter == 1
        assert len(sleeper.slept) == 2

    async def fail_inserts(self, admin: asyncpg.Connection, sqlstate: str) -> None:
        await admin.execute(
            "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE 'made up' USING ERRCODE = '{sqlstate}'; END $$"
        )
        await admin.execute("CREATE TRIGGER fail BEFORE INSERT ON tags EXECUTE FUNCTION fail()")


class TestPlans:
    async def test_no_more_jobs_are_leased_than_asked_for_whatever_the_plan(self, bench: PostgresqlBench) -> None:
        switched_off = "".join(f"&enable_{way}=off" for way in ("hashagg", "hashjoin", "sort", "mergejoin", "material"))
        database = PostgresqlDatabase(bench.dsn + switched_off, bench.schema)
        await database.open()

        def enqueue() -> Steps[None]:
            for number in range(50):
                yield from jobs.enqueue(NewJob(JobKind.REPLICATE, f"{number}"), 1.0)

        await database.write(enqueue)
        for lane in (None, ""):
            leased = await database.write(partial(jobs.lease, JobKind.REPLICATE, "one", 2.0, 3.0, 3, lane))
            assert len(leased) == 3
        await database.close()


class TestStalls:
    async def test_a_statement_that_waits_too_long_is_given_up(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection
    ) -> None:
        async with admin.transaction():
            await admin.execute("LOCK TABLE tags IN ACCESS EXCLUSIVE MODE")
            async with asyncio.timeout(5):
                with pytest.raises(StorageUnavailable):
                    await database.read(tags.find(REPOSITORY, LATEST))
                with pytest.raises(StorageUnavailable):
                    await database.write(move_tag)
        assert (await database.write(move_tag)).revision.counter == 1
        assert await sessions(admin, "idle in transaction%") == 0

    async def test_waiting_for_a_connection_has_an_end(
        self, bench: PostgresqlBench, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("replicator.storage.metadata.postgresql._GRACE", 0.0)
        database = PostgresqlDatabase(bench.dsn, bench.schema, 1, statement_timeout=0.3)
        await database.open()
        async with admin.transaction():
            await admin.execute("LOCK TABLE tags IN ACCESS EXCLUSIVE MODE")
            async with asyncio.timeout(5), asyncio.TaskGroup() as group:
                waiting = [group.create_task(outcome(database.read(tags.find(REPOSITORY, LATEST)))) for _ in range(5)]
        assert {type(task.result()) for task in waiting} == {StorageUnavailable}
        assert (await database.write(move_tag)).revision.counter == 1
        await database.close()

    async def test_more_readers_than_connections_take_turns(self, database: PostgresqlDatabase) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(database.read(repositories.count())) for _ in range(50)]
        assert [task.result() for task in tasks] == [0] * 50


class Wire:
    """Stands between a database and its server, and stands still when told to."""

    def __init__(self, server: PostgresServer, directory: Path) -> None:
        self._target = server.directory / ".s.PGSQL.5432"
        self._path = directory / ".s.PGSQL.5432"
        self.dsn = server.dsn.replace(quote(str(server.directory)), quote(str(directory)))
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._joined: set[asyncio.Task[Any]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._join, self._path)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._joined:
            task.cancel()
        await asyncio.wait(self._joined)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._joined.add(task)
        other_reader, other_writer = await asyncio.open_unix_connection(self._target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, other_writer))
                group.create_task(self._pass_on(other_reader, writer))
        except asyncio.CancelledError:
            pass  # asyncio's own handler of this task would complain
        finally:
            for end in (writer, other_writer):
                end.transport.abort()
                with suppress(ConnectionError):
                    await end.wait_closed()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                await self.flowing.wait()
                writer.write(data)
        writer.close()


class TestUnreachableServer:
    @pytest.fixture
    async def wire(self, postgres_server: PostgresServer) -> AsyncIterator[Wire]:
        with tempfile.TemporaryDirectory(prefix="wire-") as directory:
            async with Wire(postgres_server, Path(directory)) as wire:
                yield wire

    @pytest.fixture
    async def database(
        self, wire: Wire, bench: PostgresqlBench, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[PostgresqlDatabase]:
        for limit in ("_GRACE", "_CLOSE_TIMEOUT", "_CONNECT_TIMEOUT"):
            monkeypatch.setattr(f"replicator.storage.metadata.postgresql.{limit}", 0.3)
        database = PostgresqlDatabase(wire.dsn, bench.schema, 2, statement_timeout=0.2)
        await database.open()
        yield database
        await database.close()

    async def test_every_call_has_an_end_and_all_is_well_when_the_server_is_back(
        self, database: PostgresqlDatabase, wire: Wire
    ) -> None:
        await database.write(move_tag)
        wire.flowing.clear()
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            tasks = [group.create_task(outcome(database.write(move_tag))) for _ in range(4)]
            tasks += [group.create_task(outcome(database.read(repositories.count()))) for _ in range(4)]
        assert {type(task.result()) for task in tasks} == {StorageUnavailable}
        wire.flowing.set()
        state = await database.write(move_tag)
        assert 2 <= state.revision.counter <= 6  # a commit whose answer was lost may have happened

    async def test_closing_has_an_end(self, database: PostgresqlDatabase, wire: Wire) -> None:
        await database.write(move_tag)
        wire.flowing.clear()
        async with asyncio.timeout(5):
            leaving = asyncio.create_task(outcome(database.write(move_tag)))  # noqa: TID251 - awaited below
            await asyncio.sleep(0)
            await database.close()
            assert isinstance(await leaving, StorageUnavailable)

    async def test_opening_has_an_end(self, database: PostgresqlDatabase, wire: Wire, bench: PostgresqlBench) -> None:
        wire.flowing.clear()
        async with asyncio.timeout(5):
            with pytest.raises(StorageUnavailable, match="in time"):
                await PostgresqlDatabase(wire.dsn, bench.schema).open()
        assert database is not None


class TestLostConnections:
    async def test_a_connection_that_is_cut_is_replaced(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection
    ) -> None:
        await database.write(move_tag)
        await self.cut(admin)
        results = [await outcome(database.read(tags.names_after(REPOSITORY, "", 9))) for _ in range(5)]
        assert results[-1] == [LATEST]
        assert all(result == [LATEST] or isinstance(result, StorageUnavailable) for result in results)

    async def test_a_connection_that_is_cut_under_a_write_undoes_it(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection
    ) -> None:
        cutting = Statement(sa.text("SELECT pg_terminate_backend(pg_backend_pid())"))

        def body() -> Steps[None]:
            yield from move_tag()
            yield from cutting()

        with pytest.raises(StorageUnavailable):
            await database.write(body)
        assert await database.read(tags.find(REPOSITORY, LATEST)) is None
        assert (await database.write(move_tag)).revision.counter == 1

    async def test_an_outage_ends_by_itself(
        self, postgres_server: PostgresServer, bench: PostgresqlBench, admin: asyncpg.Connection
    ) -> None:
        await admin.execute("CREATE ROLE one_node LOGIN PASSWORD 'one'")
        await admin.execute(f"CREATE SCHEMA {bench.schema} AUTHORIZATION one_node")
        dsn = postgres_server.dsn_with("one").replace(postgres_server.user, "one_node", 1)
        database = PostgresqlDatabase(dsn, bench.schema)
        try:
            await database.open()
            await database.write(move_tag)
            await admin.execute("ALTER ROLE one_node CONNECTION LIMIT 0")
            await self.cut(admin)
            for _ in range(3):
                with pytest.raises(StorageUnavailable):
                    await database.write(move_tag)
                with pytest.raises(StorageUnavailable):
                    await database.read(repositories.count())
            await admin.execute("ALTER ROLE one_node CONNECTION LIMIT -1")
            assert (await database.write(move_tag)).revision.counter == 2
        finally:
            await database.close()
            await admin.execute("DROP OWNED BY one_node CASCADE")
            await admin.execute("DROP ROLE one_node")

    async def test_closing_after_the_server_is_gone(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection
    ) -> None:
        await database.write(move_tag)
        await self.cut(admin)
        async with asyncio.timeout(5):
            await database.close()

    async def cut(self, admin: asyncpg.Connection) -> None:
        await admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'replicator'"
        )


class TestSessions:
    async def test_nothing_is_left_open_in_the_server(
        self, database: PostgresqlDatabase, admin: asyncpg.Connection
    ) -> None:
        def fail() -> Steps[None]:
            yield from move_tag()
            raise ValueError("own")

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                for work in (database.write(fail), database.read(fail()), database.write(move_tag)):
                    group.create_task(outcome(work))
        assert await sessions(admin, "idle in transaction%") == 0
        assert await sessions(admin, "%") <= 3
        await database.close()
        assert await sessions(admin, "%") == 0

    async def test_a_commit_waits_for_the_disk_whatever_the_role_is_set_up_to(
        self, bench: PostgresqlBench, admin: asyncpg.Connection
    ) -> None:
        setting = Statement(sa.text("SELECT current_setting('synchronous_commit')"))
        for configured, expected in (("off", "on"), ("local", "local"), ("on", "on")):
            await admin.execute(f"ALTER ROLE tester SET synchronous_commit = {configured}")
            try:
                database = bench.new_database()
                await database.open()
                for _ in range(3):
                    assert await database.read(setting()) == [(expected,)]
                await database.close()
            finally:
                await admin.execute("ALTER ROLE tester RESET synchronous_commit")


class TestSecrets:
    @pytest.mark.parametrize(
        "dsn",
        [
            "postgresql://user:pa/ss-canary@localhost/db",
            "postgresql://user:canary@localhost:canary/db",
            "postgresql://user:canary@[::1/db",
            "host=localhost password=canary",
            "mysql://user:canary@localhost/db",
            "postgresql://user:canary@localhost/db?sslmode=canary",
            "postgresql://user:canary@localhost:99999/db",
        ],
    )
    async def test_a_malformed_connection_string_is_not_quoted(
        self, dsn: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        with pytest.raises((ConfigurationError, StorageUnavailable)) as caught:
            await PostgresqlDatabase(dsn, "s").open()
        shown = "".join(traceback.format_exception(caught.value))
        assert "canary" not in shown + str(caught.value) + caplog.text

    async def test_a_refused_password_is_not_quoted(
        self, postgres_server: PostgresServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        database = PostgresqlDatabase(postgres_server.dsn_with("wrong-canary"), "s")
        with pytest.raises(StorageUnavailable, match="password authentication failed") as caught:
            await database.open()
        shown = "".join(traceback.format_exception(caught.value))
        assert "canary" not in shown + repr(database) + repr(vars(caught.value)) + caplog.text

    async def test_an_unreachable_server_is_named_without_the_password(self) -> None:
        database = PostgresqlDatabase("postgresql://user:canary@/db?host=/nowhere", "s")
        with pytest.raises(StorageUnavailable) as caught:
            await database.open()
        assert "canary" not in "".join(traceback.format_exception(caught.value))


async def outcome(work: Awaitable[Any]) -> object:
    try:
        return await work
    except (ReplicatorError, ValueError) as error:
        return error
