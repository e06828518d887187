"""Whom this process knows: the principals of AWS accounts, found by the access keys with which they sign.

The directory is replaced as a whole, never edited: a request sees either what was configured before or what is
configured now, and a key that is gone is gone for signatures and for the tokens that were made with it. Everything that
remembers a caller remembers the directory's `version` with it, so that nothing outlives a replacement.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.principal import Principal, PrincipalKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from replicator.core.names import AccountId
    from replicator.core.policy import Policy

_NO_TAGS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Identity:
    """A principal: its ARN, the account it belongs to, what its own policies say, and its tags."""

    arn: str
    account: AccountId
    policies: tuple[Policy, ...] = ()
    tags: Mapping[str, str] = field(default_factory=lambda: _NO_TAGS)


@dataclass(frozen=True, slots=True)
class AccessKey:
    """What an identity signs with. A key with a session token is valid only together with it."""

    id: str
    identity: Identity
    secret: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    def derived(self, purpose: bytes) -> bytes:
        """Return a key for one purpose: whoever has it cannot sign requests, and it dies with this access key."""
        session = b"" if self.session_token is None else hashlib.sha256(self.session_token.encode()).digest()
        return hmac.digest(self.secret.encode(), purpose + session, "sha256")


def principal_of(identity: Identity) -> Principal:
    """Return the caller that an identity is."""
    return Principal(
        identity.arn,
        PrincipalKind.USER,
        identity.policies,
        arn=identity.arn,
        account=identity.account,
        tags=identity.tags,
    )


class IdentityDirectory:
    """The access keys that are valid now."""

    def __init__(self, keys: Iterable[AccessKey] = ()) -> None:
        self._keys = {key.id: key for key in keys}
        self.version = 0
        """Changes with every replacement."""

    def find_key(self, access_key_id: str) -> AccessKey | None:
        """Return a key; None when nobody has it, or nobody has it any more."""
        return self._keys.get(access_key_id)

    def find_principal(self, arn: str) -> Principal | None:
        """Return the caller of an ARN that has a key; None when nobody has."""
        found = next((key.identity for key in self._keys.values() if key.identity.arn == arn), None)
        return None if found is None else principal_of(found)

    def is_made_of(self, keys: Iterable[AccessKey]) -> bool:
        """Tell whether to replace the keys by these would change nothing."""
        return {key.id: _content(key) for key in keys} == {name: _content(key) for name, key in self._keys.items()}

    def replace(self, keys: Iterable[AccessKey]) -> None:
        """Know these keys from now on, and no others."""
        self._keys = {key.id: key for key in keys}
        self.version += 1

    def __len__(self) -> int:
        return len(self._keys)


def _content(key: AccessKey) -> tuple[object, ...]:
    # Policies are compared by what they say: in memory, each is equal to itself only.
    identity = key.identity
    statements = [policy.statements for policy in identity.policies]
    return key.secret, key.session_token, identity.arn, dict(identity.tags), statements
