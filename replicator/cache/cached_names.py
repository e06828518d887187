"""Which part of the name space the cache fills, and by which rule.

The longest prefix alone decides, so what one rule covers is what lies below its prefix without what lies below longer
ones. A rule for all names makes no cached repository of one that was pushed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.cache_rules import ROOT, match_cache_rule
from replicator.registry.ownership import is_own
from replicator.storage.metadata import repositories
from replicator.storage.metadata.name_ranges import EVERYTHING, NameRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.cache_rules import CacheRule
    from replicator.core.names import RepositoryName
    from replicator.storage.metadata.statement import Steps


class CachedNames:
    """Which repositories are cached, and by which rule. Those that no rule covers are nobody's to give up."""

    def __init__(self, rules: Sequence[CacheRule]) -> None:
        self.rules = tuple(rules)

    @property
    def all(self) -> NameRange:
        """The repositories that any rule covers."""
        prefixes = tuple(rule.prefix for rule in self.rules)
        return EVERYTHING if ROOT in prefixes else NameRange(prefixes)

    def of(self, rule: CacheRule) -> NameRange:
        """Return the repositories that a rule covers and no longer prefix does."""
        others = tuple(other.prefix for other in self.rules if other.prefix not in {ROOT, rule.prefix})
        if rule.prefix == ROOT:
            return NameRange(None, others)
        return NameRange((rule.prefix,), tuple(one for one in others if one.startswith(f"{rule.prefix}/")))

    def find_rule(self, repository: RepositoryName) -> Steps[CacheRule | None]:
        """Return the rule that a repository is cached by, or None for one of the registry's own."""
        match = match_cache_rule(self.rules, repository)
        if match is None:
            return None
        if match.rule.prefix == ROOT:
            found = yield from repositories.find(repository)
            if found is None or is_own(found):
                return None
        return match.rule
