"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
IDENTITY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "blobs",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("location", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("verified_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "cache_entries",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("reference", TEXT, nullable=False),
        sa.Column("upstream", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("checked_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("used_at", sa.Double(), nullable=False),
        sa.Column("failed_at", sa.Double(), nullable=True),
        sa.Column("last_error", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("repository", "reference"),
    )
    op.create_index("cache_entries_by_check", "cache_entries", ["checked_at"], unique=False)
    op.create_table(
        "images",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=True),
        sa.Column("artifact_type", TEXT, nullable=True),
        sa.Column("origin", TEXT, nullable=False),
        sa.Column("pushed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest"),
    )
    op.create_index("images_by_digest", "images", ["digest"], unique=False)
    op.create_index("images_by_subject", "images", ["repository", "subject", "digest"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", IDENTITY, autoincrement=True, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("key", TEXT, nullable=False),
        sa.Column("lane", TEXT, nullable=False),
        sa.Column("payload", TEXT, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("enqueued_at", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("lease_owner", TEXT, nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("last_error", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("kind", "key", name="jobs_by_key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "jobs_due",
        "jobs",
        ["kind", "lane", "state", "priority", "not_before", "id", "enqueued_at"],
        unique=False,
    )
    op.create_index(
        "jobs_troubled",
        "jobs",
        ["kind", "enqueued_at"],
        unique=False,
        sqlite_where=sa.text("last_error IS NOT NULL"),
        postgresql_where=sa.text("last_error IS NOT NULL"),
    )
    op.create_table(
        "manifest_references",
        sa.Column("parent", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("child", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("parent", "kind", "child"),
    )
    op.create_index("manifest_references_by_child", "manifest_references", ["child"], unique=False)
    op.create_table(
        "manifests",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("media_type", TEXT, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("artifact_type", TEXT, nullable=True),
        sa.Column("subject", TEXT, nullable=True),
        sa.Column("config_digest", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_table(
        "node",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "replication_status",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("destination", TEXT, nullable=False),
        sa.Column("rule", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("failure_code", TEXT, nullable=True),
        sa.Column("enqueued_at", sa.Double(), nullable=False),
        sa.Column("completed_at", sa.Double(), nullable=True),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest", "tag", "destination"),
    )
    op.create_table(
        "repositories",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("created_by", TEXT, nullable=False),
        sa.Column("tag_mutability", TEXT, nullable=False),
        sa.Column("mutability_exclusions", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "repository_blobs",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("linked_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest"),
    )
    op.create_index("repository_blobs_by_digest", "repository_blobs", ["digest"], unique=False)
    op.create_table(
        "tags",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("tag", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=True),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("counter", sa.BigInteger(), nullable=False),
        sa.Column("origin_node", TEXT, nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "tag"),
    )
    op.create_index("tags_by_digest", "tags", ["repository", "digest"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("id", TEXT, nullable=False),
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("principal", TEXT, nullable=False),
        sa.Column("algorithm", TEXT, nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("uploads_by_expiry", "uploads", ["expires_at"], unique=False)
