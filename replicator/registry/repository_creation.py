"""How a repository comes into being: within the registry's quota, and with the settings that it is to have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.actions import Action
from replicator.core.errors import Denied, InvalidInput, LimitExceeded
from replicator.core.templates import CreationCause, template_for
from replicator.registry.access import check_pushable
from replicator.registry.ownership import CREATED_BY_CACHE
from replicator.registry.stored_repositories import no_repository, require_repository
from replicator.storage.metadata import repositories
from replicator.storage.metadata.repositories import Repository

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.core.templates import CreationTemplate
    from replicator.registry.node import RegistryNode
    from replicator.registry.settings import RegistrySettings
    from replicator.storage.metadata.statement import Steps

CREATED_BY_API = "api"

_CREATED_BY = {
    CreationCause.CREATE_ON_PUSH: "push",
    CreationCause.PULL_THROUGH_CACHE: CREATED_BY_CACHE,
    CreationCause.REPLICATION: "replication",
}


def add_repository(node: RegistryNode, repository: Repository) -> Steps[None]:
    """Store a repository that does not exist; raise LimitExceeded where the registry takes no more."""
    check_place(node.settings, repository.name, is_public=repository.is_public)
    quotas = node.settings.quotas
    limit = quotas.public_repositories if repository.is_public else quotas.repositories
    if (yield from repositories.has_at_least(limit, is_public=repository.is_public)):
        raise LimitExceeded(texts.repositories_exceeded(node.settings.node.account, limit))
    yield from repositories.create(repository)
    node.policies.expect(repository)


def check_place(settings: RegistrySettings, name: RepositoryName, *, is_public: bool) -> None:
    """Return if a private or public repository may have this name: below the alias all are public, and only there."""
    if settings.public_registry.covers(name) is not is_public:
        raise InvalidInput(texts.constraint("repositoryName", texts.below_alias(settings.public_registry.alias)))


def add_for(node: RegistryNode, name: RepositoryName, now: float, cause: CreationCause) -> Steps[Repository]:
    """Store a repository that nobody creates by hand, and return it; raises LimitExceeded, or Denied by its template.

    It has the settings of the template for `cause`, or the node's own where no template covers it.
    """
    template = template_for(node.settings.templates, name, cause)
    if template is None:
        created = Repository(name, now, _CREATED_BY[cause], node.settings.mutability)
    else:
        created = _from_template(node, name, now, cause, template)
    yield from add_repository(node, created)
    return created


def _from_template(
    node: RegistryNode, name: RepositoryName, now: float, cause: CreationCause, template: CreationTemplate
) -> Repository:
    if template.lacks_role:
        raise Denied(texts.template_lacks_role(template.prefix, name))
    encryption = template.encryption.in_registry(node.settings.node)
    return Repository(
        name,
        now,
        _CREATED_BY[cause],
        template.mutability,
        encryption=encryption.type.value,
        kms_key=encryption.kms_key,
        policy=template.repository_policy,
        lifecycle_policy=template.lifecycle_policy,
        resource_tags=dict(template.resource_tags),
    )


def may_create(settings: RegistrySettings, name: RepositoryName, cause: CreationCause) -> bool:
    """Tell whether a missing repository is created for `cause` (ECR §11): a push needs the setting, or a template.

    A public repository is only created by hand.
    """
    if settings.public_registry.covers(name):
        return False
    return (
        cause is not CreationCause.CREATE_ON_PUSH
        or settings.create_on_push
        or template_for(settings.templates, name, cause) is not None
    )


def ensure_repository(
    node: RegistryNode, name: RepositoryName, now: float, cause: CreationCause = CreationCause.CREATE_ON_PUSH
) -> Steps[Repository]:
    """Return the repository, creating it where the settings allow; raise RepositoryNotFound where they do not.

    A new one has the settings that `add_for` gives it, which raises LimitExceeded, and Denied, too.
    """
    found = yield from repositories.find(name)
    if found is not None:
        return found
    if not may_create(node.settings, name, cause):
        raise no_repository(node, name)
    return (yield from add_for(node, name, now, cause))


def ensure_pushable(node: RegistryNode, principal: Principal, name: RepositoryName, now: float) -> Steps[Repository]:
    """Return the repository that a user pushes into, like `ensure_repository`; raise Denied where a cache fills it.

    A missing one is made for whoever may create repositories, and looks missing to others.

    Looked at in the transaction of the push, because the cache may have made the repository a moment ago.
    """
    if not principal.may(Action.CREATE_REPOSITORY, name):
        yield from require_repository(node, name)
    repository = yield from ensure_repository(node, name, now)
    check_pushable(node.settings, repository)
    return repository
