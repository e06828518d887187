"""The registry policy that can be put while a registry runs, besides what the configuration file declares."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from replicator.core.errors import InvalidInput, RegistryPolicyNotFound
from replicator.core.names import parse_account
from replicator.core.registry_policy import Permission, PolicyStatement, RegistryPolicy, check_statements
from replicator.registry.run_time_documents import read_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

POLICY = "registry-policy"
MAX_POLICY = 10_240
"""Characters of a policy (ECR §14.2)."""


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """Who may replicate into the registry: the statements set at run time, and those of the file."""

    statements: tuple[PolicyStatement, ...]
    declared: tuple[PolicyStatement, ...]


class RunTimePolicy:
    """The registry policy of one node."""

    def __init__(self, documents: RunTimeDocuments) -> None:
        self._documents = documents
        documents.add(POLICY, self._in_force)

    def get(self) -> PolicyInForce:
        """Return the statements in force; raises RegistryPolicyNotFound where there are none."""
        declared, stored = self._declared, read_statements(self._documents.find(POLICY))
        if not declared and not stored:
            raise RegistryPolicyNotFound
        return PolicyInForce(stored, declared)

    async def put(self, statements: Sequence[PolicyStatement]) -> PolicyInForce:
        """Replace the statements set at run time; raises InvalidInput, StorageError.

        What is under way for an account that is not allowed any more may end; its next request is refused.
        """
        if not statements:
            raise InvalidInput("expected at least one statement")
        check_statements(statements)
        content = write_statements(statements)
        if len(content) > MAX_POLICY:
            raise InvalidInput(f"expected a policy of at most {MAX_POLICY} characters, got {len(content)}")
        await self._documents.change(POLICY, lambda _: content)
        return self.get()

    async def delete(self) -> PolicyInForce:
        """Remove the statements set at run time, and return those that were.

        Raises RegistryPolicyNotFound where there are none, DeclaredInFile where all are the file's, StorageError.
        """
        declared = self._declared
        deleted: list[PolicyStatement] = []

        def edit(content: str | None) -> str:
            deleted[:] = read_statements(content)
            if not deleted:
                raise self._documents.refusal("registry policy") if declared else RegistryPolicyNotFound
            return write_statements(())

        await self._documents.change(POLICY, edit)
        return PolicyInForce(tuple(deleted), declared)

    @property
    def _declared(self) -> tuple[PolicyStatement, ...]:
        policy = self._documents.declared.registry_policy
        return () if policy is None else policy.statements

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        statements = (*self._declared, *read_statements(content))
        return replace(settings, registry_policy=RegistryPolicy(settings.node.account, statements))


def write_statements(statements: Sequence[PolicyStatement]) -> str:
    """Return the statements of a policy as JSON."""
    found = [
        {"account": one.account, "permissions": sorted(one.permissions), "repositories": list(one.repositories)}
        for one in statements
    ]
    return json.dumps({"statements": found})


def read_statements(text: str | None) -> tuple[PolicyStatement, ...]:
    """Return what `write_statements` wrote, or nothing for None; raises StorageVersion."""
    return () if text is None else read_document(POLICY, text, _statements)


def _statements(document: dict[str, Any]) -> tuple[PolicyStatement, ...]:
    return tuple(
        PolicyStatement(
            parse_account(one["account"]),
            frozenset(Permission(text) for text in one["permissions"]),
            tuple(one["repositories"]),
        )
        for one in document["statements"]
    )
