"""Which upstream repository answers for one of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.cache.peer_calls import PeerCalls
from replicator.cache.sources import Sources
from replicator.core.bounded import BoundedMap
from replicator.core.cache_rules import ROOT, CacheRule, match_cache_rule
from replicator.core.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from replicator.core.names import RepositoryName
    from replicator.upstream.client import UpstreamClient

_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class UpstreamRepository:
    """A repository of ours with the one that it is filled from: `name` at `sources`, as `rule` says."""

    repository: RepositoryName
    rule: CacheRule
    sources: Sources
    name: RepositoryName

    @property
    def is_catch_all(self) -> bool:
        """Whether no prefix says that this repository is meant to be a cached one."""
        return self.rule.prefix == ROOT


class UpstreamRepositories:
    """The cache rules of a node with their clients. A repository that no rule covers has no upstream, ever.

    `peers` are clients of the nodes that a rule names, by the rule's prefix. What `is_kept_out` is never a cached one.
    """

    def __init__(
        self,
        rules: Sequence[CacheRule],
        clients: Mapping[str, UpstreamClient],
        peers: Mapping[str, Sequence[UpstreamClient]] | None = None,
        is_kept_out: Callable[[RepositoryName], bool] = lambda _: False,
    ) -> None:
        self._is_kept_out = is_kept_out
        self._peers = dict(peers or {})
        self.peer_calls = PeerCalls()
        self._found: BoundedMap[RepositoryName, UpstreamRepository | None] = BoundedMap(_REMEMBERED)
        self.replace(rules, clients)

    def replace(self, rules: Sequence[CacheRule], clients: Mapping[str, UpstreamClient]) -> None:
        """Work by other rules from now on; what is under way goes on by those that it began with.

        Raises ConfigurationError, and changes nothing, when a rule names an upstream that has no client.
        """
        for rule in rules:
            for name in rule.sources:
                if name not in clients:
                    raise ConfigurationError(f"cache rule {rule.prefix}: there is no upstream {name!r}")
        self.rules = tuple(rules)
        self._clients = dict(clients)
        self._found.clear()

    def find(self, repository: RepositoryName) -> UpstreamRepository | None:
        """Return the upstream repository of `repository`, if a rule covers it."""
        if self._is_kept_out(repository):
            return None
        found = self._found.find(repository)
        if found is None and repository not in self._found:
            found = self._match(repository)
            self._found.put(repository, found)
        return found

    def _match(self, repository: RepositoryName) -> UpstreamRepository | None:
        match = match_cache_rule(self.rules, repository)
        if match is None:
            return None
        rule, name = match.rule, match.upstream_repository
        peers = self._peers.get(rule.prefix, ())
        clients = (*peers, *(self._clients[one] for one in rule.sources))
        sources = Sources(clients, name, peers=len(peers), calls=self.peer_calls)
        return UpstreamRepository(repository, rule, sources, name)
