"""Addresses from which a layer can be had without credentials, for a while: ECR's pre-signed URLs.

A signature covers the repository, the digest and the end of its time. The key is the node's own, made once and kept in
its database, so that a URL outlives a restart and says nothing of anybody's secret.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlencode

from replicator.core.digest import parse_digest
from replicator.core.errors import Denied, InvalidInput
from replicator.core.names import parse_repository
from replicator.storage.metadata import node_keys

if TYPE_CHECKING:
    from replicator.core.digest import Digest
    from replicator.core.names import RepositoryName
    from replicator.registry.node import RegistryNode

PATH = "/_ecr/layers/"
LIFETIME = 3600
"""Seconds for which a URL is good. An answer that has begun is finished."""

_KEY = "layer-urls"


@dataclass(frozen=True, slots=True)
class SignedLayer:
    """What a URL leads to."""

    repository: RepositoryName
    digest: Digest


class LayerUrls:
    """Makes and checks the URLs of one node.

    They begin with its `public_url`, or without one with the address that the caller used, or else the `local_url`.
    """

    def __init__(self, node: RegistryNode, public_url: str | None, local_url: str) -> None:
        self._node = node
        self._public_url = public_url
        self._local_url = local_url
        self._key: bytes | None = None

    async def sign(self, repository: RepositoryName, digest: Digest, origin: str | None = None) -> str:
        """Return a URL of a layer; raises a StorageError."""
        expires = int(self._node.clock.now()) + LIFETIME
        signature = await self._signature(repository, digest, expires)
        query = urlencode({"expires": expires, "signature": signature})
        base = (self._public_url or origin or self._local_url).rstrip("/")
        return f"{base}{PATH}{repository}/{digest}?{query}"

    async def verify(self, path: str, query: str) -> SignedLayer:
        """Return what a URL leads to; raises Denied for one that is not ours, was changed or has had its time."""
        layer, expires, given = _parsed(path, query)
        expected = await self._signature(layer.repository, layer.digest, expires)
        if not hmac.compare_digest(expected, given):
            raise Denied("The request signature we calculated does not match the signature you provided")
        if expires <= self._node.clock.now():
            raise Denied("Request has expired")
        return layer

    async def _signature(self, repository: RepositoryName, digest: Digest, expires: int) -> str:
        if self._key is None:
            self._key = await self._node.database.write(partial(node_keys.keep, _KEY, secrets.token_bytes(32)))
        return hmac.new(self._key, f"{repository}\n{digest}\n{expires}".encode(), hashlib.sha256).hexdigest()


def _parsed(path: str, query: str) -> tuple[SignedLayer, int, str]:
    try:
        repository, _, digest = unquote(path.removeprefix(PATH), errors="strict").rpartition("/")
        members = parse_qs(query, strict_parsing=True, max_num_fields=10)
        [expires], [signature] = members["expires"], members["signature"]
        layer = SignedLayer(parse_repository(repository), parse_digest(digest))
        return layer, _number(expires), signature.encode("ascii").decode()
    except (InvalidInput, ValueError, KeyError) as error:
        raise Denied("Access Denied") from error


def _number(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) < 16:
        return int(text)
    raise ValueError("expected a number of at most 15 digits")
