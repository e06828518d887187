"""The registry of one node as the ECR API serves it: the use cases behind its operations, and its names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from replicator.control_api.names import RegistryNames, aws_host
from replicator.control_api.services import EcrRegistry
from replicator.registry.catalogs import Catalogs
from replicator.registry.image_referrers import ImageReferrers
from replicator.registry.images import Images
from replicator.registry.layer_uploads import LayerUploads
from replicator.registry.layers import Layers
from replicator.registry.lifecycle_policies import LifecyclePolicies
from replicator.registry.lifecycle_previews import LifecyclePreviews
from replicator.registry.repositories import Repositories
from replicator.registry.repository_policies import RepositoryPolicies
from replicator.registry.scanning_configuration import ScanningConfiguration
from replicator.registry.scans import Scans
from replicator.registry.signings import Signings

if TYPE_CHECKING:
    from replicator.cache.listings import CachedListings
    from replicator.config.nodes import NodeSettings
    from replicator.daemon.replication_parts import ReplicationParts
    from replicator.registry.authorization_tokens import AuthorizationTokens
    from replicator.registry.layer_urls import LayerUrls
    from replicator.registry.node import RegistryNode
    from replicator.registry.pushes import Pushes
    from replicator.registry.run_time_settings import RunTimeSettings
    from replicator.registry.storage_classes import StorageClasses
    from replicator.registry.uploads import Uploads


@dataclass(frozen=True, slots=True)
class ControlBuilder:
    """Builds what the API serves of one node, out of the node's parts."""

    settings: NodeSettings
    registry: RegistryNode
    authorizations: AuthorizationTokens
    pushes: Pushes
    uploads: Uploads
    storage_classes: StorageClasses
    layer_urls: LayerUrls
    run_time_settings: RunTimeSettings
    replication: ReplicationParts
    listings: CachedListings

    def build(self) -> EcrRegistry:
        """Return the registry; nothing is opened or started."""
        pulls = self.replication.read_through
        return EcrRegistry(
            node=self.registry,
            names=_names(self.settings),
            authorizations=self.authorizations,
            pulls=pulls,
            pushes=self.pushes,
            uploads=self.uploads,
            repositories=Repositories(self.registry),
            layers=Layers(self.registry, pulls, self.layer_urls),
            layer_uploads=LayerUploads(self.registry, self.uploads),
            images=Images(self.registry, self.pushes, pulls),
            referrers=ImageReferrers(self.registry, self.listings),
            storage_classes=self.storage_classes,
            run_time_settings=self.run_time_settings,
            backfills=self.replication.backfills,
            replication_status=self.replication.use_cases.status,
            signings=Signings(self.registry),
            lifecycle_policies=LifecyclePolicies(self.registry),
            lifecycle_previews=LifecyclePreviews(self.registry),
            scanning_configuration=ScanningConfiguration(self.registry),
            scans=Scans(self.registry),
            repository_policies=RepositoryPolicies(self.registry),
            catalogs=Catalogs(self.registry),
        )


def _names(settings: NodeSettings) -> RegistryNames:
    """Return what the registry is called: by its public address, or as Amazon ECR would call it without one."""
    if settings.public_url is None:
        return RegistryNames(settings.id, aws_host(settings.id))
    url = urlsplit(settings.public_url)
    return RegistryNames(settings.id, url.netloc, url.scheme, has_own_host=True)
