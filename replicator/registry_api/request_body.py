"""Request bodies: bounded, never decompressed, and a client that stalls or leaves is noticed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import ClientError, web
from aiohttp.http_exceptions import HttpProcessingError

from replicator.core.byte_range import ByteRange, parse_chunk_range
from replicator.core.errors import InvalidUpload, ManifestTooLarge, UnsupportedEncoding

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STALL_TIMEOUT = 60.0
"""Seconds without a byte after which a client is given up."""


class ClientGone(ConnectionError):
    """the client broke off before the end of its body."""


def check_encoding(request: web.BaseRequest) -> None:
    """Refuse a compressed body: content is stored byte by byte as it was sent. Raises UnsupportedEncoding."""
    for header, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        encoding = request.headers.get(header, plain).strip().lower()
        if encoding not in {"", plain}:
            raise UnsupportedEncoding(f"expected a body without {header}, got {encoding[:40]!r}")


async def iter_body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    """Yield the body as it arrives.

    Asks a client that waits for it (`Expect: 100-continue`) to go on first. Raises ClientGone when the client breaks
    off, TimeoutError when it stalls.
    """
    await _continue(request)
    content = request.content
    while True:
        try:
            async with asyncio.timeout(STALL_TIMEOUT):
                chunk = await content.readany()
        except (ClientError, HttpProcessingError, ConnectionError) as error:
            raise ClientGone("the client broke off before the end of its body") from error
        if not chunk:
            if not content.at_eof():
                raise ClientGone("the client broke off before the end of its body")
            return
        yield chunk


async def read_manifest(request: web.BaseRequest, limit: int) -> bytes:
    """Return a body of at most `limit` bytes; raises ManifestTooLarge as soon as it is longer."""
    return await read_whole(request, limit, "manifest")


async def read_whole(request: web.BaseRequest, limit: int, what: str) -> bytes:
    """Return a body of at most `limit` bytes, called `what`; raises ManifestTooLarge as soon as it is longer."""
    check_encoding(request)
    if request.content_length is not None and request.content_length > limit:
        raise ManifestTooLarge(f"the {what} has {request.content_length} bytes; this registry accepts up to {limit}")
    parts: list[bytes] = []
    size = 0
    async for chunk in iter_body(request):
        size += len(chunk)
        if size > limit:
            raise ManifestTooLarge(f"the {what} is larger than the {limit} bytes this registry accepts")
        parts.append(chunk)
    return b"".join(parts)


def chunk_place(request: web.BaseRequest) -> ByteRange | None:
    """Return where a chunk belongs, if it says so; raises InvalidUpload when it contradicts its own length."""
    check_encoding(request)
    header = request.headers.get("Content-Range")
    if header is None:
        return None
    place = parse_chunk_range(header)
    if request.content_length is not None and request.content_length != place.length:
        raise InvalidUpload(f"Content-Range names {place.length} bytes, but Content-Length is {request.content_length}")
    return place


async def _continue(request: web.BaseRequest) -> None:
    if request.headers.get("Expect", "").strip().lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
