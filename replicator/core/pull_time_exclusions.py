"""Principals whose pulls leave no trace in an image's pull time (ECR §13.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.principal_arns import role_of

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class PullTimeExclusion:
    """A user or a role, and since when (Unix seconds) its pulls are not recorded."""

    principal_arn: str
    created_at: float


def is_excluded(arn: str, exclusions: Sequence[PullTimeExclusion]) -> bool:
    """Tell whether the pulls of a principal are not recorded; a session counts as its role."""
    if any(one.principal_arn == arn for one in exclusions):
        return True
    role = role_of(arn)
    return role is not None and any(role_of(one.principal_arn) == role for one in exclusions)
