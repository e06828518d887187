"""What the operations of the API work on: the registry of one account in the API's region."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from replicator.control_api.names import PublicNames
from replicator.core import texts
from replicator.core.errors import RepositoryNotFound
from replicator.core.public_registry import HOST

if TYPE_CHECKING:
    from replicator.control_api.names import RegistryNames
    from replicator.core.names import RepositoryName
    from replicator.registry.authorization_tokens import AuthorizationTokens
    from replicator.registry.catalogs import Catalogs
    from replicator.registry.image_referrers import ImageReferrers
    from replicator.registry.images import Images
    from replicator.registry.layer_uploads import LayerUploads
    from replicator.registry.layers import Layers
    from replicator.registry.lifecycle_policies import LifecyclePolicies
    from replicator.registry.lifecycle_previews import LifecyclePreviews
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import PullSource
    from replicator.registry.pushes import Pushes
    from replicator.registry.repositories import Repositories
    from replicator.registry.repository_policies import RepositoryPolicies
    from replicator.registry.run_time_settings import RunTimeSettings
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
    referrers: ImageReferrers
    storage_classes: StorageClasses
    run_time_settings: RunTimeSettings
    backfills: Backfills
    replication_status: ReplicationStatusReader
    signings: Signings
    lifecycle_policies: LifecyclePolicies
    lifecycle_previews: LifecyclePreviews
    scanning_configuration: ScanningConfiguration
    scans: Scans
    repository_policies: RepositoryPolicies
    catalogs: Catalogs

    def stored(self, name: str) -> RepositoryName:
        """Return the name by which the node knows a repository that clients of this API call `name`.

        Raises RepositoryNotFound where it is one of the other API: each has names of its own.
        """
        stored = self.names.to_stored(name)
        if self.node.settings.public_registry.covers(stored) is not self.names.is_public:
            raise RepositoryNotFound(texts.repository_not_found(name, self.names.id.account))
        return stored

    def as_public(self) -> EcrRegistry:
        """Return the account's public registry, as it is now: the same use cases under other names."""
        registry, names = self.node.settings.public_registry, self.names
        if registry.url is not None:
            url = urlsplit(registry.url)
            public = PublicNames(names.id, url.netloc, url.scheme, has_own_host=True, registry=registry)
        elif names.has_own_host:
            public = PublicNames(names.id, names.host, names.scheme, has_own_host=True, registry=registry)
        else:
            public = PublicNames(names.id, HOST, registry=registry)
        return replace(self, names=public)
