"""Bring a metadata schema to the revision this code expects.

The revision is looked at first with one query, and Alembic is loaded only when there is something to do: a daemon
that starts on a current store does not pay for it. A revision that this code does not know was written by a newer
program, and is left alone. The missing migrations run in one transaction, so a daemon that is killed half-way leaves
the schema as it was.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from replicator.core.errors import StorageVersion
from replicator.storage.metadata.schema import HEAD_REVISION

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import asyncpg
    from alembic.config import Config

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_sqlite(path: Path, connect: Callable[[], sqlite3.Connection]) -> None:
    """Upgrade the file at `path`; raises StorageVersion, leaving it as it is, when it is newer than this code.

    `connect` returns a new connection without transactions of its own. Raises what the driver raises.
    """
    if not _needs_upgrade(_sqlite_revision(path) if path.exists() else None):
        return
    engine = sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    # The dialect begins a transaction only before it changes rows; tables are to be made in one, too.
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            upgrade(connection)
    except sa.exc.DBAPIError as error:
        raise _original(error) from error
    finally:
        engine.dispose()


def _sqlite_revision(path: Path) -> str | None:
    # Read-only: closing the last connection to a file would otherwise fold its log into it, whatever its revision.
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        known = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'").fetchone()
        if known is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


async def migrate_postgresql(schema: str, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
    """Make the schema if it is missing, and upgrade it; raises StorageVersion when it is newer than this code.

    `connect` returns a new asyncpg connection whose search path is the schema. Daemons that start at once take turns,
    by an advisory lock. Raises what the driver raises.
    """
    connection = await connect()
    try:
        if not _needs_upgrade(await _postgresql_revision(connection, schema)):
            return
        async with connection.transaction():
            await connection.execute(_LOCK, schema)
            # Not IF NOT EXISTS: that takes the right to create schemas even where an administrator has made this one.
            if not await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema):
                quoted = schema.replace('"', '""')
                await connection.execute(f'CREATE SCHEMA "{quoted}"')
    finally:
        await connection.close()
    await _upgrade_postgresql(schema, connect)


_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('replicator/' || $1, 0))"


async def _postgresql_revision(connection: asyncpg.Connection, schema: str) -> str | None:
    known = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname = $1 AND tablename = 'alembic_version')", schema
    )
    if not known:
        return None
    revision: str | None = await connection.fetchval("SELECT version_num FROM alembic_version")
    return revision


async def _upgrade_postgresql(schema: str, connect: Callable[[], Awaitable[asyncpg.Connection]]) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine  # noqa: PLC0415 - only when the schema changes

    engine = create_async_engine("postgresql+asyncpg://", async_creator=connect, poolclass=sa.NullPool)
    try:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(_LOCK, (schema,))
            await connection.run_sync(upgrade)
    except sa.exc.DBAPIError as error:
        raise _original(error) from error
    finally:
        await engine.dispose()


def _original(error: sa.exc.DBAPIError) -> BaseException:
    """Return the driver's own exception, from inside SQLAlchemy's wrappings."""
    wrapped = error.orig
    return error if wrapped is None else wrapped.__cause__ or wrapped


def upgrade(connection: sa.Connection) -> None:
    """Run the missing migrations inside the caller's transaction; raises StorageVersion for an unknown revision."""
    from alembic import command  # noqa: PLC0415 - Alembic is large, and seldom needed
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415 - Alembic is large, and seldom needed

    if _needs_upgrade(MigrationContext.configure(connection).get_current_revision()):
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD_REVISION)


def _needs_upgrade(current: str | None) -> bool:
    if current == HEAD_REVISION:
        return False
    from alembic.script import ScriptDirectory  # noqa: PLC0415 - Alembic is large, and seldom needed

    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise StorageVersion(
            f"the metadata schema is at revision {current!r}, newer than this program knows ({HEAD_REVISION!r});"
            " start the version that wrote it, or a newer one"
        )
    return True


def _config() -> Config:
    from alembic.config import Config  # noqa: PLC0415 - Alembic is large, and seldom needed

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config
