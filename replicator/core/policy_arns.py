"""ARNs as policies compare them: of repositories, and of the principals that statements name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from replicator.core.names import AccountId

if TYPE_CHECKING:
    from replicator.core.names import NodeId, RepositoryName

_PARTITIONS = (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov"))
_PARTITION = r"(?:aws|aws-cn|aws-us-gov)"
_NAME = r"[A-Za-z0-9_+=,.@-]{1,128}"
_PATH = r"(?:[!-)+-.0->@-~]{1,510}/){0,20}?"
_ROOT = re.compile(rf"arn:{_PARTITION}:iam::([0-9]{{12}}):root")
_ROLE = re.compile(rf"arn:{_PARTITION}:iam::([0-9]{{12}}):role/{_PATH}({_NAME})")
_SESSION = re.compile(rf"arn:{_PARTITION}:sts::([0-9]{{12}}):assumed-role/({_NAME})/({_NAME})")
_USER = re.compile(rf"arn:{_PARTITION}:iam::([0-9]{{12}}):user/{_PATH}({_NAME})")
_FEDERATED = re.compile(rf"arn:{_PARTITION}:sts::([0-9]{{12}}):federated-user/({_NAME})")
_MAX_LENGTH = 2048


class Role(NamedTuple):
    """A role of an account; its path does not tell it from another, since names are unique in an account."""

    account: AccountId
    name: str


def partition_of(region: str) -> str:
    """Return the partition that a region belongs to, as ARNs name it."""
    return next((partition for prefix, partition in _PARTITIONS if region.startswith(prefix)), "aws")


def repository_arn(node: NodeId, repository: RepositoryName) -> str:
    """Return the ARN of a repository of a registry."""
    return f"arn:{partition_of(node.region)}:ecr:{node.region}:{node.account}:repository/{repository}"


def user_arn(node: NodeId, name: str) -> str:
    """Return the ARN of a user of a registry's account."""
    return f"arn:{partition_of(node.region)}:iam::{node.account}:user/{name}"


def root_arn(account: AccountId, partition: str = "aws") -> str:
    """Return the ARN of an account's root."""
    return f"arn:{partition}:iam::{account}:root"


def account_of_root(arn: str) -> AccountId | None:
    """Return the account whose root an ARN names, or None when it names something else."""
    found = _ROOT.fullmatch(arn)
    return None if found is None else AccountId(found[1])


def account_of(arn: str) -> AccountId | None:
    """Return the account of a principal's ARN, or None when it is none."""
    found = next(
        (found for form in (_ROOT, _USER, _ROLE, _SESSION, _FEDERATED) if (found := form.fullmatch(arn))), None
    )
    return None if found is None else AccountId(found[1])


def role_of(arn: str) -> Role | None:
    """Return the role that an ARN names, or whose session it names."""
    found = _ROLE.fullmatch(arn) or _SESSION.fullmatch(arn)
    return None if found is None else Role(AccountId(found[1]), found[2])


def session_role(arn: str) -> Role | None:
    """Return the role of the session that an ARN names, or None when it names something else."""
    found = _SESSION.fullmatch(arn)
    return None if found is None else Role(AccountId(found[1]), found[2])


def user_name(arn: str) -> str | None:
    """Return the name of the user that an ARN names, or None when it names something else."""
    found = _USER.fullmatch(arn)
    return None if found is None else found[2]


def is_principal(arn: str) -> bool:
    """Tell whether an ARN names one user, role, session of a role, or federated user, without wildcards."""
    if len(arn) > _MAX_LENGTH:
        return False
    return any(form.fullmatch(arn) for form in (_USER, _ROLE, _SESSION, _FEDERATED))
