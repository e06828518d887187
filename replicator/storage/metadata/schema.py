"""The tables of one node. Access to content is by `images` and `repository_blobs`, never by a global digest.

Times are Unix seconds. Names and digests compare bytewise in both databases, so that listings are sorted alike. The
schema is changed only by the migrations beside this module; a test holds this description and the migrations
together.
"""

from __future__ import annotations

import sqlalchemy as sa

HEAD_REVISION = "0004"
"""The migration that this code expects."""

metadata = sa.MetaData()

Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SENT = sa.text("source IS NOT NULL")
_TROUBLED = sa.text("last_error IS NOT NULL")
_SUPERSEDED = sa.text("failure_code = 'Superseded'")
_ACTIVATING = sa.text("status = 'ACTIVATING'")
_INACTIVE = sa.text("status <> 'ACTIVE'")
_WITH_POLICY = sa.text("policy IS NOT NULL")
_DEAD = sa.text("state = 'dead'")
_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

node = sa.Table(
    "node",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
)

node_keys = sa.Table(
    "node_keys",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("key", sa.LargeBinary, nullable=False),
)

repositories = sa.Table(
    "repositories",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("created_by", Text, nullable=False),
    sa.Column("tag_mutability", Text, nullable=False),
    sa.Column("mutability_exclusions", Text, nullable=False),
    sa.Column("scan_on_push", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("encryption", Text, nullable=False, server_default=sa.text("'AES256'")),
    sa.Column("kms_key", Text),
    sa.Column("policy", Text),
    sa.Column("lifecycle_policy", Text),
    sa.Column("lifecycle_evaluated_at", sa.Double),
    sa.Column("resource_tags", Text, nullable=False, server_default=sa.text("'{}'")),
    sa.Column("is_public", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("catalog", Text),
    sa.Index("repositories_with_policy", "name", sqlite_where=_WITH_POLICY, postgresql_where=_WITH_POLICY),
)

public_logos = sa.Table(
    "public_logos",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
)

manifests = sa.Table(
    "manifests",
    metadata,
    sa.Column("digest", Text, primary_key=True),
    sa.Column("media_type", Text, nullable=False),
    sa.Column("content", sa.LargeBinary, nullable=False),
    sa.Column("artifact_type", Text),
    sa.Column("subject", Text),
    sa.Column("config_digest", Text),
)

images = sa.Table(
    "images",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("subject", Text),
    sa.Column("artifact_type", Text),
    sa.Column("origin", Text, nullable=False),
    sa.Column("pushed_at", sa.Double, nullable=False),
    sa.Column("revision", Text, nullable=False, server_default=sa.text("''")),
    sa.Column("source", Text),
    sa.Column("size", sa.BigInteger),
    sa.Column("status", Text, nullable=False, server_default=sa.text("'ACTIVE'")),
    sa.Column("archived_at", sa.Double),
    sa.Column("activated_at", sa.Double),
    sa.Column("pulled_at", sa.Double),
    sa.Index("images_by_digest", "digest"),
    sa.Index("images_by_subject", "repository", "subject", "digest"),
    sa.Index("images_by_push", "repository", "pushed_at", "digest"),
    sa.Index("images_activating", "activated_at", sqlite_where=_ACTIVATING, postgresql_where=_ACTIVATING),
    # Lets a repository without archived images be recognised at once.
    sa.Index("images_inactive", "repository", sqlite_where=_INACTIVE, postgresql_where=_INACTIVE),
    sa.Index("images_by_source", "source", "repository", "digest", sqlite_where=_SENT, postgresql_where=_SENT),
)

deleted_images = sa.Table(
    "deleted_images",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("revision", Text, nullable=False),
    sa.Column("deleted_at", sa.Double, nullable=False),
)

tags = sa.Table(
    "tags",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("tag", Text, primary_key=True),
    sa.Column("digest", Text),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("counter", sa.BigInteger, nullable=False),
    sa.Column("origin_node", Text, nullable=False),
    sa.Column("changed_at", sa.Double, nullable=False),
    sa.Column("seen", Text, nullable=False, server_default="{}"),
    sa.Index("tags_by_digest", "repository", "digest"),
)

tag_conflicts = sa.Table(
    "tag_conflicts",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("tag", Text, primary_key=True),
    sa.Column("loser", Text, primary_key=True),
    sa.Column("winner", Text),
    sa.Column("winner_revision", Text, nullable=False),
    sa.Column("found_at", sa.Double, nullable=False),
    sa.Index("tag_conflicts_by_time", "found_at"),
)

manifest_references = sa.Table(
    "manifest_references",
    metadata,
    sa.Column("parent", Text, primary_key=True),
    sa.Column("kind", Text, primary_key=True),
    sa.Column("child", Text, primary_key=True),
    sa.Index("manifest_references_by_child", "child"),
)

blobs = sa.Table(
    "blobs",
    metadata,
    sa.Column("digest", Text, primary_key=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("location", Text, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("verified_at", sa.Double, nullable=False),
)

repository_blobs = sa.Table(
    "repository_blobs",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("linked_at", sa.Double, nullable=False),
    sa.Index("repository_blobs_by_digest", "digest"),
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("repository", Text, nullable=False),
    sa.Column("principal", Text, nullable=False),
    sa.Column("algorithm", Text, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("expires_at", sa.Double, nullable=False),
    sa.Column("parts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("short_parts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Index("uploads_by_expiry", "expires_at"),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("key", Text, nullable=False),
    sa.Column("lane", Text, nullable=False),
    sa.Column("payload", Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("enqueued_at", sa.Double, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("lease_owner", Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("last_error", Text),
    sa.UniqueConstraint("kind", "key", name="jobs_by_key"),
    # In the order of leasing to the last column; `enqueued_at` lets jobs be counted without reading their payloads.
    sa.Index("jobs_due", "kind", "lane", "state", "priority", "not_before", "id", "enqueued_at"),
    sa.Index("jobs_troubled", "kind", "enqueued_at", sqlite_where=_TROUBLED, postgresql_where=_TROUBLED),
    sqlite_autoincrement=True,
)

replication_status = sa.Table(
    "replication_status",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("tag", Text, primary_key=True),
    sa.Column("destination", Text, primary_key=True),
    sa.Column("rule", Text, nullable=False),
    sa.Column("status", Text, nullable=False),
    sa.Column("failure_code", Text),
    sa.Column("enqueued_at", sa.Double, nullable=False),
    sa.Column("completed_at", sa.Double),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("target", Text, nullable=False, server_default=sa.text("''")),
    sa.Index("replication_status_by_tag", "repository", "tag", "destination"),
    # Lets superseded images be counted without reading all that were ever sent.
    sa.Index("replication_status_superseded", "destination", sqlite_where=_SUPERSEDED, postgresql_where=_SUPERSEDED),
)

backfills = sa.Table(
    "backfills",
    metadata,
    sa.Column("id", Text, primary_key=True),
    sa.Column("cause", Text, nullable=False),
    sa.Column("destination", Text, nullable=False),
    sa.Column("repository", Text),
    sa.Column("state", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    sa.Column("prepared_at", sa.Double),
    sa.Column("position", Text, nullable=False, server_default=sa.text("''")),
    sa.Column("failure", Text),
    sa.Index("backfills_by_time", "created_at"),
)

backfill_images = sa.Table(
    "backfill_images",
    metadata,
    sa.Column("backfill", Text, primary_key=True),
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("tag", Text, primary_key=True),
    sa.Column("destination", Text, primary_key=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("key", Text, nullable=False),
    sa.Column("status", Text, nullable=False),
    sa.Column("failure_code", Text),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Index("backfill_images_by_status", "backfill", "status"),
    sa.Index("backfill_images_by_job", "kind", "key", "status"),
)

registry_documents = sa.Table(
    "registry_documents",
    metadata,
    sa.Column("name", Text, primary_key=True),
    sa.Column("content", Text, nullable=False),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("updated_at", sa.Double, nullable=False),
)

cache_entries = sa.Table(
    "cache_entries",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("reference", Text, primary_key=True),
    sa.Column("upstream", Text, nullable=False),
    sa.Column("digest", Text, nullable=False),
    sa.Column("checked_at", sa.Double, nullable=False),
    sa.Column("changed_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double, nullable=False),
    sa.Column("failed_at", sa.Double),
    sa.Column("last_error", Text),
    sa.Column("gone_at", sa.Double),
    sa.Column("pending_digest", Text),
    sa.Column("drift_digest", Text),
    sa.Column("rolled_back_at", sa.Double),
    sa.Column("due_at", sa.Double, nullable=False, server_default=sa.text("0")),
    sa.Index("cache_entries_by_due", "due_at"),
)

cache_history = sa.Table(
    "cache_history",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("reference", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("first_seen_at", sa.Double, nullable=False),
    sa.Column("served_at", sa.Double),
)

cached_images = sa.Table(
    "cached_images",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("fetched_at", sa.Double, nullable=False),
    sa.Column("used_at", sa.Double, nullable=False),
    sa.Index("cached_images_by_use", "used_at", "repository", "digest"),
)

cache_pins = sa.Table(
    "cache_pins",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("reference", Text, primary_key=True),
    sa.Column("pinned_at", sa.Double, nullable=False),
)

image_scans = sa.Table(
    "image_scans",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("scan_type", Text, primary_key=True),
    sa.Column("status", Text, nullable=False),
    sa.Column("description", Text),
    sa.Column("requested_at", sa.Double, nullable=False),
    sa.Column("completed_at", sa.Double),
    sa.Column("source_updated_at", sa.Double),
    sa.Index("image_scans_by_time", "requested_at"),
)

image_findings = sa.Table(
    "image_findings",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("scan_type", Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("severity", Text, nullable=False),
    sa.Column("content", Text, nullable=False),
)

lifecycle_previews = sa.Table(
    "lifecycle_previews",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("policy", Text, nullable=False),
    sa.Column("status", Text, nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("expiring", sa.Integer, nullable=False),
    sa.Column("transitioning", sa.Integer, nullable=False),
)

lifecycle_preview_images = sa.Table(
    "lifecycle_preview_images",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True),
    sa.Column("digest", Text, nullable=False),
    sa.Column("tags", Text, nullable=False),
    sa.Column("pushed_at", sa.Double, nullable=False),
    sa.Column("action", Text, nullable=False),
    sa.Column("target", Text),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("storage_class", Text, nullable=False),
    sa.Index("lifecycle_preview_images_by_digest", "repository", "digest"),
)

image_signings = sa.Table(
    "image_signings",
    metadata,
    sa.Column("repository", Text, primary_key=True),
    sa.Column("digest", Text, primary_key=True),
    sa.Column("profile", Text, primary_key=True),
    sa.Column("status", Text, nullable=False),
    sa.Column("failure_code", Text),
    sa.Column("failure_reason", Text),
    sa.Column("requested_at", sa.Double, nullable=False),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _Id, primary_key=True, autoincrement=True),
    sa.Column("event_id", Text, nullable=False),
    sa.Column("detail_type", Text, nullable=False),
    sa.Column("subject", Text, nullable=False),
    sa.Column("content", Text, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Index("events_by_event_id", "event_id"),
    sa.Index("events_by_time", "created_at"),
    sqlite_autoincrement=True,
)

event_deliveries = sa.Table(
    "event_deliveries",
    metadata,
    sa.Column("event", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("sink", Text, primary_key=True),
    sa.Column("row_key", Text, nullable=False),
    sa.Column("state", Text, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("enqueued_at", sa.Double, nullable=False),
    sa.Column("not_before", sa.Double, nullable=False),
    sa.Column("lease_owner", Text),
    sa.Column("lease_until", sa.Double),
    sa.Column("last_error", Text),
    sa.Index("event_deliveries_due", "sink", "state", "not_before", "event"),
    # Finds the row that an event stands in, and who is next in it, at one place.
    sa.Index("event_deliveries_rows", "sink", "row_key", "state", "event"),
    sa.Index("event_deliveries_dead", "event", sqlite_where=_DEAD, postgresql_where=_DEAD),
)
