"""Why an image is answered as it is: which rule, from where, how fresh, what the last check said.

A report is made from what this node knows. No upstream is asked for it, nothing is fetched, and nothing that is
remembered of failures changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from replicator.cache.image_lookup import ImageLookup, NoRule
from replicator.core.cache_rules import covering_rule
from replicator.core.reference import as_tag
from replicator.registry.ownership import is_own
from replicator.storage.metadata import repositories

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from replicator.cache.image_lookup import LocalImage
    from replicator.cache.inventory import CachedImageReport, Inventory
    from replicator.cache.negative import NegativeMemory
    from replicator.cache.upstreams import UpstreamRepositories, UpstreamRepository
    from replicator.core.cache_rules import CacheRule, Verdict
    from replicator.core.names import RepositoryName
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import Pulls
    from replicator.storage.metadata.repositories import Repository
    from replicator.upstream.client import UpstreamClient


@dataclass(frozen=True, slots=True)
class SourceReport:
    """A registry that would be asked, in its place: what it is, and under which name it has the repository."""

    kind: str
    """`peer`, `mirror` or `authority`."""
    repository: RepositoryName
    client: UpstreamClient


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a pull of an image would meet. `problem` says why no upstream would be asked at all, where that is so."""

    asked: str
    image: LocalImage | None
    rule: CacheRule | None
    problem: str | None
    created_by: str | None
    """Who created the repository: `cache`, or whoever pushed there first; None while it does not exist."""
    repository_verdict: Verdict | None
    tag_verdict: Verdict | None
    sources: Sequence[SourceReport]
    cached: CachedImageReport | None
    negative: str | None = None
    """What an upstream said a moment ago, for which it is not asked again yet."""

    @property
    def is_obtainable(self) -> bool:
        """Whether a pull may ask an upstream at all."""
        verdicts = (self.repository_verdict, self.tag_verdict)
        return bool(self.sources) and self.problem is None and all(one is None or one.allowed for one in verdicts)


class Explainer:
    """Explains the images of one node."""

    def __init__(
        self,
        node: RegistryNode,
        pulls: Pulls,
        upstreams: UpstreamRepositories,
        inventory: Inventory,
        negative: NegativeMemory,
    ) -> None:
        self._node = node
        self._pulls = pulls
        self._upstreams = upstreams
        self._inventory = inventory
        self._negative = negative
        self.lookup = ImageLookup(node)

    async def explain(self, text: str, own_hosts: Collection[str] = ()) -> Explanation:
        """Report on the image that a name means; raises InvalidInput when it is no name, StorageError."""
        try:
            image = await self.lookup.find(text, own_hosts)
        except NoRule as error:
            return Explanation(text, None, None, str(error), None, None, None, (), None)
        return await self.explain_image(text, image)

    async def explain_image(self, text: str, image: LocalImage) -> Explanation:
        """Report on an image of ours, which was asked for as `text`; raises StorageError."""
        repository, reference = image.repository, image.reference
        rule = covering_rule(self._upstreams.rules, repository)
        source = self._upstreams.find(repository)
        known = await self._node.database.read(repositories.find(repository))
        created_by = None if known is None else known.created_by
        problem = _problem(repository, rule, source, known)
        cached = await self._cached(repository, reference)
        refusal = self._negative.find(repository, reference)
        if source is None:
            return Explanation(text, image, rule, problem, created_by, None, None, (), cached)
        tag = as_tag(reference)
        return Explanation(
            text,
            image,
            source.rule,
            problem,
            created_by,
            source.rule.repositories.judge(source.name),
            None if tag is None else source.rule.tags.judge(tag),
            _sources(source),
            cached,
            None if refusal is None else str(refusal),
        )

    async def _cached(self, repository: RepositoryName, reference: Reference) -> CachedImageReport | None:
        manifest = await self._pulls.find_manifest(repository, reference)
        if manifest is None:
            return None
        return await self._inventory.describe(repository, as_tag(reference), manifest.digest)


def _problem(
    repository: RepositoryName, rule: CacheRule | None, source: UpstreamRepository | None, known: Repository | None
) -> str | None:
    if rule is None:
        return "no cache rule covers this repository: it is this registry's own"
    if source is None:
        return f"the rule covers {repository}, but its name at the upstream would be no repository name"
    if source.is_catch_all and is_own(known):
        return "the repository was pushed here, and the rule for all names does not apply to such ones"
    return None


def _sources(source: UpstreamRepository) -> list[SourceReport]:
    clients, rule = source.sources.clients, source.rule
    peers = len(clients) - len(rule.sources)
    kinds = ["peer"] * peers + ["mirror"] * (len(rule.sources) - 1) + ["authority"]
    return [SourceReport(kind, source.name, client) for client, kind in zip(clients, kinds, strict=True)]
