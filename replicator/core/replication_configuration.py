"""ECR's replication configuration: the rules that can be put at run time, and what is wrong with them (ECR §9.1).

Such a rule has ECR's members and no others; the extensions are the configuration file's. Putting a configuration
replaces the whole of it, and an empty one turns it off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.errors import InvalidInput
from replicator.core.names import NodeId
from replicator.core.quotas import DEFAULT_QUOTAS
from replicator.core.replication import ReplicationRule

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from replicator.core.destinations import DestinationId
    from replicator.core.quotas import Quotas

_MIN_FILTER = 2
_MAX_FILTER = 256
_FILTER = re.compile(r"(?:[a-z0-9]+(?:[._-][a-z0-9]*)*/)*[a-z0-9]*(?:[._-][a-z0-9]*)*")


@dataclass(frozen=True, slots=True)
class RegistryRule:
    """Images of repositories whose names start with one of `filters`, or all if there are none, go to `destinations`.

    A rule without destinations is legal, and does nothing.
    """

    destinations: tuple[DestinationId, ...]
    filters: tuple[str, ...] = ()
    delete_replication: bool = False

    def to_rule(self, name: str) -> ReplicationRule:
        """Return the rule under a name."""
        return ReplicationRule(
            name, self.destinations, filters=self.filters, delete_replication=self.delete_replication
        )

    def repeats(self, rule: ReplicationRule) -> bool:
        """Tell whether a rule sends the same repositories to one of the same destinations, without any extension."""
        is_plain = rule == RegistryRule(rule.destinations, rule.filters, rule.delete_replication).to_rule(rule.name)
        same_filters = set(self.filters) == set(rule.filters)
        return is_plain and same_filters and not set(self.destinations).isdisjoint(rule.destinations)

    def equals(self, rule: ReplicationRule) -> bool:
        """Tell whether a rule looks like this one to ECR: what it has besides, ECR has no words for."""
        said = {one for one in rule.destinations if isinstance(one, NodeId)}
        same = set(self.filters) == set(rule.filters) and self.delete_replication == rule.delete_replication
        return same and set(self.destinations) == said


def check_rules(
    rules: Sequence[RegistryRule],
    source: NodeId,
    known: Collection[DestinationId] | None,
    others: Sequence[ReplicationRule] = (),
    quotas: Quotas = DEFAULT_QUOTAS,
) -> None:
    """Raise InvalidInput for a configuration of `source` that breaks a limit, or leads nowhere or back to itself.

    `known` are the destinations that can be reached, None where others may be named too; `others` are rules that hold
    besides and count towards the limits.
    """
    besides = f" and {len(others)} of the configuration file" if others else ""
    if len(rules) + len(others) > quotas.replication_rules:
        raise _invalid(f"expected at most {quotas.replication_rules} replication rules, got {len(rules)}{besides}")
    for number, rule in enumerate(rules, start=1):
        _check_destinations(f"replication rule {number}", rule.destinations, source, known)
        _check_filters(f"replication rule {number}", rule.filters, quotas.replication_filters)
    distinct = _destinations(rules) | _destinations(others)
    limit = quotas.replication_destinations
    if len(distinct) > limit:
        raise _invalid(f"expected at most {limit} different destinations over all rules, got {len(distinct)}")


def _destinations(rules: Iterable[RegistryRule | ReplicationRule]) -> set[DestinationId]:
    return {destination for rule in rules for destination in rule.destinations}


def _check_destinations(
    what: str, destinations: Sequence[DestinationId], source: NodeId, known: Collection[DestinationId] | None
) -> None:
    for i, destination in enumerate(destinations):
        if destination == source:
            raise _invalid(texts.REPLICATION_TO_ITSELF)
        if known is not None and destination not in known:
            raise _invalid(f"{what}: {destination} is not known here; expected a node, peer or registry of the file")
        if destination in destinations[:i]:
            raise _invalid(f"{what}: {destination} is named twice")


def _check_filters(what: str, filters: Sequence[str], most: int) -> None:
    if len(filters) > most:
        raise _invalid(f"{what}: expected at most {most} filters, got {len(filters)}")
    for text in filters:
        if not _MIN_FILTER <= len(text) <= _MAX_FILTER or _FILTER.fullmatch(text) is None:
            raise _invalid(
                f"{what}: expected a filter of {_MIN_FILTER} to {_MAX_FILTER} characters with which a repository name"
                f" can start, got {text[:80]!r}"
            )


def _invalid(text: str) -> InvalidInput:
    return InvalidInput(texts.constraint("replicationConfiguration", text))
