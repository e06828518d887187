"""The principals of AWS accounts whose requests are verified: who they are, how they sign, and what they may do."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from replicator.config.base import FilePath, Flag, Model, checked
from replicator.config.secrets import DevelopmentSecretRef
from replicator.config.units import shown
from replicator.core.errors import ConfigurationError, InvalidInput
from replicator.core.principal_arns import PrincipalArn, parse_principal_arn

if TYPE_CHECKING:
    from typing import Self

MAX_POLICY_BYTES = 64 * 1024
ADMINISTRATOR_POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'
"""What `administrator: true` stands for."""

_KEY_ID = r"^[A-Za-z0-9_]{1,128}$"
_MAX_TAGS = 50


def check_policy(text: str) -> str:
    """Return the text of an identity policy; raise InvalidInput when it is none."""
    return text


def _inline_policy(value: object) -> str:
    if not isinstance(value, dict):
        raise ValueError(f"expected an IAM policy, a mapping with Version and Statement, got {shown(value)}")  # noqa: TRY004 - pydantic reports ValueError
    try:
        return check_policy(json.dumps(value, separators=(",", ":")))
    except InvalidInput as error:
        raise ValueError(str(error)) from error


ArnText = Annotated[
    PrincipalArn,
    BeforeValidator(checked(parse_principal_arn)),
    WithJsonSchema({"type": "string", "examples": ["arn:aws:iam::123456789012:user/dev"]}),
]
InlinePolicy = Annotated[
    str,
    BeforeValidator(_inline_policy),
    WithJsonSchema({"type": "object", "description": "An IAM policy: `Version` and `Statement`."}),
]
"""A policy as a mapping in the file; its JSON text afterwards."""
TagKey = Annotated[str, Field(min_length=1, max_length=128)]
TagValue = Annotated[str, Field(max_length=256)]


class AccessKeySettings(Model):
    """A key with which an identity signs its requests."""

    id: Annotated[str, Field(pattern=_KEY_ID)]
    """Access key id, unique in the file: letters, digits and `_`."""
    secret: DevelopmentSecretRef
    """Secret access key: `{env: NAME}` or `{file: path}`; `{insecure: text}` where all nodes are on loopback."""
    session_token: DevelopmentSecretRef | None = None
    """Session token that requests with this key must carry, as a secret; only for temporary keys."""


class IdentitySettings(Model):
    """A principal of an AWS account: what signs with one of its keys is this principal."""

    arn: ArnText
    """ARN of a user, a role, a session of a role (`assumed-role`) or the root of an account; unique in the file."""
    access_keys: Annotated[tuple[AccessKeySettings, ...], Field(min_length=1)]
    """Its access keys; two for the time in which one replaces the other."""
    administrator: Flag = False
    """Whether it may do everything in its account: a policy that allows `*` on `*`."""
    policies: tuple[InlinePolicy, ...] = ()
    """IAM policies, written here."""
    policy_files: tuple[FilePath, ...] = ()
    """IAM policies, in JSON files."""
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=_MAX_TAGS)] = Field(default_factory=dict)
    """Tags of the principal, for conditions on `aws:PrincipalTag/…`."""

    @model_validator(mode="after")
    def _one_shorthand(self) -> Self:
        if self.administrator and (self.policies or self.policy_files):
            raise ValueError("expected either administrator: true or policies: an administrator may do everything")
        return self

    def policy_texts(self) -> tuple[str, ...]:
        """Return its policies as JSON; raise ConfigurationError when a file is not there or holds no policy."""
        own = (ADMINISTRATOR_POLICY,) if self.administrator else self.policies
        return (*own, *map(read_policy, self.policy_files))


def read_policy(path: Path) -> str:
    """Return the text of a policy in a file; raise ConfigurationError when it is not there or holds no policy."""
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_POLICY_BYTES + 1)
        if len(data) > MAX_POLICY_BYTES:
            raise ConfigurationError(f"{path} is larger than {MAX_POLICY_BYTES} bytes")
        return check_policy(data.decode())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or 'input/output error'}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text") from error
    except InvalidInput as error:
        raise ConfigurationError(f"{path} holds no policy: {error}") from error
