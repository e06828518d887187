"""Blob endpoints: end-2 (pull, with ranges) and end-10 (delete)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from replicator.core.byte_range import ByteRange, parse_range
from replicator.registry_api.answer_body import send_body

if TYPE_CHECKING:
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.registry_api.call import Call

BLOB_TYPE = "application/octet-stream"
_FOR_EVER = "max-age=31536000, immutable"


async def get_blob(call: Call) -> web.StreamResponse:
    """GET a blob or a part of it, or HEAD it."""
    digest = call.digest
    if call.request.method == "HEAD":
        size = await call.services.pulls.get_blob_size(call.principal, call.repository, digest, call.trace)
        return web.Response(headers=_headers(digest) | {"Content-Length": str(size)})
    async with await call.services.pulls.open_blob(call.principal, call.repository, digest, call.trace) as blob:
        part = _wanted(call.request, blob)
        return await _send(call, blob, part)


def _headers(digest: Digest) -> dict[str, str]:
    return {
        "Content-Type": BLOB_TYPE,
        "Docker-Content-Digest": digest,
        "ETag": f'"{digest}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": _FOR_EVER,
    }


def _wanted(request: web.BaseRequest, blob: BlobContent) -> ByteRange | None:
    header = request.headers.get("Range")
    if header is None:
        return None
    condition = request.headers.get("If-Range")
    if condition is not None and condition.strip().strip('"') != blob.digest:
        return None
    return parse_range(header, blob.size)


async def _send(call: Call, blob: BlobContent, part: ByteRange | None) -> web.StreamResponse:
    request = call.request
    wanted = part or ByteRange(0, blob.size)
    response = web.StreamResponse(status=206 if part else 200, headers=call.common_headers | _headers(blob.digest))
    response.content_length = wanted.length
    if part:
        response.headers["Content-Range"] = part.content_range(blob.size)
    return await send_body(request, response, blob.read(wanted.start, wanted.length))


async def delete_blob(call: Call) -> web.StreamResponse:
    """DELETE a blob from the repository."""
    await call.services.uploads.delete_blob(call.principal, call.repository, call.digest)
    return web.Response(status=202)
