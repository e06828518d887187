"""Signatures of requests, AWS Signature Version 4: in the header `Authorization`, or in the query of a presigned URL.

`read_signature` looks at what a request claims before its body is read; `Signature.check` decides, once the hash of the
body is known. Only what is signed may be believed, so the host, the date, the operation and the session token must be
among the signed headers, and each of them may be there once. A body goes unsigned only where TLS protects it.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from replicator.control_api.canonical_request import RequestHead, canonical_request, query_pairs
from replicator.control_api.errors import EcrError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


ALGORITHM = "AWS4-HMAC-SHA256"
SKEW = 15 * 60
"""Seconds by which a client's clock may be wrong; a signature in a header is valid for as long, too."""
MAX_EXPIRES = 7 * 24 * 3600
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
TERMINATOR = "aws4_request"

_MAX_HEADER = 16 * 1024
_MAX_SIGNED_HEADERS = 200
_TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9]{1,9}")
_SINGLE = ("authorization", "host", "x-amz-date", "x-amz-target", "x-amz-security-token", "x-amz-content-sha256")
"""Headers of which a second one would be believed by somebody else."""


@dataclass(frozen=True, slots=True)
class Signature:
    """What a request says of its signature: whose it is, what it is scoped to, what it covers, and when it was made."""

    head: RequestHead = field(repr=False)
    key_id: str
    scope: tuple[str, str, str, str]
    signed_headers: tuple[str, ...]
    value: str = field(repr=False)
    time: str
    lifetime: int
    session_token: str | None = field(default=None, repr=False)
    payload: str | None = None
    """The hash that the request states of its body, or UNSIGNED-PAYLOAD."""

    @property
    def region(self) -> str:
        """The region of the scope."""
        return self.scope[1]

    @property
    def service(self) -> str:
        """The service of the scope."""
        return self.scope[2]

    def check_scope(self, regions: Collection[str], services: Collection[str]) -> None:
        """Raise EcrError unless the signature is meant for one of these regions and services."""
        date, region, service, terminator = self.scope
        if region not in regions:
            raise invalid_signature("Credential should be scoped to a valid region.")
        if service not in services:
            raise invalid_signature(f"Credential should be scoped to correct service: '{next(iter(services))}'.")
        if terminator != TERMINATOR:
            raise invalid_signature("Credential should be scoped with a valid terminator: 'aws4_request'.")
        if date != self.time[:8]:
            raise invalid_signature(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
                f" '{shown(date)}' != '{self.time[:8]}', from '{self.time}'."
            )

    def check_time(self, now: float) -> None:
        """Raise EcrError for a signature that has expired, or that was made too far in the future."""
        made = _parse_time(self.time)
        moment = datetime.fromtimestamp(int(now), UTC)
        earliest, latest = moment - timedelta(seconds=self.lifetime), moment + timedelta(seconds=SKEW)
        if made < earliest:
            raise invalid_signature(
                f"Signature expired: {self.time} is now earlier than {earliest.strftime(_TIME_FORMAT)}"
                f" ({moment.strftime(_TIME_FORMAT)} - {_duration(self.lifetime)})"
            )
        if made > latest:
            raise invalid_signature(
                f"Signature not yet current: {self.time} is still later than {latest.strftime(_TIME_FORMAT)}"
                f" ({moment.strftime(_TIME_FORMAT)} + {_duration(SKEW)})"
            )

    def check(self, secret: str, body_hash: str) -> None:
        """Raise EcrError unless `secret` made this signature, of a request with this body; in constant time."""
        stated = self.payload or body_hash
        if stated == UNSIGNED_PAYLOAD and not self.head.is_secure:
            raise mismatch()
        if stated != UNSIGNED_PAYLOAD and not same(stated, body_hash):
            raise mismatch()
        request = canonical_request(self.head, self.signed_headers, stated)
        scope = "/".join(self.scope)
        hashed = hashlib.sha256(request.encode("utf-8", "surrogateescape")).hexdigest()
        text = "\n".join((ALGORITHM, self.time, scope, hashed))
        expected = hmac.new(signing_key(secret, self.scope), text.encode("utf-8", "surrogateescape"), hashlib.sha256)
        if not hmac.compare_digest(expected.hexdigest(), self.value):
            raise mismatch()


def same(one: str, other: str) -> bool:
    """Compare two strings in constant time."""
    return hmac.compare_digest(one.encode("utf-8", "surrogateescape"), other.encode("utf-8", "surrogateescape"))


def invalid_signature(message: str) -> EcrError:
    """Return the answer to a signature that is well-formed and does not hold."""
    return EcrError("InvalidSignatureException", message, status=403)


def mismatch() -> EcrError:
    """Return the answer to a signature that another key made, or of another request."""
    return invalid_signature(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access"
        " Key and signing method. Consult the service documentation for details."
    )


def unrecognized_client() -> EcrError:
    """Return the answer to a key that nobody has, or that comes with another session token than its own."""
    return EcrError("UnrecognizedClientException", "The security token included in the request is invalid.", status=403)


def _incomplete(message: str) -> EcrError:
    return EcrError("IncompleteSignatureException", message, status=403)


def read_signature(head: RequestHead) -> Signature:
    """Return what a request says of its signature; raises EcrError when it has none, or one that is malformed."""
    for name in _SINGLE:
        if len(head.headers.getall(name, ())) > 1:
            raise _incomplete(f"The header '{name}' must be present at most once.")
    query = dict(query_pairs(head.target))
    header = head.headers.get("Authorization")
    if header is not None and "X-Amz-Algorithm" in query:
        raise _incomplete("A request must be signed either in its headers or in its query, not in both.")
    if header is not None:
        found = _from_header(head, header)
    elif "X-Amz-Algorithm" in query or "X-Amz-Signature" in query:
        found = _from_query(head, query)
    else:
        raise EcrError("MissingAuthenticationTokenException", "Missing Authentication Token", status=403)
    _check_signed_headers(found)
    return found


def _from_header(head: RequestHead, header: str) -> Signature:
    if len(header) > _MAX_HEADER:
        raise _incomplete("The Authorization header is too long.")
    algorithm, _, rest = header.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{shown(algorithm)}'.")
    parts = _parameters(rest, header)
    time = _time_of(head)
    lacking = [
        f"Authorization header requires '{name}' parameter."
        for name in ("Credential", "Signature", "SignedHeaders")
        if not parts.get(name)
    ]
    if not time:
        lacking.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if lacking or time is None:
        raise _incomplete(f"{' '.join(lacking)} {_hashed(header)}")
    key_id, scope = _credential(parts["Credential"])
    return Signature(
        head=head,
        key_id=key_id,
        scope=scope,
        signed_headers=tuple(parts["SignedHeaders"].split(";")),
        value=_signature(parts["Signature"]),
        time=_checked_time(time),
        lifetime=SKEW,
        session_token=head.headers.get("X-Amz-Security-Token"),
        payload=head.headers.get("X-Amz-Content-Sha256"),
    )


def _time_of(head: RequestHead) -> str | None:
    """Return when a request was signed, in the form that is signed; its `Date` may be of HTTP's form."""
    time = head.headers.get("X-Amz-Date")
    if time is not None:
        return time
    date = head.headers.get("Date")
    if date is None or _TIME.fullmatch(date) is not None:
        return date
    try:
        return parsedate_to_datetime(date).astimezone(UTC).strftime(_TIME_FORMAT)
    except (ValueError, OverflowError):
        return date


def _parameters(text: str, header: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in re.split(r"[,\s]+", text.strip()):
        name, equals, value = part.partition("=")
        if part and not equals:
            raise _incomplete(
                f"'{shown(part)}' not a valid key=value pair (missing equal-sign) in Authorization header"
                f" {_hashed(header)}."
            )
        if name in found:
            raise _incomplete(f"Authorization header has the parameter '{shown(name)}' more than once.")
        found[name] = value
    return found


def _from_query(head: RequestHead, query: Mapping[str, str]) -> Signature:
    if query.get("X-Amz-Algorithm") != ALGORITHM:
        raise _incomplete(f"Unsupported AWS 'algorithm': '{shown(query.get('X-Amz-Algorithm', ''))}'.")
    names = [name for name, _ in query_pairs(head.target) if name.startswith("X-Amz-")]
    if len(names) != len(set(names)):
        raise _incomplete("A parameter of the signature must be present at most once in the query.")
    lacking = [
        f"AWS query-string parameters must include '{name}'."
        for name in ("X-Amz-Credential", "X-Amz-Date", "X-Amz-Signature", "X-Amz-SignedHeaders")
        if not query.get(name)
    ]
    if lacking:
        raise _incomplete(" ".join(lacking))
    key_id, scope = _credential(query["X-Amz-Credential"])
    return Signature(
        head=head,
        key_id=key_id,
        scope=scope,
        signed_headers=tuple(query["X-Amz-SignedHeaders"].split(";")),
        value=_signature(query["X-Amz-Signature"]),
        time=_checked_time(query["X-Amz-Date"]),
        lifetime=_lifetime(query.get("X-Amz-Expires", str(SKEW))),
        session_token=query.get("X-Amz-Security-Token"),
        payload=query.get("X-Amz-Content-Sha256", head.headers.get("X-Amz-Content-Sha256")),
    )


def _credential(text: str) -> tuple[str, tuple[str, str, str, str]]:
    parts = text.split("/")
    if len(parts) != 5:
        raise _incomplete(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term,"
            f" got '{shown(text)}'"
        )
    key_id, date, region, service, terminator = parts
    return key_id, (date, region, service, terminator)


def _signature(text: str) -> str:
    if _SIGNATURE.fullmatch(text) is None:
        raise mismatch()
    return text


def _lifetime(text: str) -> int:
    if _NUMBER.fullmatch(text) is None:
        raise _incomplete("X-Amz-Expires should be a number")
    if not 0 < int(text) <= MAX_EXPIRES:
        raise _incomplete(f"X-Amz-Expires must be from 1 to {MAX_EXPIRES} seconds")
    return int(text)


def _checked_time(text: str) -> str:
    _parse_time(text)
    return text


def _parse_time(text: str) -> datetime:
    try:
        if _TIME.fullmatch(text) is not None:
            return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        pass
    raise _incomplete(
        f"Date must be in ISO-8601 'basic format'. Got '{shown(text)}'. See http://en.wikipedia.org/wiki/ISO_8601"
    )


def _check_signed_headers(signature: Signature) -> None:
    """Raise EcrError unless everything that is believed is signed."""
    signed, headers = signature.signed_headers, signature.head.headers
    if len(signed) > _MAX_SIGNED_HEADERS or list(signed) != sorted({name.lower() for name in signed}):
        raise _incomplete("SignedHeaders must be names in lower case, sorted, each of them once.")
    if "host" not in signed:
        raise invalid_signature("'Host' or ':authority' must be a 'SignedHeader' in the AWS Authorization.")
    believed = _SINGLE[2:] if "x-amz-date" in headers else (*_SINGLE[2:], "date")
    for name in believed:
        if name in headers and name not in signed:
            raise invalid_signature(f"'{name}' must be a 'SignedHeader' in the AWS Authorization.")
    for name in signed:
        if name not in headers:
            raise mismatch()


def signing_key(secret: str, scope: tuple[str, str, str, str]) -> bytes:
    """Return the key for signatures of a scope."""
    key = f"AWS4{secret}".encode()
    for part in scope:
        key = hmac.digest(key, part.encode("utf-8", "surrogateescape"), "sha256")
    return key


def _duration(seconds: int) -> str:
    return f"{seconds // 60} min." if seconds % 60 == 0 else f"{seconds} sec."


def shown(text: str) -> str:
    """Return what a client sent as an error may quote it."""
    return text[:200].encode("ascii", "backslashreplace").decode()


def _hashed(header: str) -> str:
    """Return an Authorization header as an error may name it: hashed, because it may hold somebody's password."""
    digest = hashlib.sha256(header.encode("utf-8", "surrogateescape")).digest()
    return f"(Hashed with SHA-256 and encoded with Base64) Authorization={base64.b64encode(digest).decode()}"
