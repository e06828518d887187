"""Operations on public repositories that differ from those on private ones (ECR §16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.public_catalog import read_catalog, show_catalog
from replicator.control_api.repositories import show_repository
from replicator.control_api.resource_tags import read_tags
from replicator.core.resource_tags import checked_tags
from replicator.registry.repositories import RepositorySettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler


async def create_repository(call: Call) -> Document:
    """CreateRepository. The first one gives the registry its alias."""
    given = call.input.find_structure("catalogData")
    catalog = None if given is None else read_catalog(given)
    limit = call.registry.node.settings.quotas.resource_tags
    settings = RepositorySettings(resource_tags=checked_tags(read_tags(call.input, "tags"), limit), is_public=True)
    await call.registry.run_time_settings.public_registry.take_alias()
    names = call.registry.as_public().names
    name = names.to_stored(call.input.text("repositoryName"))
    created = await call.registry.repositories.create(name, settings)
    shown: Document = {"repository": show_repository(names, created)}
    if catalog is None:
        return shown
    described = await call.registry.catalogs.put(name, *catalog)
    return {**shown, "catalogData": show_catalog(call, name, described)}


HANDLERS: Mapping[str, Handler] = {"CreateRepository": create_repository}
