"""What every edge does with a request: authenticate, admit, serve, render what was raised, and tell the observer.

Whatever is raised on the way is turned into an answer in one place. An answer that has begun cannot become another one:
then the connection is closed, so that nobody takes a part for the whole.
"""

from __future__ import annotations

import itertools
import secrets
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from aiohttp import web

from replicator.core.cache_status import PullTrace
from replicator.core.errors import AccessError, InvalidInput, ReplicatorError, Unauthenticated
from replicator.core.principal import Principal, PrincipalKind
from replicator.core.request_context import RequestContext
from replicator.registry_api.answer_body import AnswerBroken
from replicator.registry_api.errors import RenderedError, render, render_unexpected
from replicator.registry_api.request_body import ClientGone
from replicator.telemetry.logs import get_logger
from replicator.telemetry.requests import Outcome

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.core.resource_policies import ResourcePolicies
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.requests import Observer

_log = get_logger(__name__)

_API_VERSION = "registry/2.0"
_HOST_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-:[]")


class Edge(ABC):
    """One API of one node; a subclass says what its requests mean."""

    def __init__(
        self,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
        public_url: str | None = None,
    ) -> None:
        self.authenticator = authenticator
        self._clock = clock
        self._observe = observe
        self._rate_limit = rate_limit
        self._public_url = public_url
        self._policies: ResourcePolicies | None = None
        # Ids only need to be unlike each other: a random start per process and a number, not a system call each.
        self._id_prefix = secrets.token_hex(4)
        self._id_numbers = itertools.count(1)

    @abstractmethod
    async def serve(self, visit: Visit) -> web.StreamResponse:
        """Answer a request, noting on `visit` who asks and what; raises ReplicatorError."""

    def headers_of(self, visit: Visit) -> dict[str, str]:
        """Return what an answer carries besides what it says; for one that has not begun."""
        return {"Docker-Distribution-Api-Version": _API_VERSION, "X-Request-Id": visit.id}

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = self._clock.monotonic()
        visit = Visit(request, f"{self._id_prefix}{next(self._id_numbers):08x}")
        try:
            response = await self.serve(visit)
        except ClientGone:
            response = closing(web.Response(status=499, reason="Client Closed Request"))
        except TimeoutError:
            response = closing(web.Response(status=408))
        except ReplicatorError as error:
            response = self._refusal(visit, error)
        except AnswerBroken as error:
            self._log_broken(visit, error)
            response = closing(web.Response(status=500))
        except ConnectionError:
            # The client left while we were sending; there is nobody to tell.
            response = closing(web.Response(status=499, reason="Client Closed Request"))
        except Exception:  # noqa: BLE001 - the edge: a bug becomes a 500 and a log line
            _log.exception("request failed", request_id=visit.id, method=request.method, route=visit.route)
            response = self._rendered(visit, render_unexpected())
        self._finish(visit, response, self._clock.monotonic() - started)
        return response

    def identify(self, request: web.BaseRequest) -> Principal:
        """Return the caller, counted against its rate; a failed login counts against its address."""
        try:
            principal = self.authenticator.authenticate(request.headers.get("Authorization"))
        except AccessError:
            self._admit(f"@{request.remote}")
            raise
        if principal.kind is not PrincipalKind.NODE:
            self._admit(principal.name if principal.kind is PrincipalKind.USER else f"@{request.remote}")
        if principal.kind is PrincipalKind.NODE or self._policies is None:
            return principal
        context = RequestContext(request.remote, request.secure, self._clock.now())
        return principal.at(self._policies, context)

    def decide_by(self, policies: ResourcePolicies) -> Self:
        """Let these policies say, too, what users may do; without any, what users were granted decides alone."""
        self._policies = policies
        return self

    def _admit(self, caller: str) -> None:
        if self._rate_limit is not None:
            self._rate_limit.admit(caller)

    def _log_broken(self, visit: Visit, broken: AnswerBroken) -> None:
        cause = broken.__cause__
        bug = None if isinstance(cause, ReplicatorError | TimeoutError) else cause
        _log.warning("answer broken off", request_id=visit.id, route=visit.route, error=str(cause), exc_info=bug)

    def _refusal(self, visit: Visit, error: ReplicatorError) -> web.StreamResponse:
        rendered = self.render(error)
        if rendered.status >= 500:
            _log.warning(
                "request could not be served",
                request_id=visit.id,
                method=visit.request.method,
                route=visit.route,
                error=str(error),
                kind=type(error).__name__,
            )
        if isinstance(error, Unauthenticated):
            try:
                challenge = self.challenge(visit, self._base_url(visit.request))
            except InvalidInput as bad_host:
                return self._rendered(visit, render(bad_host))
            if challenge is not None:
                rendered = replace(rendered, headers={**rendered.headers, "WWW-Authenticate": challenge})
        return self._rendered(visit, rendered)

    def challenge(self, visit: Visit, base_url: str) -> str | None:
        """Return how a caller without credentials is asked for them, if at all."""
        return self.authenticator.challenge(base_url)

    def render(self, error: ReplicatorError) -> RenderedError:
        """Turn an error into what is sent, but for the challenge."""
        return render(error)

    def _rendered(self, visit: Visit, rendered: RenderedError) -> web.StreamResponse:
        headers = {"Content-Type": "application/json", **rendered.headers}
        if visit.request.method == "HEAD":
            response = web.Response(status=rendered.status, headers=headers)
        else:
            response = web.Response(status=rendered.status, headers=headers, body=rendered.body)
        if visit.request.body_exists and not visit.request.content.is_eof():
            closing(response)
        return response

    def _base_url(self, request: web.BaseRequest) -> str:
        if self._public_url:
            return self._public_url.rstrip("/")
        host = request.headers.get("Host", "")
        if not host or not _HOST_CHARACTERS.issuperset(host):
            raise InvalidInput("expected a Host header of letters, digits, '.', '-' and ':'")
        return f"{request.scheme}://{host}"

    def _finish(self, visit: Visit, response: web.StreamResponse, seconds: float) -> None:
        request = visit.request
        if not response.prepared:
            response.headers.update(self.headers_of(visit))
        sent = response.content_length or 0
        self._observe(
            Outcome(
                request_id=visit.id,
                route=visit.route,
                method=request.method,
                path=request.raw_path,
                status=response.status,
                seconds=seconds,
                sent=0 if request.method == "HEAD" else sent,
                received=request.content.total_bytes,
                principal=visit.principal.name if visit.principal else "",
                remote=request.remote or "",
                agent=request.headers.get("User-Agent", ""),
                cache=visit.trace.result or "",
                upstream=visit.trace.upstream,
            )
        )


class Visit:
    """What is known of a request so far; kept for its log line whatever happens."""

    __slots__ = ("id", "namespace", "principal", "request", "route", "trace")

    def __init__(self, request: web.BaseRequest, request_id: str) -> None:
        self.request = request
        self.id = request_id
        self.route = "unknown"
        self.principal: Principal | None = None
        self.namespace: str | None = None
        self.trace = PullTrace()


def path_of(request: web.BaseRequest) -> str:
    """Return a request's path as it was sent, without its query."""
    return request.raw_path.partition("?")[0]


def closing(response: web.Response) -> web.Response:
    """Have the connection closed after an answer, and return it."""
    response.force_close()
    return response
