"""What ECR's API says of the images whose subject is another one (ECR §13.2).

Those that lie here come first, the newest first. Those that only an upstream of the cache has follow by digest: nobody
here knows when they were pushed. What lies here counts also where it is archived: the upstream does not revive it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from replicator.core.image_status import ImageStatus
from replicator.core.manifest import parse_manifest
from replicator.registry.stored_repositories import no_repository
from replicator.storage.metadata import image_details, images, repositories
from replicator.storage.metadata.image_details import Position

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.digest import Digest
    from replicator.core.manifest import Descriptor
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.image_details import ReferrerRow
    from replicator.storage.metadata.statement import Steps

_READ_AT_ONCE = 8
_MAX_CONTENT = 4 * 2**20
"""Bytes of manifests read for one page: a page of the largest ones, each with its annotations, would fill memory."""
_OLDEST = 0.0
"""When an image was pushed that is not here: it sorts behind all that are."""


@dataclass(frozen=True, slots=True)
class Referrer:
    """An image whose subject is the one that was asked about; `position` is where the list goes on after it."""

    digest: Digest
    media_type: str
    artifact_type: str | None
    size: int
    annotations: Mapping[str, str]
    status: ImageStatus
    position: Position


@dataclass(frozen=True, slots=True)
class ReferrerPage:
    """Some referrers, and whether there are more behind the last one."""

    referrers: Sequence[Referrer]
    has_more: bool


class UpstreamReferrers(Protocol):
    """Where referrers are asked for that are not here: the cache in front of an upstream."""

    async def find_upstream_referrers(
        self, principal: Principal, repository: RepositoryName, subject: Digest
    ) -> Sequence[Descriptor]:
        """Return referrers by digest, none where nobody is to be asked; raises UpstreamError, Denied, StorageError."""
        ...


class ImageReferrers:
    """Lists the referrers of one node's images."""

    def __init__(self, node: RegistryNode, upstreams: UpstreamReferrers) -> None:
        self._node = node
        self._upstreams = upstreams

    async def find(
        self,
        principal: Principal,
        repository: RepositoryName,
        subject: Digest,
        status: ImageStatus | None,
        types: Sequence[str],
        after: Position,
        size: int,
    ) -> ReferrerPage:
        """Return up to `size` referrers of any of these types, or of every type; none for an unknown subject.

        A page of large ones has fewer, and goes on behind them.

        Raises RepositoryNotFound, UpstreamError where only the upstream could tell, Denied where a cache rule does not
        let it be asked, and StorageError.
        """
        limit = size + 1
        here = await self._node.database.read(self._here(repository, subject, status, types, after, limit))
        rows, is_cut = here or ([], False)
        found = [_of_row(row) for row in rows]
        if is_cut:
            return ReferrerPage(found, has_more=True)
        if len(found) < limit and status in {None, ImageStatus.ACTIVE}:
            there = await self._upstreams.find_upstream_referrers(principal, repository, subject)
            wanted = [one for one in map(_of_descriptor, there) if not types or one.artifact_type in types]
            rest = [one for one in reversed(wanted) if _key(one.position) < _key(after)]
            found += await self._node.database.read(_missing(repository, rest, limit - len(found)))
            if here is None and not there:
                raise no_repository(self._node, repository)
        elif here is None:
            raise no_repository(self._node, repository)
        return ReferrerPage(found[:size], has_more=len(found) > size)

    def _here(
        self,
        repository: RepositoryName,
        subject: Digest,
        status: ImageStatus | None,
        types: Sequence[str],
        after: Position,
        limit: int,
    ) -> Steps[tuple[list[ReferrerRow], bool] | None]:
        """Return referrers, and whether they are large and there may be more; None without such a repository."""
        if (yield from repositories.find(repository)) is None:
            return None
        found: list[ReferrerRow] = []
        room = _MAX_CONTENT
        while len(found) < limit and room > 0:
            asked = min(_READ_AT_ONCE, limit - len(found))
            some = yield from image_details.referrers_after(repository, subject, status, types, after, asked)
            found += some
            if len(some) < asked:
                return found, False
            after = some[-1].position
            room -= sum(len(row.content) for row in some)
        return found, len(found) < limit


def _missing(repository: RepositoryName, candidates: Sequence[Referrer], limit: int) -> Steps[list[Referrer]]:
    """Return the first `limit` of those that are not here."""
    found: list[Referrer] = []
    for one in candidates:
        if len(found) == limit:
            break
        if (yield from images.find_origin(repository, one.digest)) is None:
            found.append(one)
    return found


def _key(position: Position) -> tuple[float, str]:
    return position.pushed_at, position.digest


def _of_row(row: ReferrerRow) -> Referrer:
    annotations = parse_manifest(row.content, row.media_type).annotations
    return Referrer(
        row.digest, row.media_type, row.artifact_type, len(row.content), annotations, row.status, row.position
    )


def _of_descriptor(one: Descriptor) -> Referrer:
    position = Position(_OLDEST, one.digest)
    return Referrer(
        one.digest, one.media_type, one.artifact_type, one.size, one.annotations, ImageStatus.ACTIVE, position
    )
