"""Repositories: made and deleted on request, listed, and given other settings.

A change of a setting and the answer to it come from one transaction, so that of two callers each sees what it set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.encryption import Encryption
from replicator.core.errors import RepositoryExists, RepositoryNotEmpty
from replicator.core.mutability import MutabilityRule
from replicator.core.resource_tags import with_tags, without_tags
from replicator.registry.events import record_deletion
from replicator.registry.repository_creation import CREATED_BY_API, add_repository
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import images, repositories, repository_removal, tags
from replicator.storage.metadata.repositories import Repository

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode
    from replicator.storage.blobs.port import StoredBlob
    from replicator.storage.metadata.statement import Steps

_IMAGES_AT_ONCE = 200
_MOST_BLOBS = 1000
"""Blobs whose bytes go while the caller waits; the daily look for stray bytes finds the others."""


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """What a caller decides about a repository that it creates."""

    mutability: MutabilityRule = field(default_factory=MutabilityRule)
    scan_on_push: bool = False
    encryption: Encryption = field(default_factory=Encryption)
    resource_tags: Mapping[str, str] = field(default_factory=dict)
    is_public: bool = False
    catalog: str | None = None


class Repositories:
    """The repositories of one node. Who may ask for what, the edge has checked."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def create(self, name: RepositoryName, settings: RepositorySettings) -> Repository:
        """Make a repository and return it; raises RepositoryExists, LimitExceeded or a StorageError."""
        encryption = settings.encryption.in_registry(self._node.settings.node)
        repository = Repository(
            name,
            self._node.clock.now(),
            CREATED_BY_API,
            settings.mutability,
            scan_on_push=settings.scan_on_push,
            encryption=encryption.type.value,
            kms_key=encryption.kms_key,
            resource_tags=settings.resource_tags,
            is_public=settings.is_public,
            catalog=settings.catalog,
        )
        await self._node.commit(name, partial(self._create, repository))
        return repository

    def _create(self, repository: Repository) -> Steps[None]:
        found = yield from repositories.find(repository.name)
        if found is not None:
            raise RepositoryExists(texts.repository_exists(repository.name, self._account))
        yield from add_repository(self._node, repository)

    async def get(self, name: RepositoryName) -> Repository:
        """Return a repository; raises RepositoryNotFound."""
        return await self._node.database.read(require_repository(self._node, name))

    async def get_all(self, names: Collection[RepositoryName]) -> list[Repository]:
        """Return the named repositories, by name; raises RepositoryNotFound for the first one that is missing."""
        return await self._node.database.read(self._get_all(names))

    def _get_all(self, names: Collection[RepositoryName]) -> Steps[list[Repository]]:
        found: dict[RepositoryName, Repository] = {}
        for name in sorted(set(names)):
            found[name] = yield from require_repository(self._node, name)
        return list(found.values())

    async def list_after(self, after: str, limit: int, *, is_public: bool = False) -> Sequence[Repository]:
        """Return up to `limit` repositories whose names sort after `after`, by name, private ones or public ones."""
        return await self._node.database.read(repositories.page(after, limit, is_public=is_public))

    async def delete(self, name: RepositoryName, *, force: bool = False) -> Repository:
        """Delete a repository with all that is kept of it, and return what it was; nothing is deleted elsewhere.

        One that holds images is only deleted with `force`; RepositoryNotEmpty otherwise. Raises RepositoryNotFound or a
        StorageError, too. Pulls that have begun go on. Where somebody is told of each image that goes, they go some at
        a time, so that others get their turn; whoever cancels this may find some of them gone.
        """
        if force:
            while await self._node.commit(name, partial(self._delete_images, name)):
                pass
        deleted, blobs = await self._node.commit(name, partial(self._delete, name, force=force))
        self._node.announce_removed(name)
        for blob in blobs[:_MOST_BLOBS]:
            await self._node.store.delete_blob(blob.location)
        return deleted

    def _delete(self, name: RepositoryName, *, force: bool) -> Steps[tuple[Repository, list[StoredBlob]]]:
        found = yield from require_repository(self._node, name)
        if not force and (yield from repository_removal.holds_images(name)):
            raise RepositoryNotEmpty(texts.repository_not_empty(name, self._account))
        if force:
            # What came since; as a rule nothing.
            while (yield from self._delete_images(name)):
                pass
        return found, (yield from repository_removal.remove(name))

    def _delete_images(self, name: RepositoryName) -> Steps[bool]:
        """Take some images away and tell of them, if anybody is told; return whether there may be more."""
        yield from require_repository(self._node, name)
        if not self._node.settings.event_sinks:
            return False
        listed = yield from images.list_after(name, "", _IMAGES_AT_ONCE)
        for image in listed:
            names = yield from tags.of_digest(name, image.digest)
            yield from record_deletion(self._node, name, image.digest, names, self._node.clock.now())
            for tag in names:
                yield from tags.remove(name, tag, image.digest)
            yield from images.delete(name, image.digest)
        return len(listed) == _IMAGES_AT_ONCE

    async def put_mutability(self, name: RepositoryName, rule: MutabilityRule) -> None:
        """Replace which tags may move; those that are there are left alone. Raises RepositoryNotFound."""
        await self._change(name, lambda _: repositories.set_mutability(name, rule))

    async def put_scan_on_push(self, name: RepositoryName, *, scan: bool) -> None:
        """Set whether images are scanned when they are pushed. Raises RepositoryNotFound."""
        await self._change(name, lambda _: repositories.set_scan_on_push(name, scan=scan))

    async def add_tags(self, name: RepositoryName, tags: Mapping[str, str]) -> None:
        """Put tags on a repository as a resource; raises RepositoryNotFound, TooManyResourceTags."""
        limit = self._node.settings.quotas.resource_tags
        await self._change_tags(name, lambda before: with_tags(before, tags, limit))

    async def remove_tags(self, name: RepositoryName, keys: Collection[str]) -> None:
        """Take tags off a repository as a resource, those that it has. Raises RepositoryNotFound."""
        await self._change_tags(name, lambda before: without_tags(before, keys))

    async def _change_tags(self, name: RepositoryName, edit: Callable[[Mapping[str, str]], Mapping[str, str]]) -> None:
        def change() -> Steps[Mapping[str, str]]:
            found = yield from require_repository(self._node, name)
            tags = edit(found.resource_tags)
            yield from repositories.set_resource_tags(name, tags)
            return tags

        self._node.policies.replace_tags(name, await self._node.database.write(change))

    async def _change(self, name: RepositoryName, change: Callable[[Repository], Steps[None]]) -> None:
        await self._node.commit(name, partial(self._changed, name, change))

    def _changed(self, name: RepositoryName, change: Callable[[Repository], Steps[None]]) -> Steps[None]:
        found = yield from require_repository(self._node, name)
        yield from change(found)

    @property
    def _account(self) -> str:
        return self._node.settings.node.account
