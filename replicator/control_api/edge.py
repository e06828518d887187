"""The edge of the ECR API: from a signed request to the operation's handler, and back as AWS JSON 1.1.

Checks come in one order: the signature, the operation, JSON, the model, the permission, and only then the handler. What
is raised on the way becomes an answer here and nowhere else, and never says more than its text.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING

from aiohttp import web

from replicator.control_api.call import Call
from replicator.control_api.errors import EcrError, code_of, not_supported
from replicator.control_api.input import Input
from replicator.control_api.operations import HANDLERS
from replicator.control_api.request import parse_document, parse_target, read_body, unknown_operation
from replicator.control_api.validation import validated
from replicator.core import texts
from replicator.core.access import UNRESTRICTED, PrincipalKind
from replicator.core.errors import ReplicatorError
from replicator.core.names import AccountId, NodeId
from replicator.telemetry.logs import get_logger
from replicator.telemetry.requests import Outcome

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Document
    from replicator.control_api.request import Target
    from replicator.control_api.services import EcrRegistry
    from replicator.core.access import Principal
    from replicator.core.clock import Clock
    from replicator.core.rate_limit import RateLimit
    from replicator.telemetry.requests import Observer

_log = get_logger(__name__)

CONTENT_TYPE = "application/x-amz-json-1.1"


class ControlApi:
    """Serves `POST /` of one node.

    `registries` are all that this process runs, so that a node answers for every registry of its region.
    """

    def __init__(
        self,
        home: NodeId,
        registries: Mapping[NodeId, EcrRegistry],
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._home = home
        self._registries = registries
        self._clock = clock
        self._observe = observe
        self._rate_limit = rate_limit

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = self._clock.monotonic()
        visit = _Visit(request)
        try:
            response = _answer(await self._serve(visit))
        except EcrError as error:
            response = _refusal(error)
        except ReplicatorError as error:
            response = self._failure(visit, error)
        except TimeoutError:
            response = _closing(web.Response(status=408))
        except ConnectionError:
            # The client left; there is nobody to tell.
            response = _closing(web.Response(status=499, reason="Client Closed Request"))
        except Exception:  # noqa: BLE001 - the edge: a bug becomes a 500 and a log line
            _log.exception("request failed", request_id=visit.id, route=visit.route)
            response = _server_exception()
        if request.body_exists and not request.content.is_eof():
            _closing(response)
        response.headers["x-amzn-RequestId"] = visit.id
        self._finish(visit, response, self._clock.monotonic() - started)
        return response

    async def _serve(self, visit: _Visit) -> Document:
        target = parse_target(visit.request.headers.get("X-Amz-Target"))
        visit.name(target)
        visit.principal = UNRESTRICTED
        self._admit(visit)
        body = await read_body(visit.request, target.limit)
        if target.operation is None:
            raise unknown_operation()
        document = parse_document(body)
        members = Input(validated(target.operation.input, document))
        handler = HANDLERS[target.service].get(target.operation.name)
        if handler is None:
            raise not_supported(target.operation)
        return await handler(Call(target.operation.name, members, UNRESTRICTED, self._registry(members)))

    def _registry(self, members: Input) -> EcrRegistry:
        account = members.find_text("registryId") or self._home.account
        registry = self._registries.get(NodeId(AccountId(account), self._home.region))
        if registry is not None:
            return registry
        repository = members.find_text("repositoryName")
        if repository is not None:
            raise EcrError("RepositoryNotFoundException", texts.repository_not_found(repository, account))
        raise EcrError("InvalidParameterException", texts.registry_not_found(account, self._home.region))

    def _admit(self, visit: _Visit) -> None:
        principal = visit.principal
        if self._rate_limit is not None and principal is not None:
            self._rate_limit.admit(
                principal.name if principal.kind is PrincipalKind.USER else f"@{visit.request.remote}"
            )

    def _failure(self, visit: _Visit, error: ReplicatorError) -> web.Response:
        code = code_of(error)
        if code != "ServerException":
            return _refusal(EcrError(code, str(error)))
        _log.warning(
            "request could not be served",
            request_id=visit.id,
            route=visit.route,
            error=str(error),
            kind=type(error).__name__,
        )
        return _server_exception()

    def _finish(self, visit: _Visit, response: web.Response, seconds: float) -> None:
        request = visit.request
        self._observe(
            Outcome(
                request_id=visit.id,
                route=visit.route,
                method=request.method,
                path=request.raw_path,
                status=response.status,
                seconds=seconds,
                sent=response.content_length or 0,
                received=request.content.total_bytes,
                principal=visit.principal.name if visit.principal else "",
                remote=request.remote or "",
                agent=request.headers.get("User-Agent", ""),
            )
        )


class _Visit:
    """What is known of a request so far; kept for its log line whatever happens."""

    __slots__ = ("id", "principal", "request", "route")

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.id = str(uuid.uuid4())
        self.route = "ecr_unknown"
        self.principal: Principal | None = None

    def name(self, target: Target) -> None:
        """Name the route in metrics and logs after the operation."""
        operation = "unknown" if target.operation is None else target.operation.name
        self.route = f"{target.service.replace('-', '_')}_{operation}"


def _answer(document: Mapping[str, object], status: int = 200) -> web.Response:
    body = json.dumps(document, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, headers={"Content-Type": CONTENT_TYPE})


def _refusal(error: EcrError) -> web.Response:
    return _answer({"__type": error.code, "message": str(error), **error.members}, error.status)


def _server_exception() -> web.Response:
    return _refusal(EcrError("ServerException", "The server could not process the request.", status=500))


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response
