"""Metadata databases to test against: a bench makes databases on one backing."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol

from replicator.storage.metadata.postgresql import PostgresqlDatabase
from replicator.storage.metadata.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from pathlib import Path

    from replicator.storage.metadata.database import Database
    from tests.support.postgres_server import PostgresServer

_schemas = itertools.count(1)


class DatabaseBench(Protocol):
    """One backing and the databases on it."""

    takes_many: bool
    """Whether several databases may be open at once, like several daemons of a node."""

    def new_database(self) -> Database:
        """Return a database that is not open yet."""
        ...


class SqliteBench:
    """A file."""

    takes_many = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def new_database(self) -> Database:
        return SqliteDatabase(self.path)


class PostgresqlBench:
    """A schema of a server. Every bench has its own: none is ever emptied."""

    takes_many = True

    def __init__(self, server: PostgresServer) -> None:
        self.dsn = server.dsn
        self.schema = f"test_{next(_schemas)}"

    def new_database(self) -> Database:
        return PostgresqlDatabase(self.dsn, self.schema, 4)
