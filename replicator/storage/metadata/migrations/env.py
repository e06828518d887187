"""Alembic's entry point: runs the migrations on the connection it is handed."""

from __future__ import annotations

from alembic import context

from replicator.storage.metadata.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
