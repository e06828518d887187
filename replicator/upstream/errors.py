"""What went wrong at an upstream, in our words: the only place where HTTP statuses and aiohttp's exceptions are read.

Messages name the upstream and the reason. They never contain a query string (presigned URLs), a header, or text of the
upstream's own beyond an error code of the distribution specification.
"""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

import aiohttp

from replicator.core.errors import (
    PermissionMissing,
    ReplicatorError,
    UpstreamClockSkew,
    UpstreamContent,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamRefused,
    UpstreamThrottled,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from replicator.core.peer_messages import CLOCK_SKEW
from replicator.core.retry import parse_retry_after

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_CODE = re.compile(r"[A-Za-z_]{1,40}")
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
_PERMISSION = re.compile(r"ecr:[A-Za-z]{1,40}")
_THROTTLED_CODE = "TOOMANYREQUESTS"
_DIGEST_CODE = "DIGEST_INVALID"
_SERVER_ERRORS = 500
_CLIENT_ERRORS = 400


class ForbiddenAddress(OSError):
    """An upstream sent us to an address it may not send us to."""


class RangeRefused(UpstreamContent):
    """The upstream has nothing at the offset asked for."""


class DigestRefused(UpstreamContent):
    """The upstream found another digest in what we sent: it was damaged on its way, or here."""


class CutShort(UpstreamContent):
    """The upstream's answer ended before its end."""


class UpstreamLoop(UpstreamUnavailable):
    """What we asked came back to us: no later attempt goes another way."""

    retryable = False


class CredentialsRefused(UpstreamDenied):
    """The token service accepts none of our credentials, whatever is asked for."""


class NotAsked(UpstreamUnavailable):
    """Nothing was sent: the upstream keeps failing, or said when to come back."""


class Paused(UpstreamThrottled):
    """Nothing was sent: the upstream asked us to slow down."""


_BY_STATUS: Mapping[int, type[UpstreamError]] = {
    HTTPStatus.UNAUTHORIZED: UpstreamDenied,
    HTTPStatus.FORBIDDEN: UpstreamDenied,
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: UpstreamDenied,
    HTTPStatus.NOT_FOUND: UpstreamNotFound,
    HTTPStatus.GONE: UpstreamNotFound,
    HTTPStatus.REQUEST_TIMEOUT: UpstreamTimeout,
    HTTPStatus.GATEWAY_TIMEOUT: UpstreamTimeout,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: RangeRefused,
    HTTPStatus.TOO_EARLY: UpstreamUnavailable,
    HTTPStatus.TOO_MANY_REQUESTS: UpstreamThrottled,
    HTTPStatus.LOOP_DETECTED: UpstreamLoop,
}

_OUTCOMES: Mapping[type[BaseException], str] = {
    NotAsked: "not_asked",
    Paused: "not_asked",
    UpstreamDenied: "denied",
    UpstreamNotFound: "not_found",
    UpstreamThrottled: "throttled",
    UpstreamTimeout: "timeout",
    UpstreamUnavailable: "unavailable",
    UpstreamContent: "content",
    UpstreamRefused: "refused",
}


def outcome_of(error: BaseException) -> str:
    """Return the metric label of a failure."""
    for kind in type(error).__mro__:
        if kind in _OUTCOMES:
            return _OUTCOMES[kind]
    return "error" if isinstance(error, ReplicatorError) else "abandoned"


def failure(
    what: str, status: int, headers: Mapping[str, str], content: bytes, now: Callable[[], float]
) -> UpstreamError:
    """Return the error that an unexpected status stands for; `what` names the upstream and the request."""
    code, detail = _first_error(content)
    retry_after = _retry_after(headers.get("Retry-After"), now())
    message = f"{what}: answered {status}" + (f" {code}" if code else "")
    permission = str(detail.get("permission", ""))
    if status == HTTPStatus.FORBIDDEN and _PERMISSION.fullmatch(permission):
        return PermissionMissing(f"{message}, lacking {permission}", permission=permission)
    if status == HTTPStatus.BAD_REQUEST and detail.get("reason") == CLOCK_SKEW:
        return UpstreamClockSkew(message)
    if status == HTTPStatus.BAD_REQUEST and code == _DIGEST_CODE:
        return DigestRefused(message)
    kind = UpstreamThrottled if code == _THROTTLED_CODE else _kind_of(status)
    if kind is UpstreamLoop:
        message += ", it leads back to this node"
    return kind(message, retry_after=retry_after)


def _kind_of(status: int) -> type[UpstreamError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= _SERVER_ERRORS:
        return UpstreamUnavailable
    return UpstreamRefused if status >= _CLIENT_ERRORS else UpstreamContent


def _first_error(content: bytes) -> tuple[str | None, Mapping[str, object]]:
    """Return code and detail of the first error in a body of the distribution specification ("Error Codes")."""
    try:
        error = json.loads(content)["errors"][0]
        code, detail = error["code"], error.get("detail")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None, {}
    found = code.upper() if isinstance(code, str) and _CODE.fullmatch(code) else None
    return found, detail if isinstance(detail, dict) else {}


def _retry_after(header: str | None, now: float) -> float | None:
    try:
        date = parsedate_to_datetime(header).timestamp() if header else None
    except (ValueError, OverflowError):
        date = None
    return parse_retry_after(header, now, date)


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn failures of the transport inside the block into ours; `what` names the upstream and the request."""
    try:
        yield
    except TimeoutError as error:
        raise UpstreamTimeout(f"{what}: no answer in time") from error
    except aiohttp.ClientPayloadError as error:
        raise CutShort(f"{what}: the answer is short") from error
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, ForbiddenAddress):
            raise UpstreamContent(f"{what}: {error.os_error}") from error
        raise UpstreamUnavailable(f"{what}: {connection_failure(error)}") from error
    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
        raise UpstreamUnavailable(f"{what}: the connection was lost") from error
    except aiohttp.ClientHttpProxyError as error:
        refused = error.status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED
        kind = UpstreamDenied if refused else UpstreamUnavailable
        raise kind(f"{what}: its proxy answered {error.status}") from error
    except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
        raise UpstreamContent(f"{what}: the answer is not HTTP as it should be") from error
    except (aiohttp.ClientError, OSError) as error:
        raise UpstreamUnavailable(f"{what}: the connection failed") from error


def connection_failure(error: aiohttp.ClientConnectorError) -> str:
    """Return why there is no connection, as people read it."""
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        return f"cannot connect to its proxy ({_os_failure(error.os_error)})"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its host name cannot be resolved"
    if isinstance(error, aiohttp.ClientSSLError):
        return f"the TLS handshake failed: {_tls_failure(error)}"
    return f"cannot connect ({_os_failure(error.os_error)})"


def _os_failure(error: OSError) -> str:
    """Return the system's words for an error: those of the event loop hold the address that the name led to."""
    if error.errno is None or isinstance(error, socket.gaierror | ssl.SSLError):
        return error.strerror or type(error).__name__
    return os.strerror(error.errno)


def _tls_failure(error: aiohttp.ClientSSLError) -> str:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
        return f"its certificate is not trusted ({getattr(cause, 'verify_message', None) or type(cause).__name__})"
    reason = getattr(error.os_error, "reason", None) or type(error.os_error).__name__
    # What OpenSSL says of an answer that is no TLS, which is nearly always HTTP in clear.
    return "it answers without TLS" if reason in _NOT_TLS else str(reason)
