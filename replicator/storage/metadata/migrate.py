"""Bring a metadata schema to the revision this code expects.

The revision is looked at first with one query, and Alembic is loaded only when there is something to do: a daemon that starts
on a current store does not pay for it. A revision that this code does not know was written by a newer program, and is left alone.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import sqlalchemy as sa

from replicator.core.errors import StorageVersion
from replicator.storage.metadata.schema import HEAD_REVISION

_MIGRATIONS = Path(__file__).parent / "migrations"


def migrate_sqlite(path: Path) -> None:
    """Upgrade the SQLite file at `path`; raises StorageVersion when it is newer than this code."""
    if _sqlite_revision(path) == HEAD_REVISION:
        return
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    try:
        with engine.begin() as connection:
            upgrade(connection)
    finally:
        engine.dispose()


def _sqlite_revision(path: Path) -> str | None:
    with closing(sqlite3.connect(path)) as connection:
        known = connection.execute(
            "SELECT 1 FROM sqlite_master WHERE name = 'alembic_version'"
        ).fetchone()
        if known is None:
            return None
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return None if row is None else str(row[0])


def upgrade(connection: sa.Connection) -> None:
    """Run the missing migrations inside the caller's transaction; raises StorageVersion for an unknown revision."""
    # Alembic and its templates are large, and needed only when the schema changes.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415
    from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
    from alembic.script import ScriptDirectory  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    current = MigrationContext.configure(connection).get_current_revision()
    known = {
        script.revision
        for script in ScriptDirectory.from_config(config).walk_revisions()
    }
    if current is not None and current not in known:
        raise StorageVersion(
            f"the metadata schema is at revision {current!r}, newer than this program knows ({HEAD_REVISION!r});"
            " start the version that wrote it, or a newer one"
        )
    command.upgrade(config, HEAD_REVISION)
