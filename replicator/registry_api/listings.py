"""Listing endpoints: end-8a, end-8b (tags), end-12a, end-12b (referrers), and the catalog."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from aiohttp import web

from replicator.core.errors import InvalidInput
from replicator.core.media_types import OCI_INDEX
from replicator.core.pagination import parse_page

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from replicator.core.manifest import Descriptor
    from replicator.registry_api.call import Call


async def list_tags(call: Call) -> web.StreamResponse:
    """GET the tags of a repository, in bytewise order."""
    page = parse_page(call.query("n"), call.query("last"))
    listing = await call.services.listings.list_tags(call.principal, call.repository, page, call.trace)
    path = f"/v2/{call.endpoint.named}/tags/list"
    headers = _next_link(path, listing.next_last, {"n": str(page.size), **_namespace(call)})
    return _json({"name": call.endpoint.named, "tags": listing.entries}, headers)


async def list_repositories(call: Call) -> web.StreamResponse:
    """GET the repositories that the caller may pull from."""
    page = parse_page(call.query("n"), call.query("last"))
    listing = await call.services.listings.list_repositories(call.principal, page)
    headers = _next_link("/v2/_catalog", listing.next_last, {"n": str(page.size)})
    return _json({"repositories": listing.entries}, headers)


async def list_referrers(call: Call) -> web.StreamResponse:
    """GET an index of the manifests that refer to a digest, optionally of one artifact type."""
    digest, artifact_type = call.digest, call.query("artifactType") or None
    if artifact_type is not None and not artifact_type.isprintable():
        raise InvalidInput("expected artifactType to be a media type")
    page = parse_page(call.query("n"), call.query("last"))
    listing = await call.services.listings.list_referrers(
        call.principal, call.repository, digest, artifact_type, page, call.trace
    )
    filters = {"artifactType": artifact_type} if artifact_type else {}
    path = f"/v2/{call.endpoint.named}/referrers/{digest}"
    headers = _next_link(path, listing.next_last, {"n": str(page.size), **filters, **_namespace(call)})
    if artifact_type:
        headers["OCI-Filters-Applied"] = "artifactType"
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": _descriptors(listing.entries),
    }
    return _json(document, headers, OCI_INDEX)


def _descriptors(entries: Sequence[Descriptor]) -> list[Mapping[str, object]]:
    return [
        {
            "mediaType": entry.media_type,
            "digest": entry.digest,
            "size": entry.size,
            **({"artifactType": entry.artifact_type} if entry.artifact_type else {}),
            **({"annotations": entry.annotations} if entry.annotations else {}),
        }
        for entry in entries
    ]


def _namespace(call: Call) -> dict[str, str]:
    """Return the parameter without which the next page would be asked of this registry itself."""
    return {} if call.endpoint.namespace is None else {"ns": call.endpoint.namespace}


def _next_link(path: str, last: str | None, parameters: Mapping[str, str]) -> dict[str, str]:
    if last is None:
        return {}
    return {"Link": f'<{path}?{urlencode({**parameters, "last": last})}>; rel="next"'}


def _json(document: object, headers: Mapping[str, str], media_type: str = "application/json") -> web.Response:
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return web.Response(body=body, headers={**headers, "Content-Type": media_type})
