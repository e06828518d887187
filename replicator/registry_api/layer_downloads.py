"""Downloads of layers from pre-signed URLs: no credentials, only the signature counts. Errors are written as S3's."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from aiohttp import web

from replicator.core.byte_range import ByteRange, parse_range
from replicator.core.errors import AccessError, NotFound, RangeNotSatisfiable, ReplicatorError, Throttled, Unsupported
from replicator.registry_api.answer_body import send_body
from replicator.registry_api.edge import Edge, Visit, path_of
from replicator.registry_api.errors import RenderedError, render

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.content import BlobContent
    from replicator.core.rate_limit import RateLimit
    from replicator.registry.layer_urls import LayerUrls
    from replicator.registry.layers import Layers
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.requests import Observer

_BLOB_TYPE = "application/octet-stream"
_CODES: dict[type[ReplicatorError], tuple[HTTPStatus, str]] = {
    AccessError: (HTTPStatus.FORBIDDEN, "AccessDenied"),
    NotFound: (HTTPStatus.NOT_FOUND, "NoSuchKey"),
    RangeNotSatisfiable: (HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange"),
    Unsupported: (HTTPStatus.METHOD_NOT_ALLOWED, "MethodNotAllowed"),
    Throttled: (HTTPStatus.SERVICE_UNAVAILABLE, "SlowDown"),
}


class LayerDownloads(Edge):
    """Serves the URLs that `LayerUrls` makes."""

    def __init__(
        self,
        urls: LayerUrls,
        layers: Layers,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        super().__init__(authenticator, clock, observe, rate_limit)
        self._urls = urls
        self._layers = layers

    def headers_of(self, visit: Visit) -> dict[str, str]:
        """Return the request's id as S3 names it."""
        return {"x-amz-request-id": visit.id}

    async def serve(self, visit: Visit) -> web.StreamResponse:
        """Send a layer, or the part that is asked for."""
        visit.route = "layer"
        request = visit.request
        self._admit(f"@{request.remote}")
        if request.method not in {"GET", "HEAD"}:
            raise Unsupported("The specified method is not allowed against this resource.", allow=("GET", "HEAD"))
        layer = await self._urls.verify(path_of(request), request.raw_path.partition("?")[2])
        # Whoever asked for the URL might have it; what it leads to may have gone since.
        async with await self._layers.open(layer.repository, layer.digest, visit.trace) as blob:
            return await self._send(visit, blob)

    async def _send(self, visit: Visit, blob: BlobContent) -> web.StreamResponse:
        request = visit.request
        header = request.headers.get("Range")
        part = None if header is None else parse_range(header, blob.size)
        wanted = part or ByteRange(0, blob.size)
        response = web.StreamResponse(status=206 if part else 200, headers=self.headers_of(visit))
        response.headers.update(
            {"Content-Type": _BLOB_TYPE, "ETag": f'"{blob.digest}"', "Accept-Ranges": "bytes"}
            | ({"Content-Range": part.content_range(blob.size)} if part else {})
        )
        response.content_length = wanted.length
        if request.method == "HEAD":
            return web.Response(
                status=response.status, headers=dict(response.headers) | {"Content-Length": str(wanted.length)}
            )
        return await send_body(request, response, blob.read(wanted.start, wanted.length))

    def render(self, error: ReplicatorError) -> RenderedError:
        """Write an error as S3 does."""
        rendered = render(error)
        fallback = (HTTPStatus(rendered.status), "InternalError")
        status, code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), fallback)
        text = "We encountered an internal error. Please try again." if code == "InternalError" else str(error)
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{code}</Code><Message>{escape(text)}</Message></Error>"
        )
        headers = {**rendered.headers, "Content-Type": "application/xml"}
        return RenderedError(status.value, headers, body.encode())
