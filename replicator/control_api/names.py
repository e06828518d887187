"""What ECR calls a registry and its repositories: hosts, URIs and ARNs (ECR §2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.arns import repository_arn

if TYPE_CHECKING:
    from replicator.core.names import NodeId, RepositoryName


@dataclass(frozen=True, slots=True)
class RegistryNames:
    """The names of a registry. `host` is where clients are sent to, and `scheme` how."""

    id: NodeId
    host: str
    scheme: str = "https"

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


def aws_host(node: NodeId) -> str:
    """Return the name that Amazon ECR gives to the registry of an account in a region."""
    suffix = "amazonaws.com.cn" if node.region.startswith("cn-") else "amazonaws.com"
    return f"{node.account}.dkr.ecr.{node.region}.{suffix}"
