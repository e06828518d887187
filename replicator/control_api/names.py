"""What ECR calls a registry and its repositories: hosts, URIs and ARNs (ECR §2).

Names of one kind for each of the two APIs. The node stores a public repository below its registry's alias, which the
API of ECR Public leaves out; so every handler serves both, and only the names know which one it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from replicator.core import public_registry
from replicator.core.arns import parse_repository_arn, repository_arn
from replicator.core.names import RepositoryName

if TYPE_CHECKING:
    from replicator.core.names import NodeId
    from replicator.core.public_registry import PublicRegistry


@dataclass(frozen=True, slots=True)
class RegistryNames:
    """The names of a registry. `host` is where clients are sent to, and `scheme` how."""

    id: NodeId
    host: str
    scheme: str = "https"
    has_own_host: bool = False
    """Whether the host is the node's, and not Amazon's."""

    is_public: ClassVar[bool] = False
    """Whether these are the names of a public registry."""

    @property
    def proxy_endpoint(self) -> str:
        """Where clients log in."""
        return f"{self.scheme}://{self.host}"

    def repository_uri(self, repository: RepositoryName) -> str:
        """Return where images of a repository are pushed to and pulled from."""
        return f"{self.host}/{repository}"

    def repository_arn(self, repository: RepositoryName) -> str:
        """Return the ARN of a repository."""
        return repository_arn(self.id, repository)

    def parse_repository_arn(self, arn: str) -> tuple[bool, RepositoryName]:
        """Return the repository that an ARN names, and whether it is of this registry; raises InvalidInput."""
        found = parse_repository_arn(arn)
        return found.registry == self.id, found.repository

    def to_stored(self, name: str) -> RepositoryName:
        """Return the name by which the node knows a repository."""
        return RepositoryName(name)

    def to_shown(self, repository: RepositoryName) -> str:
        """Return the name by which clients know a repository."""
        return repository

    def in_words(self, text: str) -> str:
        """Return a text with repositories in it as clients know them."""
        return text


@dataclass(frozen=True, slots=True)
class PublicNames(RegistryNames):
    """The names of a public registry: its repositories lie below its alias at the host, and are of no region."""

    registry: PublicRegistry = field(default_factory=public_registry.PublicRegistry)

    is_public: ClassVar[bool] = True

    @property
    def registry_arn(self) -> str:
        """The ARN of the registry."""
        return public_registry.registry_arn(self.id.account)

    @property
    def registry_uri(self) -> str:
        """Where its repositories lie."""
        return f"{self.host}/{self.registry.alias}" if self.registry.alias else ""

    def repository_arn(self, repository: RepositoryName) -> str:
        """Return the ARN of a repository."""
        return public_registry.repository_arn(self.id.account, self.to_shown(repository))

    def parse_repository_arn(self, arn: str) -> tuple[bool, RepositoryName]:
        """Return the repository that an ARN names, and whether it is of this registry; raises InvalidInput."""
        account, name = public_registry.parse_repository_arn(arn)
        return account == self.id.account, self.to_stored(name)

    def to_stored(self, name: str) -> RepositoryName:
        """Return the name by which the node knows a repository."""
        return self.registry.to_stored(name)

    def to_shown(self, repository: RepositoryName) -> str:
        """Return the name by which clients know a repository."""
        return self.registry.to_public(repository)

    def in_words(self, text: str) -> str:
        """Return a text with repositories in it as clients know them."""
        return self.registry.in_words(text)


def aws_host(node: NodeId) -> str:
    """Return the name that Amazon ECR gives to the registry of an account in a region."""
    suffix = "amazonaws.com.cn" if node.region.startswith("cn-") else "amazonaws.com"
    return f"{node.account}.dkr.ecr.{node.region}.{suffix}"
