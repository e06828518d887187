"""Which registry a request is about: the one that it names, or else the caller's own (ECR §2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.errors import EcrError
from replicator.core import texts
from replicator.core.names import AccountId, NodeId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.input import Input
    from replicator.control_api.model import Operation
    from replicator.control_api.services import EcrRegistry


class Registries:
    """The registries that this process runs, as the node of `home` answers for those of its region."""

    def __init__(self, home: NodeId, registries: Mapping[NodeId, EcrRegistry]) -> None:
        self._home = home
        self.all = registries

    @property
    def home(self) -> EcrRegistry:
        """This node's own registry, for operations that are about none: their callers need none here."""
        return self.all[self._home]

    def get(self, service: str, operation: Operation, own: AccountId | None, members: Input) -> EcrRegistry:
        """Return the registry that is meant, for a caller whose `own` account is known or not.

        A public registry may be named by its alias, too. Raises EcrError, as the operation has it, where there is none.
        """
        account = self._account(own, members)
        registry = self._find(account)
        if registry is None and service == "ecr-public":
            registry = self._of_alias(account)
        if registry is not None:
            return registry
        if "RegistryNotFoundException" in operation.errors:
            raise EcrError("RegistryNotFoundException", texts.public_registry_not_found(account))
        repository = members.find_text("repositoryName") or next(iter(members.texts("repositoryNames")), None)
        if repository is not None and "RepositoryNotFoundException" in operation.errors:
            raise EcrError("RepositoryNotFoundException", texts.repository_not_found(repository, account))
        raise EcrError("InvalidParameterException", texts.registry_not_found(account, self._home.region))

    def is_of_nobody(self, own: AccountId | None, members: Input) -> bool:
        """Tell whether a list is asked of an account without a registry here, and of no repository by its name."""
        return "repositoryNames" not in members and self._find(self._account(own, members)) is None

    def _account(self, own: AccountId | None, members: Input) -> str:
        return members.find_text("registryId") or own or self._home.account

    def _find(self, account: str) -> EcrRegistry | None:
        return self.all.get(NodeId(AccountId(account), self._home.region))

    def _of_alias(self, alias: str) -> EcrRegistry | None:
        return next(
            (
                one
                for node, one in self.all.items()
                if node.region == self._home.region and one.node.settings.public_registry.alias == alias
            ),
            None,
        )


def served(registry: EcrRegistry, service: str) -> EcrRegistry:
    """Return the registry as the API of a service knows it; raises EcrError where that is not served."""
    if service != "ecr-public":
        return registry
    if not registry.node.settings.public_registry.is_enabled:
        raise EcrError("UnsupportedCommandException", "ECR Public is not served by this registry.")
    return registry.as_public()
