"""Repository creation templates: the settings of a repository that nobody creates by hand (ECR §11).

The template with the longest prefix that fits, and that is applied for the cause, counts; the prefix ROOT fits every
name that no other fits. Without one, a repository has the node's own settings.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from replicator.core.mutability import MutabilityRule

if TYPE_CHECKING:
    from collections.abc import Iterable

    from replicator.core.names import RepositoryName

ROOT = "ROOT"


class CreationCause(enum.StrEnum):
    """What creates a repository; ECR's `appliedFor`."""

    REPLICATION = "REPLICATION"
    PULL_THROUGH_CACHE = "PULL_THROUGH_CACHE"
    CREATE_ON_PUSH = "CREATE_ON_PUSH"


@dataclass(frozen=True, slots=True)
class CreationTemplate:
    """Settings of repositories below `prefix` (whole path components; ROOT: of all others)."""

    prefix: str
    applied_for: frozenset[CreationCause]
    mutability: MutabilityRule = field(default_factory=MutabilityRule)

    def fits(self, repository: RepositoryName) -> bool:
        """Tell whether the repository lies below the prefix."""
        return self.prefix == ROOT or repository.startswith(f"{self.prefix}/")


def template_for(
    templates: Iterable[CreationTemplate], repository: RepositoryName, cause: CreationCause
) -> CreationTemplate | None:
    """Return the template that a repository created for `cause` gets its settings from, if there is one."""
    fitting = [one for one in templates if cause in one.applied_for and one.fits(repository)]
    return max(fitting, key=lambda one: 0 if one.prefix == ROOT else len(one.prefix), default=None)
