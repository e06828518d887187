"""Other people's registries: where they are, who we are to them, and how hard they may be used."""

from __future__ import annotations

import enum
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from replicator.config.base import (
    BaseUrl,
    Count,
    FilePath,
    Host,
    Model,
    Name,
    NodeRef,
    Rate,
    RegionName,
    RegistryName,
)
from replicator.config.secrets import SecretRef
from replicator.config.units import Duration, Size
from replicator.core.upstream_presets import PRESETS, UpstreamPreset

ARN_OF_SECRET = r"^arn:aws(-\w+)*:secretsmanager:[a-zA-Z0-9-:]+:secret:ecr-pullthroughcache/[a-zA-Z0-9/_+=.@-]+$"  # noqa: S105
HELPER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

PresetName = Literal[
    "docker-hub",
    "ecr-public",
    "quay",
    "k8s",
    "github-container-registry",
    "gitlab-container-registry",
    "azure-container-registry",
    "chainguard",
    "ecr",
]


class InternalNetwork(enum.StrEnum):
    """Networks that are not the internet's."""

    PRIVATE = "private"
    LOOPBACK = "loopback"
    LINK_LOCAL = "link-local"


class AwsCredentialSettings(Model):
    """An identity at AWS, which private ECR gives tokens of twelve hours for; needs the extra `replicator[ecr]`."""

    region: RegionName
    """Region of the registry."""
    access_key_id: SecretRef | None = None
    """Access key: `{env: NAME}` or `{file: path}`; the machine's own identity, if absent."""
    secret_access_key: SecretRef | None = None
    """Secret of the access key: `{env: NAME}` or `{file: path}`."""
    session_token: SecretRef | None = None
    """Session token of a temporary access key: `{env: NAME}` or `{file: path}`."""
    endpoint: BaseUrl | None = None
    """Address of the ECR API; Amazon's of the region, if absent."""

    @model_validator(mode="after")
    def _whole_key(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("expected both access_key_id and secret_access_key, or neither")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token has no effect without access_key_id")
        return self


class CredentialSettings(Model):
    """Who we are at somebody else's registry: a user and a password, or where to learn them."""

    username: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """User name there; with `password`."""
    password: SecretRef | None = None
    """Password or access token: `{env: NAME}` or `{file: path}`; a file is read again when it is refused."""
    docker_config: FilePath | None = None
    """Docker's `config.json`, with passwords or the helpers that know them; read again when it changed."""
    helper: Annotated[str, Field(pattern=HELPER_NAME)] | None = None
    """NAME of a program `docker-credential-NAME` on PATH that knows the password."""
    aws: AwsCredentialSettings | None = None
    """Identity at AWS, for private ECR."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        pair = self.username is not None or self.password is not None
        others = (self.docker_config, self.helper, self.aws)
        if pair + sum(one is not None for one in others) != 1:
            raise ValueError("expected username and password, or one of docker_config, helper and aws")
        if pair and (self.username is None or self.password is None):
            raise ValueError("expected both username and password")
        return self


class PairSettings(Model):
    """A user name and a password."""

    username: Annotated[str, Field(min_length=1, max_length=512)]
    """User name there."""
    password: SecretRef
    """Password: `{env: NAME}` or `{file: path}`."""


class CacheSecretSettings(Model):
    """Credentials that cache rules name by an ARN, as they name a secret of AWS Secrets Manager."""

    arn: Annotated[str, Field(min_length=50, max_length=612, pattern=ARN_OF_SECRET)]
    """ARN of the secret, `arn:aws:secretsmanager:REGION:ACCOUNT:secret:ecr-pullthroughcache/NAME`; unique."""
    username: Annotated[str, Field(min_length=1, max_length=512)]
    """User name at the upstream."""
    access_token: SecretRef
    """Access token or password there: `{env: NAME}` or `{file: path}`; a file is read again when it is refused."""


class ProxySettings(Model):
    """An HTTP proxy on the way to a registry."""

    url: BaseUrl
    """Address of the proxy, `http[s]://host[:port]`; https registries are reached through it by CONNECT."""
    credentials: PairSettings | None = None
    """Who we are to the proxy; nobody in particular, if absent."""


class ClientCertificateSettings(Model):
    """The certificate that we show to a registry."""

    certificate: FilePath
    """PEM file of the certificate with its chain."""
    key: FilePath
    """PEM file of its private key."""


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
    url: BaseUrl = ""
    """Address of the registry, `http[s]://host[:port]`; the preset's, if absent."""
    preset: PresetName | None = None
    """A well-known registry, by ECR's name for it: its address, its token service and the hosts of its image names."""
    networks: tuple[InternalNetwork, ...] = ()
    """Networks that its name may lead to besides the internet; an address or `localhost` in `url` needs none."""
    proxy: ProxySettings | None = None
    """HTTP proxy that it is reached through."""
    client_certificate: ClientCertificateSettings | None = None
    """Certificate that we show to it."""

    @model_validator(mode="before")
    @classmethod
    def _address_of_preset(cls, data: object) -> object:
        if not isinstance(data, dict) or "url" in data or not isinstance(data.get("preset"), str):
            return data
        preset = PRESETS.get(data["preset"])
        return data if preset is None or preset.url is None else {**data, "url": preset.url}

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.url:
            return self
        if self.preset is None:
            raise ValueError("expected url, or a preset that has one")
        suffix = PRESETS[self.preset].host_suffix
        raise ValueError(f"expected url: preset {self.preset} has a host for each user, which ends with {suffix}")

    @property
    def known_as(self) -> UpstreamPreset | None:
        """What is known of the registry, by its preset's name or else by its address."""
        if self.preset is not None:
            return PRESETS[self.preset]
        return next((one for one in PRESETS.values() if one.url == self.url), None)

    @property
    def namespaces(self) -> frozenset[str]:
        """The hosts that names of its images begin with."""
        known = self.known_as
        return known.namespaces if known is not None and known.namespaces else frozenset({urlsplit(self.url).netloc})


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
