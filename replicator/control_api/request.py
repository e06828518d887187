"""A request on its way in: what its headers name, and its body, bounded in size and time.

AWS JSON 1.1 always posts to `/`; the header `X-Amz-Target` names the service and the operation.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from replicator.control_api.errors import EcrError

if TYPE_CHECKING:
    from replicator.control_api.call import Document

STALL_TIMEOUT = 30.0
"""Seconds without a byte after which a client is given up."""

BODY_TIMEOUT = 300.0
"""Seconds in which a body must have arrived."""

PREFIXES = {"AmazonEC2ContainerRegistry_V20150921": "ecr", "SpencerFrontendService": "ecr-public"}
"""Services by the name that stands before the operation's in `X-Amz-Target`."""


class ClientGone(ConnectionError):
    """the client broke off before the end of its body."""


@dataclass(frozen=True, slots=True)
class Target:
    """The service and the operation that a request names; neither is known to exist."""

    service: str
    operation: str


def parse_target(header: str | None) -> Target:
    """Return what `X-Amz-Target` names; raises EcrError (UnknownOperationException) for another service's."""
    prefix, _, operation = (header or "").partition(".")
    if prefix not in PREFIXES:
        raise unknown_operation()
    return Target(PREFIXES[prefix], operation)


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
    """Return the structure in a body; raises EcrError (SerializationException) when it holds none."""
    try:
        document = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise malformed() from error
    if not isinstance(document, dict):
        raise malformed()
    return document


def malformed() -> EcrError:
    """Return the answer to a body that is no JSON of the model's types."""
    return EcrError("SerializationException", "")


def _too_large() -> EcrError:
    return EcrError("RequestEntityTooLargeException", "", status=413)
