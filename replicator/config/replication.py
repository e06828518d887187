"""Where a node sends its images, and from whom it accepts some: ECR's replication rules with ECR's limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from replicator.config.base import Account, Model, Name, NodeRef, RepositoryPattern
from replicator.core.replication import ReplicationRule

MAX_RULES = 10
MAX_DESTINATIONS = 25
MAX_FILTERS = 100

PrefixFilter = Annotated[str, Field(min_length=2, max_length=256, pattern=r"^[a-z0-9._-][a-z0-9._/-]*$")]


class AcceptSettings(Model):
    """Another account whose nodes may replicate into this registry."""

    account: Account
    """The account: 12 digits."""
    repositories: Annotated[tuple[RepositoryPattern, ...], Field(min_length=1)] = ("*",)
    """Where its images may go: repository names, in which `*` stands for any characters."""


class ReplicationRuleSettings(Model):
    """Images of repositories that start with one of the filters go to the destinations."""

    name: Name
    """Name of the rule in logs, metrics and the replication status; unique within the node."""
    destinations: Annotated[tuple[NodeRef, ...], Field(min_length=1, max_length=MAX_DESTINATIONS)]
    """The nodes that get the images: nodes or peers of this file, at most 25 different ones over all rules."""
    filters: Annotated[tuple[PrefixFilter, ...], Field(max_length=MAX_FILTERS)] = ()
    """Prefixes of repository names, taken literally (no slash is implied); every repository, if absent."""

    def to_rule(self) -> ReplicationRule:
        """Return the core's value."""
        return ReplicationRule(self.name, tuple(one.id for one in self.destinations), self.filters)


class ReplicationSettings(Model):
    """What a node sends to other nodes and accepts from them."""

    accept_from: tuple[AcceptSettings, ...] = ()
    """Other accounts whose nodes may replicate into this registry; nodes of the own account always may."""
    rules: Annotated[tuple[ReplicationRuleSettings, ...], Field(max_length=MAX_RULES)] = ()
    """What goes where; at most 10 rules. A replica is never replicated again."""
