"""What the ECR API keeps: settings of repositories, states of images, scans, previews and signings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ACTIVATING = sa.text("status = 'ACTIVATING'")
INACTIVE = sa.text("status <> 'ACTIVE'")
WITH_POLICY = sa.text("policy IS NOT NULL")
DEAD = sa.text("state = 'dead'")


def upgrade() -> None:
    """Add columns and tables; what is here already has the settings that a repository has by default."""
    _extend_repositories()
    op.add_column("images", sa.Column("size", sa.BigInteger(), nullable=True))
    op.add_column("images", sa.Column("status", TEXT, nullable=False, server_default=sa.text("'ACTIVE'")))
    op.add_column("images", sa.Column("archived_at", sa.Double(), nullable=True))
    op.add_column("images", sa.Column("activated_at", sa.Double(), nullable=True))
    op.add_column("images", sa.Column("pulled_at", sa.Double(), nullable=True))
    op.create_index("images_by_push", "images", ["repository", "pushed_at", "digest"], unique=False)
    op.create_index(
        "images_activating",
        "images",
        ["activated_at"],
        unique=False,
        sqlite_where=ACTIVATING,
        postgresql_where=ACTIVATING,
    )
    op.create_index(
        "images_inactive", "images", ["repository"], unique=False, sqlite_where=INACTIVE, postgresql_where=INACTIVE
    )
    op.add_column("uploads", sa.Column("parts", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("uploads", sa.Column("short_parts", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.create_table(
        "node_keys",
        sa.Column("name", TEXT, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "public_logos",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("repository"),
    )
    _add_scans()
    _add_previews()
    _add_events()
    op.create_table(
        "image_signings",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("profile", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("failure_code", TEXT, nullable=True),
        sa.Column("failure_reason", TEXT, nullable=True),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest", "profile"),
    )


def _extend_repositories() -> None:
    zero, none = sa.text("0"), sa.text("'{}'")
    op.add_column("repositories", sa.Column("scan_on_push", sa.Integer(), nullable=False, server_default=zero))
    op.add_column("repositories", sa.Column("encryption", TEXT, nullable=False, server_default=sa.text("'AES256'")))
    op.add_column("repositories", sa.Column("kms_key", TEXT, nullable=True))
    op.add_column("repositories", sa.Column("policy", TEXT, nullable=True))
    op.add_column("repositories", sa.Column("lifecycle_policy", TEXT, nullable=True))
    op.add_column("repositories", sa.Column("lifecycle_evaluated_at", sa.Double(), nullable=True))
    op.add_column("repositories", sa.Column("resource_tags", TEXT, nullable=False, server_default=none))
    op.add_column("repositories", sa.Column("is_public", sa.Integer(), nullable=False, server_default=zero))
    op.add_column("repositories", sa.Column("catalog", TEXT, nullable=True))
    op.create_index(
        "repositories_with_policy",
        "repositories",
        ["name"],
        unique=False,
        sqlite_where=WITH_POLICY,
        postgresql_where=WITH_POLICY,
    )


def _add_scans() -> None:
    op.create_table(
        "image_scans",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("scan_type", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("description", TEXT, nullable=True),
        sa.Column("requested_at", sa.Double(), nullable=False),
        sa.Column("completed_at", sa.Double(), nullable=True),
        sa.Column("source_updated_at", sa.Double(), nullable=True),
        sa.PrimaryKeyConstraint("repository", "digest", "scan_type"),
    )
    op.create_index("image_scans_by_time", "image_scans", ["requested_at"], unique=False)
    op.create_table(
        "image_findings",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("scan_type", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("severity", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("repository", "digest", "scan_type", "position"),
    )


def _add_previews() -> None:
    op.create_table(
        "lifecycle_previews",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("policy", TEXT, nullable=False),
        sa.Column("status", TEXT, nullable=False),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("expiring", sa.Integer(), nullable=False),
        sa.Column("transitioning", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("repository"),
    )
    op.create_table(
        "lifecycle_preview_images",
        sa.Column("repository", TEXT, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("tags", TEXT, nullable=False),
        sa.Column("pushed_at", sa.Double(), nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("target", TEXT, nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("storage_class", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("repository", "position"),
    )
    op.create_index(
        "lifecycle_preview_images_by_digest", "lifecycle_preview_images", ["repository", "digest"], unique=False
    )


def _add_events() -> None:
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "events",
        sa.Column("id", number, autoincrement=True, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("detail_type", TEXT, nullable=False),
        sa.Column("subject", TEXT, nullable=False),
        sa.Column("content", TEXT, nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("events_by_event_id", "events", ["event_id"], unique=False)
    op.create_index("events_by_time", "events", ["created_at"], unique=False)
    op.create_table(
        "event_deliveries",
        sa.Column("event", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sink", TEXT, nullable=False),
        sa.Column("row_key", TEXT, nullable=False),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("enqueued_at", sa.Double(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("lease_owner", TEXT, nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        sa.Column("last_error", TEXT, nullable=True),
        sa.PrimaryKeyConstraint("event", "sink"),
    )
    due, rows = ["sink", "state", "not_before", "event"], ["sink", "row_key", "state", "event"]
    op.create_index("event_deliveries_due", "event_deliveries", due, unique=False)
    op.create_index("event_deliveries_rows", "event_deliveries", rows, unique=False)
    op.create_index(
        "event_deliveries_dead",
        "event_deliveries",
        ["event"],
        unique=False,
        sqlite_where=DEAD,
        postgresql_where=DEAD,
    )
