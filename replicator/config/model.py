"""The whole configuration: what one process runs, and where everything else is."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from replicator.config.base import Flag, Model, WorkingPath
from replicator.config.identities import IdentitySettings
from replicator.config.nodes import NodeSettings
from replicator.config.secrets import SecretRef
from replicator.config.storage import FilesystemSettings, SqliteSettings
from replicator.config.units import Duration
from replicator.config.upstreams import CacheSecretSettings, DestinationRegistrySettings, PeerSettings, UpstreamSettings
from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from replicator.core.cache_rules import CacheRule
    from replicator.core.names import NodeId


class LogLevel(enum.StrEnum):
    """The least important event that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    """How an event is written."""

    AUTO = "auto"
    CONSOLE = "console"
    JSON = "json"


class LogSettings(Model):
    """What is logged, and how."""

    level: LogLevel = LogLevel.INFO
    """Least important event that is logged."""
    format: LogFormat = LogFormat.AUTO
    """`console` for people, `json` for machines; `auto` is `console` on a terminal and `json` elsewhere."""
    access_log: Flag = True
    """Whether every request is logged."""


class Settings(Model):
    """The configuration of one daemon."""

    version: Literal[1]
    """Version of this format; always 1."""
    storage_root: WorkingPath = Path("data")
    """Directory of the nodes' data, relative to the working directory; a node's own is `<root>/<account>/<region>`."""
    log: LogSettings = LogSettings()
    """What is logged, and how."""
    shutdown_grace: Duration = 30.0
    """How long requests may go on after the daemon was asked to stop."""
    peer_secret: SecretRef | None = None
    """Secret shared by all nodes that replicate to each other, `{env: NAME}` or `{file: path}`; random, if absent."""
    identities: tuple[IdentitySettings, ...] = ()
    """Principals of AWS accounts, who sign requests to the ECR API; looked at again while the daemon runs."""
    upstreams: tuple[UpstreamSettings, ...] = ()
    """Other people's registries, to pull from."""
    secrets: tuple[CacheSecretSettings, ...] = ()
    """Credentials for cache rules that are made through the API, instead of AWS Secrets Manager."""
    registries: tuple[DestinationRegistrySettings, ...] = ()
    """Other people's registries, to replicate to (extension)."""
    peers: tuple[PeerSettings, ...] = ()
    """Nodes that run in other processes."""
    nodes: Annotated[tuple[NodeSettings, ...], Field(min_length=1)]
    """The nodes this process runs."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if "identities" in self.model_fields_set and not self.identities:
            raise ValueError("expected at least one identity; leave identities out to accept every caller")
        return self

    def node(self, wanted: NodeId) -> NodeSettings:
        """Return one node's settings; raise ConfigurationError when this process does not run it."""
        for node in self.nodes:
            if node.id == wanted:
                return node
        raise ConfigurationError(f"there is no node {wanted} in this configuration")

    def upstream(self, name: str) -> UpstreamSettings:
        """Return one upstream's settings; raise ConfigurationError when there is none of this name."""
        for upstream in self.upstreams:
            if upstream.name == name:
                return upstream
        raise ConfigurationError(f"there is no upstream {name} in this configuration")

    def registry(self, name: str) -> DestinationRegistrySettings:
        """Return one destination registry's settings; raise ConfigurationError when there is none of this name."""
        for registry in self.registries:
            if registry.name == name:
                return registry
        raise ConfigurationError(f"there is no registry {name} in this configuration")

    def cache_rules(self, node: NodeSettings) -> tuple[CacheRule, ...]:
        """Return a node's cache rules as the core's values; a rule stands for its upstream's hosts unless it says."""
        hosts = {one.name: one.namespaces for one in self.upstreams}
        return tuple(rule.to_rule(hosts.get(rule.upstream, frozenset())) for rule in node.cache.rules)

    def directory(self, node: NodeSettings) -> Path:
        """Return the node's own directory."""
        return self.storage_root / node.account / node.region

    def metadata_path(self, node: NodeSettings) -> Path | None:
        """Return the node's SQLite file; None when its metadata is elsewhere."""
        metadata = node.storage.metadata
        if isinstance(metadata, SqliteSettings):
            return metadata.path or self.directory(node) / "metadata.db"
        return None

    def blob_path(self, node: NodeSettings) -> Path:
        """Return the directory of the node's blobs, or of blobs on their way to an object store."""
        blobs = node.storage.blobs
        if isinstance(blobs, FilesystemSettings):
            return blobs.path or self.directory(node) / "blobs"
        return blobs.ingest_path or self.directory(node) / "ingests"
