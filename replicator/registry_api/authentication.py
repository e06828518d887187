"""Who is calling: a user, a principal with an authorization token, a peer, or nobody.

Clients log in with Basic. Where anonymous callers are granted something too, clients are sent to the token endpoint
instead, because most of them give up on a Basic challenge they have no password for, and never send one they were not
challenged for. Passwords are compared in constant time, and an unknown user costs what a wrong password costs.
"""

from __future__ import annotations

import base64
import hmac
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import jwt

from replicator.core.bounded import BoundedMap
from replicator.core.errors import Unauthenticated
from replicator.core.principal import UNRESTRICTED, Principal, PrincipalKind, node_principal
from replicator.registry.identities import principal_of
from replicator.registry.peer_tokens import MAX_TOKEN_LENGTH, UNREADABLE_TOKEN, PeerTokens
from replicator.registry_api.users import User, UserDirectory, digest_of_secret, principal_of_user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.clock import Clock
    from replicator.core.rights import Grant
    from replicator.registry.authorization_tokens import AuthorizationTokens

TOKEN_LIFETIME = 12 * 3600
TOKEN_USER = "AWS"  # noqa: S105 - a user's name
"""Who logs in with an authorization token."""
_TRUST = 60.0
"""Seconds for which a caller is not looked at again."""
_REMEMBERED = 1024
_MAX_HEADER = 8192


class Authenticator(Protocol):
    """Turns an Authorization header into a principal, and says how to ask for one."""

    def authenticate(self, header: str | None) -> Principal:
        """Return the caller; raises Unauthenticated for credentials that are not valid."""
        ...

    def challenge(self, base_url: str) -> str | None:
        """Return the WWW-Authenticate value for a node reached at `base_url`, if callers can authenticate at all."""
        ...

    def exchange(self, header: str | None) -> BearerToken:
        """Return a bearer token for the caller; raises Unauthenticated."""
        ...

    @property
    def answers_as_ecr(self) -> bool:
        """Whether callers without valid credentials get ECR's answer."""
        ...


@dataclass(frozen=True, slots=True)
class BearerToken:
    """What a client that wants a bearer token gets, and for how many seconds."""

    token: str = field(repr=False)
    expires_in: int


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

    def exchange(self, header: str | None) -> BearerToken:
        """Return a token that means nothing; clients that insist on the token flow get one."""
        return BearerToken(secrets.token_urlsafe(16), TOKEN_LIFETIME)

    @property
    def answers_as_ecr(self) -> bool:
        """False: nobody needs to authenticate."""
        return False


class UserAuthenticator:
    """A node with users, or with identities whose authorization tokens it takes, or both.

    Anonymous callers may do something where that is configured. Whoever was recognised is remembered for a minute at
    most, and not at all once the identities or the users were replaced.
    """

    def __init__(
        self,
        users: Sequence[User],
        anonymous: Sequence[Grant],
        peers: PeerAuthenticator,
        clock: Clock,
        authorizations: AuthorizationTokens | None = None,
    ) -> None:
        self.users = UserDirectory(users, anonymous)
        self._peers = peers
        self._clock = clock
        self._authorizations = authorizations
        self._key = secrets.token_bytes(32)
        self._stranger = User("", digest_of_secret(secrets.token_hex()))
        self._known: BoundedMap[bytes, _Known] = BoundedMap(_REMEMBERED)

    @property
    def answers_as_ecr(self) -> bool:
        """Whether callers without valid credentials get ECR's answer."""
        return self._authorizations is not None

    def authenticate(self, header: str | None) -> Principal:
        """Return the caller; raises Unauthenticated, and AuthorizationExpired for a token that was valid once."""
        return self._recognise(header).principal

    def exchange(self, header: str | None) -> BearerToken:
        """Return a token that carries who the caller is, not what it may do, and ends when its credentials do."""
        known = self._recognise(header)
        scheme, credentials = _split(header)
        now = self._clock.now()
        if known.token is not None:
            return BearerToken(known.token, int(known.expires_at - now))
        if scheme == "bearer":
            return BearerToken(credentials, int(known.expires_at - now))
        user = self.users.find(known.principal.name) if known.principal.kind is PrincipalKind.USER else None
        claims: dict[str, object] = {"sub": "", "exp": int(now) + TOKEN_LIFETIME}
        if user is not None:
            claims |= {"sub": user.name, "pwd": self._mark(user)}
        return BearerToken(jwt.encode(claims, self._key, algorithm="HS256"), TOKEN_LIFETIME)

    def _recognise(self, header: str | None) -> _Known:
        if header is None:
            return _Known(self.users.anonymous, self._clock.now() + TOKEN_LIFETIME)
        if len(header) > _MAX_HEADER:
            raise Unauthenticated("the credentials are not valid")
        remembered_as = digest_of_secret(header)
        known = self._known.peek(remembered_as)
        if known is not None and self._still_holds(known):
            return known
        scheme, credentials = _split(header)
        if scheme == "basic":
            known = self._by_password(credentials)
        elif scheme == "bearer":
            known = self._by_token(credentials)
        else:
            raise Unauthenticated("expected Basic or Bearer credentials")
        self._known.put(remembered_as, known)
        return known

    def _still_holds(self, known: _Known) -> bool:
        return known.version == self._version and self._clock.now() < min(
            known.recognised_at + _TRUST, known.expires_at
        )

    @property
    def _version(self) -> int:
        # Neither ever goes down: the sum changes with each of them.
        return self.users.version + (0 if self._authorizations is None else self._authorizations.version)

    def _mark(self, user: User) -> str:
        """Return what a token says of the password that it was given for: it dies with it."""
        return hmac.new(self._key, b"password " + user.password_digest, "sha256").hexdigest()

    def _by_password(self, credentials: str) -> _Known:
        try:
            name, separator, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except ValueError as error:  # not Base64, not ASCII, or not UTF-8 below it
            raise Unauthenticated("the credentials are not valid") from error
        now = self._clock.now()
        if separator and not name and not password:  # how some clients say that they have none
            return self._found(self.users.anonymous, now + TOKEN_LIFETIME)
        if self._authorizations is not None and name == TOKEN_USER:
            return self._by_authorization(self._authorizations, password)
        user = self.users.find(name) or self._stranger
        matches = hmac.compare_digest(user.password_digest, digest_of_secret(password))
        if not matches or user is self._stranger:
            raise Unauthenticated("the user name or password is wrong")
        return self._found(principal_of_user(user), now + TOKEN_LIFETIME)

    def _by_token(self, token: str) -> _Known:
        if self._authorizations is not None:
            token = _without_user(token)
            if self._authorizations.is_token(token):
                return self._by_authorization(self._authorizations, token)
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
            return self._found(self._peers.authenticate(token), self._clock.now())
        expires_at = float(claims["exp"])
        if expires_at < self._clock.now():
            raise Unauthenticated("the authorization token has expired")
        name = str(claims["sub"])
        if not name:
            return self._found(self.users.anonymous, expires_at)
        user = self.users.find(name)
        if user is None or not hmac.compare_digest(self._mark(user), str(claims.get("pwd"))):
            raise Unauthenticated("the token is not valid here")
        return self._found(principal_of_user(user), expires_at)

    def _by_authorization(self, authorizations: AuthorizationTokens, token: str) -> _Known:
        found = authorizations.verify(token, self._clock.now())
        return self._found(principal_of(found.identity), found.expires_at, token)

    def _found(self, principal: Principal, expires_at: float, token: str | None = None) -> _Known:
        return _Known(principal, expires_at, self._clock.now(), self._version, token)

    def challenge(self, base_url: str) -> str | None:
        """Return a Bearer challenge where anonymous callers may do something, a Basic one otherwise."""
        if self.users.anonymous.policies:
            return f'Bearer realm="{base_url}/v2/token",service="replicator"'
        if self.answers_as_ecr:
            # As ECR writes it (ECR §15.1), whatever the scheme: the realm of Basic is a name, and nobody asks there.
            return f'Basic realm="https://{base_url.partition("://")[2]}/",service="ecr.amazonaws.com"'
        return f'Basic realm="{base_url}/",service="replicator"'


@dataclass(frozen=True, slots=True)
class _Known:
    """A caller who was recognised, by identities of `version`; `token` is what they may go on with as a bearer."""

    principal: Principal
    expires_at: float
    recognised_at: float = 0.0
    version: int = 0
    token: str | None = field(default=None, repr=False)


def _without_user(token: str) -> str:
    """Return the token in an `authorizationToken` as the API gives it, which ECR Public takes as a bearer token too."""
    if "." in token:
        return token
    try:
        name, _, password = base64.b64decode(token, validate=True).decode().partition(":")
    except ValueError:
        return token
    return password if name == TOKEN_USER else token


def _split(header: str | None) -> tuple[str, str]:
    scheme, _, credentials = (header or "").partition(" ")
    return scheme.lower(), credentials.strip()
