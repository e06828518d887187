"""Repository creation templates that a file declares: every member that ECR's have, checked as the API checks them.

A template that could never be applied is refused: one whose policies cannot be read, or that sets what only a role of
its own may set and names none.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from replicator.config.base import Model, checked
from replicator.config.cache import parse_prefix
from replicator.config.units import shown
from replicator.core.encryption import Encryption, EncryptionType
from replicator.core.errors import InvalidLifecyclePolicy, InvalidPolicy, InvalidResourceTag
from replicator.core.lifecycle_grammar import MAX_TEXT, parse_lifecycle_policy
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.policy import PolicyKind, parse_policy
from replicator.core.resource_tags import checked_tags
from replicator.core.templates import CreationCause, CreationTemplate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from replicator.config.quotas import QuotaSettings

_WITH_EXCLUSION = {TagMutability.MUTABLE_WITH_EXCLUSION, TagMutability.IMMUTABLE_WITH_EXCLUSION}

ExclusionFilter = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[0-9a-zA-Z._*-]+$")]


def _text(value: object, what: str) -> str:
    if not isinstance(value, dict):
        raise ValueError(f"expected a {what}, a mapping, got {shown(value)}")  # noqa: TRY004 - pydantic reports ValueError
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except TypeError as error:
        raise ValueError(f"expected a {what} of text, numbers, lists and mappings: {error}") from error


def _repository_policy(value: object) -> str:
    text = _text(value, "repository policy")
    try:
        parse_policy(text, PolicyKind.REPOSITORY)
    except InvalidPolicy as error:
        raise ValueError(f"not a repository policy: {error.reason}") from error
    return text


def _lifecycle_policy(value: object) -> str:
    text = _text(value, "lifecycle policy")
    try:
        found = parse_lifecycle_policy(text, max_rules=None).text
    except InvalidLifecyclePolicy as error:
        raise ValueError(f"not a lifecycle policy: {error}") from error
    if len(found) > MAX_TEXT:
        raise ValueError(f"expected a lifecycle policy of at most {MAX_TEXT} characters, got {len(found)}")
    return found


def _resource_tags(tags: dict[str, str]) -> dict[str, str]:
    for key, value in tags.items():
        try:
            checked_tags([(key, value)], 1)
        except InvalidResourceTag as error:
            raise ValueError(
                f"tag {shown(key)}: expected a key of 1 to 128 characters that does not begin with aws:, and a value of"
                " at most 256"
            ) from error
    return tags


class MutabilitySettings(Model):
    """Which tags may move."""

    tag_mutability: TagMutability = TagMutability.MUTABLE
    """Whether a tag may move to another digest."""
    tag_mutability_exclusions: Annotated[tuple[ExclusionFilter, ...], Field(max_length=5)] = ()
    """Tags the setting does not hold for, `*` standing for any characters; only with a `…_WITH_EXCLUSION` setting."""

    @model_validator(mode="after")
    def _exclusions_fit(self) -> Self:
        wanted = self.tag_mutability in _WITH_EXCLUSION
        if wanted != bool(self.tag_mutability_exclusions):
            raise ValueError(
                f"expected {'1 to 5' if wanted else 'no'} tag_mutability_exclusions with {self.tag_mutability}"
            )
        return self

    def mutability(self) -> MutabilityRule:
        """Return the core's value."""
        return MutabilityRule(self.tag_mutability, self.tag_mutability_exclusions)


class TemplateSettings(MutabilitySettings):
    """The settings of repositories below a prefix that nobody creates by hand: ECR's repository creation template."""

    prefix: Annotated[
        str,
        BeforeValidator(checked(parse_prefix)),
        WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 256, "examples": ["team-a"]}),
    ]
    """First path components of the repositories, or `ROOT` for those no other template fits; unique, longest wins."""
    applied_for: Annotated[tuple[CreationCause, ...], Field(min_length=1)]
    """What creates the repositories: replication, a pull through the cache, a push."""
    description: Annotated[str, Field(max_length=256)] | None = None
    """What the template is for, as the API tells it."""
    encryption: EncryptionType = EncryptionType.AES256
    """How the repositories are said to be encrypted; `KMS` and `KMS_DSSE` need a `custom_role_arn`."""
    kms_key: Annotated[str, Field(min_length=1, max_length=2048)] | None = None
    """Key of KMS that they are said to be encrypted with; the account's own, if absent. Not with `AES256`."""
    resource_tags: Annotated[dict[str, str], AfterValidator(_resource_tags)] = Field(default_factory=dict)
    """Tags that the repositories get as resources; they need a `custom_role_arn`."""
    repository_policy: (
        Annotated[
            str,
            BeforeValidator(_repository_policy),
            WithJsonSchema({"type": "object", "description": "A repository policy: `Version` and `Statement`."}),
        ]
        | None
    ) = None
    """Policy that the repositories get: `Version` and `Statement`, as a mapping."""
    lifecycle_policy: (
        Annotated[
            str,
            BeforeValidator(_lifecycle_policy),
            WithJsonSchema({"type": "object", "description": "A lifecycle policy: `rules`."}),
        ]
        | None
    ) = None
    """Lifecycle policy that the repositories get: `rules`, as a mapping."""
    custom_role_arn: Annotated[str, Field(max_length=2048, pattern=r"^arn:[a-z-]+:iam::[0-9]{12}:role/\S+$")] | None = (
        None
    )
    """ARN of the role that tags and encrypts: nothing is done with it, but ECR applies no such template without one."""

    @model_validator(mode="after")
    def _can_be_applied(self) -> Self:
        if self.kms_key is not None and self.encryption is EncryptionType.AES256:
            raise ValueError("expected no kms_key with the encryption AES256")
        if self.to_template().lacks_role:
            raise ValueError("expected a custom_role_arn: resource tags and encryption by KMS need one")
        return self

    def beyond(self, quotas: QuotaSettings) -> Iterator[tuple[str, str]]:
        """Yield the keys that exceed a quota of the node, with what was expected."""
        if len(self.resource_tags) > quotas.resource_tags:
            yield "resource_tags", f"expected at most {quotas.resource_tags} tags, got {len(self.resource_tags)}"
        rules = 0 if self.lifecycle_policy is None else len(json.loads(self.lifecycle_policy)["rules"])
        if rules > quotas.lifecycle_rules:
            yield "lifecycle_policy", f"expected at most {quotas.lifecycle_rules} rules, got {rules}"

    def to_template(self) -> CreationTemplate:
        """Return the core's value."""
        return CreationTemplate(
            self.prefix,
            frozenset(self.applied_for),
            self.mutability(),
            self.description,
            Encryption(self.encryption, self.kms_key),
            tuple(self.resource_tags.items()),
            self.repository_policy,
            self.lifecycle_policy,
            self.custom_role_arn,
        )
