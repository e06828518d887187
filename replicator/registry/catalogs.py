"""The catalog data of public repositories: put, read back, and their logos served (ECR §16)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from replicator.core import texts
from replicator.core.digest import digest_of
from replicator.core.errors import CatalogDataNotFound, PageNotFound
from replicator.core.public_catalog import check_logo, parse_catalog
from replicator.registry.stored_repositories import require_repository
from replicator.storage.metadata import public_logos, repositories

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.public_catalog import CatalogData
    from replicator.registry.node import RegistryNode
    from replicator.storage.metadata.statement import Steps


class Catalogs:
    """The catalog data of one node's public repositories. Who may ask for what, the edge has checked."""

    def __init__(self, node: RegistryNode) -> None:
        self._node = node

    async def put(self, repository: RepositoryName, catalog: CatalogData, logo: bytes | None) -> CatalogData:
        """Replace all that is told of a repository, its logo too, and return it with the logo's digest.

        Raises InvalidInput for a logo that is none, RepositoryNotFound, StorageError.
        """
        if logo is not None:
            catalog = replace(catalog, logo=digest_of(check_logo(logo)))
        await self._node.database.write(partial(self._put, repository, catalog, logo))
        return catalog

    def _put(self, repository: RepositoryName, catalog: CatalogData, logo: bytes | None) -> Steps[None]:
        yield from require_repository(self._node, repository)
        yield from repositories.set_catalog(repository, catalog.to_json())
        if catalog.logo is None or logo is None:
            yield from public_logos.delete(repository)
        else:
            yield from public_logos.put(repository, catalog.logo, logo)

    async def get(self, repository: RepositoryName) -> CatalogData:
        """Return what is told of a repository; raises RepositoryNotFound, CatalogDataNotFound, StorageError."""
        found = await self._node.database.read(require_repository(self._node, repository))
        if found.catalog is None:
            account = self._node.settings.node.account
            raise CatalogDataNotFound(texts.no_catalog_data(repository, account))
        return parse_catalog(found.catalog)

    async def get_logo(self, repository: RepositoryName, digest: Digest) -> bytes:
        """Return the logo of a public repository; raises PageNotFound, StorageError."""
        found = None
        if self._node.settings.public_registry.is_enabled:
            found = await self._node.database.read(public_logos.find(repository, digest))
        if found is None:
            raise PageNotFound("there is no such logo")
        return found
