"""The replication rules that can be put while a registry runs, besides those of the configuration file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from replicator.core.destinations import parse_destination
from replicator.core.replication_configuration import RegistryRule, check_rules
from replicator.registry.run_time_documents import read_document
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from replicator.core.destinations import DestinationId
    from replicator.core.replication import ReplicationRule
    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

_log = get_logger(__name__)

RULES = "replication-rules"


@dataclass(frozen=True, slots=True)
class NamedRules:
    """Rules by their generated names `api-1`, `api-2`…; `next_number` was never given, so that no name comes twice."""

    rules: tuple[tuple[str, RegistryRule], ...] = ()
    next_number: int = 1

    def replaced_by(self, rules: Sequence[RegistryRule], taken: Collection[str]) -> NamedRules:
        """Return other rules; one that was here keeps its name, unless it is taken."""
        names: dict[RegistryRule, list[str]] = {}
        for name, rule in self.rules:
            names.setdefault(rule, []).append(name)
        number = self.next_number
        named = []
        for rule in rules:
            known = names.get(rule)
            name = known.pop(0) if known else ""
            while not name or name in taken:
                name, number = f"api-{number}", number + 1
            named.append((name, rule))
        return NamedRules(tuple(named), number)


@dataclass(frozen=True, slots=True)
class ReplicationConfiguration:
    """The rules in force: those set at run time, under their generated names, and those of the file."""

    rules: tuple[ReplicationRule, ...]
    declared: tuple[ReplicationRule, ...]


class RunTimeReplication:
    """The replication configuration of one node. `known` are the destinations that can be reached.

    With `accepts_unknown`, rules may name others too: what goes there fails until the configuration file knows them.
    """

    def __init__(
        self, documents: RunTimeDocuments, known: Collection[DestinationId], *, accepts_unknown: bool = False
    ) -> None:
        self._documents = documents
        self._known = frozenset(known)
        self._accepts_unknown = accepts_unknown
        documents.add(RULES, self._in_force)

    def get(self) -> ReplicationConfiguration:
        """Return the rules in force."""
        declared = self._documents.declared.replication_rules
        rules = tuple(one for one in self._documents.node.settings.replication_rules if one not in declared)
        return ReplicationConfiguration(rules, declared)

    async def put(self, rules: Sequence[RegistryRule]) -> ReplicationConfiguration:
        """Replace the rules set at run time; none turns them off, and jobs that are queued still finish.

        Only pushes from now on go by new rules; backfills bring what is there. A rule that was there keeps its name.
        Raises InvalidInput, StorageError, and DeclaredInFile for a rule that the file has for the same filters and
        destination, and where only the file's rules are left to turn off.
        """
        settings = self._documents.declared
        declared = settings.replication_rules
        # Who changes one rule puts all of them, as they were told.
        rules = [rule for rule in rules if not any(rule.equals(one) for one in declared)]
        known = None if self._accepts_unknown else self._known
        check_rules(rules, settings.node, known, declared, settings.quotas)
        for rule in rules:
            self._refuse_repetition(rule)
        names = {rule.name for rule in declared}

        def edit(content: str | None) -> str:
            before = read_rules(content)
            if not (rules or before.rules) and declared:
                raise self._documents.refusal(f"replication rule {declared[0].name}")
            return write_rules(before.replaced_by(rules, names))

        await self._documents.change(RULES, edit)
        return self.get()

    def _refuse_repetition(self, rule: RegistryRule) -> None:
        for declared in self._documents.declared.replication_rules:
            if rule.repeats(declared):
                raise self._documents.refusal(f"replication rule {declared.name}")

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        return replace(settings, replication_rules=(*settings.replication_rules, *self._stored(content)))

    def _stored(self, content: str | None) -> list[ReplicationRule]:
        named = read_rules(content)
        # The file may have a rule of such a name since.
        taken = {rule.name for rule in self._documents.declared.replication_rules}
        named = named.replaced_by([rule for _, rule in named.rules], taken)
        for name, rule in named.rules:
            for destination in set(rule.destinations) - self._known:
                node = str(self._documents.declared.node)
                _log.warning("destination of a rule is unknown", node=node, rule=name, destination=str(destination))
        return [rule.to_rule(name) for name, rule in named.rules]


def write_rules(named: NamedRules) -> str:
    """Return rules as JSON."""
    rules = [
        {
            "name": name,
            "destinations": [str(destination) for destination in rule.destinations],
            "filters": list(rule.filters),
            "delete_replication": rule.delete_replication,
        }
        for name, rule in named.rules
    ]
    return json.dumps({"rules": rules, "next_number": named.next_number})


def read_rules(text: str | None) -> NamedRules:
    """Return what `write_rules` wrote, or no rules for None; raises StorageVersion."""
    return NamedRules() if text is None else read_document(RULES, text, _rules)


def _rules(document: dict[str, Any]) -> NamedRules:
    rules = tuple(
        (
            str(one["name"]),
            RegistryRule(
                tuple(parse_destination(text) for text in one["destinations"]),
                tuple(one["filters"]),
                one["delete_replication"] is True,
            ),
        )
        for one in document["rules"]
    )
    return NamedRules(rules, int(document["next_number"]))
