"""Lists of what a caller may see: tags, repositories, referrers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from replicator.core.actions import Action
from replicator.core.errors import Unauthenticated
from replicator.core.manifest import Descriptor, parse_manifest
from replicator.registry.access import authorize
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import images, repositories, tags

if TYPE_CHECKING:
    from collections.abc import Callable

    from replicator.core.cache_status import PullTrace
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName, Tag
    from replicator.core.pagination import Page
    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Steps

T = TypeVar("T")

_LARGEST_STEP = 1000
_REFERRER_BATCH = 8
_MAX_REFERRER_BYTES = 4 * 1024 * 1024
"""Bytes of manifests read for one page: a page of the largest ones, each with its annotations, would fill memory."""


@dataclass(frozen=True, slots=True)
class Listing(Generic[T]):
    """One page. `next_last` is the `last` of the next page, if there may be one."""

    entries: tuple[T, ...]
    next_last: str | None = None


class ListingSource(Protocol):
    """Where an edge gets lists from: a node's own content, or the cache in front of an upstream.

    A cache says in `trace` how it answered, also when it raises.
    """

    async def list_tags(
        self, principal: Principal, repository: RepositoryName, page: Page, trace: PullTrace | None = None
    ) -> Listing[Tag]:
        """Return tags in bytewise order; raises RepositoryNotFound, an AccessError or an UpstreamError."""
        ...

    async def list_repositories(self, principal: Principal, page: Page) -> Listing[RepositoryName]:
        """Return the names of the repositories here that the caller may pull from; raises an AccessError."""
        ...

    async def list_referrers(
        self,
        principal: Principal,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        page: Page,
        trace: PullTrace | None = None,
    ) -> Listing[Descriptor]:
        """Return descriptors of the images whose subject is `subject`, by digest; raises an AccessError."""
        ...


class Listings:
    """Sorted, paginated listings of what lies here."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def list_tags(
        self, principal: Principal, repository: RepositoryName, page: Page, trace: PullTrace | None = None
    ) -> Listing[Tag]:
        """Return tags in bytewise order (end-8a, end-8b); raises RepositoryNotFound or an AccessError."""
        authorize(principal, Action.LIST_IMAGES, repository)
        found = await self._node.database.read(self._tags(repository, page))
        return _cut(found, page, str)

    def _tags(self, repository: RepositoryName, page: Page) -> Steps[list[Tag]]:
        yield from require_repository(self._node, repository)
        return (yield from tags.names_after(repository, page.last or "", page.size + 1))

    async def list_repositories(self, principal: Principal, page: Page) -> Listing[RepositoryName]:
        """Return the names of the repositories that the caller may pull from, in order.

        Raises Unauthenticated for a nameless caller who may do nothing: it should say who it is, not see an empty list.
        """
        if principal.is_nobody:
            raise Unauthenticated
        readable: list[RepositoryName] = []
        after, step = page.last or "", page.size + 1
        while len(readable) <= page.size:
            names = await self._node.database.read(repositories.names_after(after, step))
            readable.extend(name for name in names if principal.may(Action.DESCRIBE_REPOSITORIES, name))
            if len(names) < step:
                break
            # The few names of a narrow grant may lie behind very many others: no loop of small reads, nor one that
            # keeps everybody else waiting.
            after, step = names[-1], min(2 * step, _LARGEST_STEP)
            await asyncio.sleep(0)
        return _cut(readable, page, str)

    async def list_referrers(
        self,
        principal: Principal,
        repository: RepositoryName,
        subject: Digest,
        artifact_type: str | None,
        page: Page,
        trace: PullTrace | None = None,
    ) -> Listing[Descriptor]:
        """Return descriptors of the images whose subject is `subject` (end-12a, end-12b).

        Neither the subject nor the repository needs to exist. Raises an AccessError.
        """
        authorize(principal, Action.BATCH_GET_IMAGE, repository)
        found: list[Descriptor] = []
        after, room = page.last or "", _MAX_REFERRER_BYTES
        while len(found) <= page.size:
            batch = await self._node.database.read(
                images.referrers(repository, subject, artifact_type, after, _REFERRER_BATCH)
            )
            found.extend(map(_descriptor, batch))
            room -= sum(len(manifest.content) for manifest in batch)
            if len(batch) < _REFERRER_BATCH:
                break
            if room < 0:
                page = replace(page, size=min(page.size, len(found) - 1))
            after = batch[-1].digest
        return _cut(found, page, lambda descriptor: descriptor.digest)


def _cut(found: list[T], page: Page, key: Callable[[T], str]) -> Listing[T]:
    entries = tuple(found[: page.size])
    more = len(found) > page.size and entries
    return Listing(entries, key(entries[-1]) if more else None)


def _descriptor(manifest: StoredManifest) -> Descriptor:
    parsed = parse_manifest(manifest.content, manifest.media_type)
    return Descriptor(
        media_type=manifest.media_type,
        digest=manifest.digest,
        size=len(manifest.content),
        artifact_type=parsed.referrer_type,
        annotations=parsed.annotations,
    )
