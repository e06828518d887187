"""Repository creation templates (ECR §11)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.pages import page_of
from replicator.control_api.repositories import read_encryption, read_mutability, show_encryption, show_mutability
from replicator.control_api.resource_tags import read_tags
from replicator.core.lifecycle_grammar import parse_lifecycle_policy
from replicator.core.policy import PolicyKind, parse_policy
from replicator.core.resource_tags import checked_tags
from replicator.core.templates import CreationCause, CreationTemplate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from replicator.control_api.call import Call, Document, Handler


async def create_repository_creation_template(call: Call) -> Document:
    """Make a template."""
    prefix = call.input.text("prefix")
    template = _changed(call, CreationTemplate(prefix, frozenset()))
    return _answer(call, await call.registry.run_time_settings.templates.create(template))


async def update_repository_creation_template(call: Call) -> Document:
    """Change those settings of a template that are given; an empty text or key clears one."""
    prefix = call.input.text("prefix")
    return _answer(call, await call.registry.run_time_settings.templates.update(prefix, partial(_changed, call)))


async def delete_repository_creation_template(call: Call) -> Document:
    """Remove a template."""
    return _answer(call, await call.registry.run_time_settings.templates.delete(call.input.text("prefix")))


async def describe_repository_creation_templates(call: Call) -> Document:
    """Return a page of the templates, by prefix; of those with the given prefixes, if there are any."""
    page = page_of(call)
    wanted = {one.removesuffix("/") for one in call.input.texts("prefixes")}
    found = [one.template for one in call.registry.run_time_settings.templates.list()]
    found = [one for one in found if one.prefix > page.after and (not wanted or one.path in wanted)]
    shown, token = page.cut(found, lambda one: one.prefix)
    return present(
        registryId=call.registry.names.id.account,
        repositoryCreationTemplates=[_document(one) for one in shown],
        nextToken=token,
    )


def _changed(call: Call, before: CreationTemplate) -> CreationTemplate:
    """Return a template with what the request says of it; raises EcrError, InvalidInput."""
    given = call.input
    causes = frozenset(CreationCause(one) for one in given.texts("appliedFor"))
    return replace(
        before,
        applied_for=causes if "appliedFor" in given else before.applied_for,
        mutability=read_mutability(given) or before.mutability,
        description=_given(call, "description", before.description),
        encryption=read_encryption(given) or before.encryption,
        resource_tags=_tags(call) if "resourceTags" in given else before.resource_tags,
        repository_policy=_given(call, "repositoryPolicy", before.repository_policy, _check_policy),
        lifecycle_policy=_given(call, "lifecyclePolicy", before.lifecycle_policy, partial(_checked_lifecycle, call)),
        custom_role_arn=_given(call, "customRoleArn", before.custom_role_arn),
    )


def _given(call: Call, name: str, before: str | None, check: Callable[[str], str] = lambda text: text) -> str | None:
    """Return a text as it is given, None for an empty one; as it was, where it is left out."""
    text = call.input.find_text(name)
    if text is None:
        return before
    return check(text) if text else None


def _check_policy(text: str) -> str:
    parse_policy(text, PolicyKind.REPOSITORY, field="repositoryPolicy")
    return text


def _checked_lifecycle(call: Call, text: str) -> str:
    return parse_lifecycle_policy(text, call.registry.node.settings.quotas.lifecycle_rules).text


def _tags(call: Call) -> tuple[tuple[str, str], ...]:
    limit = call.registry.node.settings.quotas.resource_tags
    return tuple(checked_tags(read_tags(call.input, "resourceTags"), limit).items())


def _answer(call: Call, template: CreationTemplate) -> Document:
    return {"registryId": call.registry.names.id.account, "repositoryCreationTemplate": _document(template)}


def _document(template: CreationTemplate) -> Document:
    return present(
        prefix=template.prefix,
        description=template.description,
        encryptionConfiguration=show_encryption(template.encryption),
        resourceTags=[{"Key": key, "Value": value} for key, value in template.resource_tags] or None,
        **show_mutability(template.mutability),
        repositoryPolicy=template.repository_policy,
        lifecyclePolicy=template.lifecycle_policy,
        appliedFor=sorted(one.value for one in template.applied_for),
        customRoleArn=template.custom_role_arn,
        createdAt=template.created_at or None,
        updatedAt=template.updated_at or None,
    )


HANDLERS: Mapping[str, Handler] = {
    "CreateRepositoryCreationTemplate": create_repository_creation_template,
    "UpdateRepositoryCreationTemplate": update_repository_creation_template,
    "DeleteRepositoryCreationTemplate": delete_repository_creation_template,
    "DescribeRepositoryCreationTemplates": describe_repository_creation_templates,
}
