"""The logos of public repositories. Everybody may see them; they are PNG images, and served as nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from replicator.core.digest import parse_digest
from replicator.core.errors import InvalidInput, PageNotFound, Unsupported
from replicator.core.names import parse_repository
from replicator.core.public_catalog import LOGO_PATH, LOGO_TYPE
from replicator.registry_api.edge import Edge, Visit, path_of

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.rate_limit import RateLimit
    from replicator.registry.catalogs import Catalogs
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.requests import Observer

_HEADERS = {
    "Content-Type": LOGO_TYPE,
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "X-Content-Type-Options": "nosniff",
    # The digest is in the path.
    "Cache-Control": "public, max-age=86400, immutable",
}


class PublicLogos(Edge):
    """Serves the logos of one node."""

    def __init__(
        self,
        catalogs: Catalogs,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        super().__init__(authenticator, clock, observe, rate_limit)
        self._catalogs = catalogs

    async def serve(self, visit: Visit) -> web.StreamResponse:
        """Send a logo."""
        visit.route = "logo"
        request = visit.request
        self._admit(f"@{request.remote}")
        if request.method not in {"GET", "HEAD"}:
            raise Unsupported("only GET is supported here", allow=("GET", "HEAD"))
        repository, digest = _parsed(path_of(request))
        return web.Response(body=await self._catalogs.get_logo(repository, digest), headers=_HEADERS)


def _parsed(path: str) -> tuple[RepositoryName, Digest]:
    repository, _, digest = path.removeprefix(LOGO_PATH).rpartition("/")
    try:
        return parse_repository(repository), parse_digest(digest)
    except InvalidInput as error:
        raise PageNotFound("there is no such logo") from error
