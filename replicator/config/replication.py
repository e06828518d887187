"""Where a node sends its images, and from whom it accepts some: ECR's replication rules with ECR's limits.

Keys that ECR does not have say so: they are extensions.
"""

from __future__ import annotations

import enum
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from replicator.config.base import (
    REPOSITORY_PART,
    REPOSITORY_START,
    Account,
    Count,
    Flag,
    Model,
    Name,
    NodeRef,
    PlatformText,
    Rate,
    RegionName,
    RegistryName,
    RepositoryPattern,
    TagPattern,
)
from replicator.config.units import DURATION_OR_OFF_SCHEMA, OFF, Duration, Size, positive_duration
from replicator.core.destinations import DestinationId, RegistryRef
from replicator.core.names import NodeId
from replicator.core.quotas import DEFAULT_QUOTAS
from replicator.core.registry_policy import Permission, PolicyStatement
from replicator.core.replication import (
    DEFAULT_LAG_TARGET,
    DEFAULT_PRIORITY,
    Rename,
    ReplicationRule,
)

_LEAST_URGENT = 9
_MAX_RULES = DEFAULT_QUOTAS.replication_rules
_MAX_DESTINATIONS = DEFAULT_QUOTAS.replication_destinations
_MAX_FILTERS = DEFAULT_QUOTAS.replication_filters

PrefixFilter = Annotated[str, Field(min_length=2, max_length=256, pattern=REPOSITORY_START)]
NamePart = Annotated[str, Field(max_length=256, pattern=REPOSITORY_PART)]


class TargetSettings(Model):
    """A destination: a node, or any registry (extension)."""

    account: Account | None = None
    """Account of the node: 12 digits."""
    region: RegionName | None = None
    """Region of the node."""
    registry: RegistryName | None = None
    """Name of a registry under `registries`, instead of a node (extension)."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        whole = self.account is not None and self.region is not None
        part = self.account is not None or self.region is not None
        if part != whole or whole == (self.registry is not None):
            raise ValueError("expected account and region of a node, or registry")
        return self

    @property
    def id(self) -> DestinationId:
        """The destination's name."""
        if self.registry is not None:
            return RegistryRef(self.registry)
        assert self.account is not None  # noqa: S101 - the model has one of the two
        assert self.region is not None  # noqa: S101 - with the account
        return NodeId(self.account, self.region)


class AcceptSettings(Model):
    """Another account whose nodes may replicate into this registry: ECR's registry policy."""

    account: Account
    """The account: 12 digits."""
    repositories: Annotated[tuple[RepositoryPattern, ...], Field(min_length=1)] = ("*",)
    """Where its images may go: repository names, in which `*` stands for any characters."""
    actions: Annotated[tuple[Permission, ...], Field(min_length=1)] = tuple(Permission)
    """What it may do there; without `ecr:CreateRepository`, only into repositories that exist."""

    def to_statement(self) -> PolicyStatement:
        """Return the core's value."""
        return PolicyStatement(self.account, frozenset(self.actions), self.repositories)


class RenameSettings(Model):
    """Repositories whose names start with `prefix` have another name at the destinations (extension)."""

    prefix: NamePart = ""
    """Start of the names, taken literally; every name, if absent."""
    to: NamePart = ""
    """What stands there instead; nothing, if absent."""

    @model_validator(mode="after")
    def _renames(self) -> Self:
        if self.prefix == self.to:
            raise ValueError("expected a prefix and to that differ")
        return self

    def to_rename(self) -> Rename:
        """Return the core's value."""
        return Rename(self.prefix, self.to)


class ReplicationRuleSettings(Model):
    """Images of the repositories that the rule covers go to the destinations."""

    name: Name
    """Name of the rule in logs, metrics and the replication status; unique within the node."""
    destinations: Annotated[tuple[TargetSettings, ...], Field(min_length=1, max_length=_MAX_DESTINATIONS)]
    """Who gets the images: nodes, peers or registries of this file, at most 25 different ones over all rules."""
    filters: Annotated[tuple[PrefixFilter, ...], Field(max_length=_MAX_FILTERS)] = ()
    """Prefixes of repository names, taken literally (no slash is implied); with `repositories`, what either covers."""
    repositories: Annotated[tuple[RepositoryPattern, ...], Field(max_length=_MAX_FILTERS)] = ()
    """Repository names, `*` standing for any characters; every repository, if both are absent or empty (extension)."""
    exclude_repositories: Annotated[tuple[RepositoryPattern, ...], Field(max_length=_MAX_FILTERS)] = ()
    """Repository names that the rule does not cover, `*` standing for any characters (extension)."""
    tags: Annotated[tuple[TagPattern, ...], Field(max_length=_MAX_FILTERS)] = ()
    """Tags that go, `*` standing for any characters; every tag and untagged images, if absent (extension)."""
    exclude_tags: Annotated[tuple[TagPattern, ...], Field(max_length=_MAX_FILTERS)] = ()
    """Tags that do not go, `*` standing for any characters (extension)."""
    rename: Annotated[tuple[RenameSettings, ...], Field(max_length=_MAX_FILTERS)] = ()
    """Other names at the destinations: the first whose prefix fits counts; the same name, if none does (extension)."""
    platforms: tuple[PlatformText, ...] = ()
    """Platforms copied of an index, `os/architecture[/variant]`; untagged images go only as its part (extension)."""
    chain: Flag = False
    """Whether images that came here by replication go on by this rule (extension)."""
    delete_replication: Flag = False
    """Whether deletions of images and tags are replicated; only what came by replication is deleted there."""
    priority: Annotated[Count, Field(le=_LEAST_URGENT)] = DEFAULT_PRIORITY
    """Which rule's images go first: 1 before 9 (extension)."""
    lag_objective: Duration | None = None
    """How long an image may take from push to pullable at the destination; measured, never enforced (extension)."""
    lag_objective_target: Annotated[Rate, Field(lt=100)] | None = None
    """Percent of the images that are to keep `lag_objective`; 99, if absent (extension)."""

    @model_validator(mode="after")
    def _target_needs_objective(self) -> Self:
        if self.lag_objective_target is not None and self.lag_objective is None:
            raise ValueError("lag_objective_target has no effect without lag_objective")
        return self

    def to_rule(self) -> ReplicationRule:
        """Return the core's value."""
        return ReplicationRule(
            self.name,
            tuple(one.id for one in self.destinations),
            filters=self.filters,
            repositories=self.repositories,
            excluded_repositories=self.exclude_repositories,
            tags=self.tags,
            excluded_tags=self.exclude_tags,
            rename=tuple(one.to_rename() for one in self.rename),
            platforms=self.platforms,
            chain=self.chain,
            delete_replication=self.delete_replication,
            priority=self.priority,
            lag_objective=self.lag_objective,
            lag_target=DEFAULT_LAG_TARGET if self.lag_objective_target is None else self.lag_objective_target / 100,
        )


class DestinationLimitSettings(TargetSettings):
    """The share of one destination in this node's work and bandwidth (extension)."""

    bandwidth: Size | None = None
    """Most bytes per second that are sent there; for a registry, its own `bandwidth`, if absent."""
    requests_per_second: Rate | None = None
    """Most requests per second; for a registry, its own `requests_per_second`, if absent."""
    images: Count | None = None
    """Pushed images that are sent there at the same time; 4, if absent."""
    blobs: Count | None = None
    """Blobs that are sent there at the same time; 8, if absent."""


class ReadThroughSourceSettings(NodeRef):
    """A peer whose rules send images to this node."""

    repositories: Annotated[tuple[RepositoryPattern, ...], Field(min_length=1)] = ("*",)
    """Repositories of this node that it may be asked for, `*` standing for any characters."""


class ReadThroughSettings(Model):
    """Images that a rule of another node will bring are fetched when they are asked for (extension)."""

    enabled: Flag = True
    """Whether images that are still on their way are fetched from their source when they are asked for."""
    sources: tuple[ReadThroughSourceSettings, ...] = ()
    """Peers to ask; nodes of this file whose rules send here are asked without being named."""


def _interval(value: object) -> float | None:
    return None if value == OFF else positive_duration(value)


class AntiEntropySettings(Model):
    """The comparison that finds and repairs what destinations lack in spite of everything (extension)."""

    every: Annotated[float | None, BeforeValidator(_interval), WithJsonSchema(DURATION_OR_OFF_SCHEMA)] = 900.0
    """How often this node compares itself with each destination; `off`: only when an operator asks for it."""


class UnknownDestinations(enum.StrEnum):
    """What becomes of a rule that leads where this file knows nobody."""

    REFUSE = "refuse"
    ACCEPT = "accept"


class ReplicationSettings(Model):
    """What a node sends to other nodes and accepts from them."""

    accept_from: tuple[AcceptSettings, ...] = ()
    """Other accounts whose nodes may replicate into this registry; nodes of the own account always may."""
    rules: Annotated[tuple[ReplicationRuleSettings, ...], Field(json_schema_extra={"maxItems": _MAX_RULES})] = ()
    """What goes where; at most 10 rules. A replica is replicated again only by a rule with `chain`."""
    limits: tuple[DestinationLimitSettings, ...] = ()
    """Shares of single destinations; without one, a destination takes what the others leave (extension)."""
    read_through: ReadThroughSettings = ReadThroughSettings()
    """Images on their way here that are fetched when they are asked for (extension)."""
    anti_entropy: AntiEntropySettings = AntiEntropySettings()
    """The periodic comparison with the destinations (extension)."""
    unknown_destinations: UnknownDestinations = UnknownDestinations.REFUSE
    """Whether rules put by the API may name what this file does not: `accept` lets such images fail (extension)."""

    @field_validator("rules")
    @classmethod
    def _at_most(cls, rules: tuple[ReplicationRuleSettings, ...]) -> tuple[ReplicationRuleSettings, ...]:
        if len(rules) > _MAX_RULES:
            raise ValueError(
                f"expected at most {_MAX_RULES} rules, got {len(rules)}: {rules[_MAX_RULES].name} is too many"
            )
        return rules

    def limit(self, destination: DestinationId) -> DestinationLimitSettings | None:
        """Return the share of a destination, if it has one."""
        return next((one for one in self.limits if one.id == destination), None)
