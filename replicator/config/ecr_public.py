"""The public registry of a node's account: what ECR Public serves."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from replicator.config.base import BaseUrl, Flag, Model, Rate, checked
from replicator.core.public_registry import PublicRegistry, parse_alias

Alias = Annotated[
    str,
    BeforeValidator(checked(parse_alias)),
    WithJsonSchema({"type": "string", "minLength": 2, "maxLength": 50, "examples": ["my-team"]}),
]


class PublicRegistrySettings(Model):
    """Repositories from which everybody may pull; they are made through the API of ECR Public only."""

    enabled: Flag = True
    """Whether ECR Public is served."""
    alias: Alias | None = None
    """First path component of public repositories; a random one is kept from the first on, if absent."""
    public_url: BaseUrl | None = None
    """Address of public repositories, if not the node's; Docker needs one of its own to pull without a name."""
    anonymous_pulls_per_second: Rate | None = None
    """Most images per second that one address may pull without a name; Amazon allows 1. Unlimited, if absent."""
    authenticated_pulls_per_second: Rate | None = None
    """Most images per second that one caller may pull who has logged in; Amazon allows 10. Unlimited, if absent."""

    def to_registry(self) -> PublicRegistry:
        """Return the core's value."""
        return PublicRegistry(
            alias=self.alias or "",
            is_default=self.alias is None,
            is_enabled=self.enabled,
            url=self.public_url,
            anonymous_pulls=self.anonymous_pulls_per_second,
            named_pulls=self.authenticated_pulls_per_second,
        )
