"""Pull-through cache rules: which upstream answers for a repository, what may be pulled, and how long it stays fresh.

Matching is ECR's: the longest prefix wins, a slash is implied after it, and `ROOT` covers what no other rule does (ECR,
"Sync an upstream registry"). Everything beyond ECR's rule, which is prefix, upstream and upstream prefix, is an
extension. Digests are never checked again: content under a digest cannot change.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

from replicator.core.errors import InvalidName
from replicator.core.names import RepositoryName, parse_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.names import NodeId, Tag
    from replicator.core.platforms import Platform

ROOT = "ROOT"
LIBRARY = "library"
"""Where Docker Hub keeps the repositories that people write without a slash."""

DEFAULT_FRESH_FOR = 24 * 3600.0
DEFAULT_STALE_WHILE_REVALIDATE = 7 * 24 * 3600.0
DEFAULT_NEGATIVE_FOR = 30.0

_SEMVER = re.compile(r"v?[0-9]+\.[0-9]+\.[0-9]+(?:-[0-9A-Za-z.-]+)?(?:_[0-9A-Za-z.-]+)?")
SEMVER = "semver"
"""Stands for every tag that looks like a whole version, such as `1.27.3`, `v2.0.1` or `1.27.3-alpine`."""


class OnNotFound(enum.StrEnum):
    """What to do with a cached tag that the upstream says is gone: serve what is here, or follow."""

    KEEP = "keep"
    FOLLOW = "follow"


@dataclass(frozen=True, slots=True)
class FreshnessProfile:
    """Tags that match one of `tags` are fresh for `fresh_for` seconds.

    A pattern is a literal with `*` for any characters, or `semver`.
    """

    tags: tuple[str, ...]
    fresh_for: float

    def covers(self, tag: Tag) -> bool:
        """Tell whether the profile is for `tag`."""
        return any(_SEMVER.fullmatch(tag) if one == SEMVER else matches(one, tag) for one in self.tags)


DEFAULT_FRESHNESS = (
    FreshnessProfile((SEMVER,), 7 * 24 * 3600.0),
    FreshnessProfile(("latest", "edge", "nightly", "main", "master", "dev"), 3600.0),
)
"""What holds for a rule that says nothing of freshness: versions seldom move, moving tags often do."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether something may be pulled, and by which pattern it may or may not."""

    allowed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What may be pulled: what `allow` matches, everything if it is empty, without what `deny` matches.

    A pattern is a literal with `*` for any characters, slashes too.
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def permits(self, name: str) -> bool:
        """Tell whether `name` may be pulled."""
        return self.judge(name).allowed

    def judge(self, name: str) -> Verdict:
        """Return whether `name` may be pulled, and why."""
        for pattern in self.deny:
            if matches(pattern, name):
                return Verdict(allowed=False, reason=f"denied by {pattern!r}")
        if not self.allow:
            return Verdict(allowed=True, reason="everything is allowed that is not denied")
        for pattern in self.allow:
            if matches(pattern, name):
                return Verdict(allowed=True, reason=f"allowed by {pattern!r}")
        return Verdict(allowed=False, reason="no allowed pattern matches")


@dataclass(frozen=True, slots=True)
class CacheRule:
    """Repositories under `prefix` come from repositories under `upstream_prefix` of the upstream named `upstream`.

    `mirrors` are upstreams that are asked before it, in order, under the same names; `peers` are nodes that are asked
    before those. What `upstream` says counts: that a mirror or a peer lacks something means nothing. `namespaces` are
    the registry hosts that the rule stands for when the node is used as a mirror. `repositories` selects by the
    upstream's names. All times are seconds, `max_size` is bytes.
    """

    prefix: str
    upstream: str
    upstream_prefix: str = ROOT
    fresh_for: float = DEFAULT_FRESH_FOR
    mirrors: tuple[str, ...] = ()
    peers: tuple[NodeId, ...] = ()
    namespaces: tuple[str, ...] = ()
    repositories: Selection = field(default_factory=Selection)
    tags: Selection = field(default_factory=Selection)
    platforms: tuple[Platform, ...] = ()
    """Platforms whose manifests and blobs are fetched as soon as an index is; none: only what is asked for."""
    fill_library: bool = False
    """Whether an upstream name without a slash gets `library/` in front."""
    freshness: tuple[FreshnessProfile, ...] = ()
    """Exceptions from `fresh_for` by tag; the first that covers a tag holds."""
    stale_while_revalidate: float = DEFAULT_STALE_WHILE_REVALIDATE
    """How long after its freshness a tag is served at once, and checked behind the puller's back."""
    max_stale: float | None = None
    """How long after it was last confirmed a tag is still served when it cannot be; None: for ever."""
    on_not_found: OnNotFound = OnNotFound.KEEP
    negative_for: float = DEFAULT_NEGATIVE_FOR
    """How long the upstream is not asked again for what it did not have, or did not have right."""
    cool_down: float = 0.0
    """How long a digest must have been known before a tag moves to it."""
    max_size: int | None = None
    """Bytes of blobs that the rule's repositories may take up."""
    accept_pushes: bool = False
    """Whether users may push into the rule's repositories, which the cache alone fills otherwise."""

    def covers(self, repository: RepositoryName) -> bool:
        """Tell whether the rule answers for `repository`."""
        return self.prefix == ROOT or repository.startswith(f"{self.prefix}/")

    def upstream_repository(self, repository: RepositoryName) -> RepositoryName | None:
        """Return the upstream's name for a repository that the rule covers, or None when it would be no name."""
        rest = repository if self.prefix == ROOT else repository[len(self.prefix) + 1 :]
        name = rest if self.upstream_prefix == ROOT else f"{self.upstream_prefix}/{rest}"
        if self.fill_library and "/" not in name:
            name = f"{LIBRARY}/{name}"
        return _parsed(name)

    def local_repository(self, upstream_repository: RepositoryName) -> RepositoryName | None:
        """Return our name for a repository of the upstream, or None when the rule does not reach it."""
        rest: str = upstream_repository
        if self.upstream_prefix != ROOT:
            if not rest.startswith(f"{self.upstream_prefix}/"):
                return None
            rest = rest[len(self.upstream_prefix) + 1 :]
        return _parsed(rest if self.prefix == ROOT else f"{self.prefix}/{rest}")

    @property
    def sources(self) -> tuple[str, ...]:
        """The upstreams in the order in which they are asked; the last one has the last word."""
        return (*(mirror for mirror in self.mirrors if mirror != self.upstream), self.upstream)

    def freshness_of(self, tag: Tag) -> float:
        """Return how many seconds `tag` is served without asking the upstream."""
        return next((profile.fresh_for for profile in self.freshness if profile.covers(tag)), self.fresh_for)


@dataclass(frozen=True, slots=True)
class CacheMatch:
    """The rule that answers for a repository, and the repository's name at its upstream."""

    rule: CacheRule
    upstream_repository: RepositoryName


def match_cache_rule(rules: Sequence[CacheRule], repository: RepositoryName) -> CacheMatch | None:
    """Return the match of the rule with the longest prefix; ROOT comes last.

    That rule alone decides: what it cannot name is not looked for at the upstream of another one.
    """
    rule = covering_rule(rules, repository)
    upstream_repository = None if rule is None else rule.upstream_repository(repository)
    return None if rule is None or upstream_repository is None else CacheMatch(rule, upstream_repository)


def covering_rule(rules: Sequence[CacheRule], repository: RepositoryName) -> CacheRule | None:
    """Return the rule with the longest prefix that covers `repository`, whether or not it can name it upstream."""
    covering = [rule for rule in rules if rule.covers(repository)]
    return max(covering, key=lambda rule: (rule.prefix != ROOT, len(rule.prefix)), default=None)


def refusing_rule(
    rules: Sequence[CacheRule], repository: RepositoryName, *, is_cached: bool = False
) -> CacheRule | None:
    """Return the rule because of which users may not push into `repository`, or None when they may.

    What lies below a prefix is filled by the cache alone, or whoever may push could say what an upstream's image is.
    `ROOT` covers every name, so of those only what the cache made (`is_cached`) is its own.
    """
    rule = covering_rule(rules, repository)
    if rule is None or rule.accept_pushes or (rule.prefix == ROOT and not is_cached):
        return None
    return rule


def match_namespace(
    rules: Sequence[CacheRule], namespace: str, repository: RepositoryName
) -> tuple[CacheRule, RepositoryName] | None:
    """Return the rule for a repository of another registry, with our name for it; None when none stands for it.

    `namespace` is the registry's host as clients write it in image names. A repository may also be written with the
    rule's prefix already in front, as clients do that rewrite paths. Of several rules, the one that reaches the
    repository by the longest upstream prefix is taken; a name that another rule would answer for is refused (None).
    """
    wanted = namespace.lower()
    standing = [rule for rule in rules if wanted in rule.namespaces]
    for rule in standing:
        if rule.prefix != ROOT and rule.covers(repository) and _answers(rules, rule, repository):
            return rule, repository
    reaching = [(rule, name) for rule in standing if (name := rule.local_repository(repository)) is not None]
    reaching = [(rule, name) for rule, name in reaching if _answers(rules, rule, name)]
    if not reaching:
        return None
    return max(reaching, key=lambda found: -1 if found[0].upstream_prefix == ROOT else len(found[0].upstream_prefix))


def matches(pattern: str, name: str) -> bool:
    """Tell whether `name` matches a literal in which `*` stands for any characters."""
    return _compiled(pattern).fullmatch(name) is not None


def _answers(rules: Sequence[CacheRule], rule: CacheRule, repository: RepositoryName) -> bool:
    match = match_cache_rule(rules, repository)
    return match is not None and match.rule is rule


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    literal = "*".join(part.replace("[", "[[]").replace("?", "[?]") for part in pattern.split("*"))
    return re.compile(translate(literal))


def _parsed(name: str) -> RepositoryName | None:
    try:
        return parse_repository(name)
    except InvalidName:
        return None
