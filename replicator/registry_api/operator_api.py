"""What the APIs for operators have in common: only users may ask, no web page may, and paths lead to pages.

A peer has its own API, and a node without users serves whoever reaches it, as everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.errors import Denied, PageNotFound, Unauthenticated, Unsupported
from replicator.core.principal import Principal, PrincipalKind
from replicator.registry_api.edge import Edge, path_of
from replicator.registry_api.operator_request import Asked

if TYPE_CHECKING:
    from aiohttp import web

    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.registry_api.authentication import Authenticator
    from replicator.registry_api.edge import Visit
    from replicator.registry_api.operator_request import Pages
    from replicator.telemetry.requests import Observer


class OperatorApi(Edge):
    """Serves `pages` below `prefix`; `name` begins the names of its routes in metrics and logs."""

    def __init__(
        self,
        name: str,
        prefix: str,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
        public_url: str | None = None,
    ) -> None:
        super().__init__(authenticator, clock, observe, rate_limit, public_url)
        self._name = name
        self._prefix = prefix
        self.pages: Pages = {}

    async def serve(self, visit: Visit) -> web.StreamResponse:
        """Answer one request below the prefix; raises ReplicatorError."""
        request = visit.request
        visit.principal = principal = self.identify(request)
        self._require_user(principal)
        _require_no_page(request)
        name, found = _split(path_of(request).removeprefix(self._prefix))
        methods = self.pages.get(name)
        if methods is None:
            raise PageNotFound("there is nothing at this path")
        visit.route = f"{self._name}_{name.partition('/')[0]}"
        page = methods.get(request.method)
        if page is None:
            raise Unsupported(f"{request.method[:20]} is not supported here", allow=tuple(methods))
        return await page(Asked(request, principal, found))

    def _require_user(self, principal: Principal) -> None:
        if principal.kind is PrincipalKind.NODE:
            raise Denied("a peer may not ask this")
        if principal.kind is PrincipalKind.ANONYMOUS and self.authenticator.challenge("") is not None:
            raise Unauthenticated("authentication is required")


def _require_no_page(request: web.BaseRequest) -> None:
    """Raise Denied for what a web page has a browser send, with whatever passwords that knows; tools send no Origin."""
    if request.method not in {"GET", "HEAD"} and "Origin" in request.headers:
        raise Denied("a web page may not ask this")


def _split(path: str) -> tuple[str, str]:
    """Return a path with `{id}` in the place of its second part, and that part."""
    name, *rest = path.split("/")
    if not rest or not rest[0]:
        return path, ""
    return "/".join((name, "{id}", *rest[1:])), rest[0]
