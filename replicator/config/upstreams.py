"""Other people's registries: where they are, who we are to them, and how hard they may be used."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from replicator.config.base import BaseUrl, Count, FilePath, Host, Model, Name, NodeRef, Rate, RegistryName
from replicator.config.secrets import SecretRef
from replicator.config.units import Duration, Size


class CredentialSettings(Model):
    """A user name and password at somebody else's registry."""

    username: Annotated[str, Field(min_length=1, max_length=512)]
    """User name there."""
    password: SecretRef
    """Password or access token: `{env: NAME}` or `{file: path}`."""


class RemoteSettings(Model):
    """A registry of somebody else."""

    name: str
    """Name of the registry in this file, logs and metrics; unique."""
    url: BaseUrl
    """Address of the registry, `http[s]://host[:port]`."""
    credentials: CredentialSettings | None = None
    """Who we are there; anonymous, if absent."""
    realm_hosts: tuple[Host, ...] = ()
    """Hosts, with the port if it is not the usual one, that may be sent the credentials in exchange for a token."""
    ca_file: FilePath | None = None
    """PEM file of the authorities to trust there instead of the system's."""
    connect_timeout: Duration = 5.0
    """How long to wait for a connection."""
    stall_timeout: Duration = 15.0
    """How long to wait for the next byte of an answer."""
    total_timeout: Duration = 60.0
    """How long a small request may take with its answer, and how long to wait for the first byte of a large one."""
    max_connections: Count = 32
    """Connections that may be open at the same time."""
    requests_per_second: Rate | None = None
    """Most requests per second; unlimited, if absent."""
    bandwidth: Size | None = None
    """Most bytes per second; unlimited, if absent."""


class UpstreamSettings(RemoteSettings):
    """A registry that cache rules pull from."""

    name: Name
    """Name of the upstream in cache rules, logs and metrics; unique."""


class DestinationRegistrySettings(RemoteSettings):
    """Any registry of the distribution protocol (Harbor, ECR, distribution) that rules may send images to."""

    name: RegistryName
    """Name of the registry in replication rules, statuses, logs and metrics; lower case, unique."""


class PeerSettings(NodeRef):
    """A node that runs in another process and that this file's nodes replicate with."""

    url: BaseUrl
    """Address of the node, `http[s]://host[:port]`."""
    ca_file: FilePath | None = None
    """PEM file of the authorities to trust for this peer instead of the system's."""
    secret: SecretRef | None = None
    """Secret shared with this peer alone, `{env: NAME}` or `{file: path}`; `peer_secret`, if absent."""
    connect_timeout: Duration = 5.0
    """How long to wait for a connection."""
    stall_timeout: Duration = 15.0
    """How long to wait for the next byte of an answer."""
    total_timeout: Duration = 60.0
    """How long a small request may take with its answer, and how long to wait for the first byte of a large one."""
