"""Catalog data of public repositories (ECR §16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.errors import invalid_parameter
from replicator.core.errors import InvalidInput
from replicator.core.public_catalog import LOGO_PATH, CatalogData, check_logo

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler
    from replicator.control_api.input import Input
    from replicator.core.names import RepositoryName


async def put_repository_catalog_data(call: Call) -> Document:
    """PutRepositoryCatalogData: in place of all that was told before, the logo too."""
    catalog, logo = read_catalog(call.input.structure("catalogData"))
    repository = call.repository
    return {"catalogData": show_catalog(call, repository, await call.registry.catalogs.put(repository, catalog, logo))}


async def get_repository_catalog_data(call: Call) -> Document:
    """GetRepositoryCatalogData."""
    repository = call.repository
    return {"catalogData": show_catalog(call, repository, await call.registry.catalogs.get(repository))}


def read_catalog(given: Input) -> tuple[CatalogData, bytes | None]:
    """Return catalog data as it was sent, and the logo; raises EcrError for what is no picture."""
    catalog = CatalogData(
        description=given.find_text("description"),
        architectures=given.texts("architectures") if "architectures" in given else None,
        operating_systems=given.texts("operatingSystems") if "operatingSystems" in given else None,
        about=given.find_text("aboutText"),
        usage=given.find_text("usageText"),
    )
    logo = given.blob("logoImageBlob") if "logoImageBlob" in given else b""
    if not logo:
        return catalog, None
    try:
        return catalog, check_logo(logo)
    except InvalidInput as error:
        raise invalid_parameter("catalogData.logoImageBlob", "Member must be a PNG image") from error


def show_catalog(call: Call, repository: RepositoryName, catalog: CatalogData) -> Document:
    """Return catalog data as the API describes it."""
    return present(
        description=catalog.description,
        architectures=None if catalog.architectures is None else list(catalog.architectures),
        operatingSystems=None if catalog.operating_systems is None else list(catalog.operating_systems),
        logoUrl=None if catalog.logo is None else f"{_base(call)}{LOGO_PATH}{repository}/{catalog.logo}",
        aboutText=catalog.about,
        usageText=catalog.usage,
        marketplaceCertified=False,
    )


def _base(call: Call) -> str:
    """Return where clients reach this node: Amazon's host, which a node may go by, does not have its logos."""
    names = call.registry.names
    return names.proxy_endpoint if names.has_own_host or call.origin is None else call.origin


HANDLERS: Mapping[str, Handler] = {
    "GetRepositoryCatalogData": get_repository_catalog_data,
    "PutRepositoryCatalogData": put_repository_catalog_data,
}
