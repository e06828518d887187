"""What ECR's API does with images: put, get, list, describe, delete, and move between storage classes (ECR §6, §13.1).

An image is (repository, digest). Whoever calls has checked that the caller may do what is asked; what a push and a pull
check by themselves, they check here, too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.digest import Digest
from replicator.core.errors import (
    AccessError,
    CredentialsUnavailable,
    ImageInaccessible,
    ImageReferenced,
    InvalidDigest,
    InvalidInput,
    InvalidManifest,
    LimitExceeded,
    ManifestNotFound,
    ManifestSyntax,
    ReplicatorError,
    UpstreamDenied,
    UpstreamError,
    UpstreamNotFound,
    UpstreamThrottled,
)
from replicator.core.image_requests import FailureCode, ImageFailure, RequestedImage
from replicator.core.jobs import JobKind
from replicator.core.manifest import agreed_media_type, own_media_type, parse_manifest
from replicator.core.names import Tag
from replicator.registry.deletions import check_deletable, delete_image, delete_tag
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import image_details, images, tags
from replicator.storage.metadata.images import size_of_layers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from replicator.core.image_status import ImageStatus
    from replicator.core.names import RepositoryName
    from replicator.core.principal import Principal
    from replicator.registry.node import RegistryNode
    from replicator.registry.pulls import PullSource
    from replicator.registry.pushes import PushedManifest, Pushes
    from replicator.storage.metadata.image_details import ImageDetail, ImageEntry, Position, Selection
    from replicator.storage.metadata.images import StoredManifest
    from replicator.storage.metadata.statement import Steps

_PULLS_AT_ONCE = 8
"""Images of one request that a cache fetches at the same time."""
_MAX_CONTENT = 8 * 2**20
"""Bytes of the manifests that one request gets: an answer is held, and written, as a whole."""
_DEPTH = 4
"""Indexes within indexes whose images are looked at for their size."""


@dataclass(frozen=True, slots=True)
class FoundImage:
    """An image of a batch."""

    requested: RequestedImage
    manifest: StoredManifest


@dataclass(frozen=True, slots=True)
class DeletedImage:
    """A tag that is gone, or an image without tags."""

    digest: Digest
    tag: Tag | None


@dataclass(frozen=True, slots=True)
class TaggedImage:
    """A tag with the image that it points to, since `set_at`."""

    tag: Tag
    set_at: float
    image: ImageDetail


class _Room:
    """What is left of an answer."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size

    def take(self, size: int) -> None:
        """Take some of it; raises LimitExceeded, then and ever after, when there is not so much."""
        self._left -= size
        if self._left < 0:
            raise LimitExceeded(texts.batch_too_large(self._size))


class Images:
    """The images of one node. Every method raises RepositoryNotFound in ECR's words, and StorageError."""

    def __init__(self, node: RegistryNode, pushes: Pushes, pulls: PullSource) -> None:
        self._node = node
        self._pushes = pushes
        self._pulls = pulls

    async def put(
        self,
        principal: Principal,
        repository: RepositoryName,
        text: str,
        media_type: str | None,
        tag: Tag | None,
        digest: Digest | None,
    ) -> tuple[PushedManifest, str]:
        """Store a manifest, exactly as it is written; return it with its media type.

        Raises InvalidInput, DigestMismatch, MissingReferences, ImageExists, TagImmutable, LimitExceeded; nothing is
        changed then.
        """
        try:
            content = text.encode()
            media_type = agreed_media_type(own_media_type(content), media_type)
            if media_type is None:
                raise InvalidInput(texts.NO_MEDIA_TYPE)
            pushed = await self._pushes.put_image(principal, repository, content, media_type, tag, digest)
        except (ManifestSyntax, UnicodeError) as error:
            raise ManifestSyntax(texts.constraint("ImageManifest", "Invalid JSON syntax")) from error
        except (InvalidManifest, InvalidDigest) as error:
            raise InvalidManifest(texts.constraint("ImageManifest", str(error))) from error
        return pushed, media_type

    async def get(
        self, principal: Principal, repository: RepositoryName, wanted: Sequence[RequestedImage]
    ) -> tuple[list[FoundImage], list[ImageFailure]]:
        """Return images, and what is wrong with the others; a cached repository fetches what it lacks, a few at once.

        Raises CredentialsUnavailable where it cannot, because nobody has what the upstream wants to see, and
        LimitExceeded for more than an answer may hold.
        """
        found: list[FoundImage] = []
        failures: list[ImageFailure] = []
        for result in await self._pull_all(principal, repository, wanted):
            if isinstance(result, ReplicatorError):
                raise result
            if isinstance(result, ImageFailure):
                failures.append(result)
            else:
                found.append(result)
                self._node.pull_times.note(principal, repository, result.manifest.digest)
        if not found:
            await self._node.database.read(require_repository(self._node, repository))
        return found, failures

    async def _pull_all(
        self, principal: Principal, repository: RepositoryName, wanted: Sequence[RequestedImage]
    ) -> list[FoundImage | ImageFailure | ReplicatorError]:
        """Return what came of each pull, in order."""
        places = asyncio.Semaphore(_PULLS_AT_ONCE)
        room = _Room(_MAX_CONTENT)

        async def pull(one: RequestedImage) -> FoundImage | ImageFailure | ReplicatorError:
            async with places:
                try:
                    room.take(0)
                    found = one.check() or await self._pull(principal, repository, one)
                    room.take(len(found.manifest.content) if isinstance(found, FoundImage) else 0)
                except ReplicatorError as error:
                    return error  # raised in its turn: a group of tasks would wrap it
                return found

        async with asyncio.TaskGroup() as group:
            pulls = [group.create_task(pull(one)) for one in wanted]
        return [one.result() for one in pulls]

    async def _pull(
        self, principal: Principal, repository: RepositoryName, wanted: RequestedImage
    ) -> FoundImage | ImageFailure:
        try:
            manifest = await self._pulls.get_manifest(principal, repository, wanted.reference)
        except CredentialsUnavailable as error:
            raise CredentialsUnavailable(texts.upstream_image_failed(str(error))) from error
        except (ManifestNotFound, UpstreamError, AccessError) as error:
            return _failure(wanted, error)
        if wanted.digest not in {None, manifest.digest}:
            return wanted.mismatch()
        return FoundImage(wanted, manifest)

    async def delete(
        self, repository: RepositoryName, wanted: Sequence[RequestedImage]
    ) -> tuple[list[DeletedImage], list[ImageFailure]]:
        """Delete tags and images, each by itself; return what is gone, and what is wrong with the others.

        The last tag of an image takes the image with it. Raises Denied where a tag is protected; nothing is gone then.
        """
        await self._node.database.read(self._check_deletable(repository, wanted))
        deleted: list[DeletedImage] = []
        failures: list[ImageFailure] = []
        for one in wanted:
            failure = one.check()
            if failure is None:
                gone = await self._node.commit(repository, partial(self._delete, repository, one))
                failure = gone if isinstance(gone, ImageFailure) else None
                deleted += [] if isinstance(gone, ImageFailure) else gone
            failures += [] if failure is None else [failure]
        self._node.announce_jobs(JobKind.DELETE_REPLICA)
        return deleted, failures

    def _check_deletable(self, repository: RepositoryName, wanted: Sequence[RequestedImage]) -> Steps[None]:
        yield from require_repository(self._node, repository)
        for one in wanted:
            if one.tag is not None:
                yield from check_deletable(self._node, repository, (Tag(one.tag),))
            elif one.digest is not None:
                names = yield from tags.of_digest(repository, Digest(one.digest))
                yield from check_deletable(self._node, repository, names)

    def _delete(self, repository: RepositoryName, wanted: RequestedImage) -> Steps[list[DeletedImage] | ImageFailure]:
        now = self._node.clock.now()
        digest = yield from _resolve(repository, wanted)
        if isinstance(digest, ImageFailure):
            return digest
        names = yield from tags.of_digest(repository, digest)
        if wanted.digest is None and len(names) > 1:
            tag = Tag(wanted.tag or "")
            yield from delete_tag(self._node, repository, tag, now)
            return [DeletedImage(digest, tag)]
        try:
            yield from delete_image(self._node, repository, digest, now)
        except ImageReferenced as error:
            return wanted.fail(FailureCode.REFERENCED, str(error))
        return [DeletedImage(digest, tag) for tag in names] or [DeletedImage(digest, None)]

    async def list_entries(
        self, repository: RepositoryName, selection: Selection, after: Position, limit: int
    ) -> list[ImageEntry]:
        """Return up to `limit` images under each of their tags, in the order in which they were pushed."""
        return await self._node.database.read(self._entries(repository, selection, after, limit))

    def _entries(
        self, repository: RepositoryName, selection: Selection, after: Position, limit: int
    ) -> Steps[list[ImageEntry]]:
        yield from require_repository(self._node, repository)
        return (yield from image_details.entries_after(repository, selection, after, limit))

    async def list_details(
        self, repository: RepositoryName, selection: Selection, after: Position, limit: int
    ) -> list[ImageDetail]:
        """Return up to `limit` images with all that is known of them, in the order in which they were pushed."""
        found = await self._node.database.read(self._details(repository, selection, after, limit))
        return [self._with_pull(repository, one) for one in found]

    def _details(
        self, repository: RepositoryName, selection: Selection, after: Position, limit: int
    ) -> Steps[list[ImageDetail]]:
        yield from require_repository(self._node, repository)
        found = yield from image_details.details_after(repository, selection, after, limit)
        return (yield from _measured(repository, found))

    async def list_tags(self, repository: RepositoryName, after: str, limit: int) -> list[TaggedImage]:
        """Return up to `limit` tags that sort after `after`, each with its image, by name."""
        return await self._node.database.read(self._tags(repository, after, limit))

    def _tags(self, repository: RepositoryName, after: str, limit: int) -> Steps[list[TaggedImage]]:
        yield from require_repository(self._node, repository)
        found: list[TaggedImage] = []
        for tag, digest, set_at in (yield from tags.pointing_after(repository, after, limit)):
            detail = yield from image_details.find(repository, digest)
            if detail is not None:
                [measured] = yield from _measured(repository, [detail])
                found.append(TaggedImage(tag, set_at, measured))
        return found

    async def describe(
        self, repository: RepositoryName, wanted: Sequence[RequestedImage], status: ImageStatus | None
    ) -> list[ImageDetail]:
        """Return what is known of these images, each once; raises ManifestNotFound when one is not there."""
        found = await self._node.database.read(self._describe(repository, wanted, status))
        return [self._with_pull(repository, one) for one in found]

    def _describe(
        self, repository: RepositoryName, wanted: Sequence[RequestedImage], status: ImageStatus | None
    ) -> Steps[list[ImageDetail]]:
        yield from require_repository(self._node, repository)
        found: dict[Digest, ImageDetail] = {}
        for one in wanted:
            digest = yield from get_digest(self._node, repository, one)
            detail = None if digest in found else (yield from image_details.find(repository, digest))
            if detail is not None and status not in {None, detail.status}:
                raise no_image(self._node, repository, one)
            if detail is not None:
                found[digest] = detail
        return (yield from _measured(repository, list(found.values())))

    def _with_pull(self, repository: RepositoryName, detail: ImageDetail) -> ImageDetail:
        pulled_at = self._node.pull_times.last(repository, detail.digest, detail.pulled_at)
        return detail if pulled_at == detail.pulled_at else replace(detail, pulled_at=pulled_at)


def no_image(node: RegistryNode, repository: RepositoryName, wanted: RequestedImage) -> ManifestNotFound:
    """Return the error of an image that is not there, in ECR's words."""
    account = node.settings.node.account
    return ManifestNotFound(texts.image_not_found(wanted.digest, wanted.tag, repository, account))


def get_digest(node: RegistryNode, repository: RepositoryName, wanted: RequestedImage) -> Steps[Digest]:
    """Return the digest of an image that is here.

    Raises InvalidInput for one that has neither digest nor tag, ManifestNotFound for one that is not here.
    """
    failure = wanted.check()
    if failure is not None and failure.code is FailureCode.NO_ID:
        raise InvalidInput(failure.reason)
    digest = failure or (yield from _resolve(repository, wanted))
    if isinstance(digest, ImageFailure):
        raise no_image(node, repository, wanted)
    return digest


def _resolve(repository: RepositoryName, wanted: RequestedImage) -> Steps[Digest | ImageFailure]:
    """Return the digest of an image that is here, or what is wrong with how it is named."""
    stated = None if wanted.digest is None else Digest(wanted.digest)
    if wanted.tag is not None:
        register = yield from tags.find(repository, Tag(wanted.tag))
        if register is None or register.digest is None:
            return wanted.not_found()
        if stated not in {None, register.digest}:
            return wanted.mismatch()
        stated = register.digest
    if stated is None or (yield from images.find_origin(repository, stated)) is None:
        return wanted.not_found()
    return stated


def _failure(wanted: RequestedImage, error: ManifestNotFound | UpstreamError | AccessError) -> ImageFailure:
    if isinstance(error, ImageInaccessible):
        return wanted.fail(FailureCode.INACCESSIBLE, texts.IMAGE_INACCESSIBLE)
    if isinstance(error, ManifestNotFound | UpstreamNotFound):
        return wanted.not_found()
    if isinstance(error, UpstreamDenied | AccessError):
        return wanted.fail(FailureCode.UPSTREAM_DENIED, str(error))
    if isinstance(error, UpstreamThrottled):
        return wanted.fail(FailureCode.UPSTREAM_THROTTLED, str(error))
    return wanted.fail(FailureCode.UPSTREAM_UNAVAILABLE, str(error))


def _measured(repository: RepositoryName, found: list[ImageDetail]) -> Steps[list[ImageDetail]]:
    """Return images with their sizes, also of those that were stored before sizes were."""
    measured = []
    for one in found:
        size = one.size
        if size is None:
            size = yield from _measure(repository, one.digest, _DEPTH)
        measured.append(replace(one, size=size))
    return measured


def _measure(repository: RepositoryName, digest: Digest, depth: int) -> Steps[int]:
    manifest = yield from images.find(repository, digest)
    if manifest is None or not depth:
        return 0
    parsed = parse_manifest(manifest.content, manifest.media_type)
    largest = size_of_layers(parsed) or 0
    for child in parsed.children:
        largest = max(largest, (yield from _measure(repository, child, depth - 1)))
    return largest
