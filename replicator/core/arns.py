"""The ARNs of repositories: how they are written, and read back (ECR §2)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput, InvalidName
from replicator.core.names import AccountId, NodeId, Region, parse_repository

if TYPE_CHECKING:
    from replicator.core.names import RepositoryName

_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"))
_REPOSITORY = re.compile(r"arn:aws[a-z-]*:ecr:([a-z0-9-]{1,40}):([0-9]{12}):repository/(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class RepositoryArn:
    """A repository of a registry."""

    registry: NodeId
    repository: RepositoryName


def partition_of(region: str) -> str:
    """Return the partition that a region belongs to, as ARNs name it."""
    return next((partition for prefix, partition in _PARTITIONS if region.startswith(prefix)), "aws")


def repository_arn(registry: NodeId, repository: RepositoryName) -> str:
    """Return the ARN of a repository."""
    return f"arn:{partition_of(registry.region)}:ecr:{registry.region}:{registry.account}:repository/{repository}"


def parse_repository_arn(text: str) -> RepositoryArn:
    """Return the repository that an ARN names; raise InvalidInput when it names none."""
    match = _REPOSITORY.fullmatch(text)
    try:
        if match is not None:
            return RepositoryArn(NodeId(AccountId(match[2]), Region(match[1])), parse_repository(match[3]))
    except InvalidName:
        pass
    raise InvalidInput(f"expected the ARN of a repository, got {text[:80]!r}")
