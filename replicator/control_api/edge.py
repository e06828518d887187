"""The edge of the ECR API: from a signed request to the operation's handler, and back as AWS JSON 1.1.

Checks come in one order: the signature, the operation, JSON, the model, the permission, and only then the handler. What
is raised on the way becomes an answer here and nowhere else, and never says more than its text.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

from aiohttp import web

from replicator.control_api.authorization import authorize, context_of, is_by_identity_only
from replicator.control_api.call import Call
from replicator.control_api.canonical_request import RequestHead
from replicator.control_api.errors import EcrError, answer_to, not_supported, of_operation, server_exception
from replicator.control_api.input import Input
from replicator.control_api.operations import HANDLERS
from replicator.control_api.registries import Registries, served
from replicator.control_api.request import (
    MAX_BODY,
    origin_of,
    parse_document,
    parse_target,
    read_body,
    unknown_operation,
)
from replicator.control_api.validation import validated
from replicator.core.errors import ReplicatorError
from replicator.core.principal import PrincipalKind
from replicator.telemetry.logs import get_logger
from replicator.telemetry.requests import Outcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from replicator.control_api.call import Document
    from replicator.control_api.callers import Caller, Callers, Claim
    from replicator.control_api.model import Operation
    from replicator.control_api.names import RegistryNames
    from replicator.control_api.request import Target
    from replicator.control_api.services import EcrRegistry
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.core.principal import Principal
    from replicator.core.rate_limit import RateLimit
    from replicator.telemetry.requests import Observer

T = TypeVar("T")

_log = get_logger(__name__)

_LARGE_AT_ONCE = 6
_LARGE_OF_ONE_ADDRESS = 3
"""Large bodies of one address at once: a sender that is slow on purpose must not hold up the others."""

_LIST = "DescribeRepositories"

_QUICK = 128 * 1024
"""Bytes that are worked on at once; more of them would hold up everybody else."""

CONTENT_TYPE = "application/x-amz-json-1.1"


class ControlApi:
    """Serves `POST /` of one node.

    `registries` are all that this process runs, so that a node answers for every registry of its region.
    """

    def __init__(
        self,
        home: NodeId,
        registries: Mapping[NodeId, EcrRegistry],
        callers: Callers,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        self._registries = Registries(home, registries)
        self._callers = callers
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._clock = clock
        self._observe = observe
        self._rate_limit = rate_limit

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        started = self._clock.monotonic()
        visit = _Visit(request)
        try:
            response = _rendered(await self._serve(visit))
        except EcrError as error:
            response = visit.refusal(error)
        except ReplicatorError as error:
            response = self._failure(visit, error)
        except TimeoutError:
            response = _closing(_refusal(EcrError("RequestTimeoutException", "The request took too long.", status=408)))
        except ConnectionError:
            # The client left; there is nobody to tell.
            response = _closing(web.Response(status=499, reason="Client Closed Request"))
        except Exception:  # noqa: BLE001 - the edge: a bug becomes a 500 and a log line
            _log.exception("request failed", request_id=visit.id, route=visit.route)
            response = _refusal(server_exception())
        if request.body_exists and not request.content.is_eof():
            _closing(response)
        response.headers["x-amzn-RequestId"] = visit.id
        self._finish(visit, response, self._clock.monotonic() - started)
        return response

    async def _serve(self, visit: _Visit) -> Document:
        request = visit.request
        target = parse_target(request.headers.get("X-Amz-Target"))
        visit.name(target)
        claim = self._claim(visit, target)
        async with self._room(request, target):
            body = await read_body(request, target.limit)
            caller = self._check(visit, claim, await _quickly(_hash, body))
            if target.operation is None:
                raise unknown_operation()
            members = Input(await _quickly(partial(_members, target.operation), body))
            del body
            return await self._answer(visit, target, caller, members)

    async def _answer(self, visit: _Visit, target: Target, caller: Caller, members: Input) -> Document:
        service, operation = target.service, target.operation
        assert service is not None and operation is not None  # noqa: S101, PT018 - was found
        request = visit.request
        context = context_of(members, request.remote, is_secure=request.secure, now=self._clock.now())
        if is_by_identity_only(operation.name):
            registry, principal = served(self._registries.home, service), replace(caller.principal, context=context)
        else:
            account = caller.principal.account
            if operation.name == _LIST and self._registries.is_of_nobody(account, members):
                authorize(
                    replace(caller.principal, context=context), service, _LIST, members, self._registries.home.names
                )
                return {"repositories": []}
            registry = served(self._registries.get(service, operation, account, members), service)
            principal = caller.principal.at(registry.node.policies, context)
        visit.names = registry.names
        authorize(principal, service, operation.name, members, registry.names)
        handler = HANDLERS[service].get(operation.name)
        if handler is None:
            raise not_supported(operation)
        origin = origin_of(request)
        return await handler(
            Call(operation.name, members, principal, registry, caller.key, origin, self._registries.all)
        )

    def _claim(self, visit: _Visit, target: Target) -> Claim:
        request = visit.request
        head = RequestHead(request.method, request.raw_path, request.headers, request.secure)
        try:
            return self._callers.claim(head, target.service)
        except EcrError:
            self._admit(f"@{request.remote}")  # keys are not guessed faster here than passwords elsewhere
            raise

    def _check(self, visit: _Visit, claim: Claim, body_hash: str) -> Caller:
        address = f"@{visit.request.remote}"
        try:
            caller = claim.check(body_hash)
        except EcrError:
            self._admit(address)
            raise
        visit.principal = principal = caller.principal
        self._admit(principal.name if principal.kind is PrincipalKind.USER else address)
        return caller

    @asynccontextmanager
    async def _room(self, request: web.BaseRequest, target: Target) -> AsyncIterator[None]:
        """Hold what a request is held under: large bodies wait for each other, first of all for their own sender's."""
        size = request.content_length
        if target.limit <= MAX_BODY or (size is not None and size <= MAX_BODY):
            yield
            return
        turns = self._turns.setdefault(request.remote or "", asyncio.Semaphore(_LARGE_OF_ONE_ADDRESS))
        async with turns, self._large:
            yield

    def _admit(self, caller: str) -> None:
        if self._rate_limit is not None:
            self._rate_limit.admit(caller)

    def _failure(self, visit: _Visit, error: ReplicatorError) -> web.Response:
        answer = answer_to(error)
        if answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return visit.refusal(answer)
        _log.warning(
            "request could not be served",
            request_id=visit.id,
            route=visit.route,
            error=str(error),
            kind=type(error).__name__,
        )
        return _refusal(answer)

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
                operation=visit.action,
            )
        )


async def _quickly(work: Callable[[bytes], T], body: bytes) -> T:
    return work(body) if len(body) <= _QUICK else await asyncio.to_thread(work, body)


def _hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def _members(operation: Operation, body: bytes) -> Document:
    return validated(operation.input, parse_document(body))


class _Visit:
    """What is known of a request so far; kept for its log line whatever happens."""

    __slots__ = ("id", "names", "operation", "principal", "request", "route", "service")

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.id = str(uuid.uuid4())
        self.route = "ecr_unknown"
        self.principal: Principal | None = None
        self.names: RegistryNames | None = None
        self.operation: Operation | None = None
        self.service = ""

    def name(self, target: Target) -> None:
        """Name the route in metrics and logs after the operation."""
        self.operation, self.service = target.operation, target.service or ""
        operation = "unknown" if target.operation is None else target.operation.name
        self.route = f"{(target.service or 'ecr').replace('-', '_')}_{operation}"

    @property
    def action(self) -> str:
        """The operation as policies call it, or nothing for one that does not exist."""
        return "" if self.operation is None else f"{self.service}:{self.operation.name}"

    def refusal(self, error: EcrError) -> web.Response:
        """Return the answer to an error, as one that the operation has, and with repositories as clients know them."""
        if self.operation is not None:
            error = of_operation(error, self.operation)
        text = str(error) if self.names is None else self.names.in_words(str(error))
        return _refusal(EcrError(error.code, text, status=error.status, members=error.members))


def _rendered(document: Mapping[str, object], status: int = 200) -> web.Response:
    body = json.dumps(document, separators=(",", ":")).encode()
    return web.Response(status=status, body=body, headers={"Content-Type": CONTENT_TYPE})


def _refusal(error: EcrError) -> web.Response:
    return _rendered({"__type": error.code, "message": str(error), **error.members}, error.status)


def _closing(response: web.Response) -> web.Response:
    response.force_close()
    return response
