"""What an operator decides about one node."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.account_settings import AccountSettings
from replicator.core.manifest import MAX_MANIFEST_BYTES
from replicator.core.mutability import MutabilityRule
from replicator.core.public_registry import PublicRegistry
from replicator.core.quotas import Quotas
from replicator.core.signing import SigningConfiguration

if TYPE_CHECKING:
    from replicator.core.cache_rules import CacheRule
    from replicator.core.event_sinks import EventSink
    from replicator.core.names import NodeId
    from replicator.core.pull_time_exclusions import PullTimeExclusion
    from replicator.core.registry_policy import RegistryPolicy
    from replicator.core.replication import ReplicationRule
    from replicator.core.templates import CreationTemplate


@dataclass(frozen=True, slots=True)
class RegistrySettings:
    """The settings of a node. Sizes are bytes, durations seconds.

    A sparse index may name manifests, a sparse image blobs, that the repository does not hold.
    """

    node: NodeId
    create_on_push: bool = True
    sparse_indexes: bool = False
    sparse_images: bool = False
    mutability: MutabilityRule = field(default_factory=MutabilityRule)
    upload_expiry: float = 24 * 3600.0
    max_blob_size: int | None = None
    max_manifest_size: int = MAX_MANIFEST_BYTES
    replication_rules: tuple[ReplicationRule, ...] = ()
    registry_policy: RegistryPolicy | None = None
    """Who may replicate into this registry; None: nodes of the own account only."""
    templates: tuple[CreationTemplate, ...] = ()
    cache_rules: tuple[CacheRule, ...] = ()
    """Which repositories the cache fills, from where."""
    serve_to: tuple[NodeId, ...] = ()
    """Nodes of other accounts that may pull through this one's cache, besides those of its own account."""
    event_sinks: tuple[EventSink, ...] = ()
    """Who is told what happens to images; without anybody, nothing is noted."""
    account_settings: AccountSettings = field(default_factory=AccountSettings)
    signing: SigningConfiguration = field(default_factory=SigningConfiguration)
    """Which pushed images are to be signed."""
    protect_immutable_tags: bool = False
    """Whether an immutable tag cannot be deleted either, nor the image it points to."""
    activation_time: float = 60.0
    """Seconds until an archived image that is restored is active."""
    pull_time_exclusions: tuple[PullTimeExclusion, ...] = ()
    """Whose pulls are not recorded."""
    quotas: Quotas = field(default_factory=Quotas)
    public_registry: PublicRegistry = field(default_factory=PublicRegistry)
    """Which repositories are public."""
