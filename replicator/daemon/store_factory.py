"""Which store a node has: the one place that knows the concrete databases and blob stores.

What only a cluster needs is imported only when it is configured, so that a sidecar does not carry it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.config.secrets import SecretRef, resolve_secret
from replicator.config.storage import PostgresqlSettings, S3Settings
from replicator.core.errors import ConfigurationError
from replicator.storage.blobs.filesystem import FilesystemBlobStore
from replicator.storage.metadata.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from replicator.config.model import Settings
    from replicator.config.nodes import NodeSettings
    from replicator.storage.blobs.port import BlobStore
    from replicator.storage.metadata.database import Database


def make_database(settings: Settings, node: NodeSettings, environ: Mapping[str, str]) -> Database:
    """Return the node's database, not yet opened; raises ConfigurationError when an extra is not installed."""
    metadata = node.storage.metadata
    if isinstance(metadata, PostgresqlSettings):
        try:
            from replicator.storage.metadata.postgresql import PostgresqlDatabase  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigurationError("PostgreSQL needs the extra: pip install 'replicator[postgres]'") from error
        dsn = resolve_secret(metadata.dsn, environ).reveal()
        return PostgresqlDatabase(dsn, metadata.schema_name, metadata.pool_size)
    path = settings.metadata_path(node)
    assert path is not None  # noqa: S101 - it is SQLite
    return SqliteDatabase(path)


def make_blob_store(settings: Settings, node: NodeSettings, environ: Mapping[str, str]) -> BlobStore:
    """Return the node's blob store, not yet opened; raises ConfigurationError when an extra is not installed."""
    blobs = node.storage.blobs
    if not isinstance(blobs, S3Settings):
        return FilesystemBlobStore(settings.blob_path(node))
    try:
        from replicator.storage.blobs.object_store import ObjectStoreBlobStore  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigurationError("S3 needs the extra: pip install 'replicator[object-store]'") from error
    return ObjectStoreBlobStore(
        bucket=blobs.bucket,
        prefix=blobs.prefix,
        endpoint=blobs.endpoint,
        region=blobs.region or "us-east-1",
        access_key_id=_revealed(blobs.access_key_id, environ),
        secret_access_key=_revealed(blobs.secret_access_key, environ),
        allow_http=blobs.allow_http,
        directory=settings.blob_path(node),
    )


def _revealed(ref: SecretRef | None, environ: Mapping[str, str]) -> str | None:
    return None if ref is None else resolve_secret(ref, environ).reveal()


def ballast_path(settings: Settings, node: NodeSettings) -> Path | None:
    """Return where a node's metadata keeps its ballast; None unless it is a file on the disk of the node's blobs."""
    path = settings.metadata_path(node)
    if path is None or isinstance(node.storage.blobs, S3Settings):
        return None
    if _device_of(path.parent) != _device_of(settings.blob_path(node)):
        return None
    return path.with_name("ballast")


def _device_of(directory: Path) -> int:
    """Return the disk that a directory lies on, or will lie on."""
    existing = directory.absolute()
    while not existing.exists():
        existing = existing.parent
    return existing.stat().st_dev
