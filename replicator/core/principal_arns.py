"""The ARNs of principals: users, roles, sessions of roles, and the root of an account."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from replicator.core.errors import InvalidInput
from replicator.core.names import AccountId

_MAX_LENGTH = 2048
_NAME = r"[\w+=,.@-]{1,64}"
_PATH = r"(?:[!-.0-~]{1,510}/){0,20}?"
_FORMS = (
    ("root", re.compile(r"arn:(?:aws|aws-cn|aws-us-gov):iam::([0-9]{12}):root")),
    ("user", re.compile(rf"arn:(?:aws|aws-cn|aws-us-gov):iam::([0-9]{{12}}):user/{_PATH}({_NAME})", re.ASCII)),
    ("role", re.compile(rf"arn:(?:aws|aws-cn|aws-us-gov):iam::([0-9]{{12}}):role/{_PATH}({_NAME})", re.ASCII)),
    (
        "assumed-role",
        re.compile(rf"arn:(?:aws|aws-cn|aws-us-gov):sts::([0-9]{{12}}):assumed-role/{_NAME}/({_NAME})", re.ASCII),
    ),
)


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


def parse_principal_arn(text: str) -> PrincipalArn:
    """Return a principal's ARN; raise InvalidInput when it names no user, role, session of a role, or root."""
    if len(text) <= _MAX_LENGTH:
        for kind, form in _FORMS:
            found = form.fullmatch(text)
            if found is not None:
                return PrincipalArn(text, PrincipalType(kind), AccountId(found[1]), (*found.groups(), "")[1])
    raise InvalidInput(
        "expected the ARN of a user, a role, an assumed role or a root, such as arn:aws:iam::123456789012:user/dev"
    )
