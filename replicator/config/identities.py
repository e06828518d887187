"""The principals of AWS accounts whose requests are verified: who they are, how they sign, and what they may do."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from replicator.config.base import FilePath, Flag, Model, checked
from replicator.config.secrets import DevelopmentSecretRef
from replicator.config.units import shown
from replicator.core.errors import ConfigurationError, InvalidPolicy
from replicator.core.policy import PolicyKind, parse_policy
from replicator.core.principal import EVERYTHING
from replicator.core.principal_arns import PrincipalArn, PrincipalType, parse_principal_arn

if TYPE_CHECKING:
    from typing import Self

    from replicator.core.policy import Policy

MAX_POLICY_BYTES = 64 * 1024

_KEY_ID = r"^[A-Za-z0-9_]{1,128}$"
_MAX_TAGS = 50


def _parse(text: str, name: str) -> Policy:
    try:
        return parse_policy(text, PolicyKind.IDENTITY, name=name)
    except InvalidPolicy as error:
        raise ValueError(f"not an identity policy: {error.reason}") from error


def _inline_policy(value: object) -> str:
    if not isinstance(value, dict):
        raise ValueError(f"expected an IAM policy, a mapping with Version and Statement, got {shown(value)}")  # noqa: TRY004 - pydantic reports ValueError
    text = json.dumps(value, separators=(",", ":"))
    _parse(text, "")
    return text


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

    def to_policies(self) -> tuple[Policy, ...]:
        """Return the core's values; raise ConfigurationError when a file is not there or holds no policy.

        Reads files. The root of an account may do everything in it, whatever its policies allow.
        """
        may_everything = self.administrator or self.arn.type is PrincipalType.ROOT
        inline = (_parse(text, f"policies[{i}] of {self.arn}") for i, text in enumerate(self.policies))
        return (*((EVERYTHING,) if may_everything else ()), *inline, *map(read_policy, self.policy_files))


def read_policy(path: Path) -> Policy:
    """Return the policy in a file; raise ConfigurationError when it is not there or holds none."""
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_POLICY_BYTES + 1)
        return _parse(data.decode(), str(path))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or 'input/output error'}") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path} is not UTF-8 text") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: {error}") from error
