"""The registry policy that can be put while a registry runs, besides what the configuration file declares.

It is kept and given back as the text that was put. What the file accepts from other accounts stays in force besides it,
but for what the document denies.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from replicator.core import texts
from replicator.core.errors import RegistryPolicyNotFound
from replicator.core.policy import PolicyKind, parse_policy
from replicator.core.registry_policy import RegistryPolicy
from replicator.registry.run_time_documents import read_document

if TYPE_CHECKING:
    from replicator.core.policy import Policy
    from replicator.core.registry_policy import PolicyStatement
    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

POLICY = "registry-policy"
_PARSED = 64


class RunTimePolicy:
    """The registry policy of one node."""

    def __init__(self, documents: RunTimeDocuments) -> None:
        self._documents = documents
        documents.add(POLICY, self._in_force)

    def get(self) -> str:
        """Return the policy that was put; raises RegistryPolicyNotFound where none was."""
        text = read_policy(self._documents.find(POLICY))
        if text is None:
            raise self._not_found()
        return text

    async def put(self, text: str) -> None:
        """Put a policy in place of any that was; raises InvalidPolicy, StorageError.

        What is under way for an account that is not allowed any more may end; its next request is refused. A policy of
        scope V1 may name only the actions that this scope decides on.
        """
        scope = self._documents.node.settings.account_settings.registry_policy_scope
        parse_policy(text, PolicyKind.REGISTRY, scope=scope)
        await self._documents.change(POLICY, lambda _: write_policy(text))

    async def delete(self) -> str:
        """Remove the policy that was put, and return it.

        Raises RegistryPolicyNotFound where none was, DeclaredInFile where the file has one, StorageError.
        """
        deleted: list[str] = []

        def edit(content: str | None) -> str:
            text = read_policy(content)
            if text is None:
                raise self._documents.refusal("registry policy") if self._declared else self._not_found()
            deleted[:] = [text]
            return write_policy(None)

        await self._documents.change(POLICY, edit)
        return deleted[0]

    def _not_found(self) -> RegistryPolicyNotFound:
        return RegistryPolicyNotFound(texts.no_registry_policy(self._documents.declared.node.account))

    @property
    def _declared(self) -> tuple[PolicyStatement, ...]:
        policy = self._documents.declared.registry_policy
        return () if policy is None else policy.statements

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        text = read_policy(content)
        document = None if text is None else _parsed(text)
        return replace(settings, registry_policy=RegistryPolicy(settings.node.account, self._declared, document))


def write_policy(text: str | None) -> str:
    """Return a policy's text, or that there is none, as a document."""
    return json.dumps({"text": text})


def read_policy(content: str | None) -> str | None:
    """Return what `write_policy` wrote, or None where nothing was written; raises StorageVersion."""
    return None if content is None else read_document(POLICY, content, _text)


def _text(document: dict[str, Any]) -> str | None:
    if "statements" in document:
        return _text_of(document["statements"])
    text = document["text"]
    if text is not None:
        _parsed(text)
    return None if text is None else str(text)


@lru_cache(_PARSED)
def _parsed(text: str) -> Policy:
    """Return a policy that was accepted once, whatever the scope was; the same object for the same text."""
    return parse_policy(text, PolicyKind.REGISTRY)


def _text_of(statements: list[dict[str, Any]]) -> str | None:
    """Return the policy of the short statements that versions before this one kept."""
    if not statements:
        return None
    found = [
        {
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{one['account']}:root"},
            "Action": one["permissions"],
            "Resource": [f"arn:aws:ecr:*:*:repository/{pattern}" for pattern in one["repositories"]],
        }
        for one in statements
    ]
    return json.dumps({"Version": "2012-10-17", "Statement": found})
