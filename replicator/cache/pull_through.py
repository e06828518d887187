"""The pull-through cache of a node, in front of its own content.

A repository that no cache rule covers is the node's own, and never looked for elsewhere. For the others: nothing is
asked of an upstream that this node can answer, nothing that it answers needs the upstream, and only what was verified
is stored. Access is checked before anything else, also for content that is not here yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.cache.blobs import CachedBlobs
from replicator.cache.check_outcome import CheckOutcome, TagCheck
from replicator.cache.completion import Completion
from replicator.cache.import_rights import may_import
from replicator.cache.imports import Imports
from replicator.cache.limits import CacheLimits
from replicator.cache.manifests import CachedManifests
from replicator.cache.negative import NegativeMemory
from replicator.cache.own_repositories import OwnRepositories
from replicator.cache.peer_access import PeerAccess
from replicator.cache.selection import refusal_of
from replicator.cache.tag_checks import TagChecks
from replicator.cache.tag_memory import TagMemory
from replicator.cache.tag_news import TagQuestions
from replicator.cache.tag_settlement import TagSettlement
from replicator.cache.upstreams import UpstreamRepositories
from replicator.cache.use_memory import UseMemory
from replicator.core.actions import Action
from replicator.core.cache_status import PullTrace
from replicator.core.errors import BlobNotFound, Denied, ManifestNotFound, RepositoryNotFound
from replicator.core.principal import Principal, PrincipalKind
from replicator.core.reference import as_digest
from replicator.registry.access import authorize, authorize_head
from replicator.registry.pulls import check_pullable
from replicator.transfer.fill_registry import FillRegistry
from replicator.transfer.fill_source import FillLimits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.cache.observer import CacheObserver
    from replicator.cache.upstreams import UpstreamRepository
    from replicator.core.cache_rules import CacheRule
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.reference import Reference
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import Pulls
    from replicator.storage.metadata.cache_entries import CacheEntry
    from replicator.storage.metadata.images import StoredManifest
    from replicator.upstream.client import UpstreamClient


class PullThrough:
    """A `PullSource` that asks upstreams where the node's cache rules say so. Close it before its clients and stores.

    `clients` are the upstreams by name, those of all rules at least; none of them is used before somebody pulls. Raises
    ConfigurationError when a rule names an upstream that has no client. `peers` are the nodes that are asked first, by
    the prefix of the rule.
    """

    def __init__(
        self,
        node: RegistryNode,
        pulls: Pulls,
        rules: Sequence[CacheRule],
        clients: Mapping[str, UpstreamClient],
        observer: CacheObserver,
        limits: CacheLimits | None = None,
        fill_limits: FillLimits | None = None,
        peers: Mapping[str, Sequence[UpstreamClient]] | None = None,
    ) -> None:
        limits = limits or CacheLimits()
        self.node = node
        # The settings are asked each time: the public registry may get its alias at any moment.
        self.upstreams = UpstreamRepositories(
            rules,
            clients,
            peers,
            lambda name: node.settings.public_registry.covers(name),  # noqa: PLW0108
        )
        self.memory = TagMemory()
        self.uses = UseMemory()
        imports = Imports(node)
        self.completion = Completion(node, self)
        questions = TagQuestions(node.clock, observer, limits)
        settlement = TagSettlement(pulls, imports, self.memory, questions, node.clock, observer, self._complete)
        self.checks = TagChecks(questions, settlement)
        self.negative = NegativeMemory(node.clock)
        own = self._own = OwnRepositories(node)
        self._peers = PeerAccess(node.settings.node, own, self.upstreams.peer_calls)
        fill_limits = fill_limits or FillLimits(max_blob_size=node.settings.max_blob_size)
        self.fills = FillRegistry(node.store, node.clock, fill_limits)
        node.keep_ingests(self.fills.kept_ingests)
        node.on_removed(self.memory.drop_repository)
        self._pulls = pulls
        self._observer = observer
        self._manifests = CachedManifests(node, pulls, imports, self.checks, self.memory, own, self.negative, limits)
        self._blobs = CachedBlobs(node, pulls, self.fills, self.upstreams, own, observer, limits)

    def change_rules(self, rules: Sequence[CacheRule], clients: Mapping[str, UpstreamClient]) -> None:
        """Work by other rules from the next pull on; what is being fetched goes on by those it began with.

        What upstreams did not have is asked for again: it may be another one that is asked. Raises ConfigurationError
        like the constructor, and changes nothing then.
        """
        self.upstreams.replace(rules, clients)
        self.negative.clear()
        self._blobs.clear_negative()

    async def get_manifest(
        self,
        principal: Principal,
        repository: RepositoryName,
        reference: Reference,
        trace: PullTrace | None = None,
    ) -> StoredManifest:
        """Return a manifest by tag or digest, cached or fetched; see PullSource."""
        authorize(principal, Action.BATCH_GET_IMAGE, repository)
        source = self._source_for(principal, repository)
        if source is None or not await may_import(self.node, principal, repository):
            return await self._pulls.get_manifest(principal, repository, reference)
        async with self._peers.admit(principal, source, reference):
            return await self._get_manifest(source, reference, trace or PullTrace())

    async def _get_manifest(self, source: UpstreamRepository, reference: Reference, trace: PullTrace) -> StoredManifest:
        await self._check_permitted(source, reference)
        try:
            manifest = await self._manifests.get(source, reference, trace)
        finally:
            if trace.result is not None:
                self._observer.result(source.rule.prefix, trace.result.value)
        check_pullable(manifest)
        self.uses.use(source.repository, manifest.digest, self.node.clock.now())
        return manifest

    async def get_blob_size(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> int:
        """Return the size of a blob, which is not fetched for that; see PullSource."""
        authorize_head(principal, repository)
        source = self._source_for(principal, repository)
        if source is None or not await may_import(self.node, principal, repository):
            return await self._pulls.get_blob_size(principal, repository, digest)
        async with self._peers.admit(principal, source, digest):
            await self._check_blob(source, digest)
            return await self._blobs.get_size(source, digest, trace)

    async def open_blob(
        self, principal: Principal, repository: RepositoryName, digest: Digest, trace: PullTrace | None = None
    ) -> BlobContent:
        """Open a blob that is here or on its way; see PullSource."""
        authorize(principal, Action.GET_DOWNLOAD_URL_FOR_LAYER, repository)
        source = self._source_for(principal, repository)
        if source is None or not await may_import(self.node, principal, repository):
            return await self._pulls.open_blob(principal, repository, digest)
        async with self._peers.admit(principal, source, digest):
            await self._check_blob(source, digest)
            return await self._blobs.open(source, digest, trace)

    def _source_for(self, principal: Principal, repository: RepositoryName) -> UpstreamRepository | None:
        """Return where a repository comes from: for a peer from nowhere, unless it pulls through this node.

        A peer asks what this node holds before it sends the rest. Told what an upstream holds, it would leave out blobs
        that the image it brings then lacks.
        """
        if principal.kind is PrincipalKind.NODE and not principal.pulls_through:
            return None
        return self.upstreams.find(repository)

    async def find_manifest_for_engine(self, repository: RepositoryName, reference: Reference) -> StoredManifest | None:
        """Return a manifest as it is here, asking nobody's permission; a missing one is fetched, by its digest only.

        None when there is none. Raises UpstreamError or StorageError.
        """
        found = await self._pulls.find_manifest(repository, reference)
        source = self.upstreams.find(repository)
        if found is not None or source is None or as_digest(reference) is None or refusal_of(source, reference):
            return found
        try:
            return await self._manifests.get(source, reference)
        except ManifestNotFound:
            return None

    async def open_blob_for_engine(self, repository: RepositoryName, digest: Digest) -> BlobContent:
        """Open a blob that is here or on its way, asking nobody's permission; raises like `open_blob`."""
        source = self.upstreams.find(repository)
        if source is not None:
            return await self._blobs.open(source, digest)
        blob = await self._pulls.find_blob(repository, digest)
        if blob is None:
            raise BlobNotFound(f"repository {repository} has no blob {digest}")
        return await self._pulls.read(blob)

    async def check(self, source: UpstreamRepository, entry: CacheEntry, *, heads_only: bool = False) -> TagCheck:
        """Check a cached tag whatever its age, or join the check under way; raises ShuttingDown.

        With `heads_only` an upstream is asked for heads, and for what they say has changed.
        """
        return await self._manifests.check(source, entry, heads_only=heads_only)

    async def refresh(self, repository: RepositoryName, tag: Tag) -> CheckOutcome:
        """Check a tag now, whatever its age and whatever failed a moment ago; a missing one is fetched.

        What an upstream asked for (`Retry-After`) is respected all the same, unless within `insisting()`. Raises
        RepositoryNotFound without a cache rule, Denied where the rule does not allow the tag, ManifestNotFound for a
        tag that somebody pushed or that nobody has, UpstreamError when a missing one cannot be fetched, StorageError.
        """
        source = self.upstreams.find(repository)
        if source is None:
            raise RepositoryNotFound(f"no cache rule covers repository {repository}")
        await self._check_permitted(source, tag)
        self.negative.forget(repository, tag)
        entry = await self._manifests.find_entry(repository, tag)
        if entry is not None:
            return (await self.check(source, entry)).outcome
        if await self._pulls.find_manifest(repository, tag) is not None:
            raise ManifestNotFound(f"{repository}:{tag} was pushed here, it is not the upstream's")
        await self._manifests.get(source, tag)
        return CheckOutcome.CHANGED

    def forget_negative(self, repository: RepositoryName, reference: Reference | None = None) -> None:
        """Ask the upstream again for what it did not have a moment ago: for one reference, or all of a repository."""
        self.negative.forget(repository, reference)
        self._blobs.forget_negative(repository, None if reference is None else as_digest(reference))

    async def _check_blob(self, source: UpstreamRepository, digest: Digest) -> None:
        """Raise Denied for what the rule does not allow, BlobArchived for what only archived images have."""
        await self._check_permitted(source, digest)
        await self._pulls.check_blob_pullable(source.repository, digest)

    async def _check_permitted(self, source: UpstreamRepository, reference: Reference) -> None:
        """Raise Denied for what the rule does not allow; what is this registry's own is not the rule's to refuse."""
        refusal = refusal_of(source, reference)
        if refusal is not None and not await self._own.holds(source):
            raise Denied(refusal)

    async def _complete(self, source: UpstreamRepository, manifest: StoredManifest, before: Digest) -> None:
        if source.rule.platforms:
            await self.completion.complete(source.repository, manifest, source.rule.platforms)
        await self.completion.complete_successor(source.repository, manifest, before)

    async def idle(self) -> None:
        """Return when nothing is being fetched or checked."""
        await self._manifests.idle()
        await self._blobs.idle()
        await self.fills.idle()

    async def close(self) -> None:
        """Give up what is being fetched and checked. Nothing of a blob that was under way is left in the store."""
        await self._manifests.close()
        await self._blobs.close()
        await self.fills.close()
