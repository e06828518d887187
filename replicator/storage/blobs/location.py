"""The location of a blob: where one physical write lies, and never another one.

    <algorithm>/<first two hex digits>/<hex>.<sixteen random hex digits>

The random part makes each write of a digest its own, so that deleting one location cannot take the bytes of a later
write with it. Locations come back from a database and end up in file names and object keys, so nothing but this exact
form is ever used as one.
"""

from __future__ import annotations

import re
import secrets

from replicator.core.digest import Digest, algorithm_of, encoded_of, is_digest
from replicator.core.errors import CorruptBlob

_LOCATION = re.compile(
    r"(?P<algorithm>[a-z0-9]+)/(?P<shard>[0-9a-f]{2})/(?P<encoded>(?P=shard)[0-9a-f]+)\.[0-9a-f]{16}"
)


def new_location(digest: Digest) -> str:
    """Return a location for a new write of `digest`."""
    encoded = encoded_of(digest)
    return f"{algorithm_of(digest)}/{encoded[:2]}/{encoded}.{secrets.token_hex(8)}"


def is_location(text: str) -> bool:
    """Tell whether `text` has the form of a location."""
    match = _LOCATION.fullmatch(text)
    return match is not None and is_digest(f"{match['algorithm']}:{match['encoded']}")


def digest_of_location(location: str) -> Digest:
    """Return the digest of the bytes at a location."""
    algorithm, _, name = checked_location(location).split("/")
    return Digest(f"{algorithm}:{name.partition('.')[0]}")


def checked_location(text: str) -> str:
    """Return `text` when it is a location; raise CorruptBlob when whoever kept it brought back something else."""
    if not is_location(text):
        raise CorruptBlob(f"expected the location of a blob, got {text[:200]!r}")
    return text
