"""Names that a replication rule is about, made from its own patterns, to try the rule out on them.

Checks run the real decisions on these names instead of reasoning about patterns: what they report does happen. Names
that nobody could guess from the patterns are not tried, so the absence of a report proves nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.core.errors import InvalidInput
from replicator.core.mutability import matches_wildcard
from replicator.core.names import RepositoryName, Tag, parse_repository, parse_tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from replicator.core.replication import Rename, ReplicationRule

_FILLER = "app"


def name_of(pattern: str) -> RepositoryName | None:
    """Return a repository name that a wildcard pattern matches; None when it can match none.

    Letters go well beside everything that is possible in a name, so if they do not do for `*`, nothing does.
    """
    return _parsed(pattern) if "*" not in pattern else _parsed(pattern.replace("*", _FILLER))


def name_below(prefix: str) -> RepositoryName | None:
    """Return a repository name that starts with a literal prefix; None when none can."""
    return _parsed(prefix + _FILLER) or _parsed(prefix)


def tag_of(pattern: str) -> Tag | None:
    """Return a tag that a wildcard pattern matches; None when it can match none."""
    for filler in ("1", "a", ""):
        try:
            return parse_tag(pattern.replace("*", filler))
        except InvalidInput:
            continue
    return None


def covers(wide: str, narrow: str) -> bool:
    """Tell whether everything that `narrow` matches is matched by `wide`: then it matches `narrow`'s own text too."""
    return matches_wildcard(wide, narrow)


def sample_names(rules: Sequence[ReplicationRule]) -> tuple[RepositoryName, ...]:
    """Return names of repositories that the rules may tell apart, and the names they get or come from by renaming."""
    seeds = dict.fromkeys(name for rule in rules for name in _seeds(rule))
    renames = [rename for rule in rules for rename in rule.rename]
    for name in tuple(seeds):
        seeds.update(dict.fromkeys(_relatives(name, renames)))
    return tuple(seeds)


def covered_names(rule: ReplicationRule) -> tuple[RepositoryName, ...]:
    """Return names of repositories that one rule covers, also of those that it cannot rename."""
    return tuple(name for name in sample_names([rule]) if rule.covers(name))


def sample_tags(rules: Iterable[ReplicationRule]) -> tuple[Tag, ...]:
    """Return tags that the rules may tell apart."""
    patterns = (pattern for rule in rules for pattern in (*rule.tags, *rule.excluded_tags, "latest"))
    return tuple(dict.fromkeys(tag for pattern in patterns if (tag := tag_of(pattern)) is not None))


def _seeds(rule: ReplicationRule) -> Iterator[RepositoryName]:
    literals = [*rule.filters, *(part for rename in rule.rename for part in (rename.prefix, rename.to)), ""]
    texts = [text for literal in literals for text in (literal, literal + _FILLER, f"{literal}/{_FILLER}")]
    patterns = [*rule.repositories, *rule.excluded_repositories]
    texts += [pattern.replace("*", _FILLER) for pattern in patterns]
    for text in texts:
        name = _parsed(text)
        if name is not None:
            yield name


def _relatives(name: RepositoryName, renames: Iterable[Rename]) -> Iterator[RepositoryName]:
    for rename in renames:
        for start, instead in ((rename.prefix, rename.to), (rename.to, rename.prefix)):
            renamed = _parsed(instead + name.removeprefix(start)) if name.startswith(start) else None
            if renamed is not None:
                yield renamed


def _parsed(text: str) -> RepositoryName | None:
    try:
        return parse_repository(text)
    except InvalidInput:
        return None
