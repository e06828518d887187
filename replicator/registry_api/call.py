"""One request on its way through the edge."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.cache_status import PullTrace, render_age, render_cache_status
from replicator.core.digest import Digest, parse_digest
from replicator.core.reference import Reference, parse_reference

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.core.names import NodeId, RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.listings import ListingSource
    from replicator.registry.node import RegistryNode
    from replicator.registry.peer_reads import PeerReads
    from replicator.registry.pull_times import PullTimes
    from replicator.registry.pulls import PullSource
    from replicator.registry.pushes import Pushes
    from replicator.registry.settings import RegistrySettings
    from replicator.registry.uploads import Uploads
    from replicator.registry_api.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases an edge serves."""

    node: RegistryNode
    pulls: PullSource
    pushes: Pushes
    uploads: Uploads
    listings: ListingSource
    peer_reads: PeerReads
    pull_times: PullTimes | None = None
    """Where pulls are noted; nowhere, if absent."""

    @property
    def settings(self) -> RegistrySettings:
        """The node's settings as they are now."""
        return self.node.settings


@dataclass(frozen=True, slots=True)
class Call:
    """A request with the endpoint it names and the caller it comes from; `trace` collects how a cache answered it."""

    request: web.BaseRequest
    endpoint: Endpoint
    principal: Principal
    services: Services
    request_id: str
    trace: PullTrace = field(default_factory=PullTrace)

    @property
    def common_headers(self) -> dict[str, str]:
        """What every answer carries."""
        return {
            "Docker-Distribution-Api-Version": "registry/2.0",
            "X-Request-Id": self.request_id,
            **proxy_headers(self.services.settings.node, self.endpoint.namespace, self.trace),
        }

    @property
    def repository(self) -> RepositoryName:
        """The repository that is meant, by our name for it."""
        return self.endpoint.repository

    @property
    def digest(self) -> Digest:
        """The digest in the path; raises InvalidDigest."""
        return parse_digest(self.endpoint.argument)

    @property
    def reference(self) -> Reference:
        """The tag or digest in the path; raises InvalidDigest or InvalidReference."""
        return parse_reference(self.endpoint.argument)

    def query(self, name: str) -> str | None:
        """Return a query parameter, the first if it is given several times."""
        return self.request.query.get(name)


def proxy_headers(node: NodeId, namespace: str | None, trace: PullTrace) -> dict[str, str]:
    """Return what an answer says of the registry that this node stood for, and of how its cache answered."""
    if trace.result is None and namespace is None:
        return {}
    rendered = {
        "OCI-Namespace": namespace,
        "Cache-Status": render_cache_status(str(node), trace),
        "Age": None if trace.result is None else render_age(trace),
    }
    return {name: value for name, value in rendered.items() if value is not None}
