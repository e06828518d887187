"""How nodes prove who they are to each other: short-lived signed tokens, made for one destination.

A token names the node that made it and the one it is for, so that a token seen by one node is worth nothing at
another. It is signed with the secret of the two nodes where they have one, and of all nodes otherwise: whoever holds
the secret of one pair can speak for nobody else. The algorithm is fixed here, never read from the token
(CVE-2022-29217), and a token's length is bounded before it is parsed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import jwt

from replicator.core.errors import InvalidInput, Unauthenticated
from replicator.core.names import NodeId, parse_node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.core.clock import Clock

LIFETIME = 300.0
_LEEWAY = 60.0
_ALGORITHM = "HS256"
_TYPE = "replicator-peer"
MAX_TOKEN_LENGTH = 4096
_NO_SECRETS: Mapping[NodeId, bytes] = {}
UNREADABLE_TOKEN = (jwt.PyJWTError, ValueError, RecursionError)
"""What decoding a forged token may raise: PyJWT lets errors of text and JSON pass."""


class PeerTokens:
    """Makes and checks tokens of one node.

    A peer in `secrets` is spoken to, and believed, by that secret only; every other one by the shared `secret`.
    """

    def __init__(
        self, node: NodeId, secret: bytes, clock: Clock, secrets: Mapping[NodeId, bytes] = _NO_SECRETS
    ) -> None:
        self._node = node
        self._key = _key(secret)
        self._keys = {peer: _key(own) for peer, own in secrets.items()}
        self._clock = clock

    @staticmethod
    def is_peer_token(token: str) -> bool:
        """Tell whether a token claims to be a node's, valid or not."""
        if len(token) > MAX_TOKEN_LENGTH:
            return False
        try:
            return jwt.get_unverified_header(token).get("typ") == _TYPE
        except UNREADABLE_TOKEN:
            return False

    def issue(self, destination: NodeId) -> str:
        """Return a token with which this node may speak to `destination` for some minutes."""
        now = self._clock.now()
        claims = {"iss": str(self._node), "aud": str(destination), "iat": int(now), "exp": int(now + LIFETIME)}
        return jwt.encode(claims, self._key_of(destination), algorithm=_ALGORITHM, headers={"typ": _TYPE})

    def verify(self, token: str) -> NodeId:
        """Return the node that made a token for this node; raise Unauthenticated for any other token."""
        if len(token) > MAX_TOKEN_LENGTH:
            raise Unauthenticated("the token is not valid here")
        try:
            claims = jwt.decode(
                token,
                self._key_of(_claimed_issuer(token)),
                algorithms=[_ALGORITHM],
                audience=str(self._node),
                options={
                    "require": ["iss", "aud", "exp"],
                    "strict_aud": True,
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            source, expires = parse_node(str(claims["iss"])), float(claims["exp"])
        except (*UNREADABLE_TOKEN, InvalidInput, TypeError) as error:
            raise Unauthenticated("the token is not valid here") from error
        if source == self._node:
            raise Unauthenticated("the token claims to be this node's own")
        if not expires + _LEEWAY >= self._clock.now():  # what is no number has expired, too
            raise Unauthenticated("the token has expired")
        return source

    def _key_of(self, peer: NodeId) -> bytes:
        return self._keys.get(peer, self._key)


def _key(secret: bytes) -> bytes:
    # The secret is an operator's text of any length; the key is not.
    return hashlib.sha256(b"replicator peer token\0" + secret).digest()


def _claimed_issuer(token: str) -> NodeId:
    """Return whom a token says it is from: only good for choosing the key that must then prove it."""
    claims = jwt.decode(token, options={"verify_signature": False})
    return parse_node(str(claims.get("iss")))
