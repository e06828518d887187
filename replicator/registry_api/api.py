"""The distribution API: every request below `/v2` passes here once, from its path to its use case."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from replicator.core.actions import Action
from replicator.core.digest import parse_digest
from replicator.core.errors import (
    Denied,
    LoopDetected,
    PageNotFound,
    ReplicatorError,
    RepositoryNotFound,
    Unauthenticated,
    Unsupported,
)
from replicator.core.principal import Principal, PrincipalKind
from replicator.registry_api import blobs, listings, manifests, uploads
from replicator.registry_api.call import Call, Services, proxy_headers
from replicator.registry_api.edge import Edge, Visit, path_of
from replicator.registry_api.endpoint import Endpoint, Route, parse_endpoint
from replicator.registry_api.errors import RenderedError
from replicator.registry_api.loops import LoopGuard
from replicator.registry_api.namespaces import parse_namespace, resolve
from replicator.registry_api.public_door import TOKEN_PATHS, PublicDoor
from replicator.registry_api.token_endpoint import TOKEN_PATH, answer_token
from replicator.upstream.errors import UpstreamLoop
from replicator.upstream.via import on_behalf_of

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.requests import Observer

_READS = ("GET", "HEAD")
_PROXIED = frozenset({Route.BASE, Route.TAGS, Route.MANIFEST, Route.BLOB, Route.REFERRERS})

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

HANDLERS: Mapping[Route, Mapping[str, Handler]] = {
    Route.CATALOG: {"GET": listings.list_repositories},
    Route.TAGS: {"GET": listings.list_tags},
    Route.MANIFEST: {
        "GET": manifests.get_manifest,
        "HEAD": manifests.get_manifest,
        "PUT": manifests.put_manifest,
        "DELETE": manifests.delete_manifest,
    },
    Route.BLOB: {"GET": blobs.get_blob, "HEAD": blobs.get_blob, "DELETE": blobs.delete_blob},
    Route.UPLOADS: {"POST": uploads.start_upload},
    Route.UPLOAD: {
        "GET": uploads.get_upload,
        "PATCH": uploads.append_chunk,
        "PUT": uploads.finish_upload,
        "DELETE": uploads.cancel_upload,
    },
    Route.REFERRERS: {"GET": listings.list_referrers},
}


class RegistryApi(Edge):
    """Serves `/v2/` of one node."""

    def __init__(
        self,
        services: Services,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
        public_url: str | None = None,
        via: str | None = None,
    ) -> None:
        super().__init__(authenticator, clock, observe, rate_limit, public_url)
        self._services = services
        self._door = PublicDoor(services.node, clock)
        self._loops = LoopGuard(services.settings.node, via)
        self._own_hosts = frozenset() if public_url is None else frozenset({urlsplit(public_url).netloc.lower()})

    async def serve(self, visit: Visit) -> web.StreamResponse:
        """Answer one request below `/v2`."""
        request = visit.request
        visit.principal = self.identify(request)
        path = path_of(request)
        if path in TOKEN_PATHS:
            visit.route = Route.TOKEN.value
            self._door.check_served()
            return await answer_token(request, self.authenticator)
        if visit.principal.is_nobody and self.authenticator.answers_as_ecr and path != TOKEN_PATH:
            self._check_nameless(path, request)  # before a path or a method is looked at
        endpoint = parse_endpoint(path)
        visit.route = endpoint.route.value
        if "Via" not in request.headers:
            return await self._serve_on_behalf(visit, endpoint, ())
        passed = self._loops.admit(request.headers.getall("Via"))
        with on_behalf_of(passed):
            return await self._serve_on_behalf(visit, endpoint, passed)

    def _check_nameless(self, path: str, request: web.BaseRequest) -> None:
        """Return if a caller to whom nothing is granted may go on: to what is public, and nowhere else."""
        is_entrance = path in {"/v2", "/v2/"}
        if is_entrance or not self._door.leads_to(path, request.headers.get("Host", "")):
            raise Unauthenticated("authentication is required")

    async def _serve_on_behalf(self, visit: Visit, endpoint: Endpoint, passed: tuple[str, ...]) -> web.StreamResponse:
        try:
            return await self._serve(visit, endpoint)
        except UpstreamLoop as error:
            # Everyone on the way is told that it is a circle: an upstream that merely fails is asked again.
            text = f"cache rule {visit.trace.rule}: {error}"
            raise (LoopDetected(text) if passed else UpstreamLoop(text)) from error

    async def _serve(self, visit: Visit, endpoint: Endpoint) -> web.StreamResponse:
        request, principal = visit.request, visit.principal
        assert principal is not None  # noqa: S101 - set by serve
        endpoint = self._of_namespace(visit, endpoint)
        if endpoint.namespace is not None:
            await self._keep_own_apart(principal, endpoint)
        visit.principal = principal = await self._keep_node_to_its_own(principal, request.method, endpoint)
        if endpoint.route is Route.TOKEN:
            return await answer_token(request, self.authenticator)
        if endpoint.route is Route.BASE:
            return self._entrance(visit)
        methods = HANDLERS[endpoint.route]
        handler = methods.get(request.method)
        if handler is None:
            raise Unsupported(f"{request.method[:20]} is not supported here", allow=tuple(methods))
        call = Call(request, endpoint, principal, self._services, visit.id, visit.trace)
        if not self._door.is_public(endpoint):
            return await handler(call)
        try:
            self._door.admit(principal, request.remote or "", request.method, endpoint)
            return await handler(call)
        except ReplicatorError as error:
            self._door.reword(error)
            raise

    def _of_namespace(self, visit: Visit, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint that is meant when a client takes this node for another registry (`ns`)."""
        if "?" not in visit.request.raw_path:
            return endpoint
        given = visit.request.query.getall("ns", ())
        if not given or endpoint.route is Route.TOKEN:
            return endpoint
        principal = visit.principal
        if principal is not None and principal.is_nobody:
            raise Unauthenticated("authentication is required")  # which registries we stand for is not for everybody
        namespace = parse_namespace(given)
        hosts = self._own_hosts | {visit.request.headers.get("Host", "").lower()}
        found = resolve(self._services.settings.cache_rules, namespace, endpoint, hosts)
        visit.namespace = found.namespace
        if found.namespace is None:
            return found
        if visit.request.method not in _READS:
            raise Unsupported(f"registry {namespace} can only be read through this node", allow=_READS)
        if endpoint.route not in _PROXIED:
            raise PageNotFound(f"of registry {namespace} there is nothing at this path")
        return found

    async def _keep_own_apart(self, principal: Principal, endpoint: Endpoint) -> None:
        """Raise RepositoryNotFound for what was pushed here, when another registry's repository is asked for.

        A rule for all names gives both the same name, and whoever pushes `library/nginx` here is not Docker Hub.
        """
        name = endpoint.repository
        if not name or not principal.may(Action.BATCH_GET_IMAGE, name):
            return
        if await self._services.peer_reads.is_own(name):
            raise RepositoryNotFound(f"repository {name} here is not that of registry {endpoint.namespace}")

    def headers_of(self, visit: Visit) -> dict[str, str]:
        """Return what an answer carries besides what it says, such as how the cache answered."""
        node = self._services.settings.node
        return super().headers_of(visit) | proxy_headers(node, visit.namespace, visit.trace)

    async def _keep_node_to_its_own(self, principal: Principal, method: str, endpoint: Endpoint) -> Principal:
        """Let a node read what is meant for it, and do nothing else; return with which rights it goes on.

        That is the blobs of what this node's rules send to it, for read-through, and, where it names the registry that
        it wants to read, what the cache fills from there. It asks for other manifests, and writes, by messages of its
        own.
        """
        if principal.node is None or endpoint.route is Route.BASE:
            return principal
        peer_reads = self._services.peer_reads
        if method in _READS and endpoint.namespace is not None and endpoint.route in _PROXIED:
            if peer_reads.may_pull_through(principal.node, endpoint.repository):
                return replace(principal, pulls_through=True)
            raise Denied(
                f"node {principal.name} may not pull through this node's cache"
                " (its account differs and cache.serve_to does not name it, or users may push there)"
            )
        if endpoint.route is Route.BLOB and method in _READS:
            digest = parse_digest(endpoint.argument)
            if await peer_reads.may_read_blob(principal.node, endpoint.repository, digest):
                return principal
        raise Denied(f"node {principal.name} may read here the blobs that are replicated to it, and do nothing else")

    def _entrance(self, visit: Visit) -> web.Response:
        """Answer `GET /v2/`, where clients learn whether, and how, to authenticate."""
        if visit.request.method not in _READS:
            raise Unsupported("only GET is supported here", allow=_READS)
        principal = visit.principal
        assert principal is not None  # noqa: S101 - set by serve
        has_token = visit.request.headers.get("Authorization", "").lower().startswith("bearer ")
        open_to_all = self.authenticator.challenge("") is None
        if principal.kind is PrincipalKind.ANONYMOUS and not open_to_all and not has_token:
            raise Unauthenticated("authentication is required")
        return web.json_response({})

    def challenge(self, visit: Visit, base_url: str) -> str | None:
        """Return how a caller without credentials is asked for them: for what is public, as Amazon does it there."""
        challenge = super().challenge(visit, base_url)
        request = visit.request
        if challenge is None or not self._door.leads_to(path_of(request), request.headers.get("Host", "")):
            return challenge
        return self._door.challenge(base_url)

    def render(self, error: ReplicatorError) -> RenderedError:
        """Turn an error into what is sent: where identities are configured, ECR's 401 has a text and no JSON."""
        if isinstance(error, Unauthenticated) and self.authenticator.answers_as_ecr:
            return RenderedError(401, {"Content-Type": "text/plain; charset=utf-8"}, b"Not Authorized\n")
        return super().render(error)
