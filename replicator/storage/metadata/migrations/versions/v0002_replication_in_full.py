"""Replication in full: revisions of images and tags, deletions and conflicts remembered, backfills, settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add columns and tables; what is there gets revisions from before every write."""
    op.add_column("images", sa.Column("revision", TEXT, nullable=False, server_default=sa.text("''")))
    op.add_column("images", sa.Column("source", TEXT, nullable=True))
    op.create_index(
        "images_by_source",
        "images",
        ["source", "repository", "digest"],
        sqlite_where=sa.text("source IS NOT NULL"),
        postgresql_where=sa.text("source IS NOT NULL"),
    )
    op.add_column("tags", sa.Column("seen", TEXT, nullable=False, server_default="{}"))
    op.add_column("replication_status", sa.Column("target", TEXT, nullable=False, server_default=sa.text("''")))
    op.create_index("replication_status_by_tag", "replication_status", ["repository", "tag", "destination"])
    op.create_index(
        "replication_status_superseded",
        "replication_status",
        ["destination"],
        sqlite_where=sa.text("failure_code = 'Superseded'"),
        postgresql_where=sa.text("failure_code = 'Superseded'"),
    )
    op.create_table(
        "deleted_images",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("revision", TEXT, nullable=False),
        sa.Column("deleted_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest"),
    )
    op.create_table(
        "tag_conflicts",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("loser", TEXT, nullable=False),
        sa.Column("winner", TEXT, nullable=True),
        sa.Column("winner_revision", TEXT, nullable=False),
        sa.Column("found_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "tag", "loser"),
    )
    op.create_index("tag_conflicts_by_time", "tag_conflicts", ["found_at"])
    op.create_table(
        "backfills",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.Column("destination", TEXT, nullable=False),
        sa.Column("repository", TEXT, nullable=True),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.Column("prepared_at", sa.Double(), nullable=True),
        sa.Column("position", TEXT, nullable=False, server_default=sa.text("''")),
        sa.Column("failure", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("backfills_by_time", "backfills", ["created_at"])
    op.create_table(
        "backfill_images",
        sa.Column("backfill", TEXT, nullable=False),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("destination", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("failure_code", TEXT, nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("backfill", "repository", "digest", "tag", "destination"),
    )
    op.create_index("backfill_images_by_status", "backfill_images", ["backfill", "status"])
    op.create_index("backfill_images_by_job", "backfill_images", ["kind", "key", "status"])
    op.create_table(
        "registry_documents",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
