"""The pull-through cache in full: what checks found of tags, their history, and how cached images are used."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add columns and tables; what is cached already counts as used when it was fetched."""
    op.add_column("cache_entries", sa.Column("gone_at", sa.Double(), nullable=True))
    op.add_column("cache_entries", sa.Column("pending_digest", TEXT, nullable=True))
    op.add_column("cache_entries", sa.Column("drift_digest", TEXT, nullable=True))
    op.add_column("cache_entries", sa.Column("rolled_back_at", sa.Double(), nullable=True))
    op.add_column("cache_entries", sa.Column("due_at", sa.Double(), nullable=False, server_default=sa.text("0")))
    op.drop_index("cache_entries_by_check", "cache_entries")
    op.create_index("cache_entries_by_due", "cache_entries", ["due_at"], unique=False)
    op.execute("UPDATE cache_entries SET due_at = checked_at + 86400")
    op.create_table(
        "cache_history",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("reference", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("first_seen_at", sa.Double(), nullable=False),
        sa.Column("served_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("repository", "reference", "digest"),
    )
    op.create_table(
        "cached_images",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("fetched_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest"),
    )
    op.create_index("cached_images_by_use", "cached_images", ["used_at", "repository", "digest"], unique=False)
    op.create_table(
        "cache_pins",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("reference", TEXT, nullable=False),
        sa.Column("pinned_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "reference"),
    )
    op.execute(
        "INSERT INTO cached_images (repository, digest, fetched_at, used_at)"
        " SELECT repository, digest, pushed_at, pushed_at FROM images WHERE origin = 'cache'"
    )
    op.execute(
        "INSERT INTO cache_history (repository, reference, digest, first_seen_at, served_at)"
        " SELECT repository, reference, digest, changed_at, changed_at FROM cache_entries"
    )
