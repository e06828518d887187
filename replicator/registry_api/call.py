"""One request on its way through the edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, parse_digest
from replicator.core.reference import Reference, parse_reference

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.core.access import Principal
    from replicator.core.names import RepositoryName
    from replicator.registry.listings import Listings
    from replicator.registry.peer_reads import PeerReads
    from replicator.registry.pulls import PullSource
    from replicator.registry.pushes import Pushes
    from replicator.registry.settings import RegistrySettings
    from replicator.registry.uploads import Uploads
    from replicator.registry_api.endpoint import Endpoint


@dataclass(frozen=True, slots=True)
class Services:
    """The use cases an edge serves."""

    settings: RegistrySettings
    pulls: PullSource
    pushes: Pushes
    uploads: Uploads
    listings: Listings
    peer_reads: PeerReads


@dataclass(frozen=True, slots=True)
class Call:
    """A request with the endpoint it names and the caller it comes from."""

    request: web.BaseRequest
    endpoint: Endpoint
    principal: Principal
    services: Services
    request_id: str

    @property
    def common_headers(self) -> dict[str, str]:
        """What every answer carries."""
        return {"Docker-Distribution-Api-Version": "registry/2.0", "X-Request-Id": self.request_id}

    @property
    def repository(self) -> RepositoryName:
        """The repository in the path."""
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
