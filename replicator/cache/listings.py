"""Tags and referrers of cached repositories: what the upstream lists, merged with what lies here.

A tag that nobody has pulled yet is listed as well, and so is one that was cached and that the upstream has lost. When
no upstream answers, what is remembered of it is merged, or else what lies here is the answer. An upstream's failure is
an error only where nothing at all is known. Access is checked first. Who may not have anything fetched is shown what
lies here, and so is a peer, lest nodes count each other's guesses as content.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from replicator.cache.import_rights import may_import
from replicator.cache.limits import CacheLimits
from replicator.cache.own_repositories import OwnRepositories
from replicator.cache.remote_lists import ListLimits, RemoteLists
from replicator.core.actions import Action
from replicator.core.errors import Denied, RepositoryNotFound
from replicator.core.pagination import Page
from replicator.core.principal import Principal, PrincipalKind
from replicator.registry.access import authorize
from replicator.registry.listings import Listing
from replicator.storage.metadata import images

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from replicator.cache.remote_lists import RemoteList
    from replicator.cache.upstreams import UpstreamRepositories, UpstreamRepository
    from replicator.core.cache_status import CacheResult, PullTrace
    from replicator.core.digest import Digest
    from replicator.core.manifest import Descriptor
    from replicator.core.names import RepositoryName, Tag
    from replicator.registry.listings import Listings
    from replicator.registry.node import RegistryNode

T = TypeVar("T")

_NONE: Listing[Tag] = Listing(())


class CachedListings:
    """A `ListingSource` in front of a node's own lists. Close it before its clients and stores."""

    def __init__(
        self,
        node: RegistryNode,
        local: Listings,
        upstreams: UpstreamRepositories,
        limits: CacheLimits | None = None,
        list_limits: ListLimits | None = None,
    ) -> None:
        self._node = node
        self._local = local
        self._upstreams = upstreams
        self._own = OwnRepositories(node)
        waits = limits or CacheLimits()
        self._tags: RemoteLists[Tag] = RemoteLists(node.clock, _weight_of_tag, waits, list_limits)
        self._referrers: RemoteLists[Descriptor] = RemoteLists(node.clock, _weight_of_descriptor, waits, list_limits)

    async def list_tags(
        self, principal: Principal, repository: RepositoryName, page: Page, trace: PullTrace | None = None
    ) -> Listing[Tag]:
        """Return tags of here and of the upstream; see ListingSource.

        Raises RepositoryNotFound when neither has the repository, UpstreamError when only the upstream could tell.
        """
        authorize(principal, Action.LIST_IMAGES, repository)
        source = await self._source(principal, repository)
        if source is None:
            return await self._local.list_tags(principal, repository, page)
        here = await self._tags_here(principal, repository, page)
        ask = partial(_ask_tags, source)
        key = (repository, source.rule.upstream, source.name)
        found, result = await self._tags.get(key, source.rule.upstream, ask, has_other=here is not None)
        _note(trace, source, found, result, self._now)
        if here is None and found.entries is None and found.failure is not None:
            raise found.failure.with_traceback(None)  # it may be raised more than once
        if here is None and found.is_absent:
            raise RepositoryNotFound(f"repository {repository} is neither here nor at its upstream")
        merged = _merged(here or _NONE, found.entries or (), page, str)
        return Listing(tuple(filter(source.rule.tags.permits, merged.entries)), merged.next_last)

    async def list_repositories(self, principal: Principal, page: Page) -> Listing[RepositoryName]:
        """Return the repositories that exist here; upstreams are not asked for theirs. See ListingSource."""
        return await self._local.list_repositories(principal, page)

    async def list_referrers(
        self,
        principal: Principal,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        page: Page,
        trace: PullTrace | None = None,
    ) -> Listing[Descriptor]:
        """Return referrers of here and of the upstream; see ListingSource.

        When the upstream cannot say, those of here, which may be none for an image that is here. Raises UpstreamError
        when nothing is known of the image either.
        """
        authorize(principal, Action.BATCH_GET_IMAGE, repository)
        source = await self._source(principal, repository)
        here = await self._local.list_referrers(principal, repository, subject, artifact_type, page)
        if source is None:
            return here
        there = await self._referrers_there(source, subject, trace, has_other=bool(here.entries))
        wanted = [one for one in there if artifact_type in {None, one.artifact_type}]
        return _merged(here, wanted, page, _digest_of)

    async def find_upstream_referrers(
        self, principal: Principal, repository: RepositoryName, subject: Digest
    ) -> Sequence[Descriptor]:
        """Return the referrers that an upstream lists, by digest: none where nobody is to be asked, or can say.

        The caller has checked that it may ask. Raises UpstreamError when nothing is known of the image either.
        """
        source = await self._source(principal, repository)
        if source is None:
            return ()
        here = await self._local.list_referrers(principal, repository, subject, None, Page(1))
        return await self._referrers_there(source, subject, None, has_other=bool(here.entries))

    async def _referrers_there(
        self, source: UpstreamRepository, subject: Digest, trace: PullTrace | None, *, has_other: bool
    ) -> Sequence[Descriptor]:
        has_other = has_other or await self._has(source.repository, subject)
        key = (source.repository, source.rule.upstream, source.name, subject)
        ask = partial(_ask_referrers, source, subject)
        found, result = await self._referrers.get(key, source.rule.upstream, ask, has_other=has_other)
        _note(trace, source, found, result, self._now)
        if not has_other and found.entries is None and found.failure is not None:
            raise found.failure.with_traceback(None)  # it may be raised more than once
        return found.entries or ()

    async def idle(self) -> None:
        """Return when no upstream is being asked."""
        await self._tags.idle()
        await self._referrers.idle()

    async def close(self) -> None:
        """End the questions under way."""
        await self._tags.close()
        await self._referrers.close()

    async def _source(self, principal: Principal, repository: RepositoryName) -> UpstreamRepository | None:
        """Return whom to ask, or None where what lies here is the answer; raises Denied or RepositoryNotFound."""
        source = self._upstreams.find(repository)
        if source is None:
            return None
        is_own = await self._own.holds(source)
        if principal.kind is PrincipalKind.NODE:
            if is_own:
                raise RepositoryNotFound(f"there is no repository {repository} that is cached")
            return None
        if is_own or not await may_import(self._node, principal, repository):
            return None
        if not source.rule.repositories.permits(source.name):
            raise Denied(f"cache rule {source.rule.prefix} does not let {source.name} be pulled")
        return source

    async def _tags_here(self, principal: Principal, repository: RepositoryName, page: Page) -> Listing[Tag] | None:
        try:
            return await self._local.list_tags(principal, repository, page)
        except RepositoryNotFound:
            return None

    async def _has(self, repository: RepositoryName, digest: Digest) -> bool:
        return await self._node.database.read(images.find_origin(repository, digest)) is not None

    @property
    def _now(self) -> float:
        return self._node.clock.monotonic()


async def _ask_tags(source: UpstreamRepository) -> Sequence[Tag]:
    found = (await source.sources.list_tags()).value
    return sorted(set(found.tags))


async def _ask_referrers(source: UpstreamRepository, subject: Digest) -> Sequence[Descriptor]:
    found = (await source.sources.list_referrers(subject)).value
    return sorted({one.digest: one for one in found.descriptors}.values(), key=_digest_of)


def _merged(here: Listing[T], there: Sequence[T], page: Page, key: Callable[[T], str]) -> Listing[T]:
    """Return one page of two sorted lists as one: `here` is that page of what lies here, `there` is all there is.

    Where both list something, what lies here counts.
    """
    first = bisect_right(there, page.last or "", key=key)
    merged = {key(one): one for one in there[first : first + page.size + 1]}
    if here.next_last is not None:
        # Beyond this, what lies here is not known yet.
        merged = {name: one for name, one in merged.items() if name <= here.next_last}
    merged.update((key(one), one) for one in here.entries)
    names = sorted(merged)
    shown = names[: page.size]
    more = len(names) > page.size or here.next_last is not None
    return Listing(tuple(merged[name] for name in shown), shown[-1] if more and shown else None)


def _note(
    trace: PullTrace | None, source: UpstreamRepository, found: RemoteList[T], result: CacheResult, now: float
) -> None:
    if trace is None:
        return
    trace.note(result, source.rule.prefix, source.rule.upstream)
    if found.entries is not None:
        trace.age = now - found.at
    if found.failure is not None:
        trace.error = str(found.failure)


def _digest_of(descriptor: Descriptor) -> str:
    return descriptor.digest


def _weight_of_tag(tag: Tag) -> int:
    return len(tag) + 64


def _weight_of_descriptor(descriptor: Descriptor) -> int:
    noted = sum(len(name) + len(text) for name, text in descriptor.annotations.items())
    return len(descriptor.media_type) + noted + 512
