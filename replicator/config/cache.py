"""Pull-through cache rules with ECR's grammar and limits."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from replicator.config.base import Model, Name, checked
from replicator.config.units import Duration
from replicator.core.cache_rules import DEFAULT_FRESH_FOR, ROOT, CacheRule
from replicator.core.errors import InvalidName
from replicator.core.names import parse_repository

MAX_RULES = 50
_MIN_PREFIX = 2
_MAX_PREFIX = 30


def _parse_prefix(text: str) -> str:
    if text != ROOT and not _MIN_PREFIX <= len(text) <= _MAX_PREFIX:
        raise InvalidName(f"expected ROOT or a prefix of 2 to 30 characters, got {text[:40]!r}")
    return parse_prefix(text)


def parse_prefix(text: str) -> str:
    """Return path components that repository names start with, or `ROOT`; raise InvalidName for anything else."""
    return text if text == ROOT else parse_repository(text)


class CacheRuleSettings(Model):
    """Repositories under a prefix come from an upstream on first use."""

    prefix: Annotated[
        str,
        BeforeValidator(checked(_parse_prefix)),
        WithJsonSchema(
            {"type": "string", "minLength": _MIN_PREFIX, "maxLength": _MAX_PREFIX, "examples": ["docker-hub"]}
        ),
    ]
    """First path components of the repositories it covers, or `ROOT` for those no other rule covers; unique."""
    upstream: Name
    """Name of the upstream that answers."""
    upstream_prefix: Annotated[str, BeforeValidator(checked(parse_prefix)), WithJsonSchema({"type": "string"})] = ROOT
    """What stands for the prefix in the upstream's repository names; `ROOT`: nothing."""
    fresh_for: Duration = DEFAULT_FRESH_FOR
    """How long a tag is served without asking the upstream again."""

    @model_validator(mode="after")
    def _root_maps_to_root(self) -> Self:
        if self.prefix == ROOT and self.upstream_prefix != ROOT:
            raise ValueError("expected upstream_prefix ROOT where prefix is ROOT")
        return self

    def to_rule(self) -> CacheRule:
        """Return the core's value."""
        return CacheRule(self.prefix, self.upstream, self.upstream_prefix, self.fresh_for)


class CacheSettings(Model):
    """What a node fetches from other registries."""

    rules: Annotated[tuple[CacheRuleSettings, ...], Field(max_length=MAX_RULES)] = ()
    """The pull-through cache rules; at most 50. The longest prefix wins, `ROOT` comes last."""
