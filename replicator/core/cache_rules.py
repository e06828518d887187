"""Pull-through cache: which upstream answers for a repository, and when its answer must be checked again.

Matching is ECR's: the longest prefix wins, a slash is implied after it, and `ROOT` covers what no other rule does (ECR,
"Sync an upstream registry"). Digests are never checked again: content under a digest cannot change.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidName
from replicator.core.names import RepositoryName, parse_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = "ROOT"
DEFAULT_FRESH_FOR = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Repositories under `prefix` come from repositories under `upstream_prefix` of the upstream named `upstream`.

    `fresh_for` is how many seconds a tag is served without asking the upstream.
    """

    prefix: str
    upstream: str
    upstream_prefix: str = ROOT
    fresh_for: float = DEFAULT_FRESH_FOR

    def covers(self, repository: RepositoryName) -> bool:
        """Tell whether the rule answers for `repository`."""
        return self.prefix == ROOT or repository.startswith(f"{self.prefix}/")

    def upstream_repository(self, repository: RepositoryName) -> RepositoryName | None:
        """Return the upstream's name for a repository that the rule covers, or None when it would be no name."""
        rest = repository if self.prefix == ROOT else repository[len(self.prefix) + 1 :]
        try:
            return parse_repository(rest if self.upstream_prefix == ROOT else f"{self.upstream_prefix}/{rest}")
        except InvalidName:
            return None


@dataclass(frozen=True, slots=True)
class CacheMatch:
    """The rule that answers for a repository, and the repository's name at its upstream."""

    rule: CacheRule
    upstream_repository: RepositoryName


def match_cache_rule(rules: Sequence[CacheRule], repository: RepositoryName) -> CacheMatch | None:
    """Return the match of the rule with the longest prefix; ROOT comes last.

    That rule alone decides: what it cannot name is not looked for at the upstream of another one.
    """
    covering = [rule for rule in rules if rule.covers(repository)]
    if not covering:
        return None
    rule = max(covering, key=lambda rule: (rule.prefix != ROOT, len(rule.prefix)))
    upstream_repository = rule.upstream_repository(repository)
    return None if upstream_repository is None else CacheMatch(rule, upstream_repository)


class Freshness(enum.StrEnum):
    """What to do with a cached tag."""

    FRESH = "fresh"
    DUE = "due"


FAILED_CHECK_PAUSE = 30.0
"""Seconds after a failed check during which a due tag is served without asking again."""


def evaluate_freshness(rule: CacheRule, checked_at: float, failed_at: float | None, now: float) -> Freshness:
    """Tell whether a tag last confirmed at `checked_at` may be served as it is, or is due for a check.

    A check that failed at `failed_at` is not repeated at once, but it does not make the tag fresh either: after a short
    pause the next pull asks again.
    """
    if 0 <= now - checked_at < rule.fresh_for:
        return Freshness.FRESH
    if failed_at is not None and 0 <= now - failed_at < FAILED_CHECK_PAUSE:
        return Freshness.FRESH
    return Freshness.DUE
