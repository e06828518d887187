"""The ARNs of principals: users, roles, their sessions, federated users, and the root of an account."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from replicator.core.arns import partition_of
from replicator.core.errors import InvalidInput
from replicator.core.names import AccountId

if TYPE_CHECKING:
    from replicator.core.names import NodeId

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


class PrincipalType(enum.StrEnum):
    """What an ARN names."""

    ROOT = "root"
    USER = "user"
    ROLE = "role"
    ASSUMED_ROLE = "assumed-role"


@dataclass(frozen=True, slots=True)
class PrincipalArn:
    """A principal of an account; `name` is a session's own where it is one of a role, and empty for the root."""

    text: str
    type: PrincipalType
    account: AccountId
    name: str

    def __str__(self) -> str:
        return self.text


_FORMS = (
    (PrincipalType.ROOT, _ROOT),
    (PrincipalType.USER, _USER),
    (PrincipalType.ROLE, _ROLE),
    (PrincipalType.ASSUMED_ROLE, _SESSION),
)


def parse_principal_arn(text: str) -> PrincipalArn:
    """Return a principal's ARN; raise InvalidInput when it names no user, role, session of a role, or root."""
    if len(text) <= _MAX_LENGTH:
        for kind, form in _FORMS:
            found = form.fullmatch(text)
            if found is not None:
                name = found[found.lastindex or 1] if kind is not PrincipalType.ROOT else ""
                return PrincipalArn(text, kind, AccountId(found[1]), name)
    raise InvalidInput(
        "expected the ARN of a user, a role, an assumed role or a root, such as arn:aws:iam::123456789012:user/dev"
    )
