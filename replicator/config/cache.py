"""What a node fetches from other registries: pull-through cache rules with ECR's grammar and limits, and their shares.

Prefix, upstream and upstream prefix are ECR's; everything else of a rule is an extension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from replicator.config.base import (
    Flag,
    Model,
    Name,
    NodeRef,
    PlatformText,
    RepositoryPattern,
    TagPattern,
    checked,
    parse_host,
)
from replicator.config.units import Duration, DurationOrAny, DurationOrOff, Size
from replicator.core.cache_rules import (
    DEFAULT_FRESH_FOR,
    DEFAULT_FRESHNESS,
    DEFAULT_NEGATIVE_FOR,
    DEFAULT_STALE_WHILE_REVALIDATE,
    ROOT,
    CacheRule,
    FreshnessProfile,
    OnNotFound,
    Selection,
)
from replicator.core.errors import InvalidName
from replicator.core.names import parse_repository
from replicator.core.quotas import DEFAULT_QUOTAS

if TYPE_CHECKING:
    from collections.abc import Collection

MAX_RULES = DEFAULT_QUOTAS.cache_rules
MAX_PATTERNS = 100
MAX_SOURCES = 10
_MIN_PREFIX = 2
_MAX_PREFIX = 30


_Namespace = Annotated[str, BeforeValidator(parse_host), WithJsonSchema({"type": "string", "examples": ["docker.io"]})]


def _parse_prefix(text: str) -> str:
    if text != ROOT and not _MIN_PREFIX <= len(text) <= _MAX_PREFIX:
        raise InvalidName(f"expected ROOT or a prefix of 2 to 30 characters, got {text[:40]!r}")
    return parse_prefix(text)


def parse_prefix(text: str) -> str:
    """Return path components that repository names start with, or `ROOT`; raise InvalidName for anything else."""
    return text if text == ROOT else parse_repository(text)


class RepositorySelectionSettings(Model):
    """Repositories that may be pulled, by their names at the upstream."""

    allow: Annotated[tuple[RepositoryPattern, ...], Field(max_length=MAX_PATTERNS)] = ()
    """Names at the upstream that may be pulled, `*` standing for any characters; every one, if absent."""
    deny: Annotated[tuple[RepositoryPattern, ...], Field(max_length=MAX_PATTERNS)] = ()
    """Names at the upstream that may not be pulled, `*` standing for any characters; they win over `allow`."""

    def to_selection(self) -> Selection:
        """Return the core's value."""
        return Selection(self.allow, self.deny)


class TagSelectionSettings(Model):
    """Tags that may be pulled; a digest always may."""

    allow: Annotated[tuple[TagPattern, ...], Field(max_length=MAX_PATTERNS)] = ()
    """Tags that may be pulled, `*` standing for any characters; every one, if absent."""
    deny: Annotated[tuple[TagPattern, ...], Field(max_length=MAX_PATTERNS)] = ()
    """Tags that may not be pulled, `*` standing for any characters; they win over `allow`."""

    def to_selection(self) -> Selection:
        """Return the core's value."""
        return Selection(self.allow, self.deny)


class FreshnessSettings(Model):
    """How long some tags are fresh."""

    tags: Annotated[tuple[TagPattern, ...], Field(min_length=1, max_length=MAX_PATTERNS)]
    """Tags, `*` standing for any characters; `semver` stands for all that look like versions: `1.27.3`, `v2.0.1`."""
    fresh_for: DurationOrAny
    """How long they are served without asking; `off`: not at all, `forever`: they are never checked again."""

    def to_profile(self) -> FreshnessProfile:
        """Return the core's value."""
        return FreshnessProfile(self.tags, self.fresh_for)


class CacheRuleSettings(Model):
    """Repositories under a prefix come from an upstream on first use."""

    prefix: Annotated[
        str,
        BeforeValidator(checked(_parse_prefix)),
        WithJsonSchema(
            {"type": "string", "minLength": _MIN_PREFIX, "maxLength": _MAX_PREFIX, "examples": ["docker-hub"]}
        ),
    ]
    """First path components of the repositories, 2 to 30 characters; `ROOT`: those no other rule covers; unique."""
    upstream: Name
    """Name of the upstream that answers; that it lacks something is what counts."""
    upstream_prefix: Annotated[str, BeforeValidator(checked(parse_prefix)), WithJsonSchema({"type": "string"})] = ROOT
    """What stands for the prefix in the upstream's repository names; `ROOT`: nothing."""
    mirrors: Annotated[tuple[Name, ...], Field(max_length=MAX_SOURCES)] = ()
    """Names of upstreams with the same repositories that are asked before it, in this order."""
    peers: Annotated[tuple[NodeRef, ...], Field(max_length=MAX_SOURCES)] = ()
    """Nodes and peers of this file that are asked first of all, so that several regions fetch an image once."""
    namespaces: Annotated[tuple[_Namespace, ...], Field(max_length=MAX_SOURCES)] | None = None
    """Hosts of image names that the rule answers for when the node is a mirror; those of the upstream, if absent."""
    repositories: RepositorySelectionSettings = RepositorySelectionSettings()
    """Which repositories may be pulled."""
    tags: TagSelectionSettings = TagSelectionSettings()
    """Which tags may be pulled."""
    platforms: Annotated[tuple[PlatformText, ...], Field(max_length=MAX_PATTERNS)] = ()
    """Platforms fetched with an index, `os/architecture[/variant]`; only what is asked for, if absent."""
    fill_library: Flag = False
    """Whether an upstream name without a slash gets `library/` in front, as Docker Hub's official images need."""
    fresh_for: DurationOrAny | None = None
    """How long a tag is served without asking; `off`: not at all, `forever`: never asked again; 24h, if absent."""
    freshness: Annotated[tuple[FreshnessSettings, ...], Field(max_length=MAX_PATTERNS)] | None = None
    """Other times for some tags, the first that fits counts; if `fresh_for` is absent too: semver 7d, `latest` 1h."""
    stale_while_revalidate: DurationOrAny = DEFAULT_STALE_WHILE_REVALIDATE
    """How long after that a tag is still served at once and checked behind the puller's back; `off`: checked first."""
    max_stale: Duration | None = None
    """How long after it was last confirmed a tag is served when it cannot be checked; for ever, if absent."""
    on_not_found: OnNotFound = OnNotFound.KEEP
    """What becomes of a cached tag that the upstream no longer has: `keep` serves it, `follow` removes it."""
    negative_for: DurationOrOff = DEFAULT_NEGATIVE_FOR
    """How long the upstream is not asked again for what it did not have."""
    cool_down: Duration | None = None
    """How long a digest must have been known before a cached tag moves to it; at once, if absent."""
    max_size: Size | None = None
    """Most bytes of its repositories: the longest unused goes, a larger blob is refused; unlimited, if absent."""
    accept_pushes: Flag = False
    """Whether users may push into the rule's repositories, which only the cache fills otherwise."""

    @model_validator(mode="after")
    def _root_maps_to_root(self) -> Self:
        if self.prefix == ROOT and self.upstream_prefix != ROOT:
            raise ValueError("expected upstream_prefix ROOT where prefix is ROOT")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The upstreams that the rule names, mirrors first."""
        return (*self.mirrors, self.upstream)

    def to_rule(self, namespaces: Collection[str] = ()) -> CacheRule:
        """Return the core's value; `namespaces` are those of the upstream, for a rule that names none."""
        return CacheRule(
            self.prefix,
            self.upstream,
            self.upstream_prefix,
            DEFAULT_FRESH_FOR if self.fresh_for is None else self.fresh_for,
            mirrors=self.mirrors,
            peers=tuple(peer.id for peer in self.peers),
            namespaces=tuple(sorted(namespaces)) if self.namespaces is None else self.namespaces,
            repositories=self.repositories.to_selection(),
            tags=self.tags.to_selection(),
            platforms=self.platforms,
            fill_library=self.fill_library,
            freshness=self._profiles(),
            stale_while_revalidate=self.stale_while_revalidate,
            max_stale=self.max_stale,
            on_not_found=self.on_not_found,
            negative_for=self.negative_for,
            cool_down=self.cool_down or 0.0,
            max_size=self.max_size,
            accept_pushes=self.accept_pushes,
        )

    def _profiles(self) -> tuple[FreshnessProfile, ...]:
        """Return the profiles; whoever sets one time for all tags gets that one for all tags."""
        if self.freshness is None:
            return DEFAULT_FRESHNESS if self.fresh_for is None else ()
        return tuple(one.to_profile() for one in self.freshness)


class SweepSettings(Model):
    """The background checks of tags that somebody uses."""

    interval: Duration = 60.0
    """How long between two rounds, about."""
    used_within: Duration = 3 * 24 * 3600.0
    """How long after its last pull a tag is kept fresh."""


class CacheSettings(Model):
    """What a node fetches from other registries."""

    rules: Annotated[tuple[CacheRuleSettings, ...], Field(max_length=MAX_RULES)] = ()
    """The pull-through cache rules; at most 50. The longest prefix wins, `ROOT` comes last."""
    max_size: Size | None = None
    """Most bytes that only the cache needs: the longest unused goes, a larger blob is refused; unlimited, if absent."""
    keep_free: Size | None = None
    """Bytes of the disk that the cache leaves free by removing what was not used for longest."""
    stale_wait: Duration = 1.5
    """How long a puller waits for the check of a tag that is here before it is served as it is."""
    cold_wait: Duration = 30.0
    """How long a puller waits for the upstream's answer about what is not here."""
    serve_to: Annotated[tuple[NodeRef, ...], Field(max_length=MAX_PATTERNS)] = ()
    """Nodes of other accounts that may pull through this node's rules; nodes of the own account always may."""
    sweep: SweepSettings = SweepSettings()
    """The background checks of tags that somebody uses."""
