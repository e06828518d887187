"""What the operations of the API work on: the registry of one account in the API's region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from replicator.control_api.names import RegistryNames
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import PullSource
    from replicator.registry.pushes import Pushes
    from replicator.registry.repositories import Repositories
    from replicator.registry.run_time_settings import RunTimeSettings
    from replicator.registry.uploads import Uploads
    from replicator.replication.backfill import Backfills
    from replicator.registry.signings import Signings
    from replicator.replication.status import ReplicationStatusReader


@dataclass(frozen=True, slots=True)
class EcrRegistry:
    """One registry: its use cases, and what it is called."""

    node: RegistryNode
    names: RegistryNames
    pulls: PullSource
    pushes: Pushes
    uploads: Uploads
    repositories: Repositories
    run_time_settings: RunTimeSettings
    backfills: Backfills
    replication_status: ReplicationStatusReader
    signings: Signings
