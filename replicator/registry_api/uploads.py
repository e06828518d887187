"""Upload endpoints: end-4a to end-4c, end-11 (start, whole, mount), end-5, end-6 (chunks, close), end-13, end-14."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from replicator.core.byte_range import session_range
from replicator.core.digest import CANONICAL_ALGORITHM, Digest, parse_algorithm, parse_digest
from replicator.core.errors import InvalidDigest, UploadOutOfOrder
from replicator.core.names import parse_repository
from replicator.registry_api.request_body import check_encoding, chunk_place, iter_body

if TYPE_CHECKING:
    from replicator.registry_api.call import Call


async def start_upload(call: Call) -> web.StreamResponse:
    """POST: mount a blob, store a whole one, or open a session."""
    mount, whole = call.query("mount"), call.query("digest")
    if mount is not None:
        return await _mount(call, parse_digest(mount))
    if whole is not None:
        return await _whole(call, parse_digest(whole))
    return await _open_session(call, parse_algorithm(call.query("digest-algorithm") or CANONICAL_ALGORITHM))


async def _mount(call: Call, digest: Digest) -> web.StreamResponse:
    source = call.query("from")
    repository = parse_repository(source) if source else None
    if await call.services.uploads.mount(call.principal, call.repository, digest, repository):
        return _created(call, digest)
    return await _open_session(call, digest.partition(":")[0])


async def _whole(call: Call, digest: Digest) -> web.StreamResponse:
    check_encoding(call.request)
    await call.services.uploads.put_blob(call.principal, call.repository, digest, iter_body(call.request))
    return _created(call, digest)


async def _open_session(call: Call, algorithm: str) -> web.StreamResponse:
    session = await call.services.uploads.start(call.principal, call.repository, algorithm)
    return _progress(call, 202, session.id, 0)


async def append_chunk(call: Call) -> web.StreamResponse:
    """PATCH: add a chunk, or a stream without a Content-Range."""
    place = chunk_place(call.request)
    session = call.endpoint.argument
    try:
        offset = await call.services.uploads.append(
            call.principal, call.repository, session, iter_body(call.request), place
        )
    except UploadOutOfOrder as error:
        error.location = _location(call, session)
        raise
    return _progress(call, 202, session, offset)


async def finish_upload(call: Call) -> web.StreamResponse:
    """PUT: add the last bytes, if there are any, and close the session under a digest."""
    stated = call.query("digest")
    if stated is None:
        raise InvalidDigest("expected the parameter digest=<digest of the whole blob>")
    digest, place, session = parse_digest(stated), chunk_place(call.request), call.endpoint.argument
    try:
        await call.services.uploads.finish(
            call.principal, call.repository, session, digest, iter_body(call.request), place
        )
    except UploadOutOfOrder as error:
        error.location = _location(call, session)
        raise
    return _created(call, digest)


async def get_upload(call: Call) -> web.StreamResponse:
    """GET: how far the session is."""
    offset = await call.services.uploads.get_offset(call.principal, call.repository, call.endpoint.argument)
    return _progress(call, 204, call.endpoint.argument, offset)


async def cancel_upload(call: Call) -> web.StreamResponse:
    """DELETE: end the session."""
    await call.services.uploads.cancel(call.principal, call.repository, call.endpoint.argument)
    return web.Response(status=204)


def _location(call: Call, session: str) -> str:
    # Relative on purpose: whatever a Host or Forwarded header claims, it cannot send the client elsewhere.
    return f"/v2/{call.repository}/blobs/uploads/{session}"


def _progress(call: Call, status: int, session: str, offset: int) -> web.Response:
    headers = {
        "Location": _location(call, session),
        "Range": session_range(offset),
        "Docker-Upload-UUID": session,
    }
    return web.Response(status=status, headers=headers)


def _created(call: Call, digest: Digest) -> web.Response:
    headers = {
        "Location": f"/v2/{call.repository}/blobs/{digest}",
        "Docker-Content-Digest": digest,
    }
    return web.Response(status=201, headers=headers)
