"""One node: the registry of one account in one region."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from replicator.config.auth import AuthSettings
from replicator.config.base import BaseUrl, Count, FilePath, Flag, Listen, Model, NodeRef, Rate
from replicator.config.cache import CacheSettings
from replicator.config.ecr_public import PublicRegistrySettings
from replicator.config.events import EventSettings
from replicator.config.quotas import QuotaSettings
from replicator.config.replication import ReplicationSettings
from replicator.config.storage import StorageSettings
from replicator.config.templates import MutabilitySettings, TemplateSettings
from replicator.config.units import Duration, Size
from replicator.core.registry_policy import RegistryPolicy

if TYPE_CHECKING:
    from replicator.core.mutability import MutabilityRule
    from replicator.core.replication import ReplicationRule
    from replicator.core.rights import Grant
    from replicator.core.templates import CreationTemplate

MIN_MANIFEST_LIMIT = 4 * 2**20


class TlsSettings(Model):
    """The certificate a node shows."""

    certificate: FilePath
    """PEM file of the certificate with its chain."""
    key: FilePath
    """PEM file of its private key."""


class Sparse(enum.StrEnum):
    """What to do with a manifest that names content the repository does not hold."""

    REFUSE = "refuse"
    ALLOW = "allow"


class RepositorySettings(MutabilitySettings):
    """How repositories of a node behave."""

    create_on_push: Flag = True
    """Whether a push creates the repository it goes to."""
    protect_immutable_tags: Flag = False
    """Whether an immutable tag cannot be deleted either, nor the image that it points to, with any permission."""
    activation_time: Duration = 60.0
    """How long it takes until an archived image that is restored can be pulled again."""
    sparse_indexes: Sparse = Sparse.REFUSE
    """Whether an index may name manifests that the repository does not hold; replicas of some platforms need it."""
    sparse_images: Sparse = Sparse.REFUSE
    """Whether an image may name blobs that the repository does not hold."""
    templates: tuple[TemplateSettings, ...] = ()
    """Other settings for repositories that come into being by replication, the cache or a push, by prefix."""


class UploadSettings(Model):
    """Uploads on their way in."""

    expire_after: Duration = 86400.0
    """How long an upload session without a new chunk is kept."""
    max_blob_size: Size | None = None
    """Largest blob that is accepted; unlimited, if absent."""


class LimitSettings(Model):
    """What one client may ask of a node."""

    max_manifest_size: Annotated[Size, Field(ge=MIN_MANIFEST_LIMIT)] = 8 * 2**20
    """Largest manifest that is accepted; at least 4MiB."""
    requests_per_second: Rate | None = None
    """Most requests per second of one client; unlimited, if absent."""
    request_burst: Count | None = None
    """Requests one client may make at once before the rate holds; twice the rate, if absent."""

    @model_validator(mode="after")
    def _burst_needs_rate(self) -> Self:
        if self.request_burst is not None and self.requests_per_second is None:
            raise ValueError("request_burst has no effect without requests_per_second")
        return self

    @property
    def burst(self) -> int:
        """Requests one client may make at once."""
        return self.request_burst or max(1, round(2 * (self.requests_per_second or 0)))


class NodeSettings(NodeRef):
    """A regional registry node that this process runs."""

    listen: Listen
    """Address to listen on: `127.0.0.1:5001`, `[::1]:5001`; port 0 lets the system choose."""
    public_url: BaseUrl | None = None
    """Address under which clients know the node, where it differs from `listen`; used in what is printed."""
    tls: TlsSettings | None = None
    """Certificate and key; plain HTTP, if absent."""
    allow_unauthenticated_network: Flag = False
    """Whether a node without `auth` may listen on an address that other machines reach."""
    storage: StorageSettings = StorageSettings()
    """Where the node keeps its rows and its bytes."""
    auth: AuthSettings | None = None
    """Who may use the node; everybody may do everything, if absent."""
    repositories: RepositorySettings = RepositorySettings()
    """How repositories behave."""
    replication: ReplicationSettings = ReplicationSettings()
    """What goes to other nodes, and what is accepted from them."""
    cache: CacheSettings = CacheSettings()
    """What is fetched from upstream registries."""
    uploads: UploadSettings = UploadSettings()
    """Uploads on their way in."""
    limits: LimitSettings = LimitSettings()
    """What one client may ask."""
    events: EventSettings = EventSettings()
    """Who is told what happens to images."""
    ecr_public: PublicRegistrySettings = PublicRegistrySettings()
    """The public registry of the node's account."""
    quotas: QuotaSettings = QuotaSettings()
    """How much of everything the registry takes; Amazon ECR's service quotas, if absent."""

    def replication_rules(self) -> tuple[ReplicationRule, ...]:
        """Return the core's replication rules."""
        return tuple(rule.to_rule() for rule in self.replication.rules)

    def mutability(self) -> MutabilityRule:
        """Return the core's mutability rule for repositories of this node."""
        return self.repositories.mutability()

    def templates(self) -> tuple[CreationTemplate, ...]:
        """Return the core's creation templates."""
        return tuple(one.to_template() for one in self.repositories.templates)

    def registry_policy(self) -> RegistryPolicy:
        """Return who may replicate into this node."""
        return RegistryPolicy(self.account, tuple(one.to_statement() for one in self.replication.accept_from))

    def anonymous_grants(self) -> tuple[Grant, ...]:
        """Return what a caller without credentials may do on a node with `auth`."""
        return () if self.auth is None else self.auth.anonymous_grants()

    @property
    def url(self) -> str:
        """Address of the node as people should use it; with port 0 the true port is known only after binding."""
        return self.public_url or f"{'https' if self.tls else 'http'}://{self.listen}"
