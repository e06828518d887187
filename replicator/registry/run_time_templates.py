"""The repository creation templates that can be made while a registry runs, besides those of the configuration file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from replicator.core import texts
from replicator.core.encryption import Encryption, EncryptionType
from replicator.core.errors import LimitExceeded, TemplateExists, TemplateNotFound
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.templates import CreationCause, CreationTemplate, check_template
from replicator.registry.run_time_documents import read_document

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

    Change = Callable[[CreationTemplate], CreationTemplate]

TEMPLATES = "creation-templates"


@dataclass(frozen=True, slots=True)
class TemplateInForce:
    """A creation template; a declared one is the file's."""

    template: CreationTemplate
    is_declared: bool


class RunTimeTemplates:
    """The creation templates of one node."""

    def __init__(self, documents: RunTimeDocuments) -> None:
        self._documents = documents
        documents.add(TEMPLATES, self._in_force)

    def list(self) -> list[TemplateInForce]:
        """Return the templates in force, by prefix."""
        declared = self._documents.declared.templates
        found = [TemplateInForce(one, one in declared) for one in self._documents.node.settings.templates]
        return sorted(found, key=lambda one: one.template.prefix)

    async def create(self, template: CreationTemplate) -> CreationTemplate:
        """Add a template, and return it with its time.

        Raises InvalidInput, TemplateExists, LimitExceeded, DeclaredInFile when the file has one, StorageError.
        """
        check_template(template)
        self._refuse(template.path)
        now = self._documents.node.clock.now()
        made = replace(template, created_at=now, updated_at=now)
        paths = {one.path for one in self._documents.declared.templates}
        limit = self._documents.declared.quotas.creation_templates

        def edit(content: str | None) -> str:
            before = read_templates(content)
            if any(one.path == template.path for one in before):
                raise TemplateExists(texts.template_exists(template.prefix, self._account))
            if len(paths | {one.path for one in before}) >= limit:
                raise LimitExceeded(texts.templates_exceeded(limit))
            return write_templates((*before, made))

        await self._documents.change(TEMPLATES, edit)
        return made

    async def update(self, prefix: str, change: Change) -> CreationTemplate:
        """Replace a template by what `change` makes of it, and return that.

        Raises what `change` raises, InvalidInput, TemplateNotFound, DeclaredInFile when it is the file's, StorageError.
        """
        self._refuse(_path(prefix))
        now = self._documents.node.clock.now()
        made: list[CreationTemplate] = []

        def edit(content: str | None) -> str:
            before, others = self._split(content, prefix)
            changed = replace(change(before), updated_at=now)
            check_template(changed)
            made[:] = [changed]
            return write_templates((*others, changed))

        await self._documents.change(TEMPLATES, edit)
        return made[0]

    async def delete(self, prefix: str) -> CreationTemplate:
        """Remove a template and return it.

        Raises TemplateNotFound, DeclaredInFile when it is the file's, StorageError.
        """
        self._refuse(_path(prefix))
        deleted: list[CreationTemplate] = []

        def edit(content: str | None) -> str:
            before, others = self._split(content, prefix)
            deleted[:] = [before]
            return write_templates(others)

        await self._documents.change(TEMPLATES, edit)
        return deleted[0]

    def _refuse(self, path: str) -> None:
        if any(one.path == path for one in self._documents.declared.templates):
            raise self._documents.refusal(f"repository creation template {path}")

    def _split(self, content: str | None, prefix: str) -> tuple[CreationTemplate, tuple[CreationTemplate, ...]]:
        """Return the template of a prefix, and the others."""
        before = read_templates(content)
        others = tuple(one for one in before if one.path != _path(prefix))
        found = next((one for one in before if one.path == _path(prefix)), None)
        if found is None:
            raise TemplateNotFound(texts.template_not_found(prefix, self._account))
        return found, others

    @property
    def _account(self) -> str:
        return self._documents.declared.node.account

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        paths = {one.path for one in settings.templates}
        stored = (one for one in read_templates(content) if one.path not in paths)
        return replace(settings, templates=(*settings.templates, *stored))


def write_templates(templates: Sequence[CreationTemplate]) -> str:
    """Return templates as JSON."""
    return json.dumps({"templates": [_document(one) for one in templates]})


def _document(template: CreationTemplate) -> dict[str, object]:
    return {
        "prefix": template.prefix,
        "applied_for": sorted(template.applied_for),
        "tag_mutability": template.mutability.setting,
        "tag_mutability_exclusions": list(template.mutability.exclusions),
        "description": template.description,
        "encryption": template.encryption.type,
        "kms_key": template.encryption.kms_key,
        "resource_tags": template.resource_tags,
        "repository_policy": template.repository_policy,
        "lifecycle_policy": template.lifecycle_policy,
        "custom_role_arn": template.custom_role_arn,
        "created_at": template.created_at,
        "updated_at": template.updated_at,
    }


def read_templates(text: str | None) -> tuple[CreationTemplate, ...]:
    """Return what `write_templates` wrote, or nothing for None; raises StorageVersion."""
    return () if text is None else read_document(TEMPLATES, text, _templates)


def _templates(document: dict[str, Any]) -> tuple[CreationTemplate, ...]:
    return tuple(_template(one) for one in document["templates"])


def _template(one: dict[str, Any]) -> CreationTemplate:
    return CreationTemplate(
        one["prefix"],
        frozenset(CreationCause(text) for text in one["applied_for"]),
        MutabilityRule(TagMutability(one["tag_mutability"]), tuple(one["tag_mutability_exclusions"])),
        one.get("description"),
        Encryption(EncryptionType(one.get("encryption", EncryptionType.AES256)), one.get("kms_key")),
        tuple((str(key), str(value)) for key, value in one.get("resource_tags", ())),
        one.get("repository_policy"),
        one.get("lifecycle_policy"),
        one.get("custom_role_arn"),
        float(one.get("created_at", 0)),
        float(one.get("updated_at", 0)),
    )


def _path(prefix: str) -> str:
    return prefix.removesuffix("/")
