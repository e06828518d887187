"""A request on its way in: what its headers name, and its body, bounded in size and time.

AWS JSON 1.1 always posts to `/`; the header `X-Amz-Target` names the service and the operation.
"""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from replicator.control_api.errors import EcrError
from replicator.control_api.model import SERVICES, service_model

if TYPE_CHECKING:
    from replicator.control_api.call import Document
    from replicator.control_api.model import Operation

STALL_TIMEOUT = 30.0
"""Seconds without a byte after which a client is given up."""

BODY_TIMEOUT = 300.0
"""Seconds in which a body must have arrived."""

PREFIXES = {service_model(service).target: service for service in SERVICES}
"""Services by the name that stands before the operation's in `X-Amz-Target`."""

MAX_BODY = 2**20
"""Bytes of a body of an operation that carries no content."""

_LIMITS = {
    "PutImage": 12 * 2**20,  # a manifest of 4 MiB, whose quotes are escaped
    "UploadLayerPart": 29 * 2**20,  # a part of 20 MiB in Base64
}

_MAX_PARTS = 450_000
"""Members and elements of a body, more than those of any manifest that is taken: each costs much more than its text."""

_HOST = re.compile(r"[A-Za-z0-9.:\[\]-]{1,255}")


class ClientGone(ConnectionError):
    """the client broke off before the end of its body."""


@dataclass(frozen=True, slots=True)
class Target:
    """The service and the operation that a request names; None when there is none of that name."""

    service: str | None
    operation: Operation | None

    @property
    def limit(self) -> int:
        """How many bytes a body may have."""
        return MAX_BODY if self.operation is None else _LIMITS.get(self.operation.name, MAX_BODY)


def parse_target(header: str | None) -> Target:
    """Return what `X-Amz-Target` names, which may not exist."""
    prefix, _, operation = (header or "").partition(".")
    service = PREFIXES.get(prefix)
    if service is None:
        return Target(None, None)
    return Target(service, service_model(service).operations.get(operation))


def unknown_operation() -> EcrError:
    """Return the answer to an operation that the model does not have; AWS gives no text with it."""
    return EcrError("UnknownOperationException", "", status=404)


async def read_body(request: web.BaseRequest, limit: int) -> bytes:
    """Return a body of at most `limit` bytes.

    Raises EcrError as soon as it is longer, ClientGone when the client breaks off, TimeoutError when it is too slow.
    """
    if request.content_length is not None and request.content_length > limit:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async with asyncio.timeout(BODY_TIMEOUT):
        while chunk := await _next(request):
            size += len(chunk)
            if size > limit:
                raise _too_large()
            parts.append(chunk)
    return b"".join(parts)


async def _next(request: web.BaseRequest) -> bytes:
    content = request.content
    try:
        async with asyncio.timeout(STALL_TIMEOUT):
            chunk = await content.readany()
    except (ClientError, HttpProcessingError, ConnectionError) as error:
        raise ClientGone("the client broke off before the end of its body") from error
    if not chunk and not content.at_eof():
        raise ClientGone("the client broke off before the end of its body")
    return chunk


def parse_document(body: bytes) -> Document:
    """Return the structure in a body; raises EcrError (SerializationException) when it holds none, or is too rich."""
    if sum(map(body.count, (b",", b"{", b"["))) > _MAX_PARTS:
        raise EcrError("SerializationException", "Too many elements")
    try:
        document = json.loads(body or b"{}", parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EcrError("SerializationException", "Expected a JSON object") from error
    if not isinstance(document, dict):
        raise EcrError("SerializationException", "Expected a JSON object")
    return document


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _too_large() -> EcrError:
    return EcrError("RequestEntityTooLargeException", "", status=413)


def origin_of(request: web.BaseRequest) -> str | None:
    """Return scheme, host and port as the client addressed them, or None where the Host header is unusable."""
    host = request.headers.get("Host", "")
    return f"{request.scheme}://{host}" if host and _HOST.fullmatch(host) else None
