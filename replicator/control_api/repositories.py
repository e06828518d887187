"""Operations on repositories (ECR §3, §6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import EcrError, invalid_parameter
from replicator.control_api.pages import page_of
from replicator.control_api.resource_tags import read_tags
from replicator.core.encryption import Encryption, EncryptionType
from replicator.core.mutability import WITH_EXCLUSION, MutabilityRule, TagMutability
from replicator.core.resource_tags import checked_tags
from replicator.registry.repositories import RepositorySettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.control_api.input import Input
    from replicator.control_api.names import RegistryNames
    from replicator.storage.metadata.repositories import Repository

_FILTERS = "imageTagMutabilityExclusionFilters"


async def create_repository(call: Call) -> Document:
    """CreateRepository."""
    scanning = call.input.find_structure("imageScanningConfiguration")
    settings = RepositorySettings(
        read_mutability(call.input) or MutabilityRule(),
        scan_on_push=scanning is not None and scanning.flag("scanOnPush"),
        encryption=read_encryption(call.input) or Encryption(),
        resource_tags=checked_tags(read_tags(call.input, "tags"), call.registry.node.settings.quotas.resource_tags),
    )
    # Not `call.repository`: why a name cannot be had is told where it is made.
    name = call.registry.names.to_stored(call.input.text("repositoryName"))
    created = await call.registry.repositories.create(name, settings)
    return {"repository": show_repository(call.registry.names, created)}


async def describe_repositories(call: Call) -> Document:
    """DescribeRepositories: those that are named, or a page of all."""
    names, wanted = call.registry.names, call.input.texts("repositoryNames")
    if wanted:
        if "nextToken" in call.input or "maxResults" in call.input:
            field = "nextToken" if "nextToken" in call.input else "maxResults"
            raise invalid_parameter(field, f"{field} cannot be used together with repositoryNames")
        found = await call.registry.repositories.get_all([call.registry.stored(one) for one in wanted])
        return {"repositories": [show_repository(names, one) for one in found]}
    page = page_of(call)
    listed = await call.registry.repositories.list_after(page.after, page.size + 1, is_public=names.is_public)
    shown, token = page.cut(listed, lambda one: one.name)
    return present(repositories=[show_repository(names, one) for one in shown], nextToken=token)


async def delete_repository(call: Call) -> Document:
    """DeleteRepository."""
    deleted = await call.registry.repositories.delete(call.repository, force=call.input.flag("force"))
    return {"repository": show_repository(call.registry.names, deleted)}


async def put_image_tag_mutability(call: Call) -> Document:
    """PutImageTagMutability."""
    rule = read_mutability(call.input) or MutabilityRule()
    await call.registry.repositories.put_mutability(call.repository, rule)
    return {**call.place, **show_mutability(rule)}


async def put_image_scanning_configuration(call: Call) -> Document:
    """PutImageScanningConfiguration."""
    scan = call.input.structure("imageScanningConfiguration").flag("scanOnPush")
    await call.registry.repositories.put_scan_on_push(call.repository, scan=scan)
    return {**call.place, "imageScanningConfiguration": {"scanOnPush": scan}}


def read_mutability(members: Input) -> MutabilityRule | None:
    """Return the mutability that a request asks for, or None when it says nothing; raises EcrError (ECR §7)."""
    setting = members.find_text("imageTagMutability")
    filters = tuple(one.text("filter") for one in members.structures(_FILTERS))
    rule = MutabilityRule(TagMutability(setting or TagMutability.MUTABLE), filters)
    # ECR says the same of filters that are missing and of those that must not be.
    if (rule.setting in WITH_EXCLUSION) != bool(filters):
        raise invalid_parameter(
            _FILTERS,
            f"ImageTagMutabilityExclusionFilters can't be null when imageTagMutability is set as {rule.setting}",
        )
    return None if setting is None else rule


def show_mutability(rule: MutabilityRule) -> Document:
    """Return the members that tell which tags may move."""
    filters = [{"filterType": "WILDCARD", "filter": one} for one in rule.exclusions]
    return present(imageTagMutability=rule.setting.value, imageTagMutabilityExclusionFilters=filters or None)


def read_encryption(members: Input) -> Encryption | None:
    """Return the encryption that a request asks for, or None when it says nothing; raises EcrError."""
    asked = members.find_structure("encryptionConfiguration")
    if asked is None:
        return None
    # An empty key is how a template is told to have none.
    found = Encryption(EncryptionType(asked.text("encryptionType")), asked.find_text("kmsKey") or None)
    if found.kms_key is not None and not found.uses_kms:
        raise EcrError(
            "InvalidParameterException",
            "Invalid parameter at 'encryptionConfiguration' failed to satisfy constraint: 'kmsKey must be null when"
            f" encryptionType is set as {found.type}'",
        )
    return found


def show_encryption(encryption: Encryption) -> Document:
    """Return an encryption configuration."""
    return present(encryptionType=encryption.type.value, kmsKey=encryption.kms_key)


def show_repository(names: RegistryNames, repository: Repository) -> Document:
    """Return a repository as the API describes it; what can be set of a private one, a public one does not have."""
    shown: Document = {
        "repositoryArn": names.repository_arn(repository.name),
        "registryId": names.id.account,
        "repositoryName": names.to_shown(repository.name),
        "repositoryUri": names.repository_uri(repository.name),
        "createdAt": repository.created_at,
    }
    return shown if names.is_public else {**shown, **_show_settings(repository)}


def _show_settings(repository: Repository) -> Document:
    return {
        **show_mutability(repository.mutability),
        "imageScanningConfiguration": {"scanOnPush": repository.scan_on_push},
        "encryptionConfiguration": show_encryption(
            Encryption(EncryptionType(repository.encryption), repository.kms_key)
        ),
    }


HANDLERS: Mapping[str, Handler] = {
    "CreateRepository": create_repository,
    "DescribeRepositories": describe_repositories,
    "DeleteRepository": delete_repository,
    "PutImageTagMutability": put_image_tag_mutability,
    "PutImageScanningConfiguration": put_image_scanning_configuration,
}
