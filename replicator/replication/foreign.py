"""One attempt to bring one image to a registry of somebody else, or to delete it there, by the distribution protocol.

Such a registry keeps no revisions, so the rules by which nodes agree cannot hold there: the source's tag wins over
whatever the registry has, and is set only while the source's tag points to the image, by one attempt at a time. What
the registry says is not believed: an image counts as delivered when all of it was read back (`transfer.push_image`).

Referrers that the source knows go before the tag, so that whoever resolves the tag finds the signatures, too. A
registry that lets no tag move, or deletes nothing, refuses for good: that is FAILED with its reason.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from replicator.core.digest import Digest, digest_of
from replicator.core.errors import ManifestNotFound, UpstreamContent, UpstreamNotFound
from replicator.core.manifest import parse_manifest
from replicator.core.media_types import OCI_INDEX
from replicator.core.replication import Origin
from replicator.replication.attempt import Delivered
from replicator.replication.failures import SparseIndexRefused
from replicator.storage.metadata import blobs, images, tags
from replicator.telemetry.logs import get_logger
from replicator.transfer.push_image import CopyOptions, ImagePush, IncompleteIndexRefused
from replicator.transfer.referrers_tag import referrers_tag, with_referrer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from replicator.core.names import RepositoryName, Tag
    from replicator.core.replication import DeleteReplica, ReplicateImage, ReplicationRule
    from replicator.registry.node import RegistryNode
    from replicator.replication.lane import LanePass
    from replicator.storage.metadata.statement import Steps
    from replicator.transfer.push_image import ContentSource, CopiedImage
    from replicator.upstream.client import UpstreamClient

_log = get_logger(__name__)

_MAX_REFERRERS = 1000
"""Referrers that go along with one image; more than that follow by their own jobs."""
_PAGE = 100
_MAX_HOLDERS = 50


class RegistryAttempt:
    """Carries out one replication. May be cancelled or fail anywhere: the next one goes on with what has arrived."""

    def __init__(
        self,
        node: RegistryNode,
        source: ContentSource,
        client: UpstreamClient,
        lane: LanePass,
        replication: ReplicateImage,
        rule: ReplicationRule,
        parallel: int,
    ) -> None:
        self._node = node
        self._client = client
        self._lane = lane
        self._replication = replication
        self._rule = rule
        options = CopyOptions(
            target=replication.target_repository,
            wants=lambda child: rule.wants_platform(child.platform),
            find_mount=self._find_mount,
            parallel=parallel,
        )
        self._push = ImagePush(source, client, lane.blobs, options)

    @property
    def sent(self) -> int:
        """Blob bytes sent so far."""
        return self._push.sent

    async def run(self) -> Delivered:
        """Copy the image with its referrers, then set its tag; everything is read back.

        Raises ManifestNotFound when the image is gone here, SparseIndexRefused when the registry wants manifests that
        are left out, UpstreamRefused when it does not let the tag move, and what ImagePush raises.
        """
        repository, tag = self._replication.repository, self._replication.tag
        try:
            async with self._lane.image(repository, self._replication.digest):
                image = await self._copy(self._replication.digest)
                await self._copy_referrers(image.manifests)
            if tag is None:
                return Delivered()
            async with self._lane.tag(repository, tag):
                return await self._set_tag(image, tag)
        except IncompleteIndexRefused as error:
            raise SparseIndexRefused(str(error)) from error

    async def _copy(self, digest: Digest) -> CopiedImage:
        """Copy and publish an image that is here; a source with a cache would fetch a deleted one again."""
        repository = self._replication.repository
        if await self._node.database.read(images.find_origin(repository, digest)) is None:
            raise ManifestNotFound(f"repository {repository} has no manifest {digest}")
        image = await self._push.copy(repository, digest)
        await self._push.publish(image)
        await self._list_referrer(image)
        return image

    async def _list_referrer(self, image: CopiedImage) -> None:
        """Have a referrer listed where the registry does not do that by itself."""
        parsed = parse_manifest(image.manifest.content, image.manifest.media_type)
        if parsed.subject is None or await self._client.lists_referrers(image.target, parsed.subject.digest):
            return
        tag = referrers_tag(parsed.subject.digest)
        async with self._lane.tag(image.target, tag):
            content = with_referrer(await self._find_index(image.target, tag), image.manifest, parsed)
            if content is None:
                return
            await self._client.put_manifest(image.target, tag, content, OCI_INDEX)
            if await self._client.find_tag(image.target, tag) != digest_of(content):
                raise UpstreamContent(f"the destination accepted the list of referrers {tag} but does not have it")

    async def _find_index(self, target: RepositoryName, tag: Tag) -> bytes | None:
        try:
            return (await self._client.get_manifest(target, tag)).content
        except UpstreamNotFound:
            return None

    async def _set_tag(self, image: CopiedImage, tag: Tag) -> Delivered:
        state = await self._node.database.read(tags.find(self._replication.repository, tag))
        if state is not None and state.digest == image.manifest.digest:
            await self._push.set_tag(image, tag)
            return Delivered()
        return Delivered(left_stale_tag=await self._client.find_tag(image.target, tag) == image.manifest.digest)

    # Referrers

    async def _copy_referrers(self, subjects: Sequence[Digest]) -> None:
        """Copy what refers to any of `subjects`, and what refers to that in turn."""
        seen, waiting = set(subjects), list(subjects)
        room = _MAX_REFERRERS
        while waiting and room > 0:
            for digest in await self._node.database.read(_referrers(self._replication.repository, waiting.pop())):
                if digest in seen or room <= 0:
                    continue
                seen.add(digest)
                room -= 1
                waiting.extend(await self._copy_referrer(digest))

    async def _copy_referrer(self, digest: Digest) -> tuple[Digest, ...]:
        origin = await self._node.database.read(images.find_origin(self._replication.repository, digest))
        if origin is None or (origin is Origin.REPLICA and not self._rule.chain):
            return ()
        return (await self._copy(digest)).manifests

    # Mounts

    async def _find_mount(self, digest: Digest) -> RepositoryName | None:
        """Return a repository of the registry that has the blob, if replication brought what is here there as well.

        A wrong guess costs nothing: the registry opens an upload session instead.
        """
        holders = await self._node.database.read(blobs.holders(digest, "", _MAX_HOLDERS))
        target = self._replication.target_repository
        named = (self._rule.renamed(holder) for holder in holders if self._rule.matches(holder))
        return next((name for name in named if name != target), None)


class DeleteFromRegistry:
    """Carries out one deletion at a registry: of a tag, or of an image with every tag that it has there.

    A tag that points to an image which the source never had is somebody else's, and stays.
    """

    sent = 0

    def __init__(self, node: RegistryNode, client: UpstreamClient, lane: LanePass, deletion: DeleteReplica) -> None:
        self._node = node
        self._client = client
        self._lane = lane
        self._deletion = deletion

    async def run(self) -> Delivered:
        """Delete, and look that it is gone. Raises UpstreamRefused where the registry does not delete."""
        async with self._alone():
            if await self._is_wanted():
                await self._delete()
        return Delivered()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        repository, tag = self._deletion.repository, self._deletion.tag
        async with (
            self._lane.image(repository, self._deletion.digest) if tag is None else self._lane.tag(repository, tag)
        ):
            yield

    async def _is_wanted(self) -> bool:
        """Tell whether it is still deleted here, and may be deleted there."""
        repository, tag, digest = self._deletion.repository, self._deletion.tag, self._deletion.digest
        if tag is None:
            return await self._node.database.read(_is_gone(repository, digest))
        state = await self._node.database.read(tags.find(repository, tag))
        if state is not None and state.digest is not None:
            return False
        found = await self._client.find_tag(self._deletion.target_repository, tag)
        if found is None:
            return False
        known = found == digest or await self._node.database.read(images.find_register(repository, found)) is not None
        if not known:
            _log.info(
                "tag kept at the destination: it points to an image of somebody else",
                node=str(self._node.settings.node),
                destination=str(self._deletion.destination),
                repository=repository,
                tag=tag,
                digest=found,
            )
        return known

    async def _delete(self) -> None:
        target, reference = self._deletion.target_repository, self._deletion.tag or self._deletion.digest
        try:
            await self._client.delete_manifest(target, reference)
        except UpstreamNotFound:
            return
        if await self._is_there(target):
            raise UpstreamContent(f"the destination accepted the deletion of {reference} but still has it")

    async def _is_there(self, target: RepositoryName) -> bool:
        if self._deletion.tag is None:
            return await self._client.holds_manifest(target, self._deletion.digest)
        return await self._client.find_tag(target, self._deletion.tag) is not None


def _referrers(repository: RepositoryName, subject: Digest) -> Steps[list[Digest]]:
    found: list[Digest] = []
    after = ""
    while len(found) < _MAX_REFERRERS:
        page = yield from images.referrers(repository, subject, None, after, _PAGE)
        found += [manifest.digest for manifest in page]
        if len(page) < _PAGE:
            break
        after = page[-1].digest
    return found


def _is_gone(repository: RepositoryName, digest: Digest) -> Steps[bool]:
    """Tell whether an image is deleted, and no index that is still here lists it."""
    register = yield from images.find_register(repository, digest)
    if register is not None and register.is_present:
        return False
    return not (yield from images.is_child(repository, digest))
