"""The JSON forms of what is set at run time: replication rules, the statements of a registry policy, templates.

Whatever cannot be read back was written by another version or damaged: a StorageError, never a setting left out.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from replicator.core.destinations import parse_destination
from replicator.core.errors import InvalidInput, StorageVersion
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import parse_account
from replicator.core.registry_policy import Permission, PolicyStatement
from replicator.core.replication_configuration import RegistryRule
from replicator.core.templates import CreationCause, CreationTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

T = TypeVar("T")

RULES = "replication-rules"
POLICY = "registry-policy"
TEMPLATES = "creation-templates"


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
    return NamedRules() if text is None else _read(RULES, text, _rules)


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


def write_statements(statements: Sequence[PolicyStatement]) -> str:
    """Return the statements of a policy as JSON."""
    found = [
        {"account": one.account, "permissions": sorted(one.permissions), "repositories": list(one.repositories)}
        for one in statements
    ]
    return json.dumps({"statements": found})


def read_statements(text: str | None) -> tuple[PolicyStatement, ...]:
    """Return what `write_statements` wrote, or nothing for None; raises StorageVersion."""
    return () if text is None else _read(POLICY, text, _statements)


def _statements(document: dict[str, Any]) -> tuple[PolicyStatement, ...]:
    return tuple(
        PolicyStatement(
            parse_account(one["account"]),
            frozenset(Permission(text) for text in one["permissions"]),
            tuple(one["repositories"]),
        )
        for one in document["statements"]
    )


def write_templates(templates: Sequence[CreationTemplate]) -> str:
    """Return templates as JSON."""
    found = [
        {
            "prefix": one.prefix,
            "applied_for": sorted(one.applied_for),
            "tag_mutability": one.mutability.setting,
            "tag_mutability_exclusions": list(one.mutability.exclusions),
        }
        for one in templates
    ]
    return json.dumps({"templates": found})


def read_templates(text: str | None) -> tuple[CreationTemplate, ...]:
    """Return what `write_templates` wrote, or nothing for None; raises StorageVersion."""
    return () if text is None else _read(TEMPLATES, text, _templates)


def _templates(document: dict[str, Any]) -> tuple[CreationTemplate, ...]:
    return tuple(
        CreationTemplate(
            one["prefix"],
            frozenset(CreationCause(text) for text in one["applied_for"]),
            MutabilityRule(TagMutability(one["tag_mutability"]), tuple(one["tag_mutability_exclusions"])),
        )
        for one in document["templates"]
    )


def _read(name: str, text: str, parse: Callable[[dict[str, Any]], T]) -> T:
    try:
        return parse(json.loads(text))
    except (InvalidInput, ValueError, LookupError, TypeError) as error:
        raise StorageVersion(f"the document {name} of this store cannot be read: {error}") from error
