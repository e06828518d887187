"""Who may use a node: users with passwords, and what callers without one may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from replicator.config.base import Model, Name, RepositoryPattern
from replicator.config.secrets import SecretRef
from replicator.config.units import shown
from replicator.core.rights import Grant, Right

if TYPE_CHECKING:
    from collections.abc import Sequence

_NAMES = [right.value for right in Right]


def _right(value: object) -> Right:
    if value not in _NAMES:
        raise ValueError(f"expected one of {', '.join(_NAMES)}, got {shown(value)}")
    return Right(value)


UserAction = Annotated[Right, BeforeValidator(_right), WithJsonSchema({"type": "string", "enum": _NAMES})]
"""What a user can be granted; only nodes replicate."""


class GrantSettings(Model):
    """Actions on the repositories whose names match a pattern."""

    actions: Annotated[tuple[UserAction, ...], Field(min_length=1)]
    """What is allowed: `pull`, `push`, `delete`."""
    repositories: Annotated[tuple[RepositoryPattern, ...], Field(min_length=1)] = ("*",)
    """Where it is allowed: repository names, in which `*` stands for any characters."""

    def to_grant(self) -> Grant:
        """Return the core's value."""
        return Grant(frozenset(self.actions), self.repositories)


class UserSettings(Model):
    """A caller with a name and a password."""

    name: Name
    """The user's name, unique within the node."""
    password: SecretRef
    """The user's password: `{env: NAME}` or `{file: path}`."""
    grants: Annotated[tuple[GrantSettings, ...], Field(min_length=1)]
    """What the user may do."""

    def to_grants(self) -> tuple[Grant, ...]:
        """Return the core's values."""
        return to_grants(self.grants)


class AuthSettings(Model):
    """Who may use a node. A node without this section accepts every caller."""

    anonymous: tuple[GrantSettings, ...] = ()
    """What a caller without credentials may do; nothing, if absent."""
    users: tuple[UserSettings, ...] = ()
    """Callers with a name and a password."""

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if not self.users and not self.anonymous:
            raise ValueError("expected at least one user or anonymous grant; leave auth out to accept every caller")
        return self

    def anonymous_grants(self) -> tuple[Grant, ...]:
        """Return what a caller without credentials may do."""
        return to_grants(self.anonymous)


def to_grants(settings: Sequence[GrantSettings]) -> tuple[Grant, ...]:
    """Return the core's values."""
    return tuple(one.to_grant() for one in settings)
