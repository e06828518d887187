"""A client of one peer: the messages of replication, blobs there, and the pulls of read-through.

Messages may be sent twice, since a node takes each as often as it comes; so one whose idle connection was closed under
it is sent once more. A peer never leads us anywhere: an answer that sends us elsewhere is refused, and what is not the
JSON that was asked for is never believed. Raises UpstreamError only, and ShuttingDown once closed.
"""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar

from yarl import URL

from replicator.core.errors import InvalidInput
from replicator.core.peer_messages import (
    MAX_DELIVERY_BYTES,
    Deletion,
    Delivery,
    HeldImage,
    Lacks,
    Offer,
    Receipt,
    RepositoryHash,
)
from replicator.upstream.body import read_bounded
from replicator.upstream.calls import Call
from replicator.upstream.client import UpstreamClient
from replicator.upstream.errors import translated
from replicator.upstream.exchange import Exchange, Observe
from replicator.upstream.limits import UpstreamLimits
from replicator.upstream.peer_blobs import PEER_PATH, PeerBlobs, parsed
from replicator.upstream.session import Session

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from replicator.core.clock import Clock
    from replicator.core.content import BlobContent
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.core.peer_messages import Json
    from replicator.core.reference import Reference
    from replicator.upstream.auth import Authorizer
    from replicator.upstream.body import BlobStream
    from replicator.upstream.endpoint import UpstreamEndpoint

T = TypeVar("T")

SLOWEST_MESSAGE = 64.0 * 1024
"""Bytes a second at which a message and its answer must get across."""

_MAX_ANSWER = 2 * MAX_DELIVERY_BYTES
_JSON = {"Content-Type": "application/json"}


class PeerClient:
    """One peer. Close it when done; calls in flight then fail. Cancelling a call closes its connection."""

    def __init__(
        self, endpoint: UpstreamEndpoint, authorizer: Authorizer, clock: Clock, observe: Observe | None = None
    ) -> None:
        self.endpoint = endpoint
        session = Session(endpoint)
        self._limits = UpstreamLimits(endpoint, clock)
        self._exchange = Exchange(endpoint, authorizer, session, self._limits, clock, observe)
        self._registry = UpstreamClient(endpoint, authorizer, clock, observe, session=session)
        self._blobs = PeerBlobs(endpoint, self._exchange, self._limits, clock)

    async def close(self) -> None:
        """Close every connection and end what is under way."""
        await self._registry.close()

    async def ping(self) -> None:
        """Return if what answers is a node that accepts us; raises UpstreamNotFound for a registry of another make."""
        await self.hashes("", 1)

    async def offer(self, offer: Offer) -> Lacks:
        """Say what an image consists of and hear what the peer lacks; raises PermissionMissing where it may not go."""
        return await self._ask("offer", offer.to_json(), Lacks.from_json)

    async def deliver(self, delivery: Delivery) -> Receipt:
        """Hand over manifests, image and tag, and hear what is there; raises PermissionMissing as `offer` does."""
        return await self._ask("deliver", delivery.to_json(), Receipt.from_json)

    async def delete(self, deletion: Deletion) -> Receipt:
        """Tell of a deletion and hear what became of it."""
        return await self._ask("delete", deletion.to_json(), Receipt.from_json)

    async def hashes(self, after: str = "", limit: int = 1000) -> list[RepositoryHash]:
        """Return the fingerprints of what the peer holds from us, of repositories that sort after `after`."""
        message = {"after": after, "limit": limit}
        return await self._ask(
            "hashes", message, lambda answer: _items(answer, "repositories", RepositoryHash.from_json)
        )

    async def listing(self, repository: RepositoryName, after: str = "", limit: int = 1000) -> list[HeldImage]:
        """Return what the peer holds from us in a repository, from a cursor on."""
        message = {"repository": repository, "after": after, "limit": limit}
        return await self._ask("listing", message, lambda answer: _items(answer, "images", HeldImage.from_json))

    async def find_image(self, repository: RepositoryName, reference: Reference) -> Delivery | None:
        """Return an image that the peer would send us, with all its manifests, or None when it has none such."""
        message = {"repository": repository, "reference": str(reference)}
        return await self._ask("image", message, _image)

    async def put_blob(
        self, repository: RepositoryName, digest: Digest, size: int, content: BlobContent, offset: int = 0
    ) -> int:
        """Send a blob from `offset` on, and return how many bytes were sent once it is complete there, verified.

        A large rest goes over several connections; one that breaks is resumed where the peer stands, as long as that
        gets on. Raises UpstreamContent when the peer finds another digest twice, and whatever `content` raises.
        """
        return await self._blobs.put(repository, digest, size, content, offset)

    def open_blob(
        self, repository: RepositoryName, digest: Digest, start: int = 0
    ) -> AbstractAsyncContextManager[BlobStream]:
        """Open a blob that the peer has; see `UpstreamClient.open_blob`."""
        return self._registry.open_blob(repository, digest, start)

    async def _ask(self, name: str, message: Json, parse: Callable[[object], T]) -> T:
        body = json.dumps(message, separators=(",", ":")).encode()
        what = f"{self.endpoint.name}: {name}"
        url = URL(f"{self.endpoint.api_url}{PEER_PATH}{name}", encoded=True)
        timeout = self.endpoint.total_timeout
        call = Call("POST", url, f"peer {name}", what, headers=_JSON, body=body, answer_timeout=timeout)
        await self._limits.bytes(len(body))
        with self._exchange.watched("POST") as watch, translated(what):
            async with (
                asyncio.timeout(timeout + len(body) / SLOWEST_MESSAGE),
                self._exchange.open(call, watch, HTTPStatus.OK) as response,
            ):
                content = await read_bounded(response, _MAX_ANSWER, what)
            return parsed(what, content, parse)


def _items(answer: object, name: str, parse: Callable[[object], T]) -> list[T]:
    return [parse(item) for item in _list(answer, name)]


def _list(answer: object, name: str) -> list[object]:
    items = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(items, list):
        raise InvalidInput(f"expected {name!r} to be a list")
    return items


def _image(answer: object) -> Delivery | None:
    if not isinstance(answer, dict) or "image" not in answer:
        raise InvalidInput("expected an image")
    found = answer["image"]
    return None if found is None else Delivery.from_json(found)
