"""Manifest endpoints: end-2, end-3 (pull), end-7a, end-7b (push), end-9 (delete)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from replicator.core import texts
from replicator.core.errors import InvalidReference, ManifestNotFound, UpstreamNotFound
from replicator.core.names import Tag, parse_tag
from replicator.core.reference import as_digest
from replicator.registry_api.answer_body import PIECE, cut, send_body
from replicator.registry_api.request_body import read_manifest

if TYPE_CHECKING:
    from replicator.registry_api.call import Call
    from replicator.storage.metadata.images import StoredManifest

MAX_TAGS_PER_PUT = 1000


async def get_manifest(call: Call) -> web.StreamResponse:
    """GET or HEAD a manifest by tag or digest: the exact bytes under the media type they were pushed with."""
    manifest = await _find(call)
    headers = {
        "Content-Type": manifest.media_type,
        "Docker-Content-Digest": manifest.digest,
        "ETag": f'"{manifest.digest}"',
    }
    if _unchanged(call.request, manifest.digest):
        return web.Response(status=304, headers=headers)
    if call.request.method == "HEAD":
        headers["Content-Length"] = str(len(manifest.content))
        return web.Response(headers=headers)
    if len(manifest.content) <= PIECE:
        return web.Response(body=manifest.content, headers=headers)
    response = web.StreamResponse(headers=call.common_headers | headers)
    response.content_length = len(manifest.content)
    return await send_body(call.request, response, cut(manifest.content))


async def _find(call: Call) -> StoredManifest:
    try:
        reference = call.reference
    except InvalidReference as error:
        # A string that cannot be a tag names nothing here; it is malformed only for a push.
        raise ManifestNotFound(texts.IMAGE_NOT_FOUND) from error
    try:
        manifest = await call.services.pulls.get_manifest(call.principal, call.repository, reference, call.trace)
    except (ManifestNotFound, UpstreamNotFound) as error:
        # Why it is not here, the headers say.
        raise ManifestNotFound(texts.IMAGE_NOT_FOUND) from error
    if call.request.method == "GET" and call.services.pull_times is not None:
        call.services.pull_times.note(call.principal, call.repository, manifest.digest)
    return manifest


def _unchanged(request: web.BaseRequest, digest: str) -> bool:
    header = request.headers.get("If-None-Match")
    return header is not None and any(
        candidate.strip().removeprefix("W/").strip('"') in {digest, "*"} for candidate in header.split(",")
    )


async def put_manifest(call: Call) -> web.StreamResponse:
    """PUT a manifest under a tag, or under its digest with `tag` parameters (answered with `OCI-Tag`)."""
    reference = call.reference
    extra = _extra_tags(call)
    content = await read_manifest(call.request, call.services.settings.max_manifest_size)
    pushed = await call.services.pushes.put_manifest(
        call.principal,
        call.repository,
        reference,
        content,
        call.request.headers.get("Content-Type"),
        extra,
    )
    response = web.Response(status=201)
    response.headers["Location"] = f"/v2/{call.repository}/manifests/{pushed.digest}"
    response.headers["Docker-Content-Digest"] = pushed.digest
    if pushed.subject is not None:
        response.headers["OCI-Subject"] = pushed.subject
    for tag in pushed.tags:
        if tag in extra:
            response.headers.add("OCI-Tag", tag)
    return response


def _extra_tags(call: Call) -> tuple[Tag, ...]:
    given = call.request.query.getall("tag", [])
    if not given:
        return ()
    if as_digest(call.reference) is None:
        raise InvalidReference("expected a digest in the path when tags are given as parameters")
    if len(given) > MAX_TAGS_PER_PUT:
        raise InvalidReference(f"expected at most {MAX_TAGS_PER_PUT} tag parameters, got {len(given)}")
    return tuple(dict.fromkeys(parse_tag(text) for text in given))


async def delete_manifest(call: Call) -> web.StreamResponse:
    """DELETE a tag, or an image with all its tags."""
    await call.services.pushes.delete_manifest(call.principal, call.repository, call.reference)
    return web.Response(status=202)
