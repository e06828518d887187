"""ECR's pull-through cache rules: what a caller can say of one, which registry it means, and what is wrong with it.

A rule names its upstream by the host that people know. A registry of the configuration that stands for that host is
asked instead, so that an office can keep such names and have another address behind them; otherwise the host must be
one of ECR's own upstreams (ECR §10.1).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.cache_rules import ROOT, CacheRule
from replicator.core.errors import InvalidInput, InvalidName, UnsupportedUpstream
from replicator.core.names import parse_repository
from replicator.core.upstream_presets import PRESETS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from replicator.core.names import NodeId

NEEDS_CREDENTIALS = frozenset(
    {
        "docker-hub",
        "github-container-registry",
        "gitlab-container-registry",
        "azure-container-registry",
        "chainguard",
    }
)
"""Upstreams that ECR asks by name and password only."""

_ECR_HOST = re.compile(r"([0-9]{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?")
_HOST = re.compile(r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?")
_SEPARATOR = "#"


@dataclass(frozen=True, slots=True)
class KnownUpstream:
    """A registry that the configuration names. `hosts` are those that it stands for, `kind` is ECR's name for it."""

    name: str
    hosts: frozenset[str]
    host: str
    kind: str | None = None
    has_credentials: bool = False
    namespaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FoundUpstream:
    """The registry that a rule means: `name` is what the engine calls it, without the credentials of the rule."""

    name: str
    kind: str | None
    has_credentials: bool
    namespaces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PullThroughRule:
    """A rule as it was made. Times are Unix seconds; `updated_at` is None for one that was never changed."""

    prefix: str
    url: str
    kind: str | None = None
    upstream_prefix: str = ROOT
    credential_arn: str | None = None
    custom_role_arn: str | None = None
    created_at: float | None = None
    updated_at: float | None = None

    @property
    def path(self) -> str:
        """The prefix without the slash that may end it: with and without one, it is the same rule."""
        return self.prefix.removesuffix("/")

    def to_cache_rule(self, upstream: FoundUpstream) -> CacheRule:
        """Return the rule that the cache works by: a tag is asked about once in 24 hours, before it is served."""
        return CacheRule(
            self.path,
            client_name(upstream.name, self.credential_arn),
            self.upstream_prefix.removesuffix("/"),
            namespaces=upstream.namespaces,
            stale_while_revalidate=0.0,
        )


def client_name(upstream: str, credential_arn: str | None) -> str:
    """Return what the client of an upstream is called: with other credentials, it is another client."""
    return upstream if credential_arn is None else f"{upstream}{_SEPARATOR}{credential_arn}"


def parse_client_name(name: str) -> tuple[str, str | None]:
    """Return the upstream's name, and the ARN of the secret that the client is made with."""
    upstream, _, arn = name.partition(_SEPARATOR)
    return upstream, arn or None


def host_of(url: str) -> str:
    """Return the host of an upstream as a caller writes it, with or without a scheme; raises UnsupportedUpstream."""
    host = url.strip().lower().removeprefix("https://").removeprefix("http://").removesuffix("/")
    if _HOST.fullmatch(host) is None:
        raise UnsupportedUpstream(texts.unsupported_upstream(url))
    return host


def kind_of(host: str) -> str | None:
    """Return ECR's name for the upstream at a host, or None when it is none of ECR's."""
    for kind, preset in PRESETS.items():
        if preset.url is not None and host in {host_of(preset.url), *preset.namespaces}:
            return kind
    if _ECR_HOST.fullmatch(host):
        return "ecr"
    suffix = PRESETS["azure-container-registry"].host_suffix
    return "azure-container-registry" if suffix is not None and host.endswith(suffix) else None


def find_upstream(known: Iterable[KnownUpstream], url: str) -> FoundUpstream:
    """Return the registry that a rule for `url` means; raises UnsupportedUpstream when there is none."""
    host = host_of(url)
    for one in known:
        if host in one.hosts:
            return FoundUpstream(one.name, one.kind or kind_of(host), one.has_credentials, one.namespaces)
    kind = kind_of(host)
    if kind is None:
        raise UnsupportedUpstream(texts.unsupported_upstream(url))
    return FoundUpstream(host, kind, False, tuple(sorted(PRESETS[kind].namespaces or {host})))


def check_rule(rule: PullThroughRule, upstream: FoundUpstream, asked_kind: str | None, node: NodeId) -> None:
    """Raise InvalidInput, or UnsupportedUpstream, for a rule that ECR would not take (ECR §10.1)."""
    if rule.prefix != ROOT:
        _check_prefix(rule.path, "ecrRepositoryPrefix")
    if rule.upstream_prefix != ROOT:
        if rule.prefix == ROOT:
            raise _invalid("upstreamRepositoryPrefix", "Member must be ROOT when ecrRepositoryPrefix is ROOT")
        _check_prefix(rule.upstream_prefix.removesuffix("/"), "upstreamRepositoryPrefix")
    if asked_kind is not None and upstream.kind not in {None, asked_kind}:
        raise UnsupportedUpstream(texts.unsupported_upstream(rule.url))
    if upstream.kind in NEEDS_CREDENTIALS and rule.credential_arn is None and not upstream.has_credentials:
        raise UnsupportedUpstream(texts.upstream_needs_credentials(rule.url))
    owner = _ECR_HOST.fullmatch(host_of(rule.url))
    is_foreign = owner is not None and owner[1] != node.account
    if is_foreign and rule.custom_role_arn is None and not upstream.has_credentials:
        raise _invalid("customRoleArn", "Member must not be null for a registry of another account")


def covering(rules: Sequence[PullThroughRule], prefix: str) -> PullThroughRule | None:
    """Return the rule of a prefix, with or without a slash at its end."""
    return next((one for one in rules if one.path == prefix.removesuffix("/")), None)


def _check_prefix(text: str, field: str) -> None:
    try:
        parse_repository(text)
    except InvalidName as error:
        raise _invalid(field, str(error)) from error


def _invalid(field: str, constraint: str) -> InvalidInput:
    return InvalidInput(texts.constraint(field, constraint))
