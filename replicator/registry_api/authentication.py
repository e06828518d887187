"""Who is calling: Basic credentials, our own bearer tokens, a peer's token, or nobody.

Clients log in with Basic. Where anonymous callers are granted something too, clients are sent to the token endpoint
instead, because most of them give up on a Basic challenge they have no password for, and never send one they were not
challenged for. Passwords are compared in constant time, and an unknown user costs what a wrong password costs.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import jwt

from replicator.core.access import UNRESTRICTED, Grant, Principal, PrincipalKind, node_principal
from replicator.core.bounded import BoundedMap
from replicator.core.errors import Unauthenticated
from replicator.registry.peer_tokens import MAX_TOKEN_LENGTH, UNREADABLE_TOKEN, PeerTokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.clock import Clock

TOKEN_LIFETIME = 12 * 3600
_REMEMBERED = 1024
_MAX_HEADER = 8192


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a password. Only its digest is held."""

    name: str
    password_digest: bytes = field(repr=False)
    grants: tuple[Grant, ...] = ()

    @classmethod
    def with_password(cls, name: str, password: str, grants: Sequence[Grant]) -> User:
        """Return the user with the digest of a password."""
        return cls(name, _digest(password), tuple(grants))


class Authenticator(Protocol):
    """Turns an Authorization header into a principal, and says how to ask for one."""

    def authenticate(self, header: str | None) -> Principal:
        """Return the caller; raises Unauthenticated for credentials that are not valid."""
        ...

    def challenge(self, base_url: str) -> str | None:
        """Return the WWW-Authenticate value for a node reached at `base_url`, if callers can authenticate at all."""
        ...

    def issue_token(self, principal: Principal) -> str:
        """Return a bearer token for an authenticated caller."""
        ...


class PeerAuthenticator:
    """Knows peers by their tokens; what each may do is for the edges to say."""

    def __init__(self, tokens: PeerTokens) -> None:
        self._tokens = tokens

    def authenticate(self, token: str) -> Principal:
        """Return the peer that made a token; raises Unauthenticated for any other token."""
        return node_principal(self._tokens.verify(token))


class OpenAuthenticator:
    """A node without users: everybody may do everything a user may; peers are still told apart."""

    def __init__(self, peers: PeerAuthenticator) -> None:
        self._peers = peers

    def authenticate(self, header: str | None) -> Principal:
        """Return a peer for a peer's token, and the unrestricted caller otherwise, whatever else it sends.

        A node that cannot prove which one it is must not pass for a user: its replicas would count as pushes, and be
        replicated on, without end in a ring. Raises Unauthenticated for it.
        """
        scheme, credentials = _split(header)
        if scheme == "bearer" and PeerTokens.is_peer_token(credentials):
            return self._peers.authenticate(credentials)
        return UNRESTRICTED

    def challenge(self, base_url: str) -> str | None:
        """Return None: nobody needs to authenticate."""
        return None

    def issue_token(self, principal: Principal) -> str:
        """Return a token that means nothing; clients that insist on the token flow get one."""
        return secrets.token_urlsafe(16)


class UserAuthenticator:
    """A node with users, and with grants for anonymous callers where configured."""

    def __init__(
        self, users: Sequence[User], anonymous: Sequence[Grant], peers: PeerAuthenticator, clock: Clock
    ) -> None:
        self._users = {user.name: user for user in users}
        self._anonymous = Principal("anonymous", PrincipalKind.ANONYMOUS, tuple(anonymous))
        self._peers = peers
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._stranger = User("", _digest(secrets.token_hex()))
        self._known: BoundedMap[str, Principal] = BoundedMap(_REMEMBERED)

    def authenticate(self, header: str | None) -> Principal:
        """Return the caller; raises Unauthenticated for a wrong password or a token that is not valid."""
        if header is None:
            return self._anonymous
        known = self._known.peek(header)
        if known is not None:
            return known
        if len(header) > _MAX_HEADER:
            raise Unauthenticated("the credentials are not valid")
        scheme, credentials = _split(header)
        if scheme == "basic":
            return self._remember(header, self._by_password(credentials))
        if scheme == "bearer":
            return self._by_token(credentials)
        raise Unauthenticated("expected Basic or Bearer credentials")

    def _remember(self, header: str, principal: Principal) -> Principal:
        self._known.put(header, principal)
        return principal

    def _by_password(self, credentials: str) -> Principal:
        try:
            name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError as error:  # not Base64, not ASCII, or not UTF-8 below it
            raise Unauthenticated("the credentials are not valid") from error
        user = self._users.get(name, self._stranger)
        matches = hmac.compare_digest(user.password_digest, _digest(password))
        if not matches or user is self._stranger:
            raise Unauthenticated("the user name or password is wrong")
        return _principal(user)

    def _by_token(self, token: str) -> Principal:
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated("the token is not valid here")
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["HS256"],
                options={"require": ["sub", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except UNREADABLE_TOKEN:
            return self._peers.authenticate(token)
        if float(claims["exp"]) < self._clock.now():
            raise Unauthenticated("the authorization token has expired")
        name = str(claims["sub"])
        if not name:
            return self._anonymous
        user = self._users.get(name)
        if user is None:
            raise Unauthenticated("the token is not valid here")
        return _principal(user)

    def challenge(self, base_url: str) -> str | None:
        """Return a Bearer challenge where anonymous callers may do something, a Basic one otherwise."""
        if self._anonymous.grants:
            return f'Bearer realm="{base_url}/v2/token",service="replicator"'
        return f'Basic realm="{base_url}/",service="replicator"'

    def issue_token(self, principal: Principal) -> str:
        """Return a bearer token for 12 hours; it carries who the caller is, not what it may do."""
        name = principal.name if principal.kind is PrincipalKind.USER else ""
        claims = {"sub": name, "exp": int(self._clock.now()) + TOKEN_LIFETIME}
        return jwt.encode(claims, self._key, algorithm="HS256")


def _principal(user: User) -> Principal:
    return Principal(user.name, PrincipalKind.USER, user.grants)


def _split(header: str | None) -> tuple[str, str]:
    scheme, _, credentials = (header or "").partition(" ")
    return scheme.lower(), credentials.strip()


def _digest(password: str) -> bytes:
    return hashlib.sha256(password.encode()).digest()
