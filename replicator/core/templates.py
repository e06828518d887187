"""Repository creation templates: the settings of a repository that nobody creates by hand (ECR §11).

The template with the longest prefix that fits, and that is applied for the cause, counts; the prefix ROOT fits every
name that no other fits. Without one, a repository has the node's own settings. A template that sets resource tags or a
key of KMS names the role that may do so: without one the repositories it covers cannot be created.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.encryption import Encryption
from replicator.core.errors import InvalidInput
from replicator.core.mutability import MutabilityRule, TagMutability
from replicator.core.names import parse_repository

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.names import RepositoryName

ROOT = "ROOT"
_MAX_EXCLUSIONS = 5
_EXCLUSION = re.compile(r"[0-9a-zA-Z._*-]{1,128}")
_WITH_EXCLUSION = {TagMutability.MUTABLE_WITH_EXCLUSION, TagMutability.IMMUTABLE_WITH_EXCLUSION}


class CreationCause(enum.StrEnum):
    """What creates a repository; ECR's `appliedFor`."""

    REPLICATION = "REPLICATION"
    PULL_THROUGH_CACHE = "PULL_THROUGH_CACHE"
    CREATE_ON_PUSH = "CREATE_ON_PUSH"


@dataclass(frozen=True, slots=True)
class CreationTemplate:
    """Settings of repositories below `prefix` (whole path components; ROOT: of all others).

    `repository_policy` and `lifecycle_policy` are texts, `resource_tags` pairs of key and value.
    """

    prefix: str
    applied_for: frozenset[CreationCause]
    mutability: MutabilityRule = field(default_factory=MutabilityRule)
    description: str | None = None
    encryption: Encryption = field(default_factory=Encryption)
    resource_tags: tuple[tuple[str, str], ...] = ()
    repository_policy: str | None = None
    lifecycle_policy: str | None = None
    custom_role_arn: str | None = None
    created_at: float = 0.0
    updated_at: float = 0.0

    @property
    def lacks_role(self) -> bool:
        """Tell whether the template sets what only a role of its own may set, and names none."""
        return self.custom_role_arn is None and (bool(self.resource_tags) or self.encryption.uses_kms)

    def fits(self, repository: RepositoryName) -> bool:
        """Tell whether the repository lies below the prefix."""
        return self.prefix == ROOT or repository.startswith(f"{self.path}/")

    @property
    def path(self) -> str:
        """The prefix without the slash that may end it: with and without one, it is the same template."""
        return self.prefix.removesuffix("/")


def template_for(
    templates: Iterable[CreationTemplate], repository: RepositoryName, cause: CreationCause
) -> CreationTemplate | None:
    """Return the template that a repository created for `cause` gets its settings from, if there is one."""
    fitting = [one for one in templates if cause in one.applied_for and one.fits(repository)]
    return max(fitting, key=lambda one: 0 if one.prefix == ROOT else len(one.path), default=None)


def check_template(template: CreationTemplate) -> None:
    """Raise InvalidInput for a template that fits no name, is applied for nothing, or sets no sensible mutability."""
    if template.prefix != ROOT:
        parse_repository(template.path)
    if not template.applied_for:
        raise InvalidInput(f"template {template.prefix}: expected at least one cause that it is applied for")
    exclusions, setting = template.mutability.exclusions, template.mutability.setting
    if (setting in _WITH_EXCLUSION) != bool(exclusions) or len(exclusions) > _MAX_EXCLUSIONS:
        wanted = f"1 to {_MAX_EXCLUSIONS}" if setting in _WITH_EXCLUSION else "no"
        raise InvalidInput(f"template {template.prefix}: expected {wanted} exclusions with {setting}")
    for pattern in exclusions:
        if _EXCLUSION.fullmatch(pattern) is None:
            raise InvalidInput(f"template {template.prefix}: expected a pattern of tags, got {pattern[:80]!r}")
