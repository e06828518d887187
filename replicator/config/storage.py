"""Where a node keeps its rows and its bytes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from replicator.config.base import BaseUrl, Count, Flag, Model, WorkingPath
from replicator.config.secrets import SecretRef


class SqliteSettings(Model):
    """Metadata in a SQLite file."""

    kind: Literal["sqlite"]
    """`sqlite`: a file of this machine, for one process."""
    path: WorkingPath | None = None
    """The file; `metadata.db` in the node's directory, if absent."""


class PostgresqlSettings(Model):
    """Metadata in a PostgreSQL schema."""

    kind: Literal["postgresql"]
    """`postgresql`: a schema of a PostgreSQL database, for any number of processes."""
    dsn: SecretRef
    """Connection string, `postgresql://user:password@host/database`: `{env: NAME}` or `{file: path}`."""
    schema_name: Annotated[str, Field(alias="schema", pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = "replicator"
    """The schema; each node has its own."""
    pool_size: Count = 10
    """Connections that may be open at the same time."""


class FilesystemSettings(Model):
    """Blobs as files."""

    kind: Literal["filesystem"]
    """`filesystem`: files of this machine."""
    path: WorkingPath | None = None
    """The directory; `blobs` in the node's directory, if absent."""


class S3Settings(Model):
    """Blobs as objects of an S3-compatible store."""

    kind: Literal["s3"]
    """`s3`: objects of an S3-compatible store."""
    bucket: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9._-]+$")]
    """The bucket."""
    prefix: Annotated[str, Field(max_length=512, pattern=r"^[A-Za-z0-9._/-]*$")] = ""
    """What the keys of this node start with; each node has its own."""
    endpoint: BaseUrl | None = None
    """Address of the store; Amazon's of the region, if absent."""
    region: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    """Region of the bucket."""
    access_key_id: SecretRef | None = None
    """Access key: `{env: NAME}` or `{file: path}`; the machine's own identity, if absent."""
    secret_access_key: SecretRef | None = None
    """Secret of the access key: `{env: NAME}` or `{file: path}`."""
    allow_http: Flag = False
    """Whether the endpoint may be reached without TLS."""
    ingest_path: WorkingPath | None = None
    """Directory for bytes on their way into the store; `ingests` in the node's directory, if absent."""

    @model_validator(mode="after")
    def _whole_key(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("expected both access_key_id and secret_access_key, or neither")
        if self.endpoint is not None and self.endpoint.startswith("http://") and not self.allow_http:
            raise ValueError("expected an https:// endpoint; set allow_http: true to use it without TLS")
        return self


MetadataSettings = Annotated[SqliteSettings | PostgresqlSettings, Field(discriminator="kind")]
BlobSettings = Annotated[FilesystemSettings | S3Settings, Field(discriminator="kind")]


class StorageSettings(Model):
    """Where a node keeps its rows and its bytes."""

    metadata: MetadataSettings = SqliteSettings(kind="sqlite")
    """Repositories, tags, manifests and jobs."""
    blobs: BlobSettings = FilesystemSettings(kind="filesystem")
    """Layers and configs."""
