"""What operators can ask of one node's cache, put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.cache.explain import Explainer
from replicator.cache.inventory import Inventory
from replicator.cache.refreshes import Refreshes
from replicator.cache.warm_images import Warmer
from replicator.registry_api.cache_api import CacheUseCases

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.cache.pull_through import PullThrough
    from replicator.cache.space import CacheSpace
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import Pulls
    from replicator.upstream.client import UpstreamClient


def cache_use_cases(
    registry: RegistryNode,
    pulls: Pulls,
    pull_through: PullThrough,
    space: CacheSpace,
    clients: Sequence[UpstreamClient],
) -> CacheUseCases:
    """Return the use cases; close the warmer before what it pulls from."""
    upstreams = pull_through.upstreams
    inventory = Inventory(registry, upstreams, pull_through.completion)
    return CacheUseCases(
        inventory=inventory,
        explainer=Explainer(registry, pulls, upstreams, inventory, pull_through.negative),
        refreshes=Refreshes(registry, pull_through, inventory),
        warmer=Warmer(pull_through, upstreams, pull_through.completion),
        space=space,
        clients=clients,
        forget=pull_through.forget_negative,
    )
