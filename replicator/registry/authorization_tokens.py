"""Authorization tokens: what a principal gets for its signature, and logs in with for twelve hours.

A token is signed with a key derived from the access key it was asked with, so that it is valid on every node of its
region that knows the access key, survives restarts, and dies with the access key. It says who its principal is, never
what the principal may do: that is looked up whenever the token is shown. Algorithm, type and region are fixed here,
never read from the token (CVE-2022-29217), and its length is bounded before it is parsed. There is no `:` in it, which
clients take for the end of the user's name.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import jwt

from replicator.core import texts
from replicator.core.errors import AuthorizationExpired, Unauthenticated
from replicator.registry.peer_tokens import UNREADABLE_TOKEN

if TYPE_CHECKING:
    from replicator.core.names import Region
    from replicator.registry.identities import AccessKey, Identity, IdentityDirectory

LIFETIME = 12 * 3600
_SKEW = 15 * 60
"""Seconds by which the clock of the node that made a token may be ahead."""
MAX_TOKEN_LENGTH = 8192
_PURPOSE = b"replicator authorization token v1"
_MEANINGLESS = 96
"""Bytes of a token for a node that takes any."""
_STRANGER = bytes(32)
_ALGORITHM = "HS256"
_TYPE = "ecr"


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a valid token says: whose it is, and until when, in Unix seconds."""

    identity: Identity
    expires_at: float


class AuthorizationTokens:
    """Makes and checks the tokens of one region."""

    def __init__(self, directory: IdentityDirectory, region: Region) -> None:
        self._directory = directory
        self._region = region

    def issue(self, key: AccessKey | None, now: float) -> tuple[str, float]:
        """Return a token of the key's principal, and when it expires.

        Without a key, where nobody needs one, it is a token that means nothing.
        """
        expires_at = int(now) + LIFETIME
        if key is None:
            return secrets.token_urlsafe(_MEANINGLESS), float(expires_at)
        identity = key.identity
        claims = {"sub": identity.arn, "account": identity.account, "region": self._region, "exp": expires_at}
        headers = {"typ": _TYPE, "kid": key.id}
        return jwt.encode(claims, key.derived(_PURPOSE), algorithm=_ALGORITHM, headers=headers), float(expires_at)

    @property
    def version(self) -> int:
        """Changes when tokens that were valid may no longer be."""
        return self._directory.version

    @staticmethod
    def is_token(token: str) -> bool:
        """Tell whether this claims to be an authorization token, valid or not."""
        if len(token) > MAX_TOKEN_LENGTH:
            return False
        try:
            return bool(jwt.get_unverified_header(token).get("typ") == _TYPE)
        except UNREADABLE_TOKEN:
            return False

    def verify(self, token: str, now: float) -> Authorization:
        """Return whose token it is; raise Unauthenticated for what is none of this region, AuthorizationExpired."""
        key, expires_at = self._read(token, now)
        return Authorization(key.identity, expires_at)

    def _read(self, token: str, now: float) -> tuple[AccessKey, float]:
        try:
            key, claims = self._claims(token)
            expires_at = float(claims["exp"])
        except (*UNREADABLE_TOKEN, TypeError, OverflowError) as error:
            raise Unauthenticated("the authorization token is not valid here") from error
        bound_to = (claims["sub"], claims["account"], claims["region"])
        # Whoever has the access key can sign any claims, but not make a token that lasts longer than ours do.
        if bound_to != (key.identity.arn, key.identity.account, self._region) or expires_at > now + LIFETIME + _SKEW:
            raise Unauthenticated("the authorization token is not valid here")
        if not expires_at > now:  # what is no number has expired, too
            raise AuthorizationExpired(texts.AUTHORIZATION_EXPIRED)
        return key, expires_at

    def _claims(self, token: str) -> tuple[AccessKey, dict[str, Any]]:
        if len(token) > MAX_TOKEN_LENGTH:
            raise ValueError("too long")
        header = jwt.get_unverified_header(token)
        if header.get("typ") != _TYPE:
            raise ValueError("of another type")
        key = self._directory.find_key(str(header.get("kid")))
        secret = _STRANGER if key is None else key.derived(_PURPOSE)
        claims = jwt.decode(
            token,
            secret,
            algorithms=[_ALGORITHM],
            options={
                "require": ["sub", "account", "region", "exp"],
                "verify_exp": False,
                "verify_iat": False,
                "verify_aud": False,
            },
        )
        if key is None:  # asked for last: a key that nobody has costs what a wrong signature costs
            raise ValueError("of nobody")
        return key, claims
