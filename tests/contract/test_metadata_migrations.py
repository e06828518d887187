"""The schema: made at the first start, upgraded at a later one, and left alone when it is newer than the program."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.ext.asyncio import create_async_engine

from replicator.core.delivery import ImageRegister
from replicator.core.digest import digest_of
from replicator.core.errors import StorageError, StorageUnavailable, StorageVersion
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import RepositoryName, Tag, parse_node
from replicator.core.replication import Origin, ReplicationState
from replicator.core.revisions import NEVER, Revision, TagRegister
from replicator.storage.metadata import images, migrate, replication_status, repositories, tags
from replicator.storage.metadata.images import ListedImage
from replicator.storage.metadata.schema import HEAD_REVISION, metadata
from replicator.storage.metadata.statement import Statement
from tests.support.databases import PostgresqlBench, SqliteBench

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from replicator.storage.metadata.database import Database
    from tests.support.databases import DatabaseBench
    from tests.support.postgres_server import PostgresServer

REPOSITORY = RepositoryName("team/app")
IMAGE = digest_of(b"content")


async def execute(bench: DatabaseBench, statement: str) -> list[Any]:
    """Run one statement behind the database's back."""
    if isinstance(bench, SqliteBench):
        with closing(sqlite3.connect(bench.path)) as connection, connection:
            return connection.execute(statement).fetchall()
    assert isinstance(bench, PostgresqlBench)
    connection = await asyncpg.connect(bench.dsn, server_settings={"search_path": bench.schema})
    try:
        return [tuple(row) for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def tables(bench: DatabaseBench) -> set[str]:
    if isinstance(bench, SqliteBench):
        rows = await execute(bench, "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    else:
        rows = await execute(bench, "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
    return {row[0] for row in rows}


@contextmanager
def failing_at(words: str) -> Iterator[None]:
    """Fail before a statement with these words: a migration that ends half-way."""

    def check(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if words in statement:
            raise InterruptedError("made up")

    sa.event.listen(sa.Engine, "before_cursor_execute", check)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", check)


class TestFirstStart:
    async def test_the_description_and_the_migrations_agree(
        self, database_bench: DatabaseBench, database: Database
    ) -> None:
        await database.read(repositories.count())
        if isinstance(database_bench, SqliteBench):
            engine = sa.create_engine(f"sqlite:///{database_bench.path}")
            with engine.connect() as connection:
                differences = compared(connection)
            engine.dispose()
        else:
            assert isinstance(database_bench, PostgresqlBench)
            bench = database_bench
            async_engine = create_async_engine(
                "postgresql+asyncpg://",
                async_creator=lambda: asyncpg.connect(bench.dsn, server_settings={"search_path": bench.schema}),
            )
            async with async_engine.connect() as async_connection:
                differences = await async_connection.run_sync(compared)
            await async_engine.dispose()
        assert differences == []

    async def test_the_revision_is_written(self, database_bench: DatabaseBench, database: Database) -> None:
        await database.read(repositories.count())
        assert await execute(database_bench, "SELECT version_num FROM alembic_version") == [(HEAD_REVISION,)]
        assert await tables(database_bench) == {*metadata.tables, "alembic_version"}

    @pytest.mark.parametrize("words", ["CREATE TABLE blobs", "CREATE TABLE uploads", "INSERT INTO alembic_version"])
    async def test_a_start_that_ended_half_way_leaves_nothing(self, database_bench: DatabaseBench, words: str) -> None:
        database = database_bench.new_database()
        with failing_at(words), pytest.raises((StorageError, InterruptedError)):
            await database.open()
        assert await tables(database_bench) == set()
        await database.open()
        assert await database.read(repositories.count()) == 0
        await database.close()


class TestLaterStarts:
    async def test_a_current_schema_is_opened_without_alembic(
        self, database_bench: DatabaseBench, database: Database
    ) -> None:
        await database.close()
        if isinstance(database_bench, SqliteBench):
            make = f"from replicator.storage.metadata.sqlite import SqliteDatabase as D\nd = D({database_bench.path!r})"
        else:
            assert isinstance(database_bench, PostgresqlBench)
            where = (database_bench.dsn, database_bench.schema)
            make = f"from replicator.storage.metadata.postgresql import PostgresqlDatabase as D\nd = D(*{where!r})"
        program = (
            "import asyncio, sys\nfrom pathlib import Path, PosixPath\n"
            f"{make}\nasyncio.run(d.open())\n"
            "print([name for name in ('alembic', 'sqlalchemy.ext.asyncio', 'asyncpg') if name in sys.modules])"
        )
        result = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        expected = "[]" if isinstance(database_bench, SqliteBench) else "['asyncpg']"
        assert result.stdout.strip() == expected, result.stderr

    async def test_a_newer_schema_is_refused_by_its_revision(
        self, database_bench: DatabaseBench, database: Database
    ) -> None:
        await database.close()
        await execute(database_bench, "UPDATE alembic_version SET version_num = '0999' WHERE true")
        newer = database_bench.new_database()
        with pytest.raises(StorageVersion, match="revision '0999', newer than this program knows") as caught:
            await newer.open()
        assert not caught.value.retryable
        assert await execute(database_bench, "SELECT version_num FROM alembic_version") == [("0999",)]
        with pytest.raises(StorageUnavailable):
            await newer.read(repositories.count())
        await newer.close()


OLD_ROWS = [
    "INSERT INTO repositories VALUES ('team/app', 1.0, 'push', 'IMMUTABLE', '[]')",
    "INSERT INTO manifests VALUES ('{image}', 't', 'content', NULL, NULL, NULL)",
    "INSERT INTO images VALUES ('team/app', '{image}', NULL, NULL, 'replica', 2.0)",
    "INSERT INTO tags VALUES ('team/app', 'latest', '{image}', 1, 3, '111111111111/eu', 4.0)",
    "INSERT INTO tags VALUES ('team/app', 'gone', NULL, 1, 2, '111111111111/eu', 4.0)",
    "INSERT INTO replication_status VALUES"
    " ('team/app', '{image}', 'latest', '111111111111/us', 'all', 'COMPLETE', NULL, 5.0, 6.0, 7)",
    "INSERT INTO jobs (kind, key, lane, payload, priority, state, attempts, generation, enqueued_at, not_before)"
    " VALUES ('replicate', 'k', 'l', '{{}}', 10, 'queued', 0, 1, 5.0, 5.0)",
]


class TestUpgradeFromTheFirstSchema:
    @pytest.fixture
    async def database(self, database_bench: DatabaseBench, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Database]:
        """A store that an older program made and used, opened by this one."""
        old = database_bench.new_database()
        with monkeypatch.context() as older:
            older.setattr(migrate, "HEAD_REVISION", "0001")
            await old.open()
            await old.close()
        assert "tag_conflicts" not in await tables(database_bench)
        for row in OLD_ROWS:
            await execute(database_bench, row.format(image=IMAGE))
        database = database_bench.new_database()
        await database.open()
        yield database
        await database.close()

    async def test_what_was_there_comes_from_before_every_write(self, database: Database) -> None:
        found = await database.read(repositories.find(REPOSITORY))
        assert found is not None
        assert (found.created_by, found.mutability) == ("push", MutabilityRule(TagMutability.IMMUTABLE))
        assert await database.read(images.find_register(REPOSITORY, IMAGE)) == ImageRegister(Origin.REPLICA, NEVER)
        assert await database.read(images.list_after(REPOSITORY, "", 10)) == [
            ListedImage(IMAGE, Origin.REPLICA, NEVER, None, None)
        ]
        old = Revision(1, 3, "111111111111/eu")
        assert await database.read(tags.find(REPOSITORY, Tag("latest"))) == TagRegister(IMAGE, old, {})
        assert await database.read(tags.find(REPOSITORY, Tag("gone"))) == TagRegister(
            None, Revision(1, 2, "111111111111/eu"), {}
        )
        (status,) = await database.read(replication_status.of_image(REPOSITORY, IMAGE))
        assert (status.status, status.bytes, status.target) == (ReplicationState.COMPLETE, 7, "")
        ((name, count),) = await database.read(Statement(sa.text("SELECT key, generation FROM jobs"))())
        assert (name, count) == ("k", 1)

    async def test_every_write_comes_after_what_was_there(self, database: Database) -> None:
        node = parse_node("111111111111/us")
        register = await database.write(lambda: tags.put(REPOSITORY, Tag("latest"), None, node, 100.0))
        assert register == TagRegister(
            None, Revision(1, 100_000, str(node)), {"111111111111/eu": 3, "111111111111/us": 100_000}
        )
        await database.write(lambda: images.renew(REPOSITORY, IMAGE, Revision(1, 5, str(node)), node))
        assert await database.read(images.find_register(REPOSITORY, IMAGE)) == ImageRegister(
            Origin.REPLICA, Revision(1, 5, str(node))
        )

    async def test_the_result_is_what_a_first_start_makes(
        self, database_bench: DatabaseBench, database: Database
    ) -> None:
        await database.read(repositories.count())
        assert await tables(database_bench) == {*metadata.tables, "alembic_version"}
        assert await execute(database_bench, "SELECT version_num FROM alembic_version") == [(HEAD_REVISION,)]

    async def test_an_upgrade_that_ends_half_way_leaves_the_old_store(
        self, database_bench: DatabaseBench, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = database_bench.new_database()
        with monkeypatch.context() as older:
            older.setattr(migrate, "HEAD_REVISION", "0001")
            await old.open()
            await old.close()
        before = await tables(database_bench)
        with failing_at("CREATE TABLE backfill_images"), pytest.raises((StorageError, InterruptedError)):
            await database_bench.new_database().open()
        assert await tables(database_bench) == before
        assert await execute(database_bench, "SELECT version_num FROM alembic_version") == [("0001",)]


class TestSqliteFile:
    async def test_a_newer_file_is_left_as_it_is_also_with_a_log_that_a_crash_left(self, tmp_path: Path) -> None:
        bench = SqliteBench(tmp_path / "metadata.db")
        database = bench.new_database()
        await database.open()
        await execute(bench, "UPDATE alembic_version SET version_num = '0999'")
        crashed = tmp_path / "crashed"
        crashed.mkdir()
        for name in ("metadata.db", "metadata.db-wal"):
            (crashed / name).write_bytes((tmp_path / name).read_bytes())
        await database.close()
        before = {path.name: digest(path) for path in crashed.iterdir()}
        with pytest.raises(StorageVersion):
            await SqliteBench(crashed / "metadata.db").new_database().open()
        after = {path.name: digest(path) for path in crashed.iterdir() if not path.name.endswith("-shm")}
        assert after == before

    async def test_a_path_with_characters_that_mean_something_in_an_address(self, tmp_path: Path) -> None:
        bench = SqliteBench(tmp_path / "a ?mode=ro&x=%41#é" / "deeper" / "metadata.db")
        for _ in range(2):
            database = bench.new_database()
            await database.open()
            assert await database.read(repositories.count()) == 0
            await database.close()
        assert bench.path.is_file()


@pytest.mark.postgres
class TestPostgresqlSchema:
    async def test_daemons_that_start_at_once_do_not_race(self, postgres_server: PostgresServer) -> None:
        bench = PostgresqlBench(postgres_server)
        databases = [bench.new_database() for _ in range(4)]
        async with asyncio.TaskGroup() as group:
            for database in databases:
                group.create_task(database.open())
        async with asyncio.TaskGroup() as group:
            reads = [group.create_task(database.read(repositories.count())) for database in databases]
        assert [read.result() for read in reads] == [0, 0, 0, 0]
        for database in databases:
            await database.close()

    async def test_nodes_in_one_database_are_apart(self, postgres_server: PostgresServer) -> None:
        benches = [PostgresqlBench(postgres_server) for _ in range(2)]
        benches[0].schema, benches[1].schema = 'odd "name', "user"
        for bench in benches:
            database = bench.new_database()
            await database.open()
            await database.write(lambda: repositories.create(a_repository()))
            assert await database.read(repositories.count()) == 1
            await database.close()

    async def test_a_schema_that_an_administrator_made_for_a_role_without_rights(
        self, postgres_server: PostgresServer
    ) -> None:
        bench = PostgresqlBench(postgres_server)
        connection = await asyncpg.connect(postgres_server.dsn)
        await connection.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        await connection.execute(f"CREATE SCHEMA {bench.schema} AUTHORIZATION plain")
        try:
            bench.dsn = postgres_server.dsn_with("plain").replace(postgres_server.user, "plain", 1)
            database = bench.new_database()
            await database.open()
            assert await database.read(repositories.count()) == 0
            await database.close()
            bench.schema = "not_made"
            with pytest.raises(StorageUnavailable, match="permission denied"):
                await bench.new_database().open()
        finally:
            await connection.execute("DROP OWNED BY plain CASCADE")
            await connection.execute("DROP ROLE plain")
            await connection.close()


def compared(connection: sa.Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    differences: list[Any] = compare_metadata(context, metadata)
    return differences


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def a_repository() -> repositories.Repository:
    return repositories.Repository(RepositoryName("team/app"), 1.0, "push", MutabilityRule())
