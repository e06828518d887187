"""A token service as Docker's registries use it: Basic credentials in, a signed JWT for a repository out.

It signs with a key whose certificate it made itself and sends along (`x5c`); a registry that is given
`root_certificates` trusts its tokens.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import secrets
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import parse_qs, urlsplit

import jwt
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

Algorithm = Literal["RS256", "ES256"]

_KEY_TYPES = {"RS256": trustme.KeyType.RSA, "ES256": trustme.KeyType.ECDSA}


@dataclass(frozen=True)
class TokenRequest:
    """One request for a token; `username` is None without credentials."""

    service: str
    scopes: tuple[str, ...]
    username: str | None
    granted: bool


class TokenServer:
    """Issues tokens on a free loopback port until the context ends.

    A user who proves the password gets what is asked for. Nobody else gets anything, except with `anonymous_pull`.
    """

    def __init__(
        self,
        users: Mapping[str, str],
        *,
        service: str = "test-registry",
        issuer: str = "test-issuer",
        algorithm: Algorithm = "ES256",
        lifetime: int = 300,
        anonymous_pull: bool = False,
    ) -> None:
        self.service = service
        self.issuer = issuer
        self.requests: list[TokenRequest] = []
        self._users = dict(users)
        self._algorithm = algorithm
        self._lifetime = lifetime
        self._anonymous_pull = anonymous_pull
        authority = trustme.CA(key_type=_KEY_TYPES[algorithm])
        certificate = authority.issue_cert("token-service.test", key_type=_KEY_TYPES[algorithm])
        self.root_certificates = authority.cert_pem.bytes()
        self._key = certificate.private_key_pem.bytes()
        self._chain = [_base64_der(blob.bytes()) for blob in certificate.cert_chain_pems]
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="token-server")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def realm(self) -> str:
        """The URL that a registry names in its challenge."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/token"

    def issue(self, subject: str, scopes: tuple[str, ...]) -> str:
        """Return a token for scopes like `repository:library/alpine:pull,push`."""
        now = int(time.time())  # noqa: TID251 - a token names the time of the day
        access = [
            {"type": kind, "name": name, "actions": actions.split(",")}
            for kind, name, actions in (_split_scope(scope) for scope in scopes)
        ]
        claims = {
            "iss": self.issuer,
            "sub": subject,
            "aud": self.service,
            "iat": now,
            "nbf": now - 10,
            "exp": now + self._lifetime,
            "jti": secrets.token_hex(8),
            "access": access,
        }
        return jwt.encode(claims, self._key, self._algorithm, headers={"x5c": self._chain})

    def answer(self, target: str, authorization: str | None) -> tuple[int, dict[str, object]]:
        """Return status and document for one request, and note it."""
        query = parse_qs(urlsplit(target).query)
        scopes = tuple(scope for given in query.get("scope", []) for scope in given.split())
        username, proven = self._authenticate(authorization)
        if username is None and self._anonymous_pull:
            proven = True
            scopes = tuple(scope for scope in scopes if scope.endswith(":pull"))
        service = (query.get("service") or [""])[0]
        self.requests.append(TokenRequest(service, scopes, username, proven))
        if not proven:
            return 401, {"errors": [{"code": "UNAUTHORIZED", "message": "expected a user name and password"}]}
        token = self.issue(username or "", scopes)
        return 200, {"token": token, "access_token": token, "expires_in": self._lifetime}

    def _authenticate(self, authorization: str | None) -> tuple[str | None, bool]:
        scheme, _, encoded = (authorization or "").partition(" ")
        if scheme.lower() != "basic":
            return None, False
        try:
            username, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return None, False
        return username, hmac.compare_digest(self._users.get(username, secrets.token_hex()), password)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        tokens = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, document = tokens.answer(self.path, self.headers.get("Authorization"))
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
                """Stay silent."""

        return Handler


def _split_scope(scope: str) -> tuple[str, str, str]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    return kind, name, actions


def _base64_der(pem: bytes) -> str:
    der = x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    return base64.b64encode(der).decode()
