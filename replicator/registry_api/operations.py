"""What operators and their tools ask a node: is it alive, is it ready, how is it doing.

Liveness says that the process answers, nothing more: restarting it would not make room on a full disk. Readiness is
asked separately for reading and for writing, because a node that cannot write should go on serving pulls.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from replicator.core.actions import Action
from replicator.core.errors import Denied, InvalidInput, PageNotFound, ReplicatorError, Unauthenticated, Unsupported
from replicator.core.names import RepositoryName
from replicator.core.principal import Principal, PrincipalKind
from replicator.core.request_context import RequestContext
from replicator.registry.access import authorize_somewhere
from replicator.registry_api.errors import render

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.core.resource_policies import ResourcePolicies
    from replicator.registry_api.authentication import Authenticator


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a node can do something now, and why not."""

    ready: bool
    reason: str = ""


REPLICATION_PREFIX = "/_replicator/v1/replication/"
CACHE_PREFIX = "/_replicator/v1/cache/"
EVENTS_PREFIX = "/_replicator/v1/events/"
POLICY_PREFIX = "/_replicator/v1/policy/"

_CHALLENGE = 'Basic realm="replicator"'

ReadinessCheck = Callable[[str], Awaitable[Readiness]]
"""Given `read` or `write`."""


GetStatus = Callable[[Callable[[RepositoryName], bool]], Awaitable[Mapping[str, object]]]
"""Given which repositories the caller may know of."""


ServeBelow = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
"""What answers everything below a prefix, such as `REPLICATION_PREFIX`; it renders its own errors."""


class Operations:
    """Serves `/healthz`, `/readyz`, `/metrics` and `/_replicator/v1/` of one node.

    `replication`, `cache`, `events` and `policy` serve what operators ask of these, below prefixes of their own.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        check: ReadinessCheck,
        render_metrics: Callable[[], Awaitable[tuple[bytes, str]]],
        get_status: GetStatus,
        rate_limit: RateLimit | None = None,
        replication: ServeBelow | None = None,
        cache: ServeBelow | None = None,
        events: ServeBelow | None = None,
        policy: ServeBelow | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._check = check
        self._render_metrics = render_metrics
        self._get_status = get_status
        self._rate_limit = rate_limit
        self._policies: tuple[ResourcePolicies, Clock] | None = None
        below = {REPLICATION_PREFIX: replication, CACHE_PREFIX: cache, EVENTS_PREFIX: events, POLICY_PREFIX: policy}
        self._below = {prefix: serve for prefix, serve in below.items() if serve is not None}
        self._pages: Mapping[str, Callable[[web.BaseRequest], Awaitable[web.Response]]] = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics,
            "/_replicator/v1/status": self._status,
        }

    def decide_by(self, policies: ResourcePolicies, clock: Clock) -> None:
        """Let these policies say, too, what users may know of; without any, what they were granted decides alone."""
        self._policies = (policies, clock)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request that is not below `/v2`."""
        for prefix, serve in self._below.items():
            if request.path.startswith(prefix):
                return await serve(request)
        try:
            page = self._pages.get(request.path)
            if page is None:
                raise PageNotFound("there is nothing at this path")
            if request.method not in {"GET", "HEAD"}:
                raise Unsupported("only GET is supported here", allow=("GET", "HEAD"))
            return await page(request)
        except ReplicatorError as error:
            rendered = render(error)
            headers = {**rendered.headers, "Content-Type": "application/json"}
            if isinstance(error, Unauthenticated):
                headers["WWW-Authenticate"] = _CHALLENGE
            return web.Response(status=rendered.status, headers=headers, body=rendered.body)

    async def _healthz(self, _: web.BaseRequest) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, request: web.BaseRequest) -> web.Response:
        mode = request.query.get("mode", "read")
        if mode not in {"read", "write"}:
            raise InvalidInput(f"expected mode=read or mode=write, got {mode[:40]!r}")
        readiness = await self._check(mode)
        if readiness.ready:
            return web.Response(text="ready\n")
        return web.Response(status=503, text=f"not ready: {readiness.reason}\n")

    async def _metrics(self, _: web.BaseRequest) -> web.Response:
        body, content_type = await self._render_metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status(self, request: web.BaseRequest) -> web.Response:
        principal = self._require_operator(request)
        authorize_somewhere(principal, Action.DESCRIBE_STATUS)
        status = await self._get_status(lambda repository: principal.may(Action.DESCRIBE_STATUS, repository))
        body = json.dumps(status, separators=(",", ":")).encode()
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    def _require_operator(self, request: web.BaseRequest) -> Principal:
        try:
            principal = self._authenticator.authenticate(request.headers.get("Authorization"))
        except Unauthenticated:
            if self._rate_limit is not None:
                self._rate_limit.admit(f"@{request.remote}")  # passwords are not guessed faster here than below /v2
            raise
        if principal.kind is PrincipalKind.NODE:
            raise Denied("a peer may not read this node's status")
        if principal.kind is PrincipalKind.ANONYMOUS and self._authenticator.challenge("") is not None:
            raise Unauthenticated("authentication is required")
        if self._policies is None:
            return principal
        policies, clock = self._policies
        return principal.at(policies, RequestContext(request.remote, request.secure, clock.now()))
