"""The users of a node: who has which password, and what was granted to whom.

Only digests of passwords are held. The directory is replaced as a whole, never edited.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.principal import Principal, PrincipalKind
from replicator.core.rights import Grant, policies_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class User:
    """Somebody with a password. Only its digest is held."""

    name: str
    password_digest: bytes = field(repr=False)
    grants: tuple[Grant, ...] = ()

    @classmethod
    def with_password(cls, name: str, password: str, grants: Sequence[Grant]) -> User:
        """Return the user with the digest of a password."""
        return cls(name, digest_of_secret(password), tuple(grants))


class UserDirectory:
    """The users of a node, and what callers without credentials may do: replaced as a whole, never edited."""

    def __init__(self, users: Sequence[User] = (), anonymous: Sequence[Grant] = ()) -> None:
        self._take(users, anonymous)
        self.version = 0
        """Changes with every replacement."""

    def find(self, name: str) -> User | None:
        """Return a user; None when nobody has this name, or nobody has it any more."""
        return self._users.get(name)

    def find_principal(self, name: str) -> Principal | None:
        """Return the caller that a user is; None when nobody has this name."""
        user = self._users.get(name)
        return None if user is None else principal_of_user(user)

    def replace(self, users: Sequence[User], anonymous: Sequence[Grant]) -> bool:
        """Know these users from now on, and no others; tell whether that changed anything."""
        before = self._users, self._grants
        self._take(users, anonymous)
        if before == (self._users, self._grants):
            return False
        self.version += 1
        return True

    def _take(self, users: Sequence[User], anonymous: Sequence[Grant]) -> None:
        self._users = {user.name: user for user in users}
        self._grants = tuple(anonymous)
        self.anonymous = Principal("anonymous", PrincipalKind.ANONYMOUS, policies_of(self._grants))


def principal_of_user(user: User) -> Principal:
    """Return the caller that a user is."""
    return Principal(user.name, PrincipalKind.USER, policies_of(user.grants))


def digest_of_secret(password: str) -> bytes:
    """Return by what a password, or a header that holds one, is known here."""
    # A header may hold bytes that are no text; it is refused later, like every other that nobody knows.
    return hashlib.sha256(password.encode(errors="surrogatepass")).digest()
