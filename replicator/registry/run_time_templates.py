"""The repository creation templates that can be made while a registry runs, besides those of the configuration file."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from replicator.core.errors import TemplateExists, TemplateNotFound
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.templates import CreationCause, CreationTemplate, check_template
from replicator.registry.run_time_documents import read_document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.registry.run_time_documents import RunTimeDocuments
    from replicator.registry.settings import RegistrySettings

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

    async def create(self, template: CreationTemplate) -> None:
        """Add a template. Raises InvalidInput, TemplateExists, DeclaredInFile when the file has one, StorageError."""
        check_template(template)
        self._refuse_prefix(template.prefix)

        def edit(content: str | None) -> str:
            before = read_templates(content)
            if any(one.prefix == template.prefix for one in before):
                raise TemplateExists(f"there is a repository creation template for {template.prefix}")
            return write_templates((*before, template))

        await self._documents.change(TEMPLATES, edit)

    async def update(self, template: CreationTemplate) -> None:
        """Replace a template. Raises InvalidInput, TemplateNotFound, DeclaredInFile when it is the file's."""
        check_template(template)
        self._refuse_prefix(template.prefix)

        def edit(content: str | None) -> str:
            others = _without(content, template.prefix)
            return write_templates((*others, template))

        await self._documents.change(TEMPLATES, edit)

    async def delete(self, prefix: str) -> None:
        """Remove a template. Raises TemplateNotFound, DeclaredInFile when it is the file's, StorageError."""
        self._refuse_prefix(prefix)
        await self._documents.change(TEMPLATES, lambda content: write_templates(_without(content, prefix)))

    def _refuse_prefix(self, prefix: str) -> None:
        if any(one.prefix == prefix for one in self._documents.declared.templates):
            raise self._documents.refusal(f"repository creation template {prefix}")

    def _in_force(self, settings: RegistrySettings, content: str | None) -> RegistrySettings:
        prefixes = {one.prefix for one in settings.templates}
        stored = (one for one in read_templates(content) if one.prefix not in prefixes)
        return replace(settings, templates=(*settings.templates, *stored))


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
    return () if text is None else read_document(TEMPLATES, text, _templates)


def _templates(document: dict[str, Any]) -> tuple[CreationTemplate, ...]:
    return tuple(
        CreationTemplate(
            one["prefix"],
            frozenset(CreationCause(text) for text in one["applied_for"]),
            MutabilityRule(TagMutability(one["tag_mutability"]), tuple(one["tag_mutability_exclusions"])),
        )
        for one in document["templates"]
    )


def _without(content: str | None, prefix: str) -> list[CreationTemplate]:
    before = read_templates(content)
    others = [one for one in before if one.prefix != prefix]
    if len(others) == len(before):
        raise TemplateNotFound(f"there is no repository creation template for {prefix[:80]!r}")
    return others
