"""What nodes ask of each other: offers, deliveries, deletions, comparisons, and the bytes of blobs.

Only nodes get in, and each does no more here than replication needs: what it may write is for the registry policy to
say, what it may read for this node's own rules. Bodies are bounded, and few large ones are held at the same time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from aiohttp import web

from replicator.core.blob_parts import BlobPart
from replicator.core.digest import parse_digest
from replicator.core.errors import Denied, InvalidInput, InvalidUpload, PageNotFound, Unauthenticated, Unsupported
from replicator.core.message_json import object_of, parse_message, text_of
from replicator.core.names import parse_repository
from replicator.core.peer_messages import MAX_DELIVERY_BYTES, Deletion, Delivery, Offer
from replicator.core.principal import Principal, PrincipalKind
from replicator.core.reference import parse_reference
from replicator.registry_api.edge import Edge, Visit, closing, path_of
from replicator.registry_api.request_body import check_encoding, iter_body, read_whole

if TYPE_CHECKING:
    from replicator.core.clock import Clock
    from replicator.core.names import NodeId
    from replicator.core.peer_messages import Json
    from replicator.core.rate_limit import RateLimit
    from replicator.registry.peer_uploads import PeerUploads
    from replicator.registry.replicas import Replicas
    from replicator.registry_api.authentication import Authenticator
    from replicator.telemetry.requests import Observer

PREFIX = "/_replicator/v1/peer/"
MAX_PAGE = 1000
"""Lines of one answer about what is held."""

BODY_TIMEOUT = 300.0
"""Seconds in which a message must have arrived."""

_SMALL = 64 * 1024
_LARGE = frozenset({"offer", "deliver"})
"""Messages that may be larger than `_SMALL`."""

_LARGE_AT_ONCE = 6
_LARGE_OF_ONE_PEER = 2
"""Large messages of one peer at once: one that never sends the rest of its own must not hold up the others."""

_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
Ask = Callable[["NodeId", object], Awaitable["Json"]]


class PeerApi(Edge):
    """Serves `/_replicator/v1/peer/` of one node."""

    def __init__(
        self,
        replicas: Replicas,
        uploads: PeerUploads,
        authenticator: Authenticator,
        clock: Clock,
        observe: Observer,
        rate_limit: RateLimit | None = None,
    ) -> None:
        super().__init__(authenticator, clock, observe, rate_limit)
        self._replicas = replicas
        self._uploads = uploads
        self._large = asyncio.Semaphore(_LARGE_AT_ONCE)
        self._turns: WeakValueDictionary[NodeId, asyncio.Semaphore] = WeakValueDictionary()
        self._questions: Mapping[str, Ask] = {
            "offer": self._offer,
            "deliver": self._deliver,
            "delete": self._delete,
            "hashes": self._hashes,
            "listing": self._listing,
            "image": self._image,
        }

    async def serve(self, visit: Visit) -> web.StreamResponse:
        """Answer one request of a peer."""
        request = visit.request
        visit.principal = self.identify(request)
        peer = _require_node(visit.principal)
        name = path_of(request).removeprefix(PREFIX)
        if name.startswith("blobs/"):
            visit.route = "peer_blob"
            _require_method(request, "PUT")
            return await self._put_blob(request, peer, name.removeprefix("blobs/"))
        ask = self._questions.get(name)
        if ask is None:
            raise PageNotFound("there is nothing at this path")
        visit.route = f"peer_{name}"
        _require_method(request, "POST")
        async with self._room(request, peer, name):
            async with asyncio.timeout(BODY_TIMEOUT):
                body = await read_whole(request, MAX_DELIVERY_BYTES if name in _LARGE else _SMALL, "message")
            message = parse_message(body)
            del body
            await asyncio.sleep(0)  # what is decoded in one go is enough for one turn
            return web.json_response(await ask(peer, message))

    @asynccontextmanager
    async def _room(self, request: web.BaseRequest, peer: NodeId, name: str) -> AsyncIterator[None]:
        """Hold what a message is held under: large ones wait for each other, first of all for their own sender's."""
        size = request.content_length
        if name not in _LARGE or (size is not None and size <= _SMALL):
            yield
            return
        turns = self._turns.setdefault(peer, asyncio.Semaphore(_LARGE_OF_ONE_PEER))
        async with turns, self._large:
            yield

    async def _offer(self, peer: NodeId, message: object) -> Json:
        offer = Offer.from_json(message)
        await asyncio.sleep(0)  # as above
        return (await self._replicas.offer(peer, offer)).to_json()

    async def _deliver(self, peer: NodeId, message: object) -> Json:
        return (await self._replicas.deliver(peer, Delivery.from_json(message))).to_json()

    async def _delete(self, peer: NodeId, message: object) -> Json:
        return (await self._replicas.delete(peer, Deletion.from_json(message))).to_json()

    async def _hashes(self, peer: NodeId, message: object) -> Json:
        fields = object_of(message, "a message")
        hashes = await self._replicas.hashes(peer, text_of(fields, "after"), _limit(fields))
        return {"repositories": [one.to_json() for one in hashes]}

    async def _listing(self, peer: NodeId, message: object) -> Json:
        fields = object_of(message, "a message")
        repository = parse_repository(text_of(fields, "repository"))
        lines = await self._replicas.listing(peer, repository, text_of(fields, "after"), _limit(fields))
        return {"images": [one.to_json() for one in lines]}

    async def _image(self, peer: NodeId, message: object) -> Json:
        fields = object_of(message, "a message")
        repository = parse_repository(text_of(fields, "repository"))
        found = await self._replicas.find_image(peer, repository, parse_reference(text_of(fields, "reference")))
        return {"image": None if found is None else found.to_json()}

    async def _put_blob(self, request: web.BaseRequest, peer: NodeId, name: str) -> web.StreamResponse:
        check_encoding(request)
        digest, repository = parse_digest(name), parse_repository(request.query.get("repository", ""))
        size, offset, length = (_number(request, field) for field in ("size", "offset", "length"))
        part = BlobPart(
            _number(request, "start", offset),
            offset,
            length,
            _number(request, "stripe", 0),
            _number(request, "step", 0),
        )
        if request.content_length is not None and request.content_length != length:
            raise InvalidUpload(f"expected {length} bytes, but Content-Length is {request.content_length}")
        progress = await self._uploads.receive(peer, repository, digest, size, part, iter_body(request))
        response = web.json_response(progress.to_json())
        return response if request.content.is_eof() else closing(response)


def _require_node(principal: Principal) -> NodeId:
    if principal.node is not None:
        return principal.node
    if principal.kind is PrincipalKind.ANONYMOUS:
        raise Unauthenticated("a node has to say which one it is")
    raise Denied("only nodes may ask this")


def _require_method(request: web.BaseRequest, method: str) -> None:
    if request.method != method:
        raise Unsupported(f"only {method} is supported here", allow=(method,))


def _limit(fields: Mapping[str, object]) -> int:
    value = fields.get("limit")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidInput("expected 'limit' to be a positive number")
    return min(value, MAX_PAGE)


def _number(request: web.BaseRequest, name: str, default: int | None = None) -> int:
    text = request.query.get(name)
    if text is None and default is not None:
        return default
    if text is None or _NUMBER.fullmatch(text) is None:
        raise InvalidUpload(f"expected {name}=<number of bytes>")
    return int(text)
