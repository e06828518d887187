"""What can be set of a registry while it runs: replication rules, registry policy, creation templates.

They are rows of the node's store, besides what the configuration file declares. The file's stay in force whatever is
set here, cannot be changed here, and come first where both say something; the error names the file. A change is in
effect in this process when the call returns: it replaces `RegistryNode.settings`, from which everybody reads at the
moment of use. Other processes on the same store see it within `REFRESH` seconds, and until then plan pushes by the
rules of before; so does this process if the caller is cancelled while the change is being stored.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from replicator.core.errors import (
    DeclaredInFile,
    InvalidInput,
    RegistryPolicyNotFound,
    StorageError,
    TemplateExists,
    TemplateNotFound,
)
from replicator.core.registry_policy import RegistryPolicy, check_statements
from replicator.core.replication_configuration import check_rules
from replicator.core.templates import check_template
from replicator.registry.settings_documents import (
    POLICY,
    RULES,
    TEMPLATES,
    read_rules,
    read_statements,
    read_templates,
    write_rules,
    write_statements,
    write_templates,
)
from replicator.storage.metadata import registry_documents
from replicator.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from replicator.core.destinations import DestinationId
    from replicator.core.registry_policy import PolicyStatement
    from replicator.core.replication import ReplicationRule
    from replicator.core.replication_configuration import RegistryRule
    from replicator.core.templates import CreationTemplate
    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.registry_documents import RegistryDocument
    from replicator.storage.metadata.statement import Steps

_log = get_logger(__name__)

REFRESH = 30.0
"""Seconds between two looks for what another process has set."""
MAX_POLICY = 10_240
"""Characters of a policy (ECR §14.2)."""


@dataclass(frozen=True, slots=True)
class ReplicationConfiguration:
    """The rules in force: those set at run time, under their generated names, and those of the file."""

    rules: tuple[ReplicationRule, ...]
    declared: tuple[ReplicationRule, ...]


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """Who may replicate into the registry: the statements set at run time, and those of the file."""

    statements: tuple[PolicyStatement, ...]
    declared: tuple[PolicyStatement, ...]


@dataclass(frozen=True, slots=True)
class TemplateInForce:
    """A creation template; a declared one is the file's."""

    template: CreationTemplate
    is_declared: bool


class RunTimeSettings:
    """The settings of one node that can change. `load` them before anything else runs, then `run` under a supervisor.

    `known` are the destinations that rules may name, `file` the configuration file as errors name it. What the node's
    settings say at first is taken for the file's.
    """

    def __init__(
        self, node: RegistryNode, known: Collection[DestinationId], file: str = "the configuration file"
    ) -> None:
        self._node = node
        self._known = frozenset(known)
        self._file = file
        self._declared = node.settings
        self._documents: Mapping[str, RegistryDocument] = {}

    async def load(self) -> None:
        """Take over what is stored; raises StorageError."""
        self._take_over(await self._node.database.read(registry_documents.all_documents()))

    async def run(self) -> None:
        """Look every so often for what another process has set, until cancelled."""
        while True:
            await self._node.clock.sleep(REFRESH)
            try:
                await self.load()
            except StorageError as error:
                node = str(self._declared.node)
                _log.warning("settings made at run time could not be read", node=node, error=str(error))

    # Replication configuration

    def get_replication_configuration(self) -> ReplicationConfiguration:
        """Return the rules in force."""
        declared = self._declared.replication_rules
        rules = tuple(one for one in self._node.settings.replication_rules if one not in declared)
        return ReplicationConfiguration(rules, declared)

    async def put_replication_configuration(self, rules: Sequence[RegistryRule]) -> ReplicationConfiguration:
        """Replace the rules set at run time; none turns them off, and jobs that are queued still finish.

        Only pushes from now on go by new rules; backfills bring what is there. A rule that was there keeps its name.
        Raises InvalidInput, StorageError, and DeclaredInFile for a rule that the file has for the same filters and
        destination, and where only the file's rules are left to turn off.
        """
        declared = self._declared.replication_rules
        check_rules(rules, self._declared.node, self._known, declared)
        for rule in rules:
            self._refuse_repetition(rule)
        names = {rule.name for rule in declared}

        def edit(content: str | None) -> str:
            before = read_rules(content)
            if not (rules or before.rules) and declared:
                raise self._refusal(f"replication rule {declared[0].name}")
            return write_rules(before.replaced_by(rules, names))

        await self._change(RULES, edit)
        return self.get_replication_configuration()

    def _refuse_repetition(self, rule: RegistryRule) -> None:
        for declared in self._declared.replication_rules:
            if rule.repeats(declared):
                raise self._refusal(f"replication rule {declared.name}")

    # Registry policy

    def get_registry_policy(self) -> PolicyInForce:
        """Return the statements in force; raises RegistryPolicyNotFound where there are none."""
        declared, stored = self._declared_statements(), self._stored_statements()
        if not declared and not stored:
            raise RegistryPolicyNotFound
        return PolicyInForce(stored, declared)

    async def put_registry_policy(self, statements: Sequence[PolicyStatement]) -> PolicyInForce:
        """Replace the statements set at run time; raises InvalidInput, StorageError.

        What is under way for an account that is not allowed any more may end; its next request is refused.
        """
        if not statements:
            raise InvalidInput("expected at least one statement")
        check_statements(statements)
        content = write_statements(statements)
        if len(content) > MAX_POLICY:
            raise InvalidInput(f"expected a policy of at most {MAX_POLICY} characters, got {len(content)}")
        await self._change(POLICY, lambda _: content)
        return self.get_registry_policy()

    async def delete_registry_policy(self) -> PolicyInForce:
        """Remove the statements set at run time, and return those that were.

        Raises RegistryPolicyNotFound where there are none, DeclaredInFile where all are the file's, StorageError.
        """
        declared = self._declared_statements()
        deleted: list[PolicyStatement] = []

        def edit(content: str | None) -> str:
            deleted[:] = read_statements(content)
            if not deleted:
                raise self._refusal("registry policy") if declared else RegistryPolicyNotFound
            return write_statements(())

        await self._change(POLICY, edit)
        return PolicyInForce(tuple(deleted), declared)

    def _declared_statements(self) -> tuple[PolicyStatement, ...]:
        policy = self._declared.registry_policy
        return () if policy is None else policy.statements

    def _stored_statements(self) -> tuple[PolicyStatement, ...]:
        return read_statements(_content(self._documents, POLICY))

    # Creation templates

    def list_templates(self) -> list[TemplateInForce]:
        """Return the templates in force, by prefix."""
        declared = self._declared.templates
        found = [TemplateInForce(one, one in declared) for one in self._node.settings.templates]
        return sorted(found, key=lambda one: one.template.prefix)

    async def create_template(self, template: CreationTemplate) -> None:
        """Add a template. Raises InvalidInput, TemplateExists, DeclaredInFile when the file has one, StorageError."""
        check_template(template)
        self._refuse_prefix(template.prefix)

        def edit(content: str | None) -> str:
            before = read_templates(content)
            if any(one.prefix == template.prefix for one in before):
                raise TemplateExists(f"there is a repository creation template for {template.prefix}")
            return write_templates((*before, template))

        await self._change(TEMPLATES, edit)

    async def update_template(self, template: CreationTemplate) -> None:
        """Replace a template. Raises InvalidInput, TemplateNotFound, DeclaredInFile when it is the file's."""
        check_template(template)
        self._refuse_prefix(template.prefix)

        def edit(content: str | None) -> str:
            others = _without(content, template.prefix)
            return write_templates((*others, template))

        await self._change(TEMPLATES, edit)

    async def delete_template(self, prefix: str) -> None:
        """Remove a template. Raises TemplateNotFound, DeclaredInFile when it is the file's, StorageError."""
        self._refuse_prefix(prefix)
        await self._change(TEMPLATES, lambda content: write_templates(_without(content, prefix)))

    def _refuse_prefix(self, prefix: str) -> None:
        if any(one.prefix == prefix for one in self._declared.templates):
            raise self._refusal(f"repository creation template {prefix}")

    # What is stored, and what is in force

    def _refusal(self, what: str) -> DeclaredInFile:
        return DeclaredInFile(f"{what} is declared in {self._file}, and only there it can be changed")

    async def _change(self, name: str, edit: Callable[[str | None], str]) -> None:
        now = self._node.clock.now()
        self._take_over([await self._node.database.write(partial(_edited, name, edit, now))])

    def _take_over(self, documents: Iterable[RegistryDocument]) -> None:
        """Put newer documents in force; changes may come here in another order than they were stored in."""
        newer = {one.name: one for one in documents if one.revision > self._revision(one.name)}
        if newer:
            found = {**self._documents, **newer}
            settings = self._in_force(found)
            self._documents = found
            self._node.change_settings(settings)

    def _revision(self, name: str) -> int:
        known = self._documents.get(name)
        return 0 if known is None else known.revision

    def _in_force(self, documents: Mapping[str, RegistryDocument]) -> RegistrySettings:
        declared = self._declared
        statements = (*self._declared_statements(), *read_statements(_content(documents, POLICY)))
        prefixes = {one.prefix for one in declared.templates}
        stored = read_templates(_content(documents, TEMPLATES))
        return replace(
            declared,
            replication_rules=(*declared.replication_rules, *self._stored_rules(documents)),
            registry_policy=RegistryPolicy(declared.node.account, statements),
            templates=(*declared.templates, *(one for one in stored if one.prefix not in prefixes)),
        )

    def _stored_rules(self, documents: Mapping[str, RegistryDocument]) -> list[ReplicationRule]:
        named = read_rules(_content(documents, RULES))
        # The file may have a rule of such a name since.
        taken = {rule.name for rule in self._declared.replication_rules}
        named = named.replaced_by([rule for _, rule in named.rules], taken)
        for name, rule in named.rules:
            for destination in set(rule.destinations) - self._known:
                node = str(self._declared.node)
                _log.warning("destination of a rule is unknown", node=node, rule=name, destination=str(destination))
        return [rule.to_rule(name) for name, rule in named.rules]


def _edited(name: str, edit: Callable[[str | None], str], now: float) -> Steps[RegistryDocument]:
    found = yield from registry_documents.find(name)
    content = edit(None if found is None else found.content)
    return (yield from registry_documents.put(name, content, now))


def _content(documents: Mapping[str, RegistryDocument], name: str) -> str | None:
    document = documents.get(name)
    return None if document is None else document.content


def _without(content: str | None, prefix: str) -> list[CreationTemplate]:
    before = read_templates(content)
    others = [one for one in before if one.prefix != prefix]
    if len(others) == len(before):
        raise TemplateNotFound(f"there is no repository creation template for {prefix[:80]!r}")
    return others
