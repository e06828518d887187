"""The servers and the databases that contract suites run over."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest

from tests.support.databases import PostgresqlBench, SqliteBench
from tests.support.postgres_server import running_postgres_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from replicator.storage.metadata.database import Database
    from tests.support.databases import DatabaseBench
    from tests.support.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_bench(request: pytest.FixtureRequest, tmp_path: Path) -> DatabaseBench:
    if request.param == "sqlite":
        return SqliteBench(tmp_path / "metadata.db")
    return PostgresqlBench(request.getfixturevalue("postgres_server"))


@pytest.fixture
async def database(database_bench: DatabaseBench) -> AsyncIterator[Database]:
    database = database_bench.new_database()
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def databases(database_bench: DatabaseBench, database: Database) -> AsyncIterator[tuple[Database, Database]]:
    """Two databases on one backing; the same one twice where only one may be open."""
    if not database_bench.takes_many:
        yield database, database
        return
    async with AsyncExitStack() as stack:
        other = database_bench.new_database()
        await other.open()
        stack.push_async_callback(other.close)
        yield database, other
