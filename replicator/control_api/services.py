"""What the operations of the API work on: the registry of one account in the API's region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.control_api.names import RegistryNames
    from replicator.registry.authorization_tokens import AuthorizationTokens
    from replicator.registry.images import Images
    from replicator.registry.layer_uploads import LayerUploads
    from replicator.registry.layers import Layers
    from replicator.registry.lifecycle_policies import LifecyclePolicies
    from replicator.registry.lifecycle_previews import LifecyclePreviews
    from replicator.registry.node import RegistryNode
    from replicator.registry.image_referrers import ImageReferrers
    from replicator.registry.pulls import PullSource
    from replicator.registry.pushes import Pushes
    from replicator.registry.repositories import Repositories
    from replicator.registry.run_time_settings import RunTimeSettings
    from replicator.registry.repository_policies import RepositoryPolicies
    from replicator.registry.scanning_configuration import ScanningConfiguration
    from replicator.registry.scans import Scans
    from replicator.registry.signings import Signings
    from replicator.registry.storage_classes import StorageClasses
    from replicator.registry.uploads import Uploads
    from replicator.replication.backfill import Backfills
    from replicator.replication.status import ReplicationStatusReader


@dataclass(frozen=True, slots=True)
class EcrRegistry:
    """One registry: its use cases, and what it is called."""

    node: RegistryNode
    names: RegistryNames
    authorizations: AuthorizationTokens
    pulls: PullSource
    pushes: Pushes
    uploads: Uploads
    repositories: Repositories
    layers: Layers
    layer_uploads: LayerUploads
    images: Images
    storage_classes: StorageClasses
    run_time_settings: RunTimeSettings
    backfills: Backfills
    replication_status: ReplicationStatusReader
    signings: Signings
    lifecycle_policies: LifecyclePolicies
    lifecycle_previews: LifecyclePreviews
    referrers: ImageReferrers
    scanning_configuration: ScanningConfiguration
    scans: Scans
    repository_policies: RepositoryPolicies
