"""Operations on the public registry of an account itself (ECR §16)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from replicator.control_api.call import present
from replicator.control_api.names import PublicNames
from replicator.control_api.pages import page_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replicator.control_api.call import Call, Document, Handler


async def describe_registries(call: Call) -> Document:
    """DescribeRegistries: the caller's, which there is one of. Its alias appears with its first repository."""
    page = page_of(call)
    names = call.registry.names
    assert isinstance(names, PublicNames)  # noqa: S101 - the edge gives them to every call of ECR Public
    return {"registries": [] if page.after else [_show(names)]}


def _show(names: PublicNames) -> Document:
    registry = names.registry
    alias = {
        "name": registry.alias,
        "status": "ACTIVE",
        "primaryRegistryAlias": True,
        "defaultRegistryAlias": registry.is_default,
    }
    return {
        "registryId": names.id.account,
        "registryArn": names.registry_arn,
        "registryUri": names.registry_uri,
        "verified": False,
        "aliases": [alias] if registry.alias else [],
    }


async def get_registry_catalog_data(call: Call) -> Document:
    """GetRegistryCatalogData."""
    return _catalog(call.registry.run_time_settings.public_registry.display_name)


async def put_registry_catalog_data(call: Call) -> Document:
    """PutRegistryCatalogData."""
    name = call.input.find_text("displayName")
    await call.registry.run_time_settings.public_registry.put_display_name(name)
    return _catalog(name)


def _catalog(display_name: str | None) -> Document:
    return {"registryCatalogData": present(displayName=display_name or None)}


HANDLERS: Mapping[str, Handler] = {
    "DescribeRegistries": describe_registries,
    "GetRegistryCatalogData": get_registry_catalog_data,
    "PutRegistryCatalogData": put_registry_catalog_data,
}
